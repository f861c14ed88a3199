//! JSON lines, as the command line and a daemon speak them: values, and a batch of commands with its reply.
//!
//! `docs/command-line.md` has the form of values and commands, and of the batch that is sent to a daemon.

mod command;
mod line;
mod value;

pub use line::{BatchLine, Committed, Failed, Reply};
pub use value::ValueJson;

use crate::model::BatchError;

/// A text that is no batch or no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is not JSON, or not of this form.
    #[error("{message}")]
    Malformed {
        /// The command, from 0, if it is known.
        index: Option<usize>,
        /// What is wrong with it, and where.
        message: String,
    },
    /// It has a command that no batch takes.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl JsonError {
    fn malformed(message: impl Into<String>) -> JsonError {
        JsonError::Malformed {
            index: None,
            message: message.into(),
        }
    }

    fn of_command(self, index: usize) -> JsonError {
        match self {
            JsonError::Malformed { message, .. } => JsonError::Malformed {
                index: Some(index),
                message,
            },
            JsonError::Batch(error) => JsonError::Batch(error),
        }
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> JsonError {
        JsonError::malformed(error.to_string())
    }
}
