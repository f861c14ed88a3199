//! How a verb fails: a word and a message for the reader, an exit code for the caller.

use std::borrow::Cow;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use clusdb::json::{Failed, JsonError};
use clusdb::{BatchError, Error, NameError};
use serde::Serialize;

use crate::args::Format;
use crate::reg::RegError;

pub type Result<T = ()> = std::result::Result<T, Failure>;

/// What went wrong, as the command line tells it.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// A stable word.
    error: Cow<'static, str>,
    message: String,
    /// The failing command of a batch, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// The line of the input, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip)]
    exit_code: u8,
}

/// The exit codes of the contract.
pub mod exit {
    pub const ERROR: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const CONDITION_FAILED: u8 = 4;
    pub const IN_USE: u8 = 5;
    pub const DAMAGE: u8 = 6;
}

impl Failure {
    pub fn usage(word: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            error: word.into(),
            message: message.into(),
            index: None,
            line: None,
            exit_code: exit::USAGE,
        }
    }

    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure {
            exit_code: exit::NOT_FOUND,
            ..Failure::usage("not_found", message)
        }
    }

    pub fn damage(message: String) -> Failure {
        Failure {
            exit_code: exit::DAMAGE,
            ..Failure::usage("damaged", message)
        }
    }

    pub fn io(what: &str, path: &Path, error: &std::io::Error) -> Failure {
        let message = format!("cannot {what} {}: {error}", path.display());
        Failure {
            exit_code: exit::ERROR,
            ..Failure::usage("io", message)
        }
    }

    /// A result that could not be written. A reader that has closed its end is no failure.
    pub fn of_output(error: &std::io::Error) -> Failure {
        let is_closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        let exit_code = if is_closed { 0 } else { exit::ERROR };
        Failure {
            exit_code,
            ..Failure::usage("io", format!("cannot write the output: {error}"))
        }
    }

    /// A command that was run has failed: its code becomes ours, and a signal's number 128 more, as in a shell.
    pub fn of_command(name: &std::ffi::OsStr, status: std::process::ExitStatus) -> Failure {
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal));
        let exit_code = code
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(exit::ERROR);
        let message = format!("{} ended with {status}: not acknowledged", name.display());
        Failure {
            exit_code,
            ..Failure::usage("command_failed", message)
        }
    }

    pub fn at_line(self, line: u64) -> Failure {
        Failure {
            line: Some(line),
            ..self
        }
    }

    /// Adds the line that the failing command came from, if it came from one.
    pub fn with_lines(self, lines: &[u64]) -> Failure {
        let line = self.index.and_then(|index| lines.get(index).copied());
        Failure {
            line: self.line.or(line),
            ..self
        }
    }

    /// Whether there is no store, or nothing of that name in it.
    pub fn is_not_found(&self) -> bool {
        self.exit_code == exit::NOT_FOUND
    }

    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Tells it on standard error, unless there is nothing to tell.
    pub fn report(&self, format: Format) {
        if self.exit_code == 0 {
            return;
        }
        match (format, serde_json::to_string(self)) {
            (Format::Json | Format::Jsonl, Ok(object)) => eprintln!("{object}"),
            _ => eprintln!("error: {self}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&crate::output::escape_control(&self.message))
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Failure {
        Failure {
            exit_code: exit_code(&failed.error),
            error: failed.error.into(),
            message: failed.message,
            index: failed.index,
            line: None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failed::from(error).into()
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Failure {
        Failed::from(error).into()
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        Error::from(error).into()
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Failure {
        Error::from(error).into()
    }
}

impl From<RegError> for Failure {
    fn from(error: RegError) -> Failure {
        Failure::usage("reg", error.problem.to_string()).at_line(error.line)
    }
}

/// What a stable word means to the caller.
fn exit_code(word: &str) -> u8 {
    match word {
        "json" | "wire" | "path" | "name" | "no_current_key" => exit::USAGE,
        "not_found" => exit::NOT_FOUND,
        "condition_failed" => exit::CONDITION_FAILED,
        "in_use" | "port_in_use" => exit::IN_USE,
        "damaged" => exit::DAMAGE,
        _ => exit::ERROR,
    }
}
