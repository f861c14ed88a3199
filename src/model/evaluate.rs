//! Deciding: what a batch would do to a view, without doing it.

use super::batch::{Batch, Command};
use super::change::CommandKind;
use super::error::{BatchError, CommandError, Limit, LimitExceeded};
use super::key::{self, KeyPath, ValueName};
use super::overlay::{Decisions, Overlay};
use super::record::{MAX_RECORD_BYTES, Record};
use super::state::View;
use super::value::Value;

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
/// Touches nothing.
///
/// # Errors
/// The first command that fails; nothing of the batch happens then (specification, section 2).
pub fn evaluate(view: &dyn View, batch: &Batch, limits: &Limits) -> Result<Record, BatchError> {
    decide(view, batch, limits).map(|(record, _)| record)
}

impl Overlay<'_> {
    /// Decides what the batch does to the overlay, and adds it, if the batch is not refused.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn evaluate(&mut self, batch: &Batch, limits: &Limits) -> Result<Record, BatchError> {
        let (record, decisions) = decide(self, batch, limits)?;
        self.add(decisions);
        Ok(record)
    }
}

fn decide(view: &dyn View, batch: &Batch, limits: &Limits) -> Result<(Record, Decisions), BatchError> {
    let mut evaluation = Evaluation {
        running: Overlay::new(view),
        record: Record::for_batch(batch),
        limits,
        current: Some(batch.key().clone()),
    };
    for (index, command) in batch.commands().iter().enumerate() {
        let refused = |source| BatchError { index, source };
        evaluation.command(batch.key(), command).map_err(refused)?;
        evaluation.check_record_size().map_err(refused)?;
    }
    Ok((evaluation.record, evaluation.running.into_decisions()))
}

struct Evaluation<'a> {
    running: Overlay<'a>,
    record: Record,
    limits: &'a Limits,
    /// As the batch spells it; none after DELETE_KEY.
    current: Option<KeyPath>,
}

impl Evaluation<'_> {
    fn command(&mut self, base: &KeyPath, command: &Command) -> Result<(), CommandError> {
        match command {
            Command::CreateKey { path } => self.create_key(base.join(path)?),
            Command::DeleteKey { path } => self.delete_key(&base.join(path)?),
            Command::SetValue { name, value } => self.set_value(name, value),
            Command::DeleteValue { name } => self.delete_value(name),
        }
    }

    fn create_key(&mut self, path: KeyPath) -> Result<(), CommandError> {
        match self.running.key(path.folded()) {
            Some(stored) => self.record.push_key(CommandKind::CreateKey, stored, false),
            None => {
                let stored = self.spell_new(&path)?;
                self.record.push_key(CommandKind::CreateKey, &stored, true);
                self.running.create(path.folded(), &stored);
            }
        }
        self.current = Some(path);
        Ok(())
    }

    /// The stored path of a key that is to be made: what exists above it as stored, the rest as given.
    fn spell_new(&self, path: &KeyPath) -> Result<String, CommandError> {
        let mut existing = "";
        let mut created: u64 = 1;
        for above in key::ancestors(path.folded()) {
            if let Some(stored) = self.running.key(above) {
                existing = stored;
                break;
            }
            created += 1;
        }
        LimitExceeded::check(Limit::CreatedLevels, MAX_CREATED_LEVELS, created)
            .map_err(CommandError::Limit)?;
        let given: Vec<_> = path.components().collect();
        let new = given[given.len() - created as usize..].join("\\");
        Ok(key::child(existing, &new))
    }

    fn delete_key(&mut self, path: &KeyPath) -> Result<(), CommandError> {
        if path.is_root() {
            return Err(CommandError::Root);
        }
        match self.running.key(path.folded()) {
            Some(stored) => {
                self.record.push_key(CommandKind::DeleteKey, stored, true);
                self.running.delete(path.folded());
            }
            None => self.record.push_key(CommandKind::DeleteKey, path.as_str(), false),
        }
        self.current = None;
        Ok(())
    }

    fn set_value(&mut self, name: &ValueName, value: &Value) -> Result<(), CommandError> {
        let size = value.data().len() as u64;
        LimitExceeded::check(Limit::ValueBytes, self.limits.value_bytes, size)
            .map_err(CommandError::Limit)?;
        let path = self.current.as_ref().ok_or(CommandError::NoCurrentKey)?;
        let Some(stored_path) = self.running.key(path.folded()) else {
            let key = path.as_str().to_owned();
            return Err(CommandError::KeyNotFound { key });
        };
        let before = self.running.value(path.folded(), &name.folded);
        let (stored_name, previous) = match before {
            Some((stored, previous)) => (stored, Some(previous.as_ref())),
            None => (&*name.text, None),
        };
        self.record
            .push_set_value(stored_path, stored_name, value.as_ref(), previous);
        let stored = (stored_name.into(), value.clone());
        self.running.put_value(path.folded(), &name.folded, Some(stored));
        Ok(())
    }

    fn delete_value(&mut self, name: &ValueName) -> Result<(), CommandError> {
        let path = self.current.as_ref().ok_or(CommandError::NoCurrentKey)?;
        let key = self.running.key(path.folded()).unwrap_or(path.as_str());
        match self.running.value(path.folded(), &name.folded) {
            Some((stored_name, previous)) => {
                self.record
                    .push_delete_value(key, stored_name, Some(previous.as_ref()));
                self.running.put_value(path.folded(), &name.folded, None);
            }
            None => self.record.push_delete_value(key, &name.text, None),
        }
        Ok(())
    }

    fn check_record_size(&self) -> Result<(), CommandError> {
        let maximum = self.limits.record_bytes.min(MAX_RECORD_BYTES);
        let size = self.record.payload().len() as u64;
        LimitExceeded::check(Limit::RecordBytes, maximum, size).map_err(CommandError::Limit)
    }
}
