//! What every store that takes part can do, and the batches, changes and entries that it is given and shows.

use anyhow::Result;
use clusdb::KeyPath;

/// A batch of commands on one key: committed as a whole, durably, and readable afterwards as one change entry.
#[derive(Clone)]
pub struct Batch {
    pub at: KeyPath,
    pub commands: Vec<Command>,
}

/// What the commands of the registry do. Paths are relative to the batch's key; `""` is that key itself.
#[derive(Clone, Debug)]
pub enum Command {
    /// Creates the key with its missing parents, or opens it: the commands on values that follow are about it.
    CreateKey(String),
    SetValue {
        name: String,
        value_type: u32,
        data: Vec<u8>,
    },
    DeleteValue {
        name: String,
    },
    /// Deletes the key with all below it.
    DeleteKey(String),
}

/// What a change entry says was done. The numbers are those of the registry, and of the encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    SetValue = 1,
    CreateKey = 2,
    DeleteKey = 3,
    DeleteValue = 4,
}

/// A value's type and data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValueRef<'a> {
    pub value_type: u32,
    pub data: &'a [u8],
}

/// One change as a follower sees it, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'a> {
    pub kind: Kind,
    pub key: &'a str,
    pub name: &'a str,
    pub value: Option<ValueRef<'a>>,
    /// What was there before, where the store keeps it.
    pub previous: Option<ValueRef<'a>>,
}

/// One entry of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    Key {
        parent: &'a str,
        name: &'a str,
    },
    Value {
        key: &'a str,
        name: &'a str,
        value: ValueRef<'a>,
    },
}

/// An open store.
///
/// Keys and names are text, checked to be UTF-8 when they are shown. A store that does less than this is no peer: `tests/peers.rs`
/// holds each to it.
pub trait Peer: Send + Sync {
    /// Commits the batches, each whole and with a change entry of its own. All are durable when it returns. More than one at
    /// a time is a bulk load: the store may put many into one transaction.
    fn write(&self, batches: &[Batch]) -> Result<()>;

    /// Every change at or below this key since the store was made, in the order of commits, all fields decoded.
    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()>;

    /// Shows the value; false if there is none.
    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool>;

    /// The values and keys right below this key. None of a key that does not exist.
    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()>;

    /// All values and keys.
    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()>;

    /// Wakes at commits at or below this key; none if the store has nothing of the kind.
    fn watch(&self, _name: &str, _below: &KeyPath) -> Result<Option<Box<dyn Watcher>>> {
        Ok(None)
    }

    /// Closes it so that the next opening has nothing to recover.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Waits for commits.
pub trait Watcher: Send {
    /// Waits for the next commit and takes it.
    fn wait(&mut self) -> Result<()>;
}

impl Change<'_> {
    /// Touches every field, so that none can be left undecoded.
    pub fn weigh(&self) -> u64 {
        let texts = (self.key.len() + self.name.len()) as u64;
        texts + self.kind as u64 + weigh(self.value) + weigh(self.previous)
    }
}

impl Entry<'_> {
    /// As [`Change::weigh`].
    pub fn weigh(&self) -> u64 {
        match self {
            Entry::Key { parent, name } => (parent.len() + name.len()) as u64,
            Entry::Value { key, name, value } => (key.len() + name.len()) as u64 + weigh(Some(*value)),
        }
    }
}

fn weigh(value: Option<ValueRef<'_>>) -> u64 {
    value.map_or(0, |value| {
        let ends = [value.data.first(), value.data.last()];
        let ends: u64 = ends.into_iter().flatten().map(|byte| u64::from(*byte)).sum();
        u64::from(value.value_type) + value.data.len() as u64 + ends
    })
}
