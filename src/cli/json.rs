//! The lines that the verbs write, and those that `read` takes. The library has the lines of a batch (`clusdb::json`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clusdb::json::ValueJson;
use clusdb::{BatchView, Change, Entry, ReadBatch, ReadReply, codes};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output::{Line, escape_control};

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
