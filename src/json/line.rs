//! One batch on one line, and the line that answers it.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::JsonError;
use super::command::CommandJson;
use crate::engine::Commit;
use crate::error::Error;
use crate::model::{Batch, KeyPath};

/// One batch as text: `{"at":"Cluster","commands":[{"command":"create_key","key":"Resources"}]}`. Without `at` its keys are
/// relative to the root.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchLine {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    at: String,
    commands: Vec<CommandJson>,
}

impl BatchLine {
    /// A batch of no commands, whose keys will be relative to this one.
    #[must_use]
    pub fn at(key: &KeyPath) -> BatchLine {
        BatchLine {
            at: key.as_str().to_owned(),
            commands: Vec::new(),
        }
    }

    /// Adds the command of this text: one object, such as `{"command":"create_key","key":"Resources"}`. What is in it is looked
    /// at by [`to_batch`](BatchLine::to_batch).
    ///
    /// # Errors
    /// [`JsonError::Malformed`].
    pub fn add(&mut self, command: &str) -> Result<(), JsonError> {
        let index = self.commands.len();
        let command = read_object(command).map_err(|error| error.of_command(index))?;
        self.commands.push(command);
        Ok(())
    }

    /// The batch that it says.
    ///
    /// # Errors
    /// [`JsonError`]: the first command that no batch takes.
    pub fn to_batch(&self) -> Result<Batch, JsonError> {
        let at = KeyPath::parse(&self.at).map_err(|error| JsonError::malformed(format!("at: {error}")))?;
        let mut batch = Batch::at(&at);
        for (index, command) in self.commands.iter().enumerate() {
            command
                .add_to(&mut batch)
                .map_err(|error| error.of_command(index))?;
        }
        Ok(batch)
    }
}

impl FromStr for BatchLine {
    type Err = JsonError;

    fn from_str(line: &str) -> Result<BatchLine, JsonError> {
        read_object(line)
    }
}

/// One line, without its end.
impl fmt::Display for BatchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_json(self, f)
    }
}

/// What became of a batch: `{"sequence":7}`; `{}` if there was nothing to commit; or
/// `{"error":"limit","message":"…","index":2}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// It changed nothing.
    Failed(Failed),
    /// It is durable.
    Committed(Committed),
}

/// A batch that was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committed {
    /// As by [`Commit::sequence`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// A stable word: that of [`Error::word`], or `json`.
    pub error: String,
    /// What, where, expected and found, for people.
    pub message: String,
    /// The failing command of a batch, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

impl FromStr for Reply {
    type Err = JsonError;

    fn from_str(line: &str) -> Result<Reply, JsonError> {
        read_object(line)
    }
}

/// One line, without its end.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_json(self, f)
    }
}

impl From<Commit> for Reply {
    fn from(commit: Commit) -> Reply {
        let sequence = commit.sequence();
        Reply::Committed(Committed { sequence })
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let index = match &error {
            Error::Batch(failed) => Some(failed.index),
            Error::Wire(failed) => failed.index,
            _ => None,
        };
        Failed {
            error: error.word().to_owned(),
            message: error.to_string(),
            index,
        }
    }
}

impl From<JsonError> for Failed {
    fn from(error: JsonError) -> Failed {
        match error {
            JsonError::Malformed { index, message } => Failed {
                error: "json".to_owned(),
                message,
                index,
            },
            JsonError::Batch(error) => Error::from(error).into(),
        }
    }
}

impl<E: Into<Failed>> From<E> for Reply {
    fn from(error: E) -> Reply {
        Reply::Failed(error.into())
    }
}

/// The fields of an object alone: they could also be read from an array, in their order.
fn read_object<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    match text.trim_start().starts_with('{') {
        true => Ok(serde_json::from_str(text)?),
        false => Err(JsonError::malformed("expected an object in braces")),
    }
}

fn write_json(line: &impl Serialize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(line).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_read_back_from_its_line() {
        let mut line = BatchLine::at(&KeyPath::parse("A\\B").unwrap());
        line.add(r#"{"command":"create_key","key":"C"}"#).unwrap();
        line.add(r#"{"command":"set_value","name":"n","type":"qword","data":18446744073709551615}"#)
            .unwrap();
        line.add(r#"{"command":"condition_is_equal","name":"n","type":9000,"data_base64":"AAE="}"#)
            .unwrap();
        line.add(r#"{"command":"set_value","name":"\n","type":"multi_sz","data":["é","b"]}"#)
            .unwrap();
        let text = line.to_string();
        assert_eq!(text.lines().count(), 1);
        let read: BatchLine = text.parse().unwrap();
        let (read, batch) = (read.to_batch().unwrap(), line.to_batch().unwrap());
        assert_eq!(format!("{read:?}"), format!("{batch:?}"));
        assert_eq!(read.len(), 4);
    }

    #[test]
    fn what_is_no_batch_is_refused_with_the_index_of_the_command() {
        for (line, index) in [
            ("", None),
            ("[]", None),
            (r#"["A",[]]"#, None),
            (r#"{"commands":[],"extra":1}"#, None),
            (r#"{"at":"A"}"#, None),
            (r#"{"at":"A\\\\B","commands":[]}"#, None),
            (
                r#"{"commands":[{"command":"control","value":1},{"command":"control","value":3}]}"#,
                Some(1),
            ),
            (r#"{"commands":[{"command":"create_key","key":"a\\"}]}"#, Some(0)),
        ] {
            let failed = match line.parse::<BatchLine>().and_then(|line| line.to_batch()) {
                Ok(batch) => panic!("{line} is {batch:?}"),
                Err(error) => Failed::from(error),
            };
            assert_eq!(failed.index, index, "{line}: {failed:?}");
        }
    }

    #[test]
    fn a_reply_is_read_back_from_its_line() {
        let failed = Failed {
            error: "limit".into(),
            message: "too \"large\"\n".into(),
            index: Some(2),
        };
        for (reply, line) in [
            (
                Reply::Committed(Committed { sequence: Some(7) }),
                r#"{"sequence":7}"#,
            ),
            (Reply::Committed(Committed { sequence: None }), "{}"),
            (
                Reply::Failed(failed),
                r#"{"error":"limit","message":"too \"large\"\n","index":2}"#,
            ),
        ] {
            assert_eq!(reply.to_string(), line);
            assert_eq!(line.parse::<Reply>().unwrap(), reply);
        }
        for line in [
            "",
            "[]",
            "7",
            r#"{"sequence":"7"}"#,
            r#"{"error":"limit"}"#,
            r#"{"x":1}"#,
        ] {
            assert!(line.parse::<Reply>().is_err(), "{line}");
        }
    }
}
