//! The store: what a program opens, commits to and reads from.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Backup, Commit, Engine, Restored, Source, Trimmed};
use crate::error::Result;
use crate::journal::TornTail;
use crate::model::{Batch, KeyPath, PlainWrite, Value};
use crate::options::Options;
use crate::reader::Reader;

/// An open store. Cloning gives another handle of it; the store closes when its last handle and its last port are
/// dropped, or by [`close`](Reader::close).
///
/// It is a [`Reader`] too, which has what reads and follows: `get`, `list`, `port`, `log` and so on.
///
/// One process writes a store at a time; others open a [`Reader`] of their own. All methods can be called from any number of threads.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
    reader: Reader,
}

impl Store {
    /// Opens the store in this directory, or makes one there if the directory is missing or empty.
    ///
    /// Recovers the store first where it was not closed: what was acknowledged is there, what was not is there as a
    /// whole batch or not at all. Blocks until what it shows is durable.
    ///
    /// # Errors
    /// * [`InUse`](crate::Error::InUse): another process, or another handle of this one, has it open.
    /// * [`ForeignDirectory`](crate::Error::ForeignDirectory): something else is in the directory.
    /// * [`UnsupportedVersion`](crate::Error::UnsupportedVersion), [`CaseTable`](crate::Error::CaseTable): another version made it.
    /// * [`Damaged`](crate::Error::Damaged): an acknowledged record is missing or changed; nothing is touched then.
    /// * [`SymbolicLink`](crate::Error::SymbolicLink), [`NetworkFileSystem`](crate::Error::NetworkFileSystem): it is not where a store
    ///   can be kept safely.
    /// * [`Io`](crate::Error::Io): the system's errors.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Store::options().open(path)
    }

    /// Options for opening a store.
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    pub(crate) fn new(engine: Arc<Engine>) -> Store {
        let source: Arc<dyn Source> = Arc::clone(&engine) as _;
        let reader = Reader::new(source);
        Store { engine, reader }
    }

    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Commits the batch: all of it, or nothing. When this returns, the batch survives any crash, reads show it, and
    /// ports will. An empty batch commits nothing.
    ///
    /// Batches of several threads are made durable together. Waits for the disk.
    ///
    /// # Errors
    /// * [`Batch`](crate::Error::Batch): the first command that failed, with its index.
    /// * [`Preallocation`](crate::Error::Preallocation): no room; the store goes on.
    /// * [`Poisoned`](crate::Error::Poisoned): a write failed, now or before; open the store anew.
    /// * [`Closed`](crate::Error::Closed).
    pub fn commit(&self, batch: Batch) -> Result<Commit> {
        self.engine.commit(batch)
    }

    /// CreateKey: creates a key with its missing parents, outside of any batch, or opens it (specification, section 5).
    /// As durable as a batch, in the journal, and never shown by a port. True if it was created, false if it was there.
    ///
    /// # Errors
    /// * [`Plain`](crate::Error::Plain): too many levels at once.
    /// * Those of [`commit`](Store::commit) that come from the disk.
    pub fn create_key(&self, key: &KeyPath) -> Result<bool> {
        let commit = self.engine.commit_plain(PlainWrite::create_key(key))?;
        Ok(commit.sequence().is_some())
    }

    /// DeleteKey: deletes a key that has no keys below it, with its values, outside of any batch.
    ///
    /// # Errors
    /// [`Plain`](crate::Error::Plain): the key does not exist, or has keys below it, or is the root; and those of
    /// [`create_key`](Store::create_key).
    pub fn delete_key(&self, key: &KeyPath) -> Result<Commit> {
        self.engine.commit_plain(PlainWrite::delete_key(key))
    }

    /// SetValue: sets a value of a key that exists, outside of any batch.
    ///
    /// # Errors
    /// [`Plain`](crate::Error::Plain): the key does not exist, the name is not valid, or a limit; and those of
    /// [`create_key`](Store::create_key).
    pub fn set_value(&self, key: &KeyPath, name: &str, value: Value) -> Result<Commit> {
        self.engine.commit_plain(PlainWrite::set_value(key, name, value)?)
    }

    /// DeleteValue: deletes a value that exists, outside of any batch.
    ///
    /// # Errors
    /// [`Plain`](crate::Error::Plain): the key or the value does not exist, or the name is not valid; and those of
    /// [`create_key`](Store::create_key).
    pub fn delete_value(&self, key: &KeyPath, name: &str) -> Result<Commit> {
        self.engine.commit_plain(PlainWrite::delete_value(key, name)?)
    }

    /// Makes a snapshot: the whole state after some record, in a file that is checked when it is read. Gives the sequence number
    /// of that record; none if nothing was committed yet. Commits go on meanwhile. Takes as much memory as the state for a
    /// moment, since what was written is read back. It is durable when this returns.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io), [`Closed`](crate::Error::Closed). Nothing is lost then.
    pub fn snapshot(&self) -> Result<Option<u64>> {
        let taken = self.engine.keeper.snapshot()?;
        Ok(taken.map(|meta| meta.sequence))
    }

    /// Trims the journal: removes segments that are older than two snapshots, and that no port needs or that are over the limits
    /// ([`journal_limit_bytes`](crate::Options::journal_limit_bytes)). Views of them stay valid. Without two snapshots
    /// nothing goes.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io), [`Closed`](crate::Error::Closed). What was left half done is finished by the next opening.
    pub fn trim(&self) -> Result<Trimmed> {
        self.engine.keeper.trim()
    }

    /// Copies the store as it is after one record into a folder, while commits go on: the newest snapshot, the journal as far as it was not trimmed, and
    /// the ports. The folder is missing, empty, or holds an earlier backup of this store: then what the journal has got
    /// since is copied, and a backup that is cut short leaves the earlier one. Nothing is trimmed meanwhile. It is durable when
    /// this returns. [`restore`](Store::restore) makes a store of it.
    ///
    /// # Errors
    /// * [`ForeignDirectory`](crate::Error::ForeignDirectory), [`BackupOfAnother`](crate::Error::BackupOfAnother).
    /// * [`Damaged`](crate::Error::Damaged), [`Io`](crate::Error::Io), [`Closed`](crate::Error::Closed).
    pub fn backup(&self, folder: impl AsRef<Path>) -> Result<Backup> {
        self.engine.keeper.backup(folder.as_ref())
    }

    /// Makes a store in this directory, which is missing or empty, from a backup. It is the store as it was; what is committed from
    /// then on belongs to a new epoch, with the backup's record as its parent. Ports that stood there or before go on;
    /// those that had come further, and readers that had seen more, get an error of their own. Durable when it returns.
    ///
    /// # Errors
    /// * [`BackupNotFound`](crate::Error::BackupNotFound), [`StoreExists`](crate::Error::StoreExists),
    ///   [`ForeignDirectory`](crate::Error::ForeignDirectory).
    /// * [`Damaged`](crate::Error::Damaged): the backup is; [`Io`](crate::Error::Io). Nothing is in the directory then.
    pub fn restore(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<Restored> {
        Store::options().restore(backup, path)
    }

    /// What was cut from the end of the journal when the store was opened: commits that were never acknowledged.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.engine.opened.torn_tail.as_ref()
    }
}

/// A store can do all that a reader can.
impl Deref for Store {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.path().display())
    }
}
