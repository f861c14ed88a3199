//! The tree's encoding, its folders, sled behind the trait, and a worker whose tree fails.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::stand_in::{During, Fault, StandIn};
use super::{
    Backend, Changes, Folders, Meta, SledBackend, TreeFault, Worker, decode_entry, encode_entry, encode_name,
    prefixes_below,
};
use crate::Epoch;
use crate::model::{Digest, EntryName, State, Stored, Value};

const LIMIT: Duration = Duration::from_secs(20);

fn meta(digest: Digest) -> Meta {
    Meta {
        epoch: Epoch::from_bytes([1; 16]),
        sequence: 9,
        frame_checksum: 0x0102_0304,
        digest,
    }
}

type Encoded = Vec<(Vec<u8>, Vec<u8>)>;

/// The root, the key `A` and its value `x` = DWORD 7: as they are in a state, and as a tree has them.
fn sample() -> (State, Encoded) {
    let mut state = State::new();
    let root = Stored::Key {
        path: "".into(),
        last_write: 1,
    };
    let key = Stored::Key {
        path: "a".into(),
        last_write: 2,
    };
    let value = Stored::Value {
        name: "x".into(),
        value: Value::dword(7),
    };
    let entries = [
        (EntryName::key(""), root),
        (EntryName::key("A"), key),
        (EntryName::value("A", "X"), value),
    ];
    let encode = |(name, stored): (EntryName, Stored)| {
        state.put(&name, Some(stored.clone())).unwrap();
        (encode_name(&name), encode_entry(&stored))
    };
    let encoded = entries.map(encode).to_vec();
    (state, encoded)
}

fn changes(entries: &[(Vec<u8>, Vec<u8>)], meta: Option<Meta>) -> Changes {
    let entries = entries
        .iter()
        .map(|(name, bytes)| (name.clone(), Some(bytes.clone())));
    Changes {
        entries: entries.collect(),
        removed_prefixes: BTreeSet::new(),
        meta,
    }
}

#[test]
fn entries_have_the_documented_bytes_and_are_read_back() {
    let (_, entries) = sample();
    let expected: [(&[u8], &[u8]); 3] = [
        (b"\0k", b"\x01\0\0\0\0\0\0\0"),
        (b"A\0k", b"\x02\0\0\0\0\0\0\0a"),
        (b"A\0vX", b"\x04\0\0\0\x01\0\0\0x\x07\0\0\0"),
    ];
    for ((name, bytes), expected) in entries.iter().zip(expected) {
        assert_eq!((&**name, &**bytes), expected);
        let (entry, stored) = decode_entry(name, bytes).unwrap();
        let (entry, stored) = (entry.to_owned(), stored.to_owned());
        assert_eq!((&encode_name(&entry), &encode_entry(&stored)), (name, bytes));
    }
    for malformed in [&b""[..], b"A", b"A\0", b"A\0q", b"A\0kx", b"\xff\0k"] {
        assert!(
            decode_entry(malformed, b"\0\0\0\0\0\0\0\0a").is_err(),
            "{malformed:?}"
        );
    }
    for malformed in [
        &b""[..],
        b"\x04\0\0\0",
        b"\x04\0\0\0\x09\0\0\0x",
        b"\x04\0\0\0\x01\0\0\0\xff",
    ] {
        assert!(decode_entry(b"A\0vX", malformed).is_err(), "{malformed:?}");
    }
}

#[test]
fn a_key_comes_before_its_values_and_these_before_the_keys_below() {
    let names = [
        EntryName::key(""),
        EntryName::value("", "Z"),
        EntryName::key("A"),
        EntryName::value("A", ""),
        EntryName::value("A", "\\"),
        EntryName::key("A\\ "),
        EntryName::key("A\\B"),
    ];
    let encoded: Vec<_> = names.iter().map(encode_name).collect();
    assert!(encoded.is_sorted(), "{encoded:?}");
    let below = |name: &Vec<u8>| prefixes_below("A").iter().any(|prefix| name.starts_with(prefix));
    let at_or_below: Vec<_> = encoded.iter().map(below).collect();
    assert_eq!(at_or_below, [false, false, true, true, true, true, true]);
    assert!(!below(&encode_name(&EntryName::key("AB"))));
}

#[test]
fn a_description_with_a_flipped_bit_or_of_another_version_describes_nothing() {
    let meta = meta(sample().0.digest());
    let bytes = meta.encode();
    assert_eq!(Meta::decode(&bytes), Ok(meta));
    for offset in 0..bytes.len() {
        let mut flipped = bytes;
        flipped[offset] ^= 0x10;
        assert!(Meta::decode(&flipped).is_err(), "{offset}");
    }
    assert!(Meta::decode(&bytes[..79]).is_err());
    for field in [0, 4] {
        let mut other = bytes;
        other[field] += 1;
        let checksum = crc32fast::hash(&other[..76]);
        other[76..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(
            Meta::decode(&other),
            Err(TreeFault::Malformed("the format of another version"))
        );
    }
}

/// Through sled and through the stand-in that the other tests use in its place.
#[test]
fn what_was_applied_is_loaded_by_the_next_and_a_removed_prefix_spares_what_is_set_with_it() {
    for backend in [
        Arc::new(SledBackend) as Arc<dyn Backend>,
        Arc::new(StandIn::default()),
    ] {
        let home = tempfile::tempdir().unwrap();
        let folders = Folders::new(home.path());
        let number = folders.create().unwrap();
        let (state, entries) = sample();
        let worker = Worker::start(&backend, LIMIT).unwrap();
        worker.open(&folders.path(number), 0).unwrap();
        worker.apply(changes(&entries, None), 0).unwrap();
        assert_eq!(worker.load(0).unwrap_err(), TreeFault::Unfinished);

        let extra = [
            (b"A\0vY".to_vec(), b"gone".to_vec()),
            (b"A\\B\0k".to_vec(), b"gone".to_vec()),
        ];
        worker.apply(changes(&extra, None), 0).unwrap();
        let again = Changes {
            removed_prefixes: prefixes_below("A").into(),
            ..changes(&entries, Some(meta(state.digest())))
        };
        worker.apply(again, 0).unwrap();
        worker.checkpoint(0).unwrap();
        worker.close().unwrap();

        let next = Worker::start(&backend, LIMIT).unwrap();
        next.open(&folders.path(number), 0).unwrap();
        assert_eq!(next.load(0).unwrap(), (state, meta(sample().0.digest())));
        let wrong = Changes::default();
        next.apply(
            Changes {
                meta: Some(meta(Digest::default())),
                ..wrong
            },
            0,
        )
        .unwrap();
        assert_eq!(next.load(0).unwrap_err(), TreeFault::Digest);
        next.close().unwrap();
    }
}

/// More than sled is given at a time.
#[test]
fn a_large_subtree_is_removed_in_steps() {
    let backend: Arc<dyn Backend> = Arc::new(SledBackend);
    let home = tempfile::tempdir().unwrap();
    let folders = Folders::new(home.path());
    let number = folders.create().unwrap();
    let worker = Worker::start(&backend, LIMIT).unwrap();
    worker.open(&folders.path(number), 0).unwrap();
    let (state, entries) = sample();
    let below = |number: u32| (format!("A\\B{number:05}\0k").into_bytes(), b"gone".to_vec());
    let many: Vec<_> = (0..20_000).map(below).collect();
    worker.apply(changes(&many, None), 0).unwrap();
    let removal = Changes {
        removed_prefixes: prefixes_below("A").into(),
        ..changes(&entries, Some(meta(state.digest())))
    };
    worker.apply(removal, 0).unwrap();
    assert_eq!(worker.load(0).unwrap().0, state);
    worker.close().unwrap();
}

#[test]
fn folders_are_numbered_anew_and_one_that_was_given_up_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let folders = Folders::new(home.path());
    assert_eq!(
        (folders.create(), folders.create(), folders.create()),
        (Ok(1), Ok(2), Ok(3))
    );
    fs::write(home.path().join("tree.junk"), "not a tree").unwrap();
    assert_eq!(folders.numbers(), Ok(vec![3, 2, 1]));
    folders.set_aside(3).unwrap();
    assert_eq!(folders.numbers(), Ok(vec![2, 1]));
    assert_eq!(folders.create(), Ok(4), "a number is never used again");
    folders.set_aside(4).unwrap();
    assert!(!home.path().join("tree.3.aside").exists() && home.path().join("tree.4.aside").exists());
    folders.remove_older(2).unwrap();
    assert_eq!(folders.numbers(), Ok(vec![2]));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folders.path(2)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_panic_is_a_fault_and_the_next_question_is_answered() {
    let stand_in = Arc::new(StandIn::default());
    let backend: Arc<dyn Backend> = Arc::<StandIn>::clone(&stand_in);
    let worker = Worker::start(&backend, LIMIT).unwrap();
    stand_in.go_wrong(Some((During::Open, Fault::Panics)));
    let fault = worker.open("tree".as_ref(), 0).unwrap_err();
    assert_eq!(
        fault,
        TreeFault::Panicked("a tree's panic, on purpose".to_owned())
    );
    let fault = worker.load(0).unwrap_err();
    assert_eq!(fault, TreeFault::Failed("it is not open".to_owned()));
    stand_in.go_wrong(None);
    assert_eq!(worker.open("tree".as_ref(), 0), Ok(()));
    assert!(!backend.is_off());
}

/// Crash story 17: a hang ends the use of trees in the process, and nothing waits for it any longer.
#[test]
fn a_hang_is_let_go_and_turns_trees_off() {
    let stand_in = Arc::new(StandIn::default());
    let backend: Arc<dyn Backend> = Arc::<StandIn>::clone(&stand_in);
    let limit = Duration::from_millis(30);
    let worker = Worker::start(&backend, limit).unwrap();
    worker.open("tree".as_ref(), 0).unwrap();
    stand_in.go_wrong(Some((During::Apply, Fault::Hangs)));
    assert_eq!(worker.apply(Changes::default(), 0), Err(TreeFault::Hung(limit)));
    assert!(backend.is_off());
    assert_eq!(worker.close(), Err(TreeFault::Off), "not asked again");
}

/// In a process of its own, because it stays off.
#[test]
fn sled_is_off_in_all_of_a_process_once_it_has_hung() {
    const CHILD: &str = "CLUSDB_TEST_SLED_OFF";
    if std::env::var_os(CHILD).is_some() {
        assert!(!SledBackend.is_off());
        SledBackend.turn_off();
        assert!(SledBackend.is_off());
        let home = tempfile::tempdir().unwrap();
        let store = crate::Store::open(home.path().join("s")).unwrap();
        for number in 0..600 {
            let mut batch = crate::Batch::at(&crate::KeyPath::root());
            batch
                .create_key("A")
                .unwrap()
                .set_value("v", Value::dword(number))
                .unwrap();
            store.commit(batch).unwrap();
        }
        drop(store);
        let trees = Folders::new(&home.path().join("s")).numbers();
        assert_eq!(trees, Ok(Vec::new()), "no tree was made");
        return;
    }
    let name = "tree::tests::sled_is_off_in_all_of_a_process_once_it_has_hung";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
