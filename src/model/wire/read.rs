//! A read batch and its replies as the protocol's bytes.

use super::{Decoder, Encoder, READ_ERROR, READ_KEY, READ_VALUE, WireError, WireProblem};
use crate::model::key::KeyPath;
use crate::model::read::{ReadBatch, ReadCommand, ReadReply};
use crate::model::value::{Value, ValueType};
use crate::model::value_name::ValueName;

/// The code of a value that does not exist (specification, section 4).
const ERROR_FILE_NOT_FOUND: u32 = 2;

impl ReadBatch {
    /// The read batch that these bytes are, on this key: READ_KEY makes its path the current key, READ_VALUE reads a value
    /// there; at first the current key is the batch's own.
    ///
    /// # Errors
    /// The first place that is not as the protocol has it, or a path or a name that cannot be.
    pub fn from_wire(key: &KeyPath, bytes: &[u8]) -> Result<ReadBatch, WireError> {
        let mut decoder = Decoder::new(bytes)?;
        let mut batch = ReadBatch::at(key);
        while let Some(command) = decoder.next()? {
            let add = match command.number {
                READ_KEY => ReadBatch::key,
                READ_VALUE => ReadBatch::value,
                _ => return Err(command.misplaced("a read batch")),
            };
            command.without_value()?;
            add(&mut batch, &command.name).map_err(|error| command.refused(error))?;
        }
        Ok(batch)
    }

    /// The read batch as the protocol's bytes. Its key is not part of them.
    ///
    /// # Errors
    /// None in practice: names are short.
    pub fn to_wire(&self) -> Result<Vec<u8>, WireError> {
        let mut encoder = Encoder::new();
        for command in self.commands() {
            match command {
                ReadCommand::Key { relative, .. } => encoder.command(READ_KEY, 0, relative.as_str(), &[])?,
                ReadCommand::Value(name) => encoder.command(READ_VALUE, 0, &name.text, &[])?,
            }
        }
        Ok(encoder.bytes)
    }
}

/// The reply to one READ_VALUE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireReply {
    /// The value's name.
    pub name: String,
    /// The value, or the code of why there is none (READ_ERROR).
    pub result: Result<Value, u32>,
}

impl From<&ReadReply> for WireReply {
    fn from(reply: &ReadReply) -> WireReply {
        WireReply {
            name: reply.name.to_string(),
            result: reply.value.clone().ok_or(ERROR_FILE_NOT_FOUND),
        }
    }
}

/// Replies as the protocol's bytes: one READ_VALUE or READ_ERROR each, in order.
///
/// # Errors
/// Data of 4 GiB or more, and a READ_ERROR whose code is 0.
pub fn encode_replies(replies: &[WireReply]) -> Result<Vec<u8>, WireError> {
    let mut encoder = Encoder::new();
    for reply in replies {
        match &reply.result {
            Ok(value) => encoder.command(READ_VALUE, value.value_type().0, &reply.name, value.data())?,
            Err(0) => return Err(encoder.problem(WireProblem::NoError)),
            Err(code) => encoder.command(READ_ERROR, *code, &reply.name, &[])?,
        }
    }
    Ok(encoder.bytes)
}

/// The replies that these bytes are.
///
/// # Errors
/// The first place that is not as the protocol has it, or a name that cannot be.
pub fn decode_replies(bytes: &[u8]) -> Result<Vec<WireReply>, WireError> {
    let mut decoder = Decoder::new(bytes)?;
    let mut replies = Vec::new();
    while let Some(command) = decoder.next()? {
        let result = match command.number {
            READ_VALUE => Ok(Value::new(ValueType(command.value_type), command.data)),
            READ_ERROR => {
                command.without_data()?;
                if command.value_type == 0 {
                    return Err(command.problem(WireProblem::NoError));
                }
                Err(command.value_type)
            }
            _ => return Err(command.misplaced("replies")),
        };
        ValueName::parse(&command.name).map_err(|error| command.refused(error))?;
        replies.push(WireReply {
            name: command.name,
            result,
        });
    }
    Ok(replies)
}
