//! The commands of a batch in JSON.

use serde::{Deserialize, Serialize};

use super::JsonError;
use super::value::{DataJson, TypeJson, to_value};
use crate::model::{Batch, Control, Value};

/// One command of a batch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum CommandJson {
    SetValue(NamedJson),
    CreateKey { key: String },
    DeleteKey { key: String },
    DeleteValue { name: String },
    Control { value: u32 },
    ConditionExists { name: String },
    ConditionNotExists { name: String },
    ConditionIsEqual(NamedJson),
    ConditionIsNotEqual(NamedJson),
    ConditionIsGreaterThan(NamedJson),
    ConditionIsLessThan(NamedJson),
    ConditionKeyExists { key: String },
    ConditionKeyNotExists { key: String },
}

/// A value to set, or to compare with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedJson {
    name: String,
    #[serde(rename = "type")]
    value_type: TypeJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl NamedJson {
    fn value(&self) -> Result<Value, JsonError> {
        to_value(&self.value_type, self.data.as_ref(), self.data_base64.as_deref())
    }
}

impl CommandJson {
    /// Adds the command to the batch, if a batch takes it.
    pub(super) fn add_to(&self, batch: &mut Batch) -> Result<(), JsonError> {
        match self {
            Self::SetValue(set) => batch.set_value(&set.name, set.value()?)?,
            Self::CreateKey { key } => batch.create_key(key)?,
            Self::DeleteKey { key } => batch.delete_key(key)?,
            Self::DeleteValue { name } => batch.delete_value(name)?,
            Self::Control { value: 1 } => batch.control(Control::Synchronous),
            Self::Control { value: 2 } => batch.control(Control::Isolated),
            Self::Control { value } => {
                let message = format!("a control command is 1 or 2, not {value}");
                return Err(JsonError::malformed(message));
            }
            Self::ConditionExists { name } => batch.condition_exists(name)?,
            Self::ConditionNotExists { name } => batch.condition_not_exists(name)?,
            Self::ConditionIsEqual(than) => batch.condition_is_equal(&than.name, than.value()?)?,
            Self::ConditionIsNotEqual(than) => batch.condition_is_not_equal(&than.name, than.value()?)?,
            Self::ConditionIsGreaterThan(than) => {
                batch.condition_is_greater_than(&than.name, than.value()?)?
            }
            Self::ConditionIsLessThan(than) => batch.condition_is_less_than(&than.name, than.value()?)?,
            Self::ConditionKeyExists { key } => batch.condition_key_exists(key)?,
            Self::ConditionKeyNotExists { key } => batch.condition_key_not_exists(key)?,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::json::BatchLine;

    #[test]
    fn a_malformed_command_is_refused() {
        for command in [
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
            r#"{"command":"set_value","name":"a","name":"b","type":"sz","data":"a"}"#,
            r#"{"command":"set_value","name":"a","type":"sz","data":"a","extra":1}"#,
            r#"{"command":"create_key","key":"a","extra":1}"#,
            r#"{"command":"create_key","key":"a\\"}"#,
            r#"{"command":"create_key","key":"a","key":"b"}"#,
            r#"{"command":"rename_key","key":"a"}"#,
            r#"{"command":"delete_key","key":"a"} x"#,
        ] {
            let mut line = BatchLine::default();
            let read = line.add(command).and_then(|()| line.to_batch());
            assert!(read.is_err(), "{command}");
        }
    }
}
