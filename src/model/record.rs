//! The record of one committed batch: what happened, resolved, in command order, and what a port has acknowledged with it.
//!
//! A record is its own encoding. It is built once, by `evaluate`, and the same bytes are appended to the journal,
//! applied to the state, replayed when a store opens, and walked by a notification. `docs/format.md` has the layout.
//! This module is the only one that knows of bincode; `decode.rs` reads what it writes.

#[cfg(test)]
use bincode::BorrowDecode;
use bincode::Encode;
use bincode::config::{Configuration, Fixint, Limit as DecodeLimit, LittleEndian};

use super::batch::{Acknowledgement, Batch};
use super::change::{Change, CommandKind};
use super::decode::{Decoder, RecordHead};
use super::error::MalformedRecord;
use super::key::is_path;
use super::value::ValueRef;

/// No record is larger than this, whatever the options of a store allow: 1 GiB.
pub const MAX_RECORD_BYTES: u64 = 1 << 30;

type Encoding = Configuration<LittleEndian, Fixint, DecodeLimit<{ MAX_RECORD_BYTES as usize }>>;

const ENCODING: Encoding = bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding()
    .with_limit::<{ MAX_RECORD_BYTES as usize }>();

#[derive(Encode)]
#[cfg_attr(test, derive(BorrowDecode))]
struct HeadBytes {
    runs: u32,
    changes: u32,
    acknowledgement: Option<AcknowledgementBytes>,
}

#[derive(Encode)]
#[cfg_attr(test, derive(BorrowDecode))]
struct AcknowledgementBytes {
    port_id: [u8; 16],
    sequence: u64,
}

#[derive(Encode)]
#[cfg_attr(test, derive(BorrowDecode))]
struct RunBytes<'a> {
    key: &'a str,
    changes: u32,
    /// Length of the run's changes, so that a reader can pass over them without decoding.
    bytes: u32,
}

#[derive(Encode)]
#[cfg_attr(test, derive(BorrowDecode))]
struct ValueBytes<'a> {
    value_type: u32,
    data: &'a [u8],
}

#[derive(Encode)]
#[cfg_attr(test, derive(BorrowDecode))]
struct ChangeBytes<'a> {
    command: u8,
    changed: bool,
    name: &'a str,
    value: Option<ValueBytes<'a>>,
    previous: Option<ValueBytes<'a>>,
}

/// A change takes about so many bytes beside its name and its data.
const CHANGE_BYTES: usize = 40;
/// A record grows beyond this as it needs to.
const MAX_CAPACITY_BYTES: usize = 4 << 20;
/// Copying as much costs as much as a change.
pub(super) const COST_BYTES: usize = 4 << 10;
/// The two counters at the end of a run's head are written when the run ends.
const RUN_COUNTERS_BYTES: usize = 8;

/// A record under construction, and when it is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    payload: Vec<u8>,
    head: Counters,
    /// Where the last run begins, and how many changes it has.
    last_run: Option<LastRun>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counters {
    runs: u32,
    changes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LastRun {
    key: Box<str>,
    changes_at: usize,
    changes: u32,
}

impl Record {
    #[cfg(test)]
    pub(crate) fn new() -> Record {
        Record::with_capacity(0, None)
    }

    /// An empty record with room for what the batch sets, and as much again for what was there before.
    pub(crate) fn for_batch(batch: &Batch) -> Record {
        let bytes = 2 * batch.data_bytes() + CHANGE_BYTES * batch.len();
        // A guess, and no reason to set aside more than a record may have: a batch can hold one value a thousand times.
        let bytes = bytes.min(MAX_CAPACITY_BYTES);
        Record::with_capacity(bytes, batch.acknowledgement())
    }

    pub(crate) fn with_capacity(bytes: usize, acknowledgement: Option<Acknowledgement>) -> Record {
        let mut payload = Vec::with_capacity(bytes);
        let head = HeadBytes {
            runs: 0,
            changes: 0,
            acknowledgement: acknowledgement.map(|acknowledged| AcknowledgementBytes {
                port_id: acknowledged.port_id,
                sequence: acknowledged.sequence,
            }),
        };
        encode(&head, &mut payload);
        Record {
            payload,
            head: Counters::default(),
            last_run: None,
        }
    }

    pub(crate) fn push_key(&mut self, kind: CommandKind, key: &str, changed: bool) {
        self.push(Change {
            kind,
            key,
            name: "",
            value: None,
            previous: None,
            changed,
        });
    }

    pub(crate) fn push_set_value(
        &mut self,
        key: &str,
        name: &str,
        value: ValueRef<'_>,
        previous: Option<ValueRef<'_>>,
    ) {
        self.push(Change {
            kind: CommandKind::SetValue,
            key,
            name,
            value: Some(value),
            previous,
            changed: previous != Some(value),
        });
    }

    pub(crate) fn push_delete_value(&mut self, key: &str, name: &str, previous: Option<ValueRef<'_>>) {
        self.push(Change {
            kind: CommandKind::DeleteValue,
            key,
            name,
            value: None,
            previous,
            changed: previous.is_some(),
        });
    }

    fn push(&mut self, change: Change<'_>) {
        if self.last_run.as_ref().is_none_or(|run| *run.key != *change.key) {
            let head = RunBytes {
                key: change.key,
                changes: 0,
                bytes: 0,
            };
            encode(&head, &mut self.payload);
            self.head.runs += 1;
            self.last_run = Some(LastRun {
                key: change.key.into(),
                changes_at: self.payload.len(),
                changes: 0,
            });
        }
        let encoded = ChangeBytes {
            command: change.kind as u8,
            changed: change.changed,
            name: change.name,
            value: change.value.map(ValueBytes::from),
            previous: change.previous.map(ValueBytes::from),
        };
        encode(&encoded, &mut self.payload);
        self.head.changes += 1;
        self.write_counters();
    }

    /// Brings the counters in the record's head and in the last run's head up to date.
    fn write_counters(&mut self) {
        self.payload[..4].copy_from_slice(&self.head.runs.to_le_bytes());
        self.payload[4..8].copy_from_slice(&self.head.changes.to_le_bytes());
        if let Some(run) = &mut self.last_run {
            run.changes += 1;
            // Checked against MAX_RECORD_BYTES by `evaluate`, after each command.
            let bytes = (self.payload.len() - run.changes_at) as u32;
            let counters = &mut self.payload[run.changes_at - RUN_COUNTERS_BYTES..run.changes_at];
            counters[..4].copy_from_slice(&run.changes.to_le_bytes());
            counters[4..].copy_from_slice(&bytes.to_le_bytes());
        }
    }

    /// The encoded record, as it stands in the journal.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The record, to walk.
    #[must_use]
    pub fn view(&self) -> RecordView<'_> {
        RecordView {
            payload: &self.payload,
        }
    }
}

impl<'a> From<ValueRef<'a>> for ValueBytes<'a> {
    fn from(value: ValueRef<'a>) -> ValueBytes<'a> {
        ValueBytes {
            value_type: value.value_type.0,
            data: value.data,
        }
    }
}

fn encode<T: Encode>(value: &T, payload: &mut Vec<u8>) {
    // Encoding strings, bytes and integers into memory has no way to fail.
    bincode::encode_into_std_write(value, payload, ENCODING).expect("encoding into memory cannot fail");
}

/// A record whose structure has been verified. Walking it cannot fail and does not allocate.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Verifies the structure of an encoded record, from the first byte to the last.
    ///
    /// # Errors
    /// The first place that is not as `docs/format.md` has it.
    pub fn verify(payload: &'a [u8]) -> Result<RecordView<'a>, MalformedRecord> {
        let mut record = Decoder::new(payload);
        let malformed = |rest: &[u8], expected| MalformedRecord {
            offset: payload.len() - rest.len(),
            expected,
        };
        let head = record
            .record_head()
            .ok_or_else(|| malformed(payload, "a record's head"))?;
        let mut changes: u64 = 0;
        for _ in 0..head.runs {
            let before = record.rest;
            let run = record
                .run_head()
                .ok_or_else(|| malformed(before, "a run's head"))?;
            if !is_path(run.key) {
                return Err(malformed(record.rest, "a run of a key with a valid path"));
            }
            let end = (record.rest.len() as u64).checked_sub(run.bytes.into());
            let Some(end) = end.filter(|_| run.changes > 0) else {
                let expected = "a run of at least one change within the payload";
                return Err(malformed(record.rest, expected));
            };
            for _ in 0..run.changes {
                let before = record.rest;
                match record.change() {
                    Some(change) if change.is_valid(run.key) && record.rest.len() as u64 >= end => {}
                    _ => return Err(malformed(before, "a change")),
                }
            }
            if record.rest.len() as u64 != end {
                return Err(malformed(record.rest, "the end of the run"));
            }
            changes += u64::from(run.changes);
        }
        if !record.rest.is_empty() {
            return Err(malformed(record.rest, "the end of the record"));
        }
        if changes != u64::from(head.changes) {
            return Err(malformed(payload, "as many changes as the runs have"));
        }
        Ok(RecordView { payload })
    }

    /// A payload that [`RecordView::verify`] has accepted before.
    pub(crate) fn verified(payload: &'a [u8]) -> RecordView<'a> {
        RecordView { payload }
    }

    /// The number of changes in the record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head().map_or(0, |head| head.changes as usize)
    }

    /// What applying it costs, in changes of a few kilobytes: large data is copied.
    pub(crate) fn cost(&self) -> usize {
        self.len() + self.payload.len() / COST_BYTES
    }

    /// Whether the record has neither a change nor an acknowledgement; no committed record is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.acknowledgement().is_none()
    }

    /// What a port has acknowledged together with the changes.
    pub(crate) fn acknowledgement(&self) -> Option<Acknowledgement> {
        let (port_id, sequence) = self.head()?.acknowledgement?;
        Some(Acknowledgement { port_id, sequence })
    }

    fn head(&self) -> Option<RecordHead> {
        Decoder::new(self.payload).record_head()
    }

    /// The changes, in command order.
    pub fn changes(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        self.runs().flat_map(|run| run.changes())
    }

    pub(crate) fn runs(&self) -> Runs<'a> {
        let mut record = Decoder::new(self.payload);
        if record.record_head().is_none() {
            record.rest = &[];
        }
        Runs { record }
    }
}

/// The runs of a verified record.
#[derive(Debug, Clone)]
pub(crate) struct Runs<'a> {
    record: Decoder<'a>,
}

/// Consecutive changes of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) key: &'a str,
    encoded: &'a [u8],
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let head = self.record.run_head()?;
        let (encoded, rest) = self.record.rest.split_at_checked(head.bytes as usize)?;
        self.record.rest = rest;
        Some(Run {
            key: head.key,
            encoded,
        })
    }
}

impl<'a> Run<'a> {
    pub(crate) fn changes(self) -> Changes<'a> {
        Changes {
            key: self.key,
            changes: Decoder::new(self.encoded),
        }
    }

    /// Whether it deletes its key.
    pub(crate) fn has_deletion(self) -> bool {
        let mut changes = Decoder::new(self.encoded);
        std::iter::from_fn(|| changes.change()).any(|change| change.kind == CommandKind::DeleteKey)
    }
}

/// The changes of one run.
#[derive(Debug, Clone)]
pub(crate) struct Changes<'a> {
    key: &'a str,
    changes: Decoder<'a>,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    #[inline]
    fn next(&mut self) -> Option<Change<'a>> {
        self.changes.change()?.of_key(self.key)
    }

    #[inline]
    fn fold<B, F: FnMut(B, Change<'a>) -> B>(self, init: B, mut f: F) -> B {
        let Changes { key, mut changes } = self;
        let mut folded = init;
        while let Some(change) = changes.change().and_then(|change| change.of_key(key)) {
            folded = f(folded, change);
        }
        folded
    }
}

#[cfg(test)]
mod tests;
