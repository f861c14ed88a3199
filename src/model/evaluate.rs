//! Deciding: what a batch would do to a view, without doing it.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::{Batch, Command};
use super::case_table;
use super::change::CommandKind;
use super::error::{BatchError, CommandError, Limit, LimitExceeded};
use super::key::{self, KeyPath, SEPARATOR, ValueName};
use super::record::{MAX_RECORD_BYTES, Record, RecordView};
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
    let mut decision = Decision {
        running: Overlay::new(view),
        record: Record::new(),
        limits,
        current: Some(batch.key().clone()),
    };
    for (index, command) in batch.commands().iter().enumerate() {
        let refused = |source| BatchError { index, source };
        decision.command(batch.key(), command).map_err(refused)?;
        decision.check_record_size().map_err(refused)?;
    }
    Ok(decision.record)
}

struct Decision<'a> {
    running: Overlay<'a>,
    record: Record,
    limits: &'a Limits,
    /// As the batch spells it; none after DELETE_KEY.
    current: Option<KeyPath>,
}

impl Decision<'_> {
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

/// A view under changes that have been decided and not yet made.
///
/// A deleted key is a mark that hides the view at and below it, so that deleting costs nothing for what is below.
/// A key that is made after that hides the view by itself.
pub struct Overlay<'a> {
    view: &'a dyn View,
    /// By folded path, in order, so that all below a key is one range.
    keys: BTreeMap<Box<str>, Decided>,
    deleted: BTreeSet<Box<str>>,
}

struct Decided {
    /// The stored path of a key made here; none if the view has it.
    made: Option<Box<str>>,
    /// By folded name; none = deleted.
    values: BTreeMap<Box<str>, Option<(Box<str>, Value)>>,
}

impl<'a> Overlay<'a> {
    /// Nothing decided yet.
    #[must_use]
    pub fn new(view: &'a dyn View) -> Overlay<'a> {
        Overlay {
            view,
            keys: BTreeMap::new(),
            deleted: BTreeSet::new(),
        }
    }

    /// Adds what a record says.
    pub fn apply(&mut self, record: RecordView<'_>) {
        for change in record.changes().filter(|change| change.changed()) {
            let path = case_table::fold(change.key());
            match (change.kind(), change.name()) {
                (CommandKind::CreateKey, _) => self.create(&path, change.key()),
                (CommandKind::DeleteKey, _) => self.delete(&path),
                (_, Some(name)) => {
                    let stored = change.value().map(|value| (name.into(), value.to_value()));
                    self.put_value(&path, &case_table::fold(name), stored);
                }
                _ => {}
            }
        }
    }

    /// Makes a key, and what is missing above it. `stored` is spelled down to the last component.
    fn create(&mut self, path: &str, stored: &str) {
        let (mut path, mut stored) = (path, stored);
        while self.key(path).is_none() {
            let made = Decided {
                made: Some(stored.into()),
                values: BTreeMap::new(),
            };
            self.keys.insert(path.into(), made);
            match (key::parent(path), key::parent(stored)) {
                (Some(above), Some(stored_above)) => (path, stored) = (above, stored_above),
                _ => return,
            }
        }
    }

    fn delete(&mut self, path: &str) {
        self.keys.remove(path);
        let below = format!("{path}{SEPARATOR}");
        let inside: Vec<_> = self
            .keys
            .range::<str, _>((
                std::ops::Bound::Included(below.as_str()),
                std::ops::Bound::Unbounded,
            ))
            .take_while(|(key, _)| key.starts_with(&below))
            .map(|(key, _)| key.clone())
            .collect();
        for key in inside {
            self.keys.remove(&key);
        }
        self.deleted.insert(path.into());
    }

    fn put_value(&mut self, path: &str, name: &str, value: Option<(Box<str>, Value)>) {
        let decided = self.keys.entry(path.into()).or_insert_with(|| Decided {
            made: None,
            values: BTreeMap::new(),
        });
        decided.values.insert(name.into(), value);
    }

    /// Whether the view's key at this path is hidden by a deletion at or above it.
    fn is_hidden(&self, path: &str) -> bool {
        !self.deleted.is_empty()
            && (self.deleted.contains(path) || key::ancestors(path).any(|above| self.deleted.contains(above)))
    }
}

impl View for Overlay<'_> {
    fn key(&self, path: &str) -> Option<&str> {
        match self.keys.get(path) {
            Some(Decided {
                made: Some(stored), ..
            }) => Some(stored),
            _ if self.is_hidden(path) => None,
            _ => self.view.key(path),
        }
    }

    fn value(&self, path: &str, name: &str) -> Option<(&str, &Value)> {
        let decided = self.keys.get(path);
        if let Some(value) = decided.and_then(|decided| decided.values.get(name)) {
            return value.as_ref().map(|(name, value)| (&**name, value));
        }
        let is_made_here = decided.is_some_and(|decided| decided.made.is_some());
        if is_made_here || self.is_hidden(path) {
            return None;
        }
        self.view.value(path, name)
    }
}
