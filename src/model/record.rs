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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{State, Value};

    fn sample() -> Record {
        let (old, new) = (Value::dword(1), Value::sz("x"));
        let mut record = Record::new();
        record.push_key(CommandKind::CreateKey, "A\\B", true);
        record.push_set_value("A\\B", "v", new.as_ref(), Some(old.as_ref()));
        record.push_delete_value("A", "", None);
        record.push_key(CommandKind::DeleteKey, "A\\B", true);
        record
    }

    #[test]
    fn a_run_holds_consecutive_changes_of_one_key_and_is_never_merged_with_a_later_one() {
        let record = sample();
        let view = record.view();
        let runs: Vec<_> = view.runs().map(|run| (run.key, run.changes().count())).collect();
        assert_eq!(runs, [("A\\B", 2), ("A", 1), ("A\\B", 1)]);
        assert_eq!(view.len(), 4);
        let kinds: Vec<_> = view.changes().map(|change| change.kind() as u8).collect();
        assert_eq!(kinds, [2, 1, 4, 3]);
    }

    /// The layout of `docs/format.md`, written by hand.
    #[test]
    fn a_record_has_the_documented_bytes() {
        let value = Value::dword(7);
        let mut record = Record::new();
        record.push_set_value("K", "n", value.as_ref(), None);
        let expected = [
            &[1, 0, 0, 0, 1, 0, 0, 0][..],         // one run, one change
            &[0],                                  // nothing acknowledged
            &[1, 0, 0, 0, 0, 0, 0, 0, b'K'],       // the run's key
            &[1, 0, 0, 0, 29, 0, 0, 0],            // its changes and their bytes
            &[1, 1],                               // SET_VALUE, changed
            &[1, 0, 0, 0, 0, 0, 0, 0, b'n'],       // the value's name
            &[1, 4, 0, 0, 0],                      // a value, DWORD
            &[4, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0], // its data
            &[0],                                  // nothing before
        ]
        .concat();
        assert_eq!(record.payload(), expected);
    }

    #[test]
    fn a_record_may_acknowledge_and_change_nothing() {
        let acknowledgement = Acknowledgement {
            port_id: [9; 16],
            sequence: 258,
        };
        let record = Record::with_capacity(0, Some(acknowledgement));
        let expected = [&[0; 8][..], &[1], &[9; 16], &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(record.payload(), expected);
        let view = RecordView::verify(record.payload()).unwrap();
        assert_eq!(view.acknowledgement(), Some(acknowledgement));
        assert!(!view.is_empty());
        assert_eq!((view.len(), view.changes().count()), (0, 0));
        assert!(Record::new().view().is_empty());
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_refused_or_walks_without_failing() {
        let payload = sample().payload().to_vec();
        for cut in 0..payload.len() {
            assert!(RecordView::verify(&payload[..cut]).is_err(), "cut at {cut}");
        }
        for offset in 0..payload.len() {
            for bit in 0..8 {
                let mut flipped = payload.clone();
                flipped[offset] ^= 1 << bit;
                if let Ok(view) = RecordView::verify(&flipped) {
                    assert_eq!(view.changes().count(), view.len());
                }
            }
        }
    }

    /// No batch makes such a record; a state that applied it would lose its root, or keys that nothing leads to.
    #[test]
    fn a_record_of_a_path_that_cannot_be_or_that_deletes_the_root_is_refused() {
        for key in ["\\", "A\\", "A\\\\B", "A\0"] {
            let mut record = Record::new();
            record.push_key(CommandKind::CreateKey, key, true);
            let error = RecordView::verify(record.payload()).unwrap_err();
            assert_eq!(error.expected, "a run of a key with a valid path", "{key:?}");
        }
        for (kind, is_valid) in [(CommandKind::CreateKey, true), (CommandKind::DeleteKey, false)] {
            let mut record = Record::new();
            record.push_key(kind, "", false);
            assert_eq!(RecordView::verify(record.payload()).is_ok(), is_valid, "{kind:?}");
        }
    }

    /// No batch makes such a record either: the second change says that the value is there, and the first, that it is not.
    #[test]
    fn a_record_that_contradicts_itself_is_applied_again_without_a_difference() {
        let value = Value::dword(7);
        let mut record = Record::new();
        record.push_delete_value("", "v", None);
        record.push_set_value("", "v", value.as_ref(), Some(value.as_ref()));
        let view = RecordView::verify(record.payload()).unwrap();
        let mut once = State::new();
        once.apply(view, 1);
        let mut twice = once.clone();
        twice.apply(view, 1);
        assert_eq!((&twice, twice.digest()), (&once, once.digest()));
    }

    #[test]
    fn a_record_that_sets_another_value_and_says_that_nothing_changed_is_refused() {
        let (old, new) = (Value::dword(1), Value::dword(2));
        for (previous, changed) in [(None, false), (Some(&old), false)] {
            let mut record = Record::new();
            record.push(Change {
                kind: CommandKind::SetValue,
                key: "K",
                name: "v",
                value: Some(new.as_ref()),
                previous: previous.map(Value::as_ref),
                changed,
            });
            assert!(
                RecordView::verify(record.payload()).is_err(),
                "{previous:?}, {changed}"
            );
        }
    }

    fn by_bincode<'a, T: BorrowDecode<'a, ()>>(bytes: &mut &'a [u8]) -> Option<T> {
        let (value, length) = bincode::borrow_decode_from_slice(bytes, ENCODING).ok()?;
        *bytes = bytes.get(length..)?;
        Some(value)
    }

    fn change_by_bincode<'a>(key: &'a str, bytes: &mut &'a [u8]) -> Option<Change<'a>> {
        let encoded: ChangeBytes<'a> = by_bincode(bytes)?;
        let value = |value: ValueBytes<'a>| ValueRef {
            value_type: crate::model::ValueType(value.value_type),
            data: value.data,
        };
        Some(Change {
            kind: CommandKind::from_recorded(encoded.command)?,
            key,
            name: encoded.name,
            value: encoded.value.map(value),
            previous: encoded.previous.map(value),
            changed: encoded.changed,
        })
    }

    /// A record part by part, by hand and by bincode, for as long as they go.
    fn decode_both_ways(bytes: &[u8]) {
        let (mut by_hand, mut reference) = (Decoder::new(bytes), bytes);
        let head = by_hand.record_head();
        let head = head.map(|head| (head.runs, head.changes, head.acknowledgement));
        let expected = by_bincode::<HeadBytes>(&mut reference).map(|head| {
            let acknowledged = head.acknowledgement.map(|own| (own.port_id, own.sequence));
            (head.runs, head.changes, acknowledged)
        });
        assert_eq!(head, expected);
        while head.is_some() {
            let run = by_hand.run_head().map(|run| (run.key, run.changes, run.bytes));
            let expected = by_bincode::<RunBytes<'_>>(&mut reference);
            assert_eq!(run, expected.map(|run| (run.key, run.changes, run.bytes)));
            let Some((key, changes, _)) = run else { return };
            for _ in 0..changes {
                let change = by_hand.change().and_then(|change| change.of_key(key));
                assert_eq!(change, change_by_bincode(key, &mut reference));
                if change.is_none() {
                    return;
                }
            }
            assert_eq!(by_hand.rest, reference);
        }
    }

    #[test]
    fn a_record_is_decoded_as_bincode_does_it_cut_and_with_each_bit_flipped() {
        let (old, new) = (Value::binary(*b"old"), Value::sz("new"));
        let acknowledgement = Acknowledgement {
            port_id: [9; 16],
            sequence: 258,
        };
        for acknowledgement in [None, Some(acknowledgement)] {
            let mut record = Record::with_capacity(0, acknowledgement);
            record.push_set_value("K\\ß", "ß and n", new.as_ref(), Some(old.as_ref()));
            record.push_set_value("K\\ß", "", old.as_ref(), None);
            record.push_delete_value("K", "n", Some(new.as_ref()));
            record.push_key(CommandKind::DeleteKey, "K", true);
            let payload = record.payload();
            for cut in 0..=payload.len() {
                decode_both_ways(&payload[..cut]);
            }
            for at in 0..payload.len() {
                for bit in 0..8 {
                    let mut flipped = payload.to_vec();
                    flipped[at] ^= 1 << bit;
                    decode_both_ways(&flipped);
                }
            }
        }
    }

    #[test]
    fn a_malformed_record_names_the_offset_and_what_should_stand_there() {
        let mut payload = sample().payload().to_vec();
        payload.push(0);
        let error = RecordView::verify(&payload).unwrap_err();
        assert_eq!(error.offset, payload.len() - 1);
        assert_eq!(error.expected, "the end of the record");
    }
}
