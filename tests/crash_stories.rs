//! Crash stories that a whole store can tell, through its public face. Those of the journal alone are in
//! `src/journal/tests.rs`, those of a group of commits in `src/engine/tests.rs`.

#[path = "support/folder.rs"]
mod folder;
#[path = "support/probe.rs"]
#[allow(dead_code, reason = "shared with the tests inside of the crate")]
mod probe;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clusdb::{Batch, Error, KeyPath, Store, Value};
use folder::copy_folder;
use probe::{Fate, Op, Probe};
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
    probe: Probe,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            folder: tempfile::tempdir().unwrap(),
            probe: Probe::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> clusdb::Result<Store> {
        Store::options().env(self.probe.env()).open(self.path())
    }

    /// A copy of the store's files as they are now: what the next life finds after a kill.
    fn copy(&self) -> Fixture {
        let copy = Fixture::new();
        copy_folder(&self.path(), &copy.path());
        copy
    }
}

fn set(store: &Store, number: u32) -> clusdb::Result<Option<u64>> {
    let mut batch = Batch::at(&KeyPath::root());
    batch.set_value("v", Value::dword(number))?;
    Ok(store.commit(batch)?.sequence())
}

fn value(store: &Store) -> Option<Value> {
    store.get(&KeyPath::root(), "v").unwrap()
}

fn fails(kind: ErrorKind, is_hit: impl Fn(&Op) -> bool + Send + 'static) -> impl FnMut(&Op) -> Fate + Send {
    move |op| if is_hit(op) { Fate::Fails(kind) } else { Fate::Done }
}

fn is_of_segment(file: &str) -> bool {
    file.contains(".segment")
}

/// Crash story 7: a full disk is met before anything is written.
#[test]
fn no_room_refuses_the_batch_and_poisons_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, 1).unwrap();
    let is_beyond = |op: &Op| match op {
        Op::Write { file, offset, bytes } => is_of_segment(file) && offset + bytes.len() as u64 > 1 << 20,
        _ => false,
    };
    fixture.probe.rule(fails(ErrorKind::StorageFull, is_beyond));
    let mut large = Batch::at(&KeyPath::root());
    large.set_value("large", Value::binary(vec![1; 1 << 20])).unwrap();
    let error = store.commit(large.clone()).unwrap_err();
    assert!(matches!(error, Error::Preallocation { .. }), "{error}");
    assert_eq!(error.word(), "no_space");
    assert_eq!(store.get(&KeyPath::root(), "large").unwrap(), None);
    assert_eq!(set(&store, 2).unwrap(), Some(2), "a small one still fits");
    fixture.probe.rule(|_| Fate::Done);
    assert_eq!(
        store.commit(large).unwrap().sequence(),
        Some(3),
        "it goes on by itself"
    );
    drop(store);
    assert_eq!(value(&fixture.open()), Some(Value::dword(2)));
}

/// Crash story 7: the next segment can't be made.
#[test]
fn no_room_for_the_next_segment_refuses_the_batch_and_poisons_nothing() {
    let fixture = Fixture::new();
    let options = || Store::options().env(fixture.probe.env()).segment_size_bytes(4096);
    let store = options().open(fixture.path()).unwrap();
    fixture.probe.rule(fails(
        ErrorKind::StorageFull,
        |op| matches!(op, Op::Create(file) if is_of_segment(file)),
    ));
    let refused = (0..100).find_map(|number| set(&store, number).err().map(|error| (number, error)));
    let (number, error) = refused.expect("4 KiB hold no hundred records");
    assert!(matches!(error, Error::Preallocation { .. }), "{error}");
    fixture.probe.rule(|_| Fate::Done);
    assert_eq!(set(&store, number).unwrap(), Some(u64::from(number) + 1));
    assert_eq!(store.stat().unwrap().segments, 2);
    drop(store);
    assert_eq!(
        value(&options().open(fixture.path()).unwrap()),
        Some(Value::dword(number))
    );
}

/// Crash story 7: any error after a group's first byte poisons; and what was acknowledged stays readable.
#[test]
fn a_failed_write_or_sync_poisons_the_store_until_it_is_opened_again() {
    for is_sync in [false, true] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let port = store.port("p", &KeyPath::root()).unwrap();
        set(&store, 1).unwrap();
        fixture.probe.rule(fails(ErrorKind::Other, move |op| match op {
            Op::Write { file, .. } => !is_sync && is_of_segment(file),
            Op::Sync(file) => is_sync && is_of_segment(file),
            _ => false,
        }));
        assert!(matches!(set(&store, 2).unwrap_err(), Error::Poisoned { .. }));
        fixture.probe.rule(|_| Fate::Done);
        let error = set(&store, 3).unwrap_err();
        assert!(
            matches!(&error, Error::Poisoned { cause } if matches!(**cause, Error::Io { .. })),
            "{error}"
        );
        assert_eq!(value(&store), Some(Value::dword(1)));
        assert_eq!(port.get().unwrap().len(), 1, "ports serve what is durable");
        drop((port, store));
        let store = fixture.open();
        // The batch was never acknowledged: it is there as a whole, or not at all.
        let recovered = value(&store);
        let expected = if is_sync { 2 } else { 1 };
        assert_eq!(recovered, Some(Value::dword(expected)));
        assert_eq!(set(&store, 4).unwrap(), Some(u64::from(expected) + 1));
    }
}

/// After a commit that failed nobody knows whether its record is there. What is acknowledged then is not undone by it.
#[test]
fn an_acknowledgement_is_not_undone_by_the_record_of_a_commit_that_failed() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    set(&store, 1).unwrap();
    let first = port.get().unwrap();
    set(&store, 2).unwrap();
    let second = port.get().unwrap();
    fixture.probe.rule(fails(
        ErrorKind::Other,
        |op| matches!(op, Op::Sync(file) if is_of_segment(file)),
    ));
    let error = first.acknowledge_with(Batch::at(&KeyPath::root())).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert_eq!(port.acknowledged(), 0);
    fixture.probe.rule(|_| Fate::Done);
    // With nothing more, the record that is there after all counts: both or neither.
    let killed = fixture.copy();
    assert_eq!(killed.open().open_port("p").unwrap().acknowledged(), 1);
    first.acknowledge().unwrap();
    second.acknowledge().unwrap();
    drop((first, second, port, store));
    let store = fixture.open();
    assert_eq!(
        store.stat().unwrap().durable_sequence,
        3,
        "the record is there, and says 1"
    );
    assert_eq!(store.open_port("p").unwrap().acknowledged(), 2);
}

/// Crash story 2, for a whole store: nothing of an unsynced commit is shown before recovery has synced it.
#[test]
fn recovery_syncs_the_journal_before_the_store_is_shown() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, 1).unwrap();
    let killed = fixture.copy();
    let reopened = killed.open();
    let ops = killed.probe.take();
    let at = |wanted: &Op| ops.iter().position(|op| op == wanted);
    let synced = at(&Op::Sync("00000000000000000001.segment".into())).expect("the segment is synced");
    let folder = at(&Op::SyncDir("journal".into())).expect("its folder is synced");
    let shown = at(&Op::MapPage("head".into())).expect("the head is published");
    assert!(synced < folder && folder < shown, "{ops:?}");
    assert_eq!(value(&reopened), Some(Value::dword(1)));
    drop(reopened);
    killed.probe.take();
    drop(killed.open());
    let ops = killed.probe.take();
    assert!(
        !ops.contains(&Op::Sync("00000000000000000001.segment".into())),
        "closed well: {ops:?}"
    );
}

/// Crash story 4: the head and a port's cursor vouch for the last record, each alone.
#[test]
fn the_last_record_cannot_vanish_while_the_head_or_a_cursor_vouches_for_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    set(&store, 1).unwrap();
    set(&store, 2).unwrap();
    port.get().unwrap().acknowledge().unwrap();
    drop((port, store));
    let segment = Path::new("journal/00000000000000000001.segment");
    let lose_last_record = |store: &Path| {
        let path = store.join(segment);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last - 100..].fill(0);
        std::fs::write(path, bytes).unwrap();
    };
    for removed in [None, Some("head"), Some("ports/p.port")] {
        let copy = fixture.copy();
        lose_last_record(&copy.path());
        if let Some(file) = removed {
            std::fs::remove_file(copy.path().join(file)).unwrap();
        }
        let error = copy.try_open().unwrap_err();
        let is_named = matches!(&error, Error::Damaged { file, .. } if file.ends_with(segment));
        assert!(is_named, "without {removed:?}: {error}");
    }
    let copy = fixture.copy();
    lose_last_record(&copy.path());
    for file in ["head", "ports/p.port"] {
        std::fs::remove_file(copy.path().join(file)).unwrap();
    }
    let store = copy.open();
    assert_eq!(
        value(&store),
        Some(Value::dword(1)),
        "nobody vouches for it: torn, and cut"
    );
    assert!(store.torn_tail().is_some());
}

/// Crash story 11: whatever is in the head, the store opens with the exact data, or refuses a newer version.
#[test]
fn no_byte_of_the_head_can_make_the_store_wrong() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, 1).unwrap();
    set(&store, 2).unwrap();
    drop(store);
    let head = std::fs::read(fixture.path().join("head")).unwrap();
    assert_eq!(head.len(), 4096);
    let used = head.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(used <= 512, "in one sector");
    for offset in 0..used {
        let mut flipped = head.clone();
        flipped[offset] ^= 0x10;
        std::fs::write(fixture.path().join("head"), flipped).unwrap();
        let store = fixture.open();
        assert_eq!(value(&store), Some(Value::dword(2)), "flipped at {offset}");
        assert_eq!(store.stat().unwrap().durable_sequence, 2);
    }
    for length in [0, 1, 511, 4095] {
        std::fs::write(fixture.path().join("head"), &head[..length]).unwrap();
        assert_eq!(value(&fixture.open()), Some(Value::dword(2)), "cut to {length}");
    }
}

/// Crash story 11: no hole of the head may meet a full disk as a SIGBUS.
#[test]
fn the_head_is_written_and_synced_before_it_is_mapped() {
    let fixture = Fixture::new();
    let _store = fixture.open();
    let ops = fixture.probe.take();
    let written = ops.iter().position(
        |op| matches!(op, Op::Write { file, offset: 0, bytes } if file == "head.unfinished" && bytes.len() == 4096),
    );
    let synced = ops
        .iter()
        .position(|op| *op == Op::Sync("head.unfinished".into()));
    let mapped = ops.iter().position(|op| *op == Op::MapPage("head".into()));
    assert!(
        written.is_some() && written < synced && synced < mapped,
        "{ops:?}"
    );
}

/// The store file comes last and everything before it is durable, so that a store is there as a whole or not at all.
#[test]
fn a_creation_that_fails_at_any_operation_is_begun_anew() {
    let count = {
        let fixture = Fixture::new();
        drop(fixture.open());
        fixture.probe.take().len()
    };
    assert!(count > 10);
    for failing in 0..count {
        let fixture = Fixture::new();
        let mut met = 0;
        fixture.probe.rule(move |_| {
            met += 1;
            if met == failing + 1 {
                Fate::Fails(ErrorKind::Other)
            } else {
                Fate::Done
            }
        });
        let first = fixture.try_open();
        fixture.probe.rule(|_| Fate::Done);
        drop(first);
        let store = fixture.open();
        assert_eq!(set(&store, 7).unwrap(), Some(1), "operation {failing}");
    }
}

#[test]
fn a_journal_whose_store_file_is_gone_is_not_taken_for_an_unfinished_creation() {
    let fixture = Fixture::new();
    set(&fixture.open(), 1).unwrap();
    std::fs::remove_file(fixture.path().join("store")).unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { file, .. } if file.ends_with("store")),
        "{error}"
    );
    assert!(
        fixture
            .path()
            .join("journal/00000000000000000001.segment")
            .exists()
    );
}

#[test]
fn a_store_has_one_owner_at_a_time() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert!(matches!(fixture.try_open().unwrap_err(), Error::InUse { .. }));
    drop(store);
    fixture.open();
}

/// Crash story 24: a store can be made under a given epoch.
#[test]
fn a_store_can_be_made_under_a_given_epoch() {
    let fixture = Fixture::new();
    let epoch = clusdb::Epoch::from_bytes([5; 16]);
    let store = Store::options().epoch(epoch).open(fixture.path()).unwrap();
    assert_eq!(store.stat().unwrap().epoch, epoch);
    drop(store);
    assert_eq!(fixture.open().stat().unwrap().epoch, epoch);
}

/// Crash story 13: the port's file is of another history.
#[test]
fn a_port_of_another_epoch_is_refused_by_name() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    // At a record: what stands at the very beginning belongs to every history.
    let store = fixture.open();
    set(&store, 1).unwrap();
    drop(store.port("p", &KeyPath::root()).unwrap());
    drop((store, other.open()));
    let port = Path::new("ports/p.port");
    std::fs::copy(fixture.path().join(port), other.path().join(port)).unwrap();
    let store = other.open();
    let error = store.open_port("p").unwrap_err();
    assert!(
        matches!(&error, Error::EpochMismatch { name, .. } if name == "p"),
        "{error}"
    );
    assert_eq!(set(&store, 1).unwrap(), Some(1), "the store itself goes on");
    store.remove_port("p").unwrap();
    assert_eq!(
        store.port("p", &KeyPath::root()).unwrap().acknowledged(),
        1,
        "made anew, at the present"
    );
}

#[test]
fn a_new_port_and_an_acknowledgement_are_synced_before_they_return() {
    let fixture = Fixture::new();
    let store = fixture.open();
    fixture.probe.take();
    let port = store.port("p", &KeyPath::root()).unwrap();
    let ops = fixture.probe.take();
    let expected = [
        Op::Sync("p.port.unfinished".into()),
        Op::Rename {
            from: "p.port.unfinished".into(),
            to: "p.port".into(),
        },
        Op::SyncDir("ports".into()),
    ];
    assert!(ops.windows(3).any(|ops| ops == expected), "{ops:?}");
    set(&store, 1).unwrap();
    let notification = port.get().unwrap();
    fixture.probe.take();
    notification.acknowledge().unwrap();
    let ops = fixture.probe.take();
    assert!(
        matches!(&ops[0], Op::Write { file, .. } if file == "p.port"),
        "{ops:?}"
    );
    assert_eq!(ops[1..], [Op::Sync("p.port".into())]);
}

/// A write that failed leaves the cursor as it was, and can be tried again.
#[test]
fn an_acknowledgement_that_failed_can_be_tried_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    set(&store, 1).unwrap();
    let notification = port.get().unwrap();
    fixture
        .probe
        .rule(fails(ErrorKind::Other, |op| *op == Op::Sync("p.port".into())));
    assert!(matches!(
        notification.acknowledge().unwrap_err(),
        Error::Io { .. }
    ));
    assert_eq!(port.acknowledged(), 0);
    fixture.probe.rule(|_| Fate::Done);
    notification.acknowledge().unwrap();
    assert_eq!(port.acknowledged(), 1);
    drop((port, store));
    assert_eq!(fixture.open().open_port("p").unwrap().acknowledged(), 1);
}

/// Crash story 12: a damaged port vouches for nothing, says so when it is opened, and can be removed.
#[test]
fn a_damaged_port_is_refused_and_named_and_the_store_goes_on() {
    let fixture = Fixture::new();
    drop(fixture.open().port("p", &KeyPath::root()).unwrap());
    let port = fixture.path().join("ports/p.port");
    let mut bytes = std::fs::read(&port).unwrap();
    bytes[4096] ^= 1;
    std::fs::write(&port, bytes).unwrap();
    let store = fixture.open();
    let error = store.open_port("p").unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { file, offset: 4096, .. } if *file == port),
        "{error}"
    );
    assert_eq!(set(&store, 1).unwrap(), Some(1));
    store.remove_port("p").unwrap();
    assert!(!port.exists());
}
