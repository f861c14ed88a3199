//! Groups of commits that a test puts together, because threads would group them differently each time.

use std::io::ErrorKind;

use super::commit::Write;
use super::*;
use crate::model::{Batch, KeyPath, Value};
use crate::probe::{Fate, Op, Probe};

fn open(probe: &Probe, folder: &tempfile::TempDir) -> Arc<Engine> {
    let options = Options::new().env(probe.env());
    Engine::open(&options, &folder.path().join("store")).unwrap()
}

fn creation(key: &str) -> Batch {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.create_key("").unwrap();
    batch
}

fn creates(key: &str) -> Request {
    request(creation(key))
}

fn request(batch: Batch) -> Request {
    Request::new(Write::Batch(batch))
}

/// Fails unless the key exists.
fn sets(key: &str) -> Request {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.set_value("v", Value::dword(1)).unwrap();
    request(batch)
}

fn is_segment_write(op: &Op) -> bool {
    matches!(op, Op::Write { file, .. } if file.ends_with(".segment"))
}

#[test]
fn the_batches_of_a_group_see_what_the_ones_before_them_did() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.lead(&[creates("Room")]);
    probe.take();
    let answers = engine.lead(&[sets("A"), creates("A"), sets("A"), sets("B")]);
    let sequences: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().ok()?.sequence())
        .collect();
    assert_eq!(sequences, [None, Some(2), Some(3), None]);
    assert!(answers[0].is_err() && answers[3].is_err());
    let syncs = probe.take().iter().filter(|op| matches!(op, Op::Sync(_))).count();
    assert_eq!(syncs, 1, "one sync for the group");
}

/// Crash story 9: a refusal that rests on a record which is then lost is not told as if the record had been there.
#[test]
fn a_refusal_that_rests_on_a_lost_record_is_not_given() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.lead(&[creates("A")]);
    let mut deletes = Batch::at(&KeyPath::parse("A").unwrap());
    deletes.delete_key("").unwrap();
    probe.rule(|op| match op {
        Op::Sync(file) if file.ends_with(".segment") => Fate::Fails(ErrorKind::Other),
        _ => Fate::Done,
    });
    // On the disk A is there still; nobody may be told that it is not.
    for answer in engine.lead(&[request(deletes), sets("A")]) {
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
    }
}

/// Crash story 7: one batch of a group may be too big for the disk; the others are committed.
#[test]
fn a_group_that_finds_no_room_is_committed_one_by_one() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    let room = 2 << 20;
    probe.rule(move |op| match op {
        Op::Write { file, offset, bytes }
            if file.contains(".segment") && offset + bytes.len() as u64 > room =>
        {
            Fate::Fails(ErrorKind::StorageFull)
        }
        _ => Fate::Done,
    });
    let mut large = Batch::at(&KeyPath::root());
    for name in ["a", "b", "c"] {
        large.set_value(name, Value::binary(vec![1; 1 << 20])).unwrap();
    }
    let answers = engine.lead(&[creates("A"), request(large), sets("A")]);
    assert_eq!(answers[0].as_ref().unwrap().sequence(), Some(1));
    assert!(
        matches!(answers[1], Err(Error::Preallocation { .. })),
        "{:?}",
        answers[1]
    );
    assert_eq!(answers[2].as_ref().unwrap().sequence(), Some(2));
}

/// Crash story 8.
#[test]
fn a_panic_while_committing_poisons_the_store_and_leaves_it_readable_by_the_next() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.commit(creation("A")).unwrap();
    probe.rule(|op| {
        if is_segment_write(op) {
            Fate::Panics
        } else {
            Fate::Done
        }
    });
    let commit = || engine.commit(creation("B"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(commit)).is_err());
    let error = engine.commit(creation("C")).unwrap_err();
    assert!(
        matches!(&error, Error::Poisoned { cause } if matches!(**cause, Error::LeaderPanicked)),
        "{error}"
    );
    drop(engine);
    probe.rule(|_| Fate::Done);
    let engine = open(&probe, &folder);
    assert_eq!(engine.read(|visible| visible.position.sequence).unwrap(), 1);
    engine.commit(creation("B")).unwrap();
}
