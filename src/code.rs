//! The system error codes that the registry's functions return, for those who know them. `docs/registry.md` has the table,
//! with the section of the specification that says so where one does.

use std::io;

use crate::error::Error;
use crate::model::wire::WireProblem;
use crate::model::{CommandError, LimitExceeded, NameError};

/// The names that the system's documentation gives to the codes.
pub mod codes {
    /// What was asked for does not exist.
    pub const ERROR_FILE_NOT_FOUND: u32 = 2;
    /// It may not be done.
    pub const ERROR_ACCESS_DENIED: u32 = 5;
    /// The store or the port is closed.
    pub const ERROR_INVALID_HANDLE: u32 = 6;
    /// What is stored is not what it should be.
    pub const ERROR_INVALID_DATA: u32 = 13;
    /// There is no memory for it.
    pub const ERROR_OUTOFMEMORY: u32 = 14;
    /// Something does not work.
    pub const ERROR_GEN_FAILURE: u32 = 31;
    /// Somebody else has it.
    pub const ERROR_SHARING_VIOLATION: u32 = 32;
    /// Reserved, or not on this file system.
    pub const ERROR_NOT_SUPPORTED: u32 = 50;
    /// A name, a number or an order of commands that cannot be.
    pub const ERROR_INVALID_PARAMETER: u32 = 87;
    /// There is no room on the disk.
    pub const ERROR_DISK_FULL: u32 = 112;
    /// Something else is in the directory.
    pub const ERROR_DIR_NOT_EMPTY: u32 = 145;
    /// It exists, and is another.
    pub const ERROR_ALREADY_EXISTS: u32 = 183;
    /// The buffer is too small.
    pub const ERROR_MORE_DATA: u32 = 234;
    /// There is nothing behind the last, and nothing will come.
    pub const ERROR_NO_MORE_ITEMS: u32 = 259;
    /// It belongs to another history.
    pub const ERROR_FILE_INVALID: u32 = 1006;
    /// It is gone from the journal.
    pub const ERROR_JOURNAL_ENTRY_DELETED: u32 = 1181;
    /// Text that is not Unicode.
    pub const ERROR_NO_UNICODE_TRANSLATION: u32 = 1113;
    /// It is a symbolic link.
    pub const ERROR_SYMLINK_NOT_SUPPORTED: u32 = 1464;
    /// It was written by another version.
    pub const ERROR_REVISION_MISMATCH: u32 = 1306;
    /// It cannot be done now.
    pub const ERROR_INVALID_OPERATION: u32 = 4317;
    /// A condition of a batch does not hold.
    pub const ERROR_CLUSTER_DATABASE_UPDATE_CONDITION_FAILED: u32 = 5986;
}

use codes::*;

impl Error {
    /// The system error code that the registry's functions return for this.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Error::Name(error) => name_code(error),
            Error::Batch(error) => command_code(&error.source),
            Error::Plain(error) => command_code(error),
            Error::Wire(error) => match &error.problem {
                WireProblem::Refused(error) => command_code(error),
                WireProblem::Unsupported { .. } => ERROR_NOT_SUPPORTED,
                WireProblem::LoneSurrogate { .. } => ERROR_NO_UNICODE_TRANSLATION,
                _ => ERROR_INVALID_DATA,
            },
            Error::KeyNotFound { .. }
            | Error::ValueNotFound { .. }
            | Error::StoreNotFound { .. }
            | Error::BackupNotFound { .. }
            | Error::PortNotFound { .. } => ERROR_FILE_NOT_FOUND,
            Error::BufferTooSmall { .. } => ERROR_MORE_DATA,
            Error::ForeignDirectory { .. } => ERROR_DIR_NOT_EMPTY,
            Error::InUse { .. } | Error::PortInUse { .. } => ERROR_SHARING_VIOLATION,
            Error::UnsupportedVersion { .. } | Error::CaseTable { .. } => ERROR_REVISION_MISMATCH,
            Error::Damaged { .. } => ERROR_INVALID_DATA,
            Error::SymbolicLink { .. } => ERROR_SYMLINK_NOT_SUPPORTED,
            Error::NetworkFileSystem { .. } => ERROR_NOT_SUPPORTED,
            Error::Io { source, .. } => io_code(source),
            Error::Preallocation { .. } => ERROR_DISK_FULL,
            Error::Poisoned { .. } | Error::LeaderPanicked => ERROR_GEN_FAILURE,
            Error::Closed => ERROR_INVALID_HANDLE,
            Error::PortExists { .. } | Error::StoreExists { .. } => ERROR_ALREADY_EXISTS,
            Error::PortClosed { .. } => ERROR_NO_MORE_ITEMS,
            Error::Lagged { .. } | Error::Trimmed { .. } => ERROR_JOURNAL_ENTRY_DELETED,
            Error::EpochMismatch { .. } | Error::StoreReplaced { .. } | Error::BackupOfAnother { .. } => {
                ERROR_FILE_INVALID
            }
            Error::ReadOnly { .. } => ERROR_ACCESS_DENIED,
            Error::AcknowledgementRefused { .. } => ERROR_INVALID_OPERATION,
        }
    }
}

fn name_code(error: &NameError) -> u32 {
    match error {
        NameError::EmptyComponent { .. }
        | NameError::Nul { .. }
        | NameError::PortName { .. }
        | NameError::Limit(LimitExceeded { .. }) => ERROR_INVALID_PARAMETER,
    }
}

fn command_code(error: &CommandError) -> u32 {
    match error {
        CommandError::Name(error) => name_code(error),
        CommandError::Limit(_) | CommandError::NoCurrentKey => ERROR_INVALID_PARAMETER,
        CommandError::KeyNotFound { .. } | CommandError::ValueNotFound { .. } => ERROR_FILE_NOT_FOUND,
        CommandError::HasSubkeys { .. } | CommandError::Root => ERROR_ACCESS_DENIED,
        CommandError::ConditionFailed(_) => ERROR_CLUSTER_DATABASE_UPDATE_CONDITION_FAILED,
    }
}

fn io_code(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ERROR_ACCESS_DENIED,
        io::ErrorKind::StorageFull => ERROR_DISK_FULL,
        io::ErrorKind::OutOfMemory => ERROR_OUTOFMEMORY,
        _ => ERROR_GEN_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::model::wire::WireError;
    use crate::model::{BatchError, ConditionKind, FailedCondition, Limit};

    /// One of each, by the name that the document has for it.
    fn samples() -> Vec<(&'static str, Error)> {
        let text = String::new;
        let file = PathBuf::new;
        let command = |source| Error::Batch(BatchError { index: 0, source });
        let wire = |problem| {
            Error::Wire(WireError {
                offset: 0,
                index: None,
                problem,
            })
        };
        let limit = LimitExceeded {
            limit: Limit::ValueBytes,
            maximum: 1,
            found: 2,
        };
        let io = |kind: io::ErrorKind| Error::Io {
            operation: "read",
            file: file(),
            source: Arc::new(kind.into()),
        };
        let condition = FailedCondition {
            kind: ConditionKind::Exists,
            key: text(),
            name: None,
            expected: None,
            found: None,
        };
        vec![
            (
                "a name or a path that cannot be",
                Error::Name(NameError::PortName { name: text() }),
            ),
            (
                "a name or a path that cannot be",
                command(CommandError::Name(NameError::Nul {
                    name: text(),
                    offset: 0,
                })),
            ),
            ("over a limit", Error::Name(NameError::Limit(limit))),
            ("over a limit", Error::Plain(CommandError::Limit(limit))),
            (
                "a value command after DELETE_KEY",
                command(CommandError::NoCurrentKey),
            ),
            (
                "a key that does not exist",
                command(CommandError::KeyNotFound { key: text() }),
            ),
            ("a key that does not exist", Error::KeyNotFound { key: text() }),
            (
                "a value that does not exist",
                Error::Plain(CommandError::ValueNotFound {
                    key: text(),
                    name: text(),
                }),
            ),
            (
                "a value that does not exist",
                Error::ValueNotFound {
                    key: text(),
                    name: text(),
                },
            ),
            (
                "DeleteKey of a key with subkeys",
                Error::Plain(CommandError::HasSubkeys { key: text() }),
            ),
            ("deleting the root", command(CommandError::Root)),
            (
                "a condition that does not hold",
                command(CommandError::ConditionFailed(Box::new(condition))),
            ),
            (
                "SET_KEY_SECURITY in the protocol's bytes",
                wire(WireProblem::Unsupported { number: 5 }),
            ),
            (
                "half of a surrogate pair in the protocol's bytes",
                wire(WireProblem::LoneSurrogate { unit: 0xd800 }),
            ),
            (
                "anything else malformed in the protocol's bytes",
                wire(WireProblem::NameNul),
            ),
            (
                "a value command after DELETE_KEY",
                wire(WireProblem::Refused(CommandError::NoCurrentKey)),
            ),
            (
                "a buffer that is too small",
                Error::BufferTooSmall { needed: 2, given: 1 },
            ),
            ("no such store or port", Error::StoreNotFound { path: file() }),
            ("no such store or port", Error::PortNotFound { name: text() }),
            ("no such store or port", Error::BackupNotFound { path: file() }),
            (
                "a store where one is to be restored",
                Error::StoreExists { path: file() },
            ),
            (
                "a port or a reader of another history",
                Error::BackupOfAnother {
                    path: file(),
                    expected: crate::Epoch::from_bytes([0; 16]),
                    found: crate::Epoch::from_bytes([1; 16]),
                },
            ),
            (
                "a foreign directory",
                Error::ForeignDirectory {
                    path: file(),
                    found: text(),
                },
            ),
            ("a store or a port in use", Error::InUse { path: file() }),
            ("a store or a port in use", Error::PortInUse { name: text() }),
            (
                "another version of the format or of the case table",
                Error::UnsupportedVersion {
                    file: file(),
                    found: 1,
                    supported: 2,
                },
            ),
            (
                "another version of the format or of the case table",
                Error::CaseTable {
                    file: file(),
                    found: 2,
                    expected: 1,
                },
            ),
            (
                "a symbolic link in the place of a store's file",
                Error::SymbolicLink { path: file() },
            ),
            (
                "a store on a network file system",
                Error::NetworkFileSystem {
                    path: file(),
                    name: "NFS",
                },
            ),
            ("damage", Error::damaged(&file(), 0, "a", "b")),
            (
                "the system's errors: no access",
                io(io::ErrorKind::PermissionDenied),
            ),
            (
                "the system's errors: no room; no room for a batch",
                io(io::ErrorKind::StorageFull),
            ),
            (
                "the system's errors: no room; no room for a batch",
                Error::Preallocation {
                    file: file(),
                    source: Arc::new(io::ErrorKind::StorageFull.into()),
                },
            ),
            ("the system's errors: no memory", io(io::ErrorKind::OutOfMemory)),
            (
                "the system's errors: all others; a poisoned store",
                io(io::ErrorKind::Other),
            ),
            (
                "the system's errors: all others; a poisoned store",
                Error::LeaderPanicked,
            ),
            (
                "the system's errors: all others; a poisoned store",
                Error::Poisoned {
                    cause: Arc::new(Error::LeaderPanicked),
                },
            ),
            ("a store that was closed", Error::Closed),
            (
                "a port of this name on another key",
                Error::PortExists {
                    name: text(),
                    key: text(),
                    asked: text(),
                },
            ),
            (
                "a port that was closed, also while a get waits",
                Error::PortClosed { name: text() },
            ),
            (
                "a port or a reader of another history",
                Error::EpochMismatch {
                    name: text(),
                    found: crate::Epoch::from_bytes([0; 16]),
                },
            ),
            (
                "a port or a reader of another history",
                Error::StoreReplaced {
                    path: file(),
                    expected: crate::Epoch::from_bytes([0; 16]),
                    found: crate::Epoch::from_bytes([1; 16]),
                },
            ),
            (
                "records that were trimmed",
                Error::Lagged {
                    name: text(),
                    epoch: crate::Epoch::from_bytes([0; 16]),
                    asked: 1,
                    oldest: 2,
                    time: 0,
                    reason: crate::TrimReason::Bytes,
                },
            ),
            (
                "records that were trimmed",
                Error::Trimmed { asked: 1, oldest: 2 },
            ),
            ("committing through a reader", Error::ReadOnly { path: file() }),
            (
                "an acknowledgement that is refused",
                Error::AcknowledgementRefused {
                    name: text(),
                    reason: crate::AcknowledgementRefusal::Repeated,
                },
            ),
        ]
    }

    /// Sections 1, 2, 4 and 5: the codes; the table in the document is the one that is kept.
    #[test]
    fn each_error_has_the_code_that_the_document_says() {
        let document = include_str!("../docs/registry.md");
        let rows: Vec<Vec<&str>> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
            .map(|line| line.split(" | ").map(str::trim).collect())
            .collect();
        let mut told: Vec<&str> = Vec::new();
        for (what, error) in samples() {
            let row = rows.iter().find(|row| row[0] == what && row.len() == 4);
            let row = row.unwrap_or_else(|| panic!("no row for {what:?}"));
            assert_eq!(row[1].parse(), Ok(error.code()), "{what}: {error:?}");
            told.push(what);
        }
        let begins = rows.iter().position(|row| row[0] == "what" && row[1] == "code");
        let table = rows[begins.expect("the table of codes") + 1..].iter();
        let said = table
            .take_while(|row| row.len() == 4)
            .filter(|row| !row[0].starts_with('-'));
        for row in said {
            let is_reply = row[0].starts_with("(");
            assert!(is_reply || told.contains(&row[0]), "nothing gives {:?}", row[0]);
        }
    }
}
