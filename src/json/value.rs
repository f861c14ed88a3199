//! Types and values in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::JsonError;
use crate::model::{Content, Value, ValueRef, ValueType};

/// The name of a type, or the number of one without a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum TypeJson {
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
    fn to_type(&self) -> Result<ValueType, JsonError> {
        match self {
            TypeJson::Number(number) => Ok(ValueType(*number)),
            TypeJson::Name(name) => ValueType::from_name(name).ok_or_else(|| {
                JsonError::malformed(format!(
                    "{name:?} is not the name of a type: use a name or a number"
                ))
            }),
        }
    }
}

/// Type and data, as they are shown. Reading them back gives the same bytes.
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
pub(super) enum DataJson {
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

/// Reads type and data back: the same bytes that were shown.
pub(super) fn to_value(
    value_type: &TypeJson,
    data: Option<&DataJson>,
    data_base64: Option<&str>,
) -> Result<Value, JsonError> {
    let value_type = value_type.to_type()?;
    let mismatch = |wanted: &str| JsonError::malformed(format!("{value_type} takes {wanted}"));
    match (data, data_base64) {
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64);
            let bytes = bytes.map_err(|error| JsonError::malformed(format!("data_base64: {error}")))?;
            Ok(Value::new(value_type, bytes))
        }
        (Some(data), None) => match (value_type, data) {
            (ValueType::SZ, DataJson::Text(text)) if !text.contains('\0') => Ok(Value::sz(text)),
            (ValueType::EXPAND_SZ, DataJson::Text(text)) if !text.contains('\0') => {
                Ok(Value::expand_sz(text))
            }
            (ValueType::MULTI_SZ, DataJson::Strings(strings))
                if strings
                    .iter()
                    .all(|text| !text.is_empty() && !text.contains('\0')) =>
            {
                Ok(Value::multi_sz(strings))
            }
            (_, DataJson::Integer(number)) => {
                Value::integer(value_type, *number).ok_or_else(|| mismatch("an integer of its size"))
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let data: Option<DataJson> = json
                .get("data")
                .map(|data| serde_json::from_value(data.clone()).unwrap());
            let base64 = json.get("data_base64").map(|data| data.as_str().unwrap());
            assert_eq!(
                to_value(&value_type, data.as_ref(), base64).unwrap(),
                value,
                "{json}"
            );
        }
    }
}
