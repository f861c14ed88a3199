//! How a store is opened.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{
    CheckReport, Engine, Follower, Repair, Restored, RetentionLimits, check, repair, restore,
};
use crate::env::{Env, OsEnv};
use crate::epoch::Epoch;
use crate::error::Result;
use crate::model::{Limits, MAX_RECORD_BYTES};
use crate::reader::Reader;
use crate::store::Store;
use crate::tree::{Backend, SledBackend};

/// How far the opening of a store has come: bytes of the journal that have been replayed, of all that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes replayed so far.
    pub done_bytes: u64,
    /// Bytes of all segments.
    pub total_bytes: u64,
}

type Watcher = Arc<dyn Fn(Progress) + Send + Sync>;

/// Options for opening a store. Start from [`Store::options`].
#[derive(Clone)]
pub struct Options {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) create: bool,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) limits: Limits,
    pub(crate) segment_size_bytes: u64,
    pub(crate) notification_limit_bytes: u64,
    pub(crate) lock_timeout: Duration,
    pub(crate) network_file_system: bool,
    pub(crate) progress: Option<Watcher>,
    pub(crate) tree: TreeOptions,
    pub(crate) retention: RetentionLimits,
    /// Whether snapshots are made and the journal is trimmed without being asked.
    pub(crate) is_kept: bool,
}

/// How the copy of the state on disk is kept.
#[derive(Debug, Clone)]
pub(crate) struct TreeOptions {
    pub(crate) is_on: bool,
    pub(crate) backend: Arc<dyn Backend>,
    /// How long a tree may take for next to nothing.
    pub(crate) limit: Duration,
    /// The tree follows once it is so many records behind: replaying fewer costs less.
    pub(crate) behind_records: u64,
    /// Files of so many bytes more than several times the live data are made anew.
    pub(crate) grown_bytes: u64,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions {
            is_on: true,
            backend: Arc::new(SledBackend),
            // A hundred times what it needs.
            limit: Duration::from_secs(20),
            behind_records: 500,
            grown_bytes: 96 << 20,
        }
    }
}

impl Options {
    pub(crate) fn new() -> Options {
        Options {
            env: Arc::new(OsEnv),
            create: true,
            epoch: None,
            limits: Limits::default(),
            segment_size_bytes: 16 << 20,
            notification_limit_bytes: u64::MAX,
            lock_timeout: Duration::ZERO,
            network_file_system: false,
            progress: None,
            tree: TreeOptions::default(),
            retention: RetentionLimits::default(),
            is_kept: true,
        }
    }

    /// Whether a missing or empty directory is made into a store (the default), or is an error.
    #[must_use]
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// The epoch of a store that is created; random by default. For nodes that share one history.
    #[must_use]
    pub fn epoch(mut self, epoch: Epoch) -> Options {
        self.epoch = Some(epoch);
        self
    }

    /// Bytes of data in one value, at most; 1 MiB by default.
    #[must_use]
    pub fn value_limit_bytes(mut self, bytes: u64) -> Options {
        self.limits.value_bytes = bytes;
        self
    }

    /// Bytes of one encoded record, at most; 256 MiB by default, and never more than 1 GiB. A record holds the
    /// old data too.
    #[must_use]
    pub fn record_limit_bytes(mut self, bytes: u64) -> Options {
        self.limits.record_bytes = bytes.min(MAX_RECORD_BYTES);
        self
    }

    /// Bytes of one segment of the journal; 16 MiB by default, at least 4 KiB and at most 16 GiB, in whole blocks of
    /// 4 KiB. A larger record gets a segment of its own.
    #[must_use]
    pub fn segment_size_bytes(mut self, bytes: u64) -> Options {
        self.segment_size_bytes = bytes.clamp(4096, 1 << 34).next_multiple_of(4096);
        self
    }

    /// Bytes of the journal in one notification, at most; no limit by default. A notification ends before the batch
    /// that would go over it, never inside one, and holds at least one batch.
    #[must_use]
    pub fn notification_limit_bytes(mut self, bytes: u64) -> Options {
        self.notification_limit_bytes = bytes;
        self
    }

    /// How long to wait for a store that is in use; not at all by default.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Options {
        self.lock_timeout = timeout;
        self
    }

    /// Whether a store may be on a network file system, with an event that warns of it; by default it is refused. Locks, memory
    /// maps and syncs cannot be relied on there: two machines may both write the store, and what was acknowledged may be lost.
    #[must_use]
    pub fn network_file_system(mut self, allow: bool) -> Options {
        self.network_file_system = allow;
        self
    }

    /// Calls `watcher` from time to time while the journal is replayed.
    #[must_use]
    pub fn on_progress(mut self, watcher: impl Fn(Progress) + Send + Sync + 'static) -> Options {
        self.progress = Some(Arc::new(watcher));
        self
    }

    /// Whether a copy of the state is kept on the disk behind the journal (the default), so that opening costs the
    /// size of the state and not the length of the journal. Nothing is lost without it. It costs a thread, a fifth
    /// of one processor at most while commits come, and space for some times the live data.
    #[must_use]
    pub fn tree(mut self, keep: bool) -> Options {
        self.tree.is_on = keep;
        self
    }

    /// Bytes that the journal is kept below; 1 GiB by default. It is trimmed now and then, by whole segments, so that it is longer
    /// for a while. Trimming takes what snapshots and ports do not need; over this, it also takes what ports have not
    /// read, from the oldest on, and their next get is [`Lagged`](crate::Error::Lagged). The journal behind the older of two
    /// snapshots stays.
    #[must_use]
    pub fn journal_limit_bytes(mut self, bytes: u64) -> Options {
        self.retention.bytes = bytes;
        self
    }

    /// The same for the age of records; no limit by default. Of the time between two segments of the journal no more
    /// than half the limit counts, so that a clock that jumps leaves no port behind.
    #[must_use]
    pub fn journal_limit_age(mut self, age: Duration) -> Options {
        self.retention.age = Some(age);
        self
    }

    /// Whether snapshots are made, and the journal is trimmed, whenever enough has come (the default), in a thread of its own;
    /// otherwise when [`snapshot`](Store::snapshot) and [`trim`](Store::trim) are called.
    #[must_use]
    pub fn keep(mut self, keep: bool) -> Options {
        self.is_kept = keep;
        self
    }

    /// The environment that the store's files live in; the operating system's by default. The tree knows of that
    /// one only, and is turned off; so is what keeps the store by itself ([`keep`](Options::keep)). Where segments are longer than 1 MiB, a
    /// thread makes files beside who commits.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Options {
        self.env = env;
        self.tree(false).keep(false)
    }

    /// Opens the store in this directory. Recovers it first where it was not closed: blocks until what it shows is
    /// durable.
    ///
    /// # Errors
    /// See [`Store::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        Ok(Store::new(Engine::open(&self, path.as_ref())?))
    }

    /// Looks at the whole store for faults, and changes nothing: all records, snapshots and ports, each to its last byte. `deep` also
    /// makes the state of the records, and compares snapshots and tree with it. Takes the store's lock, and as much
    /// memory as its state.
    ///
    /// # Errors
    /// [`StoreNotFound`](crate::Error::StoreNotFound), [`InUse`](crate::Error::InUse), and the system's. What is wrong with the store is in the report.
    pub fn check(self, path: impl AsRef<Path>, deep: bool) -> Result<CheckReport> {
        check(&self, path.as_ref(), deep)
    }

    /// What [`repair`](Options::repair) would do. Changes nothing.
    ///
    /// # Errors
    /// Those of [`repair`](Options::repair).
    pub fn plan_repair(self, path: impl AsRef<Path>) -> Result<Repair> {
        repair(&self, path.as_ref(), false)
    }

    /// Makes a damaged store one that opens. Damaged ports, snapshots and the like are set aside. Where the journal is damaged, its
    /// part up to there goes if a snapshot has what it led to; else it is cut there: acknowledged records are lost, the
    /// report says which, and the history goes on in a new epoch. Every byte that is taken away is kept in a folder `repaired.N` in the store.
    ///
    /// # Errors
    /// Those of [`check`](Options::check), and the fault itself where what is left leads to no state: then there is the backup.
    pub fn repair(self, path: impl AsRef<Path>) -> Result<Repair> {
        repair(&self, path.as_ref(), true)
    }

    /// Makes a store in this directory from a backup. The epoch that begins is the one of the [option](Options::epoch), random by
    /// default.
    ///
    /// # Errors
    /// See [`Store::restore`].
    pub fn restore(self, backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<Restored> {
        restore(&self, backup.as_ref(), path.as_ref())
    }

    /// Opens the store in this directory to read and to follow it.
    ///
    /// # Errors
    /// See [`Reader::open`].
    pub fn open_reader(self, path: impl AsRef<Path>) -> Result<Reader> {
        Ok(Reader::new(Follower::open(&self, path.as_ref())?))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("create", &self.create)
            .field("epoch", &self.epoch)
            .field("limits", &self.limits)
            .field("segment_size_bytes", &self.segment_size_bytes)
            .field("notification_limit_bytes", &self.notification_limit_bytes)
            .field("lock_timeout", &self.lock_timeout)
            .field("network_file_system", &self.network_file_system)
            .field("tree", &self.tree.is_on)
            .finish_non_exhaustive()
    }
}
