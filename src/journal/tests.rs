//! The journal's crash stories: what a crash or a flipped bit leaves on the disk, and what recovery makes of it.
//!
//! Each test writes a journal, changes its bytes as the story tells, and recovers it.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::epoch::Epoch;
use crate::identity::Identity;
use crate::model::{CommandKind, Record};
use crate::probe::{Op, Probe};

const EPOCH: Epoch = Epoch::from_bytes([7; 16]);
const SEGMENT: &str = "00000000000000000001.segment";

pub(super) struct Fixture {
    pub(super) _folder: tempfile::TempDir,
    pub(super) layout: Layout,
    pub(super) probe: Probe,
    pub(super) identity: Identity,
    pub(super) segment_size_bytes: u64,
}

pub(super) struct Opened {
    /// The key of each record, in order.
    keys: Vec<String>,
    pub(super) journal: Arc<Journal>,
    pub(super) writer: Writer,
    torn_tail: Option<TornTail>,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        Fixture::with_segments_of(1 << 20)
    }

    fn with_segments_of(segment_size_bytes: u64) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let probe = Probe::new();
        std::fs::create_dir(layout.journal()).unwrap();
        create_first_segment(&probe, &layout, EPOCH, segment_size_bytes).unwrap();
        let identity = Identity::new(EPOCH, 0);
        Fixture {
            _folder: folder,
            layout,
            probe,
            identity,
            segment_size_bytes: 1 << 20,
        }
    }

    fn recover(&self, vouchers: Vec<Voucher>, clean_close: Option<Voucher>) -> Result<Opened> {
        self.recover_behind(0, vouchers, clean_close)
    }

    /// Segments that end before `start` are not read.
    pub(super) fn recover_behind(
        &self,
        start: u64,
        vouchers: Vec<Voucher>,
        clean_close: Option<Voucher>,
    ) -> Result<Opened> {
        let mut keys = Vec::new();
        let recovery = Recovery {
            env: &self.probe,
            layout: &self.layout,
            identity: &self.identity,
            vouchers,
            clean_close,
            start,
        };
        let recovered = recovery
            .run(&mut |_, record, _| keys.extend(record.changes().map(|change| change.key().to_owned())))?;
        let torn_tail = recovered.torn_tail.clone();
        let (journal, writer) = Journal::open(
            &self.probe.env(),
            &self.layout,
            recovered,
            self.segment_size_bytes,
        );
        Ok(Opened {
            keys,
            journal,
            writer,
            torn_tail,
        })
    }

    pub(super) fn open(&self) -> Opened {
        self.recover(Vec::new(), None).unwrap()
    }

    fn segment(&self) -> PathBuf {
        self.layout.segment(1)
    }

    fn change_bytes(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.segment()).unwrap();
        change(&mut bytes);
        std::fs::write(self.segment(), bytes).unwrap();
    }
}

/// Appends a group of records, one for each key, and gives the position behind each.
pub(super) fn append(writer: &mut Writer, keys: &[&str]) -> Vec<Position> {
    let records: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut record = Record::new();
            record.push_key(CommandKind::CreateKey, key, true);
            record
        })
        .collect();
    let pending: Vec<_> = records
        .iter()
        .map(|record| Pending {
            kind: FrameKind::Batch,
            request_id: [0; 16],
            payload: record.payload(),
        })
        .collect();
    let first = writer.position().sequence + 1;
    writer.append(&pending, 5).unwrap();
    let last = writer.position().sequence;
    (first..=last)
        .map(|sequence| writer.journal.position_after(sequence).unwrap())
        .collect()
}

fn voucher(position: Position) -> Voucher {
    Voucher {
        by: PathBuf::from("head"),
        epoch: EPOCH,
        sequence: position.sequence,
        checksum: position.checksum,
    }
}

fn damage_of(result: Result<Opened>) -> (PathBuf, u64) {
    match result {
        Err(Error::Damaged { file, offset, .. }) => (file, offset),
        Err(other) => panic!("not damage: {other}"),
        Ok(opened) => panic!("opened with {:?}", opened.keys),
    }
}

/// Crash story 1.
/// Crash story 2, for those who only read: of the last group nobody says that it is durable but its writer.
#[test]
fn the_journal_itself_vouches_for_all_but_its_last_group() {
    let fixture = Fixture::new();
    let mut opened = fixture.open();
    let follow = || Journal::follow(&fixture.probe.env(), &fixture.layout, &fixture.identity).unwrap();
    assert_eq!(follow().vouched_end().unwrap().sequence, 0);
    let first = append(&mut opened.writer, &["A"]);
    append(&mut opened.writer, &["B", "C", "D"]);
    assert_eq!(follow().vouched_end().unwrap(), first[0]);
    append(&mut opened.writer, &["E", "F"]);
    assert_eq!(follow().vouched_end().unwrap().sequence, 4);
    // And it ends before a frame that is no longer valid.
    fixture.change_bytes(|bytes| bytes[first[0].offset as usize + 70] ^= 1);
    assert_eq!(follow().vouched_end().unwrap().sequence, 0);
}

#[test]
fn a_record_that_was_cut_does_not_come_back() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let one = append(&mut writer, &["one"])[0];
    let group = append(&mut writer, &["two", "stale"]);
    fixture.change_bytes(|bytes| bytes[group[0].offset as usize - 1 - 8] ^= 1);

    let mut opened = fixture.open();
    assert_eq!(opened.keys, ["one"]);
    let torn = opened.torn_tail.unwrap();
    assert_eq!((torn.segment, torn.offset), (fixture.segment(), one.offset));
    let rest = std::fs::read(fixture.segment())
        .unwrap()
        .split_off(one.offset as usize);
    assert!(rest.iter().all(|byte| *byte == 0), "the tail is zeroed");

    // As long as the lost one, so that the stale record would stand right behind it.
    let new = append(&mut opened.writer, &["new"]);
    assert_eq!(new[0].offset, group[0].offset);
    assert_eq!(fixture.open().keys, ["one", "new"]);
}

/// Crash story 1, where the disk brought the stale record back in spite of the zeroes: the chain refuses it.
#[test]
fn a_stale_record_behind_a_new_one_is_not_part_of_the_chain() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    append(&mut writer, &["one"]);
    let group = append(&mut writer, &["two", "stale"]);
    let stale = group[0].offset as usize..group[1].offset as usize;
    let stale_bytes = std::fs::read(fixture.segment()).unwrap()[stale.clone()].to_vec();
    fixture.change_bytes(|bytes| bytes[group[0].offset as usize - 16] ^= 1);
    append(&mut fixture.open().writer, &["new"]);
    fixture.change_bytes(|bytes| bytes[stale].copy_from_slice(&stale_bytes));
    let opened = fixture.open();
    assert_eq!(opened.keys, ["one", "new"]);
    assert!(opened.torn_tail.is_some());
}

/// Crash story 2: killed between the write and the sync, or after a sync that failed and left the pages clean.
#[test]
fn what_nothing_vouches_for_is_written_again_and_synced_before_it_is_shown() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let one = append(&mut writer, &["one"])[0];
    let group = append(&mut writer, &["two", "three"]);
    let bytes = std::fs::read(fixture.segment()).unwrap();
    fixture.probe.take();
    fixture.recover(vec![voucher(one)], None).unwrap();
    let again = Op::Write {
        file: SEGMENT.into(),
        offset: one.offset,
        bytes: bytes[one.offset as usize..group[1].offset as usize].to_vec(),
    };
    let expected = [again, Op::Sync(SEGMENT.into()), Op::SyncDir("journal".into())];
    assert_eq!(fixture.probe.take(), expected);
}

#[test]
fn after_a_clean_close_nothing_is_written() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let last = append(&mut writer, &["one", "two"])[1];
    fixture.probe.take();
    let opened = fixture.recover(Vec::new(), Some(voucher(last))).unwrap();
    assert_eq!(opened.keys, ["one", "two"]);
    assert_eq!(fixture.probe.take(), []);
}

/// Crash story 3: zeroes where an acknowledged record was, and records that follow it.
#[test]
fn a_hole_that_looks_like_the_end_is_damage() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let one = append(&mut writer, &["one"])[0];
    let two = append(&mut writer, &["two"])[0];
    append(&mut writer, &["three"]);
    let before = std::fs::read(fixture.segment()).unwrap();
    fixture.change_bytes(|bytes| bytes[one.offset as usize..two.offset as usize].fill(0));
    let damaged = std::fs::read(fixture.segment()).unwrap();
    let (file, offset) = damage_of(fixture.recover(Vec::new(), None));
    assert_eq!((file, offset), (fixture.segment(), one.offset));
    assert_eq!(
        std::fs::read(fixture.segment()).unwrap(),
        damaged,
        "nothing was touched"
    );
    assert_ne!(before, damaged);
}

/// Crash story 3: the record that follows stands in a later segment.
#[test]
fn a_hole_at_the_end_of_a_sealed_segment_is_damage() {
    let fixture = Fixture {
        segment_size_bytes: 4096,
        ..Fixture::new()
    };
    let mut writer = fixture.open().writer;
    let last = loop {
        let position = append(&mut writer, &["key"])[0];
        if position.segment > 1 {
            break position.segment;
        }
    };
    let sealed = fixture.open().journal.position_after(last - 2).unwrap();
    fixture.change_bytes(|bytes| bytes[sealed.offset as usize..].fill(0));
    let (file, offset) = damage_of(fixture.recover(Vec::new(), None));
    assert_eq!((file, offset), (fixture.segment(), sealed.offset));
}

#[test]
fn a_missing_segment_is_damage_and_named() {
    let fixture = Fixture {
        segment_size_bytes: 4096,
        ..Fixture::new()
    };
    let mut writer = fixture.open().writer;
    let mut firsts = vec![1];
    while firsts.len() < 3 {
        let position = append(&mut writer, &["key"])[0];
        if !firsts.contains(&position.segment) {
            firsts.push(position.segment);
        }
    }
    assert_eq!(fixture.open().journal.size().unwrap().0, 3);
    let away = fixture.layout.root().join("away");
    for (first, named) in [(firsts[1], 1), (1, 1)] {
        std::fs::rename(fixture.layout.segment(first), &away).unwrap();
        assert_eq!(
            damage_of(fixture.recover(Vec::new(), None)).0,
            fixture.layout.segment(named)
        );
        std::fs::rename(&away, fixture.layout.segment(first)).unwrap();
    }
    // The last one: only a voucher can tell.
    let last = writer.position();
    std::fs::rename(fixture.layout.segment(firsts[2]), &away).unwrap();
    let (file, _) = damage_of(fixture.recover(vec![voucher(last)], None));
    assert_eq!(file, fixture.layout.segment(firsts[1]));
}

/// Crash story 4.
#[test]
fn a_record_that_a_voucher_names_must_be_there() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let one = append(&mut writer, &["one"])[0];
    let two = append(&mut writer, &["two"])[0];
    fixture.change_bytes(|bytes| bytes[one.offset as usize..].fill(0));
    let (file, offset) = damage_of(fixture.recover(vec![voucher(two)], None));
    assert_eq!((file, offset), (fixture.segment(), one.offset));
    // A voucher is a lower bound: that of an earlier record is kept.
    assert_eq!(fixture.recover(vec![voucher(one)], None).unwrap().keys, ["one"]);
}

/// Crash stories 4 and 5: the same number, another history.
#[test]
fn a_voucher_for_another_record_of_the_same_number_is_damage() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let one = append(&mut writer, &["one"])[0];
    let fork = Voucher {
        checksum: one.checksum ^ 1,
        ..voucher(one)
    };
    damage_of(fixture.recover(vec![fork.clone()], None));
    let foreign = Voucher {
        epoch: Epoch::from_bytes([8; 16]),
        sequence: 99,
        ..fork
    };
    assert_eq!(
        fixture.recover(vec![foreign], None).unwrap().keys,
        ["one"],
        "of another epoch: no voucher"
    );
}

/// Crash story 5.
#[test]
fn a_segment_of_an_epoch_that_is_not_in_the_lineage_is_refused() {
    let mut fixture = Fixture::new();
    fixture.identity = Identity::new(Epoch::from_bytes([9; 16]), 0);
    assert_eq!(damage_of(fixture.recover(Vec::new(), None)).0, fixture.segment());
}

/// Crash story 7.
#[test]
fn a_record_larger_than_a_segment_gets_a_segment_of_its_own() {
    let fixture = Fixture {
        segment_size_bytes: 4096,
        ..Fixture::new()
    };
    let mut writer = fixture.open().writer;
    append(&mut writer, &["small"]);
    let large = "k".repeat(20_000);
    let position = append(&mut writer, &[&large])[0];
    assert_eq!(position.segment, 2);
    assert_eq!(append(&mut writer, &["after"])[0].segment, 3);
    let opened = fixture.open();
    assert_eq!(opened.keys, ["small", &large, "after"]);
    // The first record of a segment may be the large one as well.
    let fixture = Fixture {
        segment_size_bytes: 4096,
        ..Fixture::new()
    };
    let mut writer = fixture.open().writer;
    assert_eq!(append(&mut writer, &[&"k".repeat(3 << 20)])[0].segment, 1);
    assert_eq!(fixture.open().keys.len(), 1);
}

/// The reading side of the table in `docs/format.md`: the last group of a journal whose power went, cut at every byte.
#[test]
fn a_last_group_that_is_torn_at_any_byte_is_cut_between_records() {
    let fixture = Fixture::new();
    let mut writer = fixture.open().writer;
    let one = append(&mut writer, &["one"])[0];
    let group = append(&mut writer, &["two", "three"]);
    let whole = std::fs::read(fixture.segment()).unwrap();
    for cut in one.offset as usize..group[1].offset as usize {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        std::fs::write(fixture.segment(), torn).unwrap();
        let opened = fixture.recover(vec![voucher(one)], None).unwrap();
        // The bytes before the cut may end in zeroes that were zeroes anyway.
        let kept = opened.keys.len() - 1;
        let is_whole = |position: &Position| {
            let after = position.offset as usize;
            cut >= after || whole[cut..after].iter().all(|byte| *byte == 0)
        };
        assert_eq!(
            kept,
            group.iter().filter(|position| is_whole(position)).count(),
            "cut at {cut}"
        );
        assert_eq!(opened.keys[..=kept], ["one", "two", "three"][..=kept]);
        let end_of_kept = [one.offset, group[0].offset, group[1].offset][kept] as usize;
        let is_torn = cut > end_of_kept && whole[end_of_kept..cut].iter().any(|byte| *byte != 0);
        assert_eq!(opened.torn_tail.is_some(), is_torn, "cut at {cut}");
    }
}

/// Crash story 24: what travels to another node does not depend on the journal that it stands in.
#[test]
fn the_travelling_part_of_a_frame_is_the_same_in_two_stores() {
    let travelling = || {
        let fixture = Fixture::new();
        let mut writer = fixture.open().writer;
        let end = append(&mut writer, &["one"])[0].offset as usize;
        let bytes = std::fs::read(fixture.segment()).unwrap();
        (
            bytes[SEGMENT_HEADER_BYTES..][..16].to_vec(),
            bytes[SEGMENT_HEADER_BYTES + 16..end].to_vec(),
        )
    };
    let ((local, frame), (other_local, other_frame)) = (travelling(), travelling());
    assert_eq!(frame, other_frame);
    assert_ne!(local, other_local, "the checksum is salted");
}

/// The bytes were worked out by another program, from the words of the document.
#[test]
fn the_worked_example_of_the_document_is_what_is_written() {
    let document = include_str!("../../docs/format.md");
    let dump = document
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once("  "));
    let dump = dump.filter(|(offset, _)| u16::from_str_radix(offset, 16).is_ok() && offset.len() == 4);
    let expected: Vec<_> = dump
        .flat_map(|(_, bytes)| bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()))
        .collect();

    let value = crate::Value::dword(7);
    let mut record = Record::new();
    record.push_key(CommandKind::CreateKey, "K", true);
    record.push_set_value("K", "n", value.as_ref(), None);
    let header = SegmentHeader {
        epoch: Epoch::from_bytes([0xee; 16]),
        nonce: [0xaa; 16],
        first_sequence: 1,
        created: 1_700_000_000_000_000,
        previous: 0,
    };
    let meta = RecordMeta {
        kind: FrameKind::Batch,
        sequence: 1,
        time: 1_700_000_000_000_001,
        request_id: [0; 16],
    };
    let (mut frame, salt) = (Vec::new(), frame::Salt::new(header.nonce));
    let chain = Chain {
        previous: 0,
        durable_before: 0,
    };
    append_frame(
        &mut frame,
        SEGMENT_HEADER_BYTES as u64,
        &salt,
        &meta,
        chain,
        record.payload(),
    );
    let written = [&header.encode()[..], &frame].concat();
    assert_eq!(written, expected);
}
