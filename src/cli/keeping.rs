//! The verbs that keep a store: `snapshot` and `trim`. A program that has the store open does it by itself.

use serde::Serialize;

use crate::failure::Result;
use crate::output::Line;
use crate::session::Session;

#[derive(Debug, Serialize)]
struct SnapshotJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl Line for SnapshotJson {
    fn text(&self) -> String {
        match self.sequence {
            Some(sequence) => format!("snapshot of the state after the record {sequence}"),
            None => "nothing to make a snapshot of".into(),
        }
    }
}

pub fn snapshot(session: &Session) -> Result {
    let store = session.open_existing()?;
    let sequence = store.snapshot()?;
    store.close()?;
    session.output().one(&SnapshotJson { sequence })
}

#[derive(Debug, Serialize)]
struct TrimJson {
    segments: u64,
    bytes: u64,
    first_sequence: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lagging: Vec<String>,
}

impl Line for TrimJson {
    fn text(&self) -> String {
        let lagging: String = self
            .lagging
            .iter()
            .map(|name| format!("\nthe port {name} was left behind"))
            .collect();
        format!(
            "{} segments, {} bytes are gone; the journal begins with the record {}{lagging}",
            self.segments, self.bytes, self.first_sequence
        )
    }
}

pub fn trim(session: &Session) -> Result {
    let store = session.open_existing()?;
    let trimmed = store.trim()?;
    store.close()?;
    session.output().one(&TrimJson {
        segments: trimmed.segments,
        bytes: trimmed.bytes,
        first_sequence: trimmed.oldest,
        lagging: trimmed.lagging,
    })
}
