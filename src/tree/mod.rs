//! The tree: a copy of the state on disk that follows behind the journal, so that opening a store costs the size of
//! its state and not the length of its journal.
//!
//! Never trusted: what is loaded from it has to add up to the digest that was stored with it. Without it nothing is
//! lost.

mod entry;
mod folder;
mod sled;
#[cfg(test)]
pub(crate) mod stand_in;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use thiserror::Error as ThisError;

use crate::error::Error;

pub(crate) use entry::{
    META_BYTES, Meta, decode_entry, decode_name, encode_entry, encode_name, prefixes_below, subtree_of_prefix,
};
pub(crate) use folder::Folders;
pub(crate) use sled::SledBackend;
pub(crate) use worker::Worker;

/// Why a tree is not used.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub(crate) enum TreeFault {
    #[error("it holds no finished copy of the state")]
    Unfinished,
    #[error("it holds {0}")]
    Malformed(&'static str),
    #[error("its entries do not add up to its digest")]
    Digest,
    #[error("it belongs to another history of the store")]
    OtherHistory,
    #[error("it ends before the journal begins")]
    Outdated,
    #[error("it failed: {0}")]
    Failed(String),
    #[error("it panicked: {0}")]
    Panicked(String),
    #[error("it did not answer within {0:?}")]
    Hung(Duration),
    #[error("trees are turned off in this process, because one has hung")]
    Off,
}

/// What keeps a tree from following, though it is not its own.
impl From<Error> for TreeFault {
    fn from(error: Error) -> TreeFault {
        TreeFault::Failed(error.to_string())
    }
}

/// What changes together in a tree.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// By encoded name; none = remove.
    pub(crate) entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// All that begins with one of these and is not in `entries` is removed first.
    pub(crate) removed_prefixes: BTreeSet<Vec<u8>>,
    /// What the tree is then; none while a copy is unfinished.
    pub(crate) meta: Option<Meta>,
}

/// Looks at an entry: its encoded name, and its bytes.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), TreeFault> + 'a;

/// An open tree: bytes by bytes, in order. May panic or hang; a [`Worker`] takes care of that.
pub(crate) trait Tree: Send {
    /// Visits all entries, in order.
    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), TreeFault>;

    /// Makes all changes or none, also if the process is killed; or leaves the tree unfinished, if they are many.
    fn apply(&mut self, changes: &Changes) -> Result<(), TreeFault>;

    /// Makes what was applied durable.
    fn checkpoint(&mut self) -> Result<(), TreeFault>;
}

/// What opens trees.
pub(crate) trait Backend: Debug + Send + Sync {
    /// Opens the tree in this folder, which exists.
    fn open(&self, folder: &Path) -> Result<Box<dyn Tree>, TreeFault>;

    /// Whether a tree of this kind has hung in this process, so that none is opened any more.
    fn is_off(&self) -> bool;

    /// Opens no more trees of this kind in this process.
    fn turn_off(&self);
}
