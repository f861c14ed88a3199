//! Reading several values at one moment, and what is known of a key (specification, sections 4 and 5).

use std::sync::Arc;

use super::error::{BatchError, NameError};
use super::key::{self, KeyPath};
use super::keys::KeyId;
use super::state::{Entry, State};
use super::value::Value;
use super::value_name::ValueName;

/// Values to read together, relative to a key (specification, section 4).
#[derive(Debug, Clone)]
pub struct ReadBatch {
    key: KeyPath,
    commands: Vec<ReadCommand>,
    /// Index of the last command that made a key current; none as long as the batch's own is.
    current: Option<usize>,
    values: usize,
}

/// One command of a read batch.
#[derive(Debug, Clone)]
pub(crate) enum ReadCommand {
    /// Makes a key the current one; at first the batch's own is.
    Key { relative: KeyPath, full: KeyPath },
    /// Reads a value of the current key.
    Value(ValueName),
}

/// The answer to one read: what the value is, or that there is none (error 2 of the registry).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReply {
    /// Full path of the key, as it is stored; as it was asked for where there is no such key.
    pub key: Arc<str>,
    /// The value's name, as it is stored; as it was asked for where there is no such value.
    pub name: Arc<str>,
    /// None: the key or the value does not exist.
    pub value: Option<Value>,
}

/// What is known of a key without reading it (specification, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Full path, as it is stored.
    pub path: Arc<str>,
    /// Keys right below.
    pub subkeys: u64,
    /// Values.
    pub values: u64,
    /// The longest name of a key right below, in UTF-16 units.
    pub longest_key: u64,
    /// The longest name of a value, in UTF-16 units.
    pub longest_name: u64,
    /// The largest data of a value, in bytes.
    pub largest_data: u64,
    /// Commit time of the last change to the key itself, its values or its list of keys; microseconds since 1970. 0 for
    /// a root that was never written to.
    pub last_write: i64,
}

impl ReadBatch {
    /// Nothing to read yet, on a key that need not exist.
    #[must_use]
    pub fn at(key: &KeyPath) -> ReadBatch {
        ReadBatch {
            key: key.clone(),
            commands: Vec::new(),
            current: None,
            values: 0,
        }
    }

    /// Adds a value: `""` is the batch's key itself, and a key's default value.
    ///
    /// # Errors
    /// A path or a name that is not valid, with the index of the read; it is not added then.
    pub fn add(&mut self, subkey: &str, name: &str) -> Result<&mut ReadBatch, BatchError> {
        let index = self.len();
        let refused = |error: NameError| BatchError {
            index,
            source: error.into(),
        };
        // Looked at before the key is: what is refused leaves nothing behind.
        let name = ValueName::parse(name).map_err(refused)?;
        let current = self.current.and_then(|index| match &self.commands[index] {
            ReadCommand::Key { relative, .. } => Some(relative.as_str()),
            ReadCommand::Value(_) => None,
        });
        if current.unwrap_or_default() != subkey {
            self.key(subkey).map_err(refused)?;
        }
        self.push_value(name);
        Ok(self)
    }

    /// READ_KEY: makes a key the current one.
    pub(crate) fn key(&mut self, subkey: &str) -> Result<(), NameError> {
        let relative = KeyPath::parse(subkey)?;
        let full = self.key.join(&relative)?;
        self.current = Some(self.commands.len());
        self.commands.push(ReadCommand::Key { relative, full });
        Ok(())
    }

    /// READ_VALUE: reads a value of the current key.
    pub(crate) fn value(&mut self, name: &str) -> Result<(), NameError> {
        self.push_value(ValueName::parse(name)?);
        Ok(())
    }

    fn push_value(&mut self, name: ValueName) {
        self.commands.push(ReadCommand::Value(name));
        self.values += 1;
    }

    pub(crate) fn commands(&self) -> &[ReadCommand] {
        &self.commands
    }

    /// The number of values to read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    /// One reply for each read, in order.
    #[must_use]
    pub fn read(&self, batch: &ReadBatch) -> Vec<ReadReply> {
        let mut current = &batch.key;
        let mut replies = Vec::new();
        for command in &batch.commands {
            match command {
                ReadCommand::Key { full, .. } => current = full,
                ReadCommand::Value(name) => replies.push(self.reply(current, name)),
            }
        }
        replies
    }

    fn reply(&self, path: &KeyPath, name: &ValueName) -> ReadReply {
        let (id, stored) = match self.keys.value(path.folded(), &name.folded) {
            Some((id, stored)) => (Some(id), Some(stored)),
            None => (self.keys.find(path.folded()), None),
        };
        ReadReply {
            key: id.map_or_else(|| path.as_str().into(), |id| self.path(id)),
            name: Arc::clone(stored.map_or(&name.text, |stored| &stored.name)),
            value: stored.map(|stored| stored.value.clone()),
        }
    }

    /// What is known of the key with this folded path.
    #[must_use]
    pub fn info(&self, path: &str) -> Option<KeyInfo> {
        let id = self.keys.find(path)?;
        let (key, values) = (&self.keys[id], self.keys.values(id));
        let units = |name: &str| name.encode_utf16().count() as u64;
        let longest = |names: &mut dyn Iterator<Item = &str>| names.map(units).max().unwrap_or(0);
        let sizes = values.iter().map(|stored| stored.value.data().len() as u64);
        Some(KeyInfo {
            path: self.path(id),
            subkeys: key.children.len() as u64,
            values: values.len() as u64,
            // Folding is one character to one character, but not one unit to one unit: the stored spelling counts.
            longest_key: longest(&mut key.children.iter().map(|child| self.keys[*child].name())),
            longest_name: longest(&mut values.iter().map(|stored| &*stored.name)),
            largest_data: sizes.max().unwrap_or(0),
            last_write: key.last_write,
        })
    }

    /// The keys right below the key with this folded path, by folded name; their full paths as they are stored.
    pub fn subkeys(&self, path: &str) -> impl Iterator<Item = Arc<str>> {
        self.keys.find(path).into_iter().flat_map(move |id| {
            let path = self.path(id);
            let below = move |child: &KeyId| key::child(&path, self.keys[*child].name()).into();
            self.keys[id].children.iter().map(below)
        })
    }

    /// The values of the key with this folded path, by folded name.
    pub fn values(&self, path: &str) -> impl Iterator<Item = Entry> {
        self.keys.find(path).into_iter().flat_map(move |id| {
            let path = self.path(id);
            let values = self.keys.values(id).iter();
            values.map(move |stored| Entry::value(&path, stored))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, Limits, evaluate};

    fn state() -> State {
        let mut state = State::new();
        let mut batch = Batch::at(&KeyPath::root());
        batch.create_key("Key\\Sub").unwrap();
        batch.create_key("Key\\Süß\u{10400}").unwrap();
        batch.create_key("Key").unwrap();
        batch.set_value("", Value::sz("default")).unwrap();
        batch.set_value("Name", Value::binary([1; 30])).unwrap();
        state.apply(evaluate(&state, &batch, &Limits::default()).unwrap().view(), 7);
        state
    }

    /// Section 4: exactly one reply each, in the same order; an error of its own.
    #[test]
    fn each_read_has_one_reply_in_its_order() {
        let mut batch = ReadBatch::at(&KeyPath::parse("key").unwrap());
        batch
            .add("", "NAME")
            .unwrap()
            .add("sub", "v")
            .unwrap()
            .add("", "")
            .unwrap()
            .add("Nil", "V")
            .unwrap();
        batch.add("", "NAME").unwrap();
        let replies = state().read(&batch);
        let shown: Vec<_> = replies
            .iter()
            .map(|reply| (&*reply.key, &*reply.name, reply.value.clone()))
            .collect();
        let name = ("Key", "Name", Some(Value::binary([1; 30])));
        let expected = [
            name.clone(),
            ("Key\\Sub", "v", None),
            ("Key", "", Some(Value::sz("default"))),
            ("key\\Nil", "V", None),
            name,
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_read_that_cannot_be_is_refused_with_its_index() {
        let mut batch = ReadBatch::at(&KeyPath::root());
        batch.add("A", "v").unwrap();
        assert_eq!(batch.add("A\\", "v").unwrap_err().index, 1);
        assert_eq!(batch.add("A", "v\0").unwrap_err().index, 1);
        assert_eq!(batch.len(), 1);
    }

    /// Section 5: numbers, longest names, largest data, last write time.
    #[test]
    fn the_information_of_a_key_is_that_of_what_is_right_below_it() {
        let state = state();
        let info = state.info("KEY").unwrap();
        let expected = KeyInfo {
            path: "Key".into(),
            subkeys: 2,
            values: 2,
            longest_key: 5,
            longest_name: 4,
            largest_data: 30,
            last_write: 7,
        };
        assert_eq!(info, expected);
        assert_eq!(state.info("NIL"), None);
        let root = state.info("").unwrap();
        assert_eq!((root.subkeys, root.values, root.longest_key), (1, 0, 3));
    }
}
