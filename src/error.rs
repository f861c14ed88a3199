//! The crate's error: what happened, where, what was expected and found, and the next step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::env::SymbolicLink;
use crate::model::wire::{WireError, WireProblem};
use crate::model::{BatchError, CommandError, LimitExceeded, NameError};

/// The result of most functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a store did not succeed. Cheap to clone, because one failure may concern many callers.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// A path or a name that no key, value or port can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A command of a batch was refused; the batch has changed nothing.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A plain write was refused, and has changed nothing.
    #[error(transparent)]
    Plain(#[from] CommandError),
    /// Bytes of the protocol that cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The key to read does not exist.
    #[error("the key {key:?} does not exist")]
    KeyNotFound {
        /// The path as it was given.
        key: String,
    },
    /// The value to read does not exist.
    #[error("the key {key:?} has no value {name:?}")]
    ValueNotFound {
        /// The path as it was given.
        key: String,
        /// The name as it was given.
        name: String,
    },
    /// The caller's buffer is too small for the value's data; nothing was written to it.
    #[error("the data has {needed} bytes, the buffer {given}: give one that is large enough")]
    BufferTooSmall {
        /// Bytes of the data.
        needed: usize,
        /// Bytes of the buffer.
        given: usize,
    },
    /// There is no store in this directory, and none was to be made.
    #[error("there is no store at {}: create one by writing to it", path.display())]
    StoreNotFound {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is not a store and not empty (it holds {found:?}): choose another directory", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// There is no backup in this directory, or only one that was cut short.
    #[error("there is no backup at {}: make one, or give the folder of another", path.display())]
    BackupNotFound {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds the backup of another store, or of another branch of this one's history.
    #[error("{} is the backup of another history: expected epoch {expected}, found {found}; choose another directory", path.display())]
    BackupOfAnother {
        /// The directory.
        path: PathBuf,
        /// The epoch that this store has for the backup's record.
        expected: crate::Epoch,
        /// The epoch that the backup has.
        found: crate::Epoch,
    },
    /// There is a store in this directory; a store is restored into a new one.
    #[error("there is a store at {}: restore into another directory, or set it aside first", path.display())]
    StoreExists {
        /// The directory.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the store open.
    #[error("the store {} is in use by another process: wait for it to end, or work through it", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file was written by another version of the format. The file is not damaged.
    #[error("{} has format version {found}, this program reads version {supported}: use the program that wrote it", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        supported: u32,
    },
    /// The store compares names by another case table; two of its keys could merge under ours.
    #[error("{} compares names by case table {found}, this program by {expected}: use the program that wrote it", file.display())]
    CaseTable {
        /// The file.
        file: PathBuf,
        /// The table's id in the file.
        found: u32,
        /// The table's id of this program.
        expected: u32,
    },
    /// A file does not hold what was promised. Nothing was changed, and nothing was served.
    #[error("{} is damaged at offset {offset}: expected {expected}, found {found}; restore the store from a backup, or keep a copy before any repair", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The offset in the file, in bytes.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A file or a folder of the store is a symbolic link. It was not followed, and nothing was changed.
    #[error("{} is a symbolic link: expected a file or a folder of the store itself; put what it leads to in its place, or remove it", path.display())]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// The store is on a file system that locks, maps and syncs of other machines pass by.
    #[error("{} is on a network file system ({name}), where locks, memory maps and syncs cannot be relied on: keep the store on a local disk", path.display())]
    NetworkFileSystem {
        /// The directory of the store, or the one that it was to be made in.
        path: PathBuf,
        /// What it is called.
        name: &'static str,
    },
    /// The system failed to do something with a file.
    #[error("cannot {operation} {}: {source}", file.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// There is no room for the batch in the journal. The batch has changed nothing; the store goes on, and takes
    /// batches again once there is room.
    #[error("cannot make room for the batch in {}: {source}; free some space and commit again", file.display())]
    Preallocation {
        /// The segment.
        file: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// An earlier write or sync failed, so that nobody knows what is on the disk. What was acknowledged is; open the
    /// store anew to recover.
    #[error(
        "the store takes no more batches, because an earlier write failed ({cause}): close it and open it again"
    )]
    Poisoned {
        /// The failure.
        cause: Arc<Error>,
    },
    /// A thread panicked while it committed for others.
    #[error("the thread that was committing panicked")]
    LeaderPanicked,
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
    /// There is no port of this name.
    #[error("there is no port {name:?}: create it first")]
    PortNotFound {
        /// The port's name.
        name: String,
    },
    /// A port of this name exists on another key.
    #[error(
        "the port {name:?} exists with the key {key:?}, not {asked:?}: choose another name, or remove it first"
    )]
    PortExists {
        /// The port's name.
        name: String,
        /// The key that it has.
        key: String,
        /// The key that was asked for.
        asked: String,
    },
    /// The port is open elsewhere; it has one owner at a time.
    #[error("the port {name:?} is in use: close it where it is open")]
    PortInUse {
        /// The port's name.
        name: String,
    },
    /// The port was closed, from this thread or another.
    #[error("the port {name:?} was closed")]
    PortClosed {
        /// The port's name.
        name: String,
    },
    /// The port belongs to a history that this store does not have.
    #[error(
        "the port {name:?} follows epoch {found}, which is not in this store's lineage: remove the port, create it anew and read the contents again"
    )]
    EpochMismatch {
        /// The port's name.
        name: String,
        /// The port's epoch.
        found: crate::Epoch,
    },
    /// Records that the port had not shown are gone: the journal has a limit, and was trimmed. No gap is silent.
    #[error(
        "the port {name:?} was left behind: it asked for the record {asked} of epoch {epoch}, the oldest is {oldest} ({reason}, at {time} µs since 1970): read the contents anew with resync"
    )]
    Lagged {
        /// The port's name.
        name: String,
        /// The epoch of what it asked for.
        epoch: crate::Epoch,
        /// The first record that it would have shown, or may have shown, and that is gone.
        asked: u64,
        /// The oldest record that there is.
        oldest: u64,
        /// When it was trimmed, in microseconds since 1970; 0 if that is not known.
        time: i64,
        /// Why.
        reason: TrimReason,
    },
    /// The journal was trimmed while it was read; what was asked for is gone.
    #[error("the record {asked} was trimmed, the oldest is {oldest}: begin there")]
    Trimmed {
        /// The record that was to be read.
        asked: u64,
        /// The oldest record that there is.
        oldest: u64,
    },
    /// The store was opened to be read; another process may be writing it.
    #[error("the store {} was opened to be read: open it to write, or work through its owner", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// The store that was followed is another now: one that was restored, or made anew.
    #[error("the store {} was replaced: expected epoch {expected}, found {found}; open it again, and read the contents anew", path.display())]
    StoreReplaced {
        /// The directory.
        path: PathBuf,
        /// The epoch of what was read so far.
        expected: crate::Epoch,
        /// The epoch that the store has in its place.
        found: crate::Epoch,
    },
    /// The notification cannot be acknowledged, or not with a batch; nothing was committed.
    #[error("the port {name:?}: {reason}")]
    AcknowledgementRefused {
        /// The port's name.
        name: String,
        /// Why not.
        reason: AcknowledgementRefusal,
    },
}

/// Why a notification cannot be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AcknowledgementRefusal {
    /// The port was rewound or resynchronised after it; what it holds comes again, or is in the contents.
    #[error("it was rewound after this notification: acknowledge what comes again instead")]
    Superseded,
    /// One that was got before it is not acknowledged; with a batch, they are acknowledged in order.
    #[error("a notification that was got before this one is not acknowledged: acknowledge that one first")]
    OpenBefore,
    /// It is acknowledged already; a batch that was made of it would be committed twice.
    #[error("this notification is acknowledged already: its batch was not committed")]
    Repeated,
}

/// Why records that a port needed were trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrimReason {
    /// The journal was longer than its limit in bytes.
    #[error("the journal was over its limit in bytes")]
    Bytes,
    /// They were older than the limit.
    #[error("they were over the limit in age")]
    Age,
    /// They were damaged, and cut out by a repair.
    #[error("they were damaged, and a repair has cut them out")]
    Repair,
    /// What was noted of it cannot be read.
    #[error("why is not known")]
    Unknown,
}

impl TrimReason {
    pub(crate) fn number(self) -> u32 {
        match self {
            TrimReason::Bytes => 1,
            TrimReason::Age => 2,
            TrimReason::Repair => 3,
            TrimReason::Unknown => 4,
        }
    }

    pub(crate) fn from_number(number: u32) -> TrimReason {
        match number {
            1 => TrimReason::Bytes,
            2 => TrimReason::Age,
            3 => TrimReason::Repair,
            _ => TrimReason::Unknown,
        }
    }
}

impl Error {
    /// A stable word for the kind of failure, the same as the command line's `"error"`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Error::Name(error) => name_word(error),
            Error::Batch(error) => command_word(&error.source),
            Error::Plain(error) => command_word(error),
            Error::Wire(error) => match &error.problem {
                WireProblem::Refused(error) => command_word(error),
                _ => "wire",
            },
            Error::KeyNotFound { .. }
            | Error::ValueNotFound { .. }
            | Error::StoreNotFound { .. }
            | Error::BackupNotFound { .. }
            | Error::PortNotFound { .. } => "not_found",
            Error::BackupOfAnother { .. } => "backup_of_another",
            Error::StoreExists { .. } => "store_exists",
            Error::BufferTooSmall { .. } => "buffer_too_small",
            Error::ForeignDirectory { .. } => "foreign_directory",
            Error::InUse { .. } => "in_use",
            Error::UnsupportedVersion { .. } => "unsupported_version",
            Error::CaseTable { .. } => "case_table",
            Error::Damaged { .. } => "damaged",
            Error::SymbolicLink { .. } => "symbolic_link",
            Error::NetworkFileSystem { .. } => "network_file_system",
            Error::Io { .. } => "io",
            Error::Preallocation { .. } => "no_space",
            Error::Poisoned { .. } | Error::LeaderPanicked => "poisoned",
            Error::Closed => "closed",
            Error::PortExists { .. } => "port_exists",
            Error::PortInUse { .. } => "port_in_use",
            Error::PortClosed { .. } => "port_closed",
            Error::EpochMismatch { .. } => "epoch_mismatch",
            Error::AcknowledgementRefused { .. } => "acknowledgement_refused",
            Error::Lagged { .. } => "lagged",
            Error::Trimmed { .. } => "trimmed",
            Error::ReadOnly { .. } => "read_only",
            Error::StoreReplaced { .. } => "store_replaced",
        }
    }

    /// Whether there was no room on the disk for it.
    pub(crate) fn is_no_room(&self) -> bool {
        let (Error::Io { source, .. } | Error::Preallocation { source, .. }) = self else {
            return false;
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    pub(crate) fn damaged(
        file: &Path,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Damaged {
            file: file.to_owned(),
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

fn name_word(error: &NameError) -> &'static str {
    match error {
        NameError::Limit(_) => "limit",
        NameError::EmptyComponent { .. } => "path",
        NameError::Nul { .. } | NameError::PortName { .. } => "name",
    }
}

fn command_word(error: &CommandError) -> &'static str {
    match error {
        CommandError::Name(error) => name_word(error),
        CommandError::Limit(_) => "limit",
        CommandError::NoCurrentKey => "no_current_key",
        CommandError::KeyNotFound { .. } | CommandError::ValueNotFound { .. } => "not_found",
        CommandError::HasSubkeys { .. } => "has_subkeys",
        CommandError::ConditionFailed(_) => "condition_failed",
        CommandError::Root => "root",
    }
}

impl From<LimitExceeded> for Error {
    fn from(error: LimitExceeded) -> Error {
        Error::Name(NameError::Limit(error))
    }
}

/// Says what was tried with which file.
pub(crate) trait IoContext<T> {
    fn context(self, operation: &'static str, file: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, operation: &'static str, file: &Path) -> Result<T> {
        self.map_err(|source| match SymbolicLink::is_cause_of(&source) {
            true => Error::SymbolicLink {
                path: file.to_owned(),
            },
            false => Error::Io {
                operation,
                file: file.to_owned(),
                source: Arc::new(source),
            },
        })
    }
}
