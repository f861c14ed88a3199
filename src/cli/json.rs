//! The JSON face: values, changes and commands as the contract of the command line has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clusdb::{
    Batch, BatchView, Change, Content, Control, Entry, ReadBatch, ReadReply, Value, ValueRef, ValueType,
    codes,
};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output::{Line, escape_control};

/// The name of a type, or the number of one without a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TypeJson {
    Name(String),
    Number(u32),
}

impl From<ValueType> for TypeJson {
    fn from(value_type: ValueType) -> TypeJson {
        match value_type.name() {
            Some(name) => TypeJson::Name(name.to_owned()),
            None => TypeJson::Number(value_type.0),
        }
    }
}

impl TypeJson {
    fn to_type(&self) -> Result<ValueType, Failure> {
        match self {
            TypeJson::Number(number) => Ok(ValueType(*number)),
            TypeJson::Name(name) => ValueType::from_name(name).ok_or_else(|| {
                Failure::usage(
                    "json",
                    format!("{name:?} is not the name of a type: use a name or a number"),
                )
            }),
        }
    }
}

/// Type and data.
#[derive(Debug, Serialize)]
pub struct ValueJson {
    #[serde(rename = "type")]
    value_type: TypeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum DataJson {
    Integer(u64),
    Text(String),
    Strings(Vec<String>),
}

impl From<ValueRef<'_>> for ValueJson {
    fn from(value: ValueRef<'_>) -> ValueJson {
        let (data, data_base64) = match value.content() {
            Content::Text(text) => (Some(DataJson::Text(text)), None),
            Content::Strings(strings) => (Some(DataJson::Strings(strings)), None),
            Content::Integer(number) => (Some(DataJson::Integer(number)), None),
            Content::Bytes(bytes) => (None, Some(STANDARD.encode(bytes))),
        };
        ValueJson {
            value_type: value.value_type.into(),
            data,
            data_base64,
        }
    }
}

/// One change, as `watch` and `log` show it. A dry run has no sequence number and no time.
#[derive(Debug, Serialize)]
pub struct ChangeJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    command: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    value: Option<ValueJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<ValueJson>,
    changed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    plain: bool,
    /// For people.
    #[serde(skip)]
    text: String,
}

impl<'a> From<Change<'a>> for ChangeJson<'a> {
    fn from(change: Change<'a>) -> ChangeJson<'a> {
        ChangeJson {
            sequence: None,
            time: None,
            command: change.kind().name(),
            key: change.key(),
            name: change.name(),
            value: change.value().map(ValueJson::from),
            previous: change.previous().map(ValueJson::from),
            changed: change.changed(),
            plain: false,
            text: change.to_string(),
        }
    }
}

impl<'a> ChangeJson<'a> {
    /// As a change of this batch, committed at this time.
    pub fn in_batch(self, batch: &BatchView<'_>, time: &'a str) -> ChangeJson<'a> {
        ChangeJson {
            sequence: Some(batch.sequence()),
            time: Some(time),
            plain: batch.is_plain(),
            ..self
        }
    }
}

impl Line for ChangeJson<'_> {
    fn text(&self) -> String {
        let plain = if self.plain { " (plain)" } else { "" };
        match (&self.sequence, &self.time) {
            (Some(sequence), Some(time)) => format!("{sequence} {time} {}{plain}", self.text),
            _ => self.text.clone(),
        }
    }
}

/// One batch as the protocol's bytes, as `watch --wire` shows it.
#[derive(Debug, Serialize)]
pub struct WireJson {
    sequence: u64,
    time: String,
    wire_base64: String,
}

impl WireJson {
    pub fn new(sequence: u64, time: String, wire: &[u8]) -> WireJson {
        WireJson {
            sequence,
            time,
            wire_base64: STANDARD.encode(wire),
        }
    }
}

impl Line for WireJson {
    fn text(&self) -> String {
        format!("{} {} {}", self.sequence, self.time, self.wire_base64)
    }
}

/// A value with its place, as `get` shows it.
#[derive(Debug, Serialize)]
pub struct EntryJson<'a> {
    /// Which of the two it is; `ls` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    value: Option<ValueJson>,
    #[serde(skip)]
    text: String,
}

impl<'a> EntryJson<'a> {
    /// As `get` shows it.
    pub fn alone(entry: &'a Entry) -> EntryJson<'a> {
        let text = match entry {
            Entry::Value { value, .. } => value.as_ref().to_string(),
            Entry::Key { .. } => String::new(),
        };
        EntryJson {
            kind: None,
            text,
            ..EntryJson::listed(entry)
        }
    }

    /// As `ls` shows it.
    pub fn listed(entry: &'a Entry) -> EntryJson<'a> {
        match entry {
            Entry::Key { path } => EntryJson {
                kind: Some("key"),
                key: path,
                name: None,
                value: None,
                text: escape_control(path),
            },
            Entry::Value { key, name, value } => EntryJson {
                kind: Some("value"),
                key,
                name: Some(name),
                value: Some(value.as_ref().into()),
                text: format!("    \"{}\" = {}", escape_control(name), value.as_ref()),
            },
        }
    }
}

impl Line for EntryJson<'_> {
    fn text(&self) -> String {
        self.text.clone()
    }
}

/// One value to read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadJson {
    key: String,
    name: String,
}

/// Adds the read on this line to the batch.
pub fn add_read(batch: &mut ReadBatch, line: &str) -> Result<(), Failure> {
    let read: ReadJson =
        serde_json::from_str(line).map_err(|error| Failure::usage("json", error.to_string()))?;
    batch.add(&read.key, &read.name)?;
    Ok(())
}

/// The reply to one read: the value, or the registry's code for what is not there.
#[derive(Debug, Serialize)]
pub struct ReplyJson<'a> {
    key: &'a str,
    name: &'a str,
    #[serde(flatten)]
    value: Option<ValueJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    /// For people.
    #[serde(skip)]
    text: String,
}

impl<'a> From<&'a ReadReply> for ReplyJson<'a> {
    fn from(reply: &'a ReadReply) -> ReplyJson<'a> {
        let found = reply.value.as_ref().map(|value| value.as_ref().to_string());
        let found = found.unwrap_or_else(|| "not found".to_owned());
        ReplyJson {
            key: &reply.key,
            name: &reply.name,
            value: reply.value.as_ref().map(|value| value.as_ref().into()),
            code: reply.value.is_none().then_some(codes::ERROR_FILE_NOT_FOUND),
            text: format!(
                "{} \"{}\" = {found}",
                escape_control(&reply.key),
                escape_control(&reply.name)
            ),
        }
    }
}

impl Line for ReplyJson<'_> {
    fn text(&self) -> String {
        self.text.clone()
    }
}

/// One command of a batch.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum CommandJson {
    SetValue {
        name: String,
        #[serde(rename = "type")]
        value_type: TypeJson,
        data: Option<DataJson>,
        data_base64: Option<String>,
    },
    CreateKey {
        key: String,
    },
    DeleteKey {
        key: String,
    },
    DeleteValue {
        name: String,
    },
    Control {
        value: u32,
    },
    ConditionExists {
        name: String,
    },
    ConditionNotExists {
        name: String,
    },
    ConditionIsEqual(ComparedJson),
    ConditionIsNotEqual(ComparedJson),
    ConditionIsGreaterThan(ComparedJson),
    ConditionIsLessThan(ComparedJson),
    ConditionKeyExists {
        key: String,
    },
    ConditionKeyNotExists {
        key: String,
    },
}

/// What a condition compares a value with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComparedJson {
    name: String,
    #[serde(rename = "type")]
    value_type: TypeJson,
    data: Option<DataJson>,
    data_base64: Option<String>,
}

impl ComparedJson {
    fn into_value(self) -> Result<(String, Value), Failure> {
        Ok((
            self.name,
            to_value(&self.value_type, self.data, self.data_base64)?,
        ))
    }
}

/// Adds the command on this line to the batch.
pub fn add_command(batch: &mut Batch, line: &str) -> Result<(), Failure> {
    let command: CommandJson =
        serde_json::from_str(line).map_err(|error| Failure::usage("json", error.to_string()))?;
    match command {
        CommandJson::SetValue {
            name,
            value_type,
            data,
            data_base64,
        } => batch.set_value(&name, to_value(&value_type, data, data_base64)?)?,
        CommandJson::CreateKey { key } => batch.create_key(&key)?,
        CommandJson::DeleteKey { key } => batch.delete_key(&key)?,
        CommandJson::DeleteValue { name } => batch.delete_value(&name)?,
        CommandJson::Control { value: 1 } => batch.control(Control::Synchronous),
        CommandJson::Control { value: 2 } => batch.control(Control::Isolated),
        CommandJson::Control { value } => {
            let message = format!("a control command is 1 or 2, not {value}");
            return Err(Failure::usage("json", message));
        }
        CommandJson::ConditionExists { name } => batch.condition_exists(&name)?,
        CommandJson::ConditionNotExists { name } => batch.condition_not_exists(&name)?,
        CommandJson::ConditionIsEqual(compared) => {
            let (name, value) = compared.into_value()?;
            batch.condition_is_equal(&name, value)?
        }
        CommandJson::ConditionIsNotEqual(compared) => {
            let (name, value) = compared.into_value()?;
            batch.condition_is_not_equal(&name, value)?
        }
        CommandJson::ConditionIsGreaterThan(compared) => {
            let (name, value) = compared.into_value()?;
            batch.condition_is_greater_than(&name, value)?
        }
        CommandJson::ConditionIsLessThan(compared) => {
            let (name, value) = compared.into_value()?;
            batch.condition_is_less_than(&name, value)?
        }
        CommandJson::ConditionKeyExists { key } => batch.condition_key_exists(&key)?,
        CommandJson::ConditionKeyNotExists { key } => batch.condition_key_not_exists(&key)?,
    };
    Ok(())
}

/// Reads type and data back: the same bytes that were shown.
fn to_value(
    value_type: &TypeJson,
    data: Option<DataJson>,
    data_base64: Option<String>,
) -> Result<Value, Failure> {
    let value_type = value_type.to_type()?;
    let mismatch = |wanted: &str| Failure::usage("json", format!("{value_type} takes {wanted}"));
    match (data, data_base64) {
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64);
            let bytes = bytes.map_err(|error| Failure::usage("json", format!("data_base64: {error}")))?;
            Ok(Value::new(value_type, bytes))
        }
        (Some(data), None) => match (value_type, data) {
            (ValueType::SZ, DataJson::Text(text)) if !text.contains('\0') => Ok(Value::sz(&text)),
            (ValueType::EXPAND_SZ, DataJson::Text(text)) if !text.contains('\0') => {
                Ok(Value::expand_sz(&text))
            }
            (ValueType::MULTI_SZ, DataJson::Strings(strings))
                if strings
                    .iter()
                    .all(|text| !text.is_empty() && !text.contains('\0')) =>
            {
                Ok(Value::multi_sz(&strings))
            }
            (_, DataJson::Integer(number)) => {
                integer(value_type, number).ok_or_else(|| mismatch("an integer of its size"))
            }
            (ValueType::SZ | ValueType::EXPAND_SZ, _) => Err(mismatch("data of text without NUL")),
            (ValueType::MULTI_SZ, _) => Err(mismatch(
                "data of strings that are not empty and have no NUL, or data_base64",
            )),
            _ => Err(mismatch("data_base64")),
        },
        _ => Err(mismatch("either data or data_base64")),
    }
}

/// An integer of this type, if it is an integer type and the number fits.
pub fn integer(value_type: ValueType, number: u64) -> Option<Value> {
    match value_type {
        ValueType::DWORD => number.try_into().ok().map(Value::dword),
        ValueType::DWORD_BIG_ENDIAN => number.try_into().ok().map(Value::dword_big_endian),
        ValueType::QWORD => Some(Value::qword(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clusdb::KeyPath;

    /// The contract: reading JSON back gives the same bytes.
    #[test]
    fn every_value_reads_back_as_the_same_bytes() {
        let values = [
            Value::sz("text"),
            Value::sz(""),
            Value::new(ValueType::SZ, *b"a\0"),
            Value::new(ValueType::SZ, *b"\0\0\0\0"),
            Value::new(ValueType::SZ, *b"\x00\xd8\0\0"),
            Value::expand_sz("%PATH%"),
            Value::multi_sz(&["a", "b"]),
            Value::multi_sz::<&str>(&[]),
            Value::new(ValueType::MULTI_SZ, *b""),
            Value::multi_sz(&[""]),
            Value::dword(u32::MAX),
            Value::dword_big_endian(258),
            Value::qword(u64::MAX),
            Value::new(ValueType::DWORD, *b"abc"),
            Value::binary(*b"\x00\xff"),
            Value::new(ValueType::NONE, *b""),
            Value::new(ValueType::LINK, *b"a\0"),
            Value::new(ValueType(4_000_000_000), *b"x"),
        ];
        for value in values {
            let json = serde_json::to_value(ValueJson::from(value.as_ref())).unwrap();
            let value_type: TypeJson = serde_json::from_value(json["type"].clone()).unwrap();
            let data = json
                .get("data")
                .map(|data| serde_json::from_value(data.clone()).unwrap());
            let base64 = json
                .get("data_base64")
                .map(|data| data.as_str().unwrap().to_owned());
            assert_eq!(to_value(&value_type, data, base64).unwrap(), value, "{json}");
        }
    }

    #[test]
    fn a_malformed_command_is_refused_and_adds_nothing() {
        let mut batch = Batch::at(&KeyPath::root());
        for line in [
            "",
            "{}",
            "[]",
            r#"{"command":"set_value","name":"a","type":"sz"}"#,
            r#"{"command":"set_value","name":"a","type":"sz","data":1}"#,
            r#"{"command":"set_value","name":"a","type":"dword","data":4294967296}"#,
            r#"{"command":"set_value","name":"a","type":"dword","data":-1}"#,
            r#"{"command":"set_value","name":"a","type":"word","data":1}"#,
            r#"{"command":"set_value","name":"a","type":"binary","data":"00"}"#,
            r#"{"command":"set_value","name":"a","type":"binary","data_base64":"?"}"#,
            r#"{"command":"set_value","name":"a","type":"sz","data":"a","data_base64":"YQ=="}"#,
            r#"{"command":"set_value","name":"a","type":"multi_sz","data":[""]}"#,
            r#"{"command":"create_key","key":"a","extra":1}"#,
            r#"{"command":"create_key","key":"a\\"}"#,
            r#"{"command":"create_key","key":"a","key":"b"}"#,
            r#"{"command":"rename_key","key":"a"}"#,
            r#"{"command":"delete_key","key":"a"} x"#,
        ] {
            assert!(add_command(&mut batch, line).is_err(), "{line}");
        }
        assert!(batch.is_empty());
    }
}
