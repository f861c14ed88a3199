//! Why the model refuses a name, a command or a batch. Nothing here knows of files.

use std::fmt;

use thiserror::Error;

use super::condition::FailedCondition;

/// A limit of section 6 of the specification, or of this store's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// UTF-16 units in one component of a key's path: 255.
    KeyNameUnits,
    /// UTF-16 units in the name of a value: 16,383.
    ValueNameUnits,
    /// Components in a key's path: 512.
    KeyDepth,
    /// Levels that one CREATE_KEY creates: 32.
    CreatedLevels,
    /// Bytes of data in one value (an option of the store, 1 MiB by default).
    ValueBytes,
    /// Bytes of one encoded record (an option of the store, 256 MiB by default).
    RecordBytes,
    /// Characters in the name of a port: 64.
    PortNameChars,
}

impl Limit {
    /// What the limit counts, in words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Limit::KeyNameUnits => "UTF-16 units in a component of a key's path",
            Limit::ValueNameUnits => "UTF-16 units in a value's name",
            Limit::KeyDepth => "levels in a key's path",
            Limit::CreatedLevels => "levels created by one command",
            Limit::ValueBytes => "bytes of data in a value",
            Limit::RecordBytes => "bytes in a batch's record",
            Limit::PortNameChars => "characters in a port's name",
        }
    }
}

/// Something is larger than a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{found} {} is over the limit of {maximum}", .limit.describe())]
pub struct LimitExceeded {
    /// Which limit.
    pub limit: Limit,
    /// The largest size that is allowed.
    pub maximum: u64,
    /// The size that was met.
    pub found: u64,
}

impl LimitExceeded {
    /// `Ok` when `found` is within `maximum`.
    pub(crate) fn check(limit: Limit, maximum: u64, found: u64) -> Result<(), LimitExceeded> {
        if found <= maximum {
            Ok(())
        } else {
            Err(LimitExceeded {
                limit,
                maximum,
                found,
            })
        }
    }
}

/// A path or a name that no key, value or port can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Two separators stand side by side, or one stands at an end of the path.
    #[error(
        "the path {path:?} has an empty component at byte {offset}: separate names by one `\\`, none at the ends"
    )]
    EmptyComponent {
        /// The path as it was given.
        path: String,
        /// Where the empty component stands, in bytes.
        offset: usize,
    },
    /// A NUL character.
    #[error("the name {name:?} holds a NUL character at byte {offset}, which no name may")]
    Nul {
        /// The name or path as it was given.
        name: String,
        /// Where the NUL stands, in bytes.
        offset: usize,
    },
    /// A port's name with a character outside of `A-Z a-z 0-9 . _ -`, an empty one, or one that starts with a dot.
    #[error("the port name {name:?} is not valid: use 1 to 64 of A-Z a-z 0-9 . _ - and no dot at the start")]
    PortName {
        /// The name as it was given.
        name: String,
    },
    /// Too long or too deep.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

/// Why one command of a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Its path or its name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It goes over a limit.
    #[error(transparent)]
    Limit(LimitExceeded),
    /// A value command after DELETE_KEY, before another CREATE_KEY (error 87 of the registry).
    #[error("no key is current after DELETE_KEY: add a CREATE_KEY before this command")]
    NoCurrentKey,
    /// SET_VALUE where the current key does not exist (error 2 of the registry).
    #[error("the key {key:?} does not exist: create it first")]
    KeyNotFound {
        /// Full path of the current key.
        key: String,
    },
    /// A condition that does not hold when its turn comes (error 5986 of the registry).
    #[error("{0}")]
    ConditionFailed(Box<FailedCondition>),
    /// A plain DeleteValue of a value that does not exist (error 2 of the registry).
    #[error("the key {key:?} has no value {name:?}")]
    ValueNotFound {
        /// Full path of the key.
        key: String,
        /// The value's name.
        name: String,
    },
    /// A plain DeleteKey of a key that has keys below it (error 5 of the registry).
    #[error("the key {key:?} has keys below it: delete these first, or delete it in a batch")]
    HasSubkeys {
        /// Full path of the key.
        key: String,
    },
    /// DELETE_KEY of the root (error 5 of the registry).
    #[error("the root key cannot be deleted")]
    Root,
}

/// The first failing command of a batch; the whole batch changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("command {index}: {source}")]
pub struct BatchError {
    /// The command's index in the batch, from 0.
    pub index: usize,
    /// Why it is refused.
    pub source: CommandError,
}

/// A payload that does not have the structure of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedRecord {
    /// Offset in the payload, in bytes.
    pub offset: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl fmt::Display for MalformedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected {} at byte {} of the record's payload",
            self.expected, self.offset
        )
    }
}

impl std::error::Error for MalformedRecord {}
