//! Deciding: what a batch would do to a view, without doing it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::batch::{Batch, Command};
use super::change::CommandKind;
use super::condition::{ConditionKind, FailedCondition, compare};
use super::current::{Current, CurrentKey};
use super::error::{BatchError, CommandError, Limit, LimitExceeded};
use super::key::{self, KeyPath};
use super::overlay::{Decisions, Overlay};
use super::record::{MAX_RECORD_BYTES, Record};
use super::value::Value;
use super::value_name::ValueName;
use super::view::View;

/// Levels that one CREATE_KEY creates, at most (specification, section 6).
pub const MAX_CREATED_LEVELS: u64 = 32;

/// The limits that are options of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of data in one value; 1 MiB by default.
    pub value_bytes: u64,
    /// Bytes of one encoded record, old data included; 256 MiB by default, never above 1 GiB.
    pub record_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            value_bytes: 1 << 20,
            record_bytes: 256 << 20,
        }
    }
}

/// Decides what the batch does to the view: every command in order, each on what the ones before it have left.
/// Touches nothing. The record of a batch that holds no more than conditions and control commands is empty, and nothing
/// to commit.
///
/// # Errors
/// The first command that fails, or condition that does not hold; nothing of the batch happens then (specification, section 2).
pub fn evaluate(view: &dyn View, batch: &Batch, limits: &Limits) -> Result<Record, BatchError> {
    decide(view, batch, limits).map(|(record, _)| record)
}

impl Overlay<'_> {
    /// Decides what the batch does to the overlay, and adds it, if the batch is not refused.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn evaluate(&mut self, batch: &Batch, limits: &Limits) -> Result<Record, BatchError> {
        self.decisions.evaluate(self.view, batch, limits)
    }
}

impl Decisions {
    /// Decides what the batch does to the view under these decisions, and adds it to them, if the batch is not refused.
    pub(crate) fn evaluate(
        &mut self,
        view: &dyn View,
        batch: &Batch,
        limits: &Limits,
    ) -> Result<Record, BatchError> {
        let (record, decisions) = decide(&self.over(view), batch, limits)?;
        self.add(decisions);
        Ok(record)
    }
}

fn decide(view: &dyn View, batch: &Batch, limits: &Limits) -> Result<(Record, Decisions), BatchError> {
    let mut evaluation = Evaluation::new(view, Record::for_batch(batch), limits, batch.key());
    for (index, command) in batch.commands().iter().enumerate() {
        let refused = |source| BatchError { index, source };
        evaluation.command(batch.key(), command).map_err(refused)?;
        evaluation.check_record_size().map_err(refused)?;
    }
    Ok(evaluation.finish())
}

/// Commands under way: what they have decided so far, and its record.
pub(super) struct Evaluation<'a> {
    pub(super) running: Overlay<'a>,
    pub(super) record: Record,
    limits: &'a Limits,
    /// None after DELETE_KEY.
    current: Option<Current<'a>>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        view: &'a dyn View,
        record: Record,
        limits: &'a Limits,
        key: &KeyPath,
    ) -> Evaluation<'a> {
        Evaluation {
            running: Overlay::new(view),
            record,
            limits,
            current: Some(Current::new(key.clone())),
        }
    }

    pub(super) fn finish(self) -> (Record, Decisions) {
        (self.record, self.running.into_decisions())
    }

    fn command(&mut self, base: &KeyPath, command: &Command) -> Result<(), CommandError> {
        match command {
            Command::CreateKey { path } => self.create_key(base.join(path)?),
            Command::DeleteKey { path } => self.delete_key(&base.join(path)?),
            Command::SetValue { name, value } => self.set_value(name, value),
            Command::DeleteValue { name } => self.delete_value(name),
            Command::ValueCondition { kind, name, value } => self.check_value(*kind, name, value.as_ref()),
            Command::KeyCondition { kind, path } => self.check_key(*kind, &base.join(path)?),
            Command::Control(_) => Ok(()),
        }
    }

    pub(super) fn create_key(&mut self, path: KeyPath) -> Result<(), CommandError> {
        let mut current = Current::new(path);
        match current.look_up(&self.running) {
            Some((_, key)) => self.record.push_key(CommandKind::CreateKey, &key.stored, false),
            None => {
                let stored = self.spell_new(&current.path)?;
                self.record.push_key(CommandKind::CreateKey, &stored, true);
                self.running.create(&current.path, &stored);
                current.key = Some(CurrentKey { stored, before: None });
            }
        }
        self.current = Some(current);
        Ok(())
    }

    /// The stored path of a key that is to be made: what exists above it as stored, the rest as given.
    fn spell_new(&self, path: &KeyPath) -> Result<String, CommandError> {
        let mut existing = Cow::Borrowed("");
        let mut created: u64 = 1;
        for above in key::ancestors(path.folded()) {
            if let Some(key) = self.running.layer().find(above) {
                existing = key.path();
                break;
            }
            created += 1;
        }
        LimitExceeded::check(Limit::CreatedLevels, MAX_CREATED_LEVELS, created)
            .map_err(CommandError::Limit)?;
        let given: Vec<_> = path.components().collect();
        let new = given[given.len() - created as usize..].join("\\");
        Ok(key::child(&existing, &new))
    }

    pub(super) fn delete_key(&mut self, path: &KeyPath) -> Result<(), CommandError> {
        if path.is_root() {
            return Err(CommandError::Root);
        }
        let stored = self
            .running
            .layer()
            .find(path.folded())
            .map(|key| key.path().into_owned());
        match stored {
            Some(stored) => {
                self.record.push_key(CommandKind::DeleteKey, &stored, true);
                self.running.delete(path.folded());
            }
            None => self.record.push_key(CommandKind::DeleteKey, path.as_str(), false),
        }
        self.current = None;
        Ok(())
    }

    pub(super) fn set_value(&mut self, name: &ValueName, value: &Value) -> Result<(), CommandError> {
        let size = value.data().len() as u64;
        LimitExceeded::check(Limit::ValueBytes, self.limits.value_bytes, size)
            .map_err(CommandError::Limit)?;
        let Evaluation { running, record, .. } = self;
        let current = self.current.as_mut().ok_or(CommandError::NoCurrentKey)?;
        let Some((path, key)) = current.look_up(running) else {
            let key = current.path.as_str().to_owned();
            return Err(CommandError::KeyNotFound { key });
        };
        let values = &mut running.decisions.of_key(path.folded_arc()).values;
        let decided = values.entry(Arc::clone(&name.folded));
        let before = match &decided {
            Entry::Occupied(decided) => decided.get().as_ref().map(|(name, value)| (name, value)),
            Entry::Vacant(_) => key.value_before(&name.folded),
        };
        let (stored_name, previous) = match before {
            Some((stored, previous)) => (stored, Some(previous.as_ref())),
            None => (&name.text, None),
        };
        record.push_set_value(&key.stored, stored_name, value.as_ref(), previous);
        let stored = (Arc::clone(stored_name), value.clone());
        decided.insert_entry(Some(stored));
        Ok(())
    }

    pub(super) fn delete_value(&mut self, name: &ValueName) -> Result<(), CommandError> {
        let Evaluation { running, record, .. } = self;
        let current = self.current.as_mut().ok_or(CommandError::NoCurrentKey)?;
        let Some((path, key)) = current.look_up(running) else {
            record.push_delete_value(current.path.as_str(), &name.text, None);
            return Ok(());
        };
        match key.value(running, path, &name.folded) {
            Some((stored_name, previous)) => {
                record.push_delete_value(&key.stored, stored_name, Some(previous.as_ref()));
                let values = &mut running.decisions.of_key(path.folded_arc()).values;
                values.insert(Arc::clone(&name.folded), None);
            }
            None => record.push_delete_value(&key.stored, &name.text, None),
        }
        Ok(())
    }

    /// The current key's path, and its value of this name, if both are there.
    ///
    /// # Errors
    /// There is no current key.
    pub(super) fn value(&mut self, name: &ValueName) -> Result<(&KeyPath, Option<&Value>), CommandError> {
        let current = self.current.as_mut().ok_or(CommandError::NoCurrentKey)?;
        current.look_up(&self.running);
        let Current { path, key } = current;
        let key = key.as_ref();
        let found = key.and_then(|key| key.value(&self.running, path, &name.folded));
        Ok((path, found.map(|(_, value)| value)))
    }

    /// Section 2: on the state as the batch has changed it so far. A missing value is not equal, greater or less.
    fn check_value(
        &mut self,
        kind: ConditionKind,
        name: &ValueName,
        expected: Option<&Value>,
    ) -> Result<(), CommandError> {
        let (path, found) = self.value(name)?;
        let pair = found.zip(expected);
        let is_equal = pair.is_some_and(|(found, expected)| found == expected);
        let order = pair.and_then(|(found, expected)| compare(found.as_ref(), expected.as_ref()));
        let holds = match kind {
            ConditionKind::Exists => found.is_some(),
            ConditionKind::NotExists => found.is_none(),
            ConditionKind::IsEqual => is_equal,
            ConditionKind::IsNotEqual => !is_equal,
            ConditionKind::IsGreaterThan => order == Some(Ordering::Greater),
            ConditionKind::IsLessThan => order == Some(Ordering::Less),
            // Conditions on a key have a command of their own.
            ConditionKind::KeyExists | ConditionKind::KeyNotExists => false,
        };
        if holds {
            return Ok(());
        }
        Err(CommandError::ConditionFailed(Box::new(FailedCondition {
            kind,
            key: path.as_str().to_owned(),
            name: Some(name.text.to_string()),
            expected: expected.cloned(),
            found: found.cloned(),
        })))
    }

    fn check_key(&self, kind: ConditionKind, path: &KeyPath) -> Result<(), CommandError> {
        let exists = self.running.layer().find(path.folded()).is_some();
        if exists == (kind == ConditionKind::KeyExists) {
            return Ok(());
        }
        Err(CommandError::ConditionFailed(Box::new(FailedCondition {
            kind,
            key: path.as_str().to_owned(),
            name: None,
            expected: None,
            found: None,
        })))
    }

    fn check_record_size(&self) -> Result<(), CommandError> {
        let maximum = self.limits.record_bytes.min(MAX_RECORD_BYTES);
        let size = self.record.payload().len() as u64;
        LimitExceeded::check(Limit::RecordBytes, maximum, size).map_err(CommandError::Limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Control, State};

    /// The key `A` with the value `n` = DWORD 5, and nothing else.
    fn state() -> State {
        let mut batch = Batch::at(&KeyPath::root());
        batch
            .create_key("A")
            .unwrap()
            .set_value("n", Value::dword(5))
            .unwrap();
        let mut state = State::new();
        state.apply(evaluate(&state, &batch, &Limits::default()).unwrap().view(), 1);
        state
    }

    fn at_a(conditions: impl FnOnce(&mut Batch)) -> Result<Record, BatchError> {
        let mut batch = Batch::at(&KeyPath::parse("A").unwrap());
        conditions(&mut batch);
        evaluate(&state(), &batch, &Limits::default())
    }

    fn holds(condition: impl FnOnce(&mut Batch)) -> bool {
        match at_a(condition) {
            Ok(record) => {
                assert!(record.view().is_empty(), "a condition is not recorded");
                true
            }
            Err(error) => {
                assert!(
                    matches!(error.source, CommandError::ConditionFailed(_)),
                    "{error}"
                );
                false
            }
        }
    }

    /// Section 2: what each condition asks, of a value that is there, one that is not, and one of another type.
    #[test]
    fn each_condition_holds_exactly_when_the_specification_says() {
        let five = Value::dword(5);
        let six = Value::dword(6);
        let other = Value::qword(5);
        type Ask = for<'a> fn(&'a mut Batch, &str, Value) -> Result<&'a mut Batch, BatchError>;
        let asks: [(Ask, [bool; 5]); 4] = [
            // n against 5, 6 and 4, against another type, and a value that is missing.
            (Batch::condition_is_equal, [true, false, false, false, false]),
            (Batch::condition_is_not_equal, [false, true, true, true, true]),
            (
                Batch::condition_is_greater_than,
                [false, false, true, false, false],
            ),
            (Batch::condition_is_less_than, [false, true, false, false, false]),
        ];
        for (ask, expected) in asks {
            let of = |name: &str, value: &Value| holds(|batch| _ = ask(batch, name, value.clone()).unwrap());
            let found = [
                of("N", &five),
                of("n", &six),
                of("n", &Value::dword(4)),
                of("n", &other),
                of("x", &five),
            ];
            assert_eq!(found, expected);
        }
        assert!(holds(|batch| _ = batch.condition_exists("N").unwrap()));
        assert!(!holds(|batch| _ = batch.condition_exists("x").unwrap()));
        assert!(!holds(|batch| _ = batch.condition_not_exists("n").unwrap()));
        assert!(holds(|batch| _ = batch.condition_not_exists("x").unwrap()));
        assert!(holds(|batch| _ = batch.condition_key_exists("").unwrap()));
        assert!(!holds(|batch| _ = batch.condition_key_exists("B").unwrap()));
        assert!(holds(|batch| _ = batch.condition_key_not_exists("B").unwrap()));
        assert!(!holds(|batch| _ = batch.condition_key_not_exists("").unwrap()));
    }

    /// Section 2: in sequence, on the state as the batch has changed it so far; the failing command's index.
    #[test]
    fn conditions_look_at_the_running_state_and_name_their_index() {
        let error = at_a(|batch| {
            batch.condition_is_equal("n", Value::dword(5)).unwrap();
            batch.set_value("n", Value::dword(6)).unwrap();
            batch.condition_is_equal("n", Value::dword(6)).unwrap();
            batch.delete_key("").unwrap();
            batch.condition_key_not_exists("").unwrap();
            batch.create_key("B").unwrap();
            batch.condition_key_exists("b").unwrap();
            batch.condition_exists("n").unwrap();
        })
        .unwrap_err();
        assert_eq!(error.index, 7);
        let CommandError::ConditionFailed(failed) = error.source else {
            panic!("{error}");
        };
        let expected = FailedCondition {
            kind: ConditionKind::Exists,
            key: "A\\B".to_owned(),
            name: Some("n".to_owned()),
            expected: None,
            found: None,
        };
        assert_eq!(*failed, expected);
        assert_eq!(
            failed.to_string(),
            r#"condition_exists does not hold for "A\B" "n", found no value"#
        );
    }

    /// Section 2: a condition on a value is a value command, and needs a current key; a missing one has no values.
    #[test]
    fn a_condition_on_a_value_needs_a_current_key_and_not_that_it_exists() {
        let mut batch = Batch::at(&KeyPath::parse("Missing").unwrap());
        batch
            .condition_not_exists("v")
            .unwrap()
            .condition_is_not_equal("v", Value::dword(1))
            .unwrap();
        assert!(evaluate(&state(), &batch, &Limits::default()).is_ok());
        batch.delete_key("x").unwrap();
        let refused = batch.condition_exists("v").unwrap_err();
        assert_eq!((refused.index, refused.source), (3, CommandError::NoCurrentKey));
    }

    /// Section 2: conditions and control commands are not shown, and change nothing.
    #[test]
    fn conditions_and_control_commands_are_not_recorded() {
        let record = at_a(|batch| {
            batch.control(Control::Synchronous).control(Control::Isolated);
            batch.condition_exists("n").unwrap();
            batch.set_value("m", Value::dword(1)).unwrap();
        })
        .unwrap();
        assert_eq!(record.view().len(), 1);
    }

    /// Crash story 7: the same value set again and again. Nothing is set aside for what a record cannot hold.
    #[test]
    fn one_large_value_set_a_hundred_thousand_times_is_over_the_limit_and_takes_no_memory() {
        let value = Value::binary(vec![7; 1 << 20]);
        let mut batch = Batch::at(&KeyPath::root());
        for _ in 0..100_000 {
            batch.set_value("v", value.clone()).unwrap();
        }
        let limits = Limits {
            record_bytes: 8 << 20,
            ..Limits::default()
        };
        let error = evaluate(&State::new(), &batch, &limits).unwrap_err();
        assert_eq!(error.index, 4);
        assert!(matches!(
            error.source,
            CommandError::Limit(LimitExceeded {
                limit: Limit::RecordBytes,
                ..
            })
        ));
    }
}
