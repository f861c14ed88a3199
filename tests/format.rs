//! The format, as `docs/format.md` has it: stores that were written by this version and are kept, and each field of
//! their files changed, with every checksum that covers it put right again.
//!
//! `CLUSDB_WRITE_FIXTURES=1 cargo test --test format` writes the stores of the present version, where there are none yet.

#[path = "support/folder.rs"]
mod folder;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clusdb::{Batch, Entry, Epoch, Error, KeyPath, Store, Value, ValueType};
use folder::copy_folder;

const SEGMENT: &str = "journal/00000000000000000001.segment";
const SECOND: &str = "journal/00000000000000000014.segment";
const SNAPSHOT: &str = "snapshots/00000000000000000009.snapshot";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v3")
}

/// A copy of a kept store, in a folder of its own.
fn kept(name: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    copy_folder(&fixtures().join(name), &path);
    // Folders that are empty are not kept.
    for folder in ["ports", "journal"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
    (home, path)
}

/// All that can be read from a store, as text.
fn dump(store: &Store) -> String {
    let mut text = String::new();
    let stat = store.stat().unwrap();
    writeln!(text, "epoch {}", stat.epoch).unwrap();
    for entry in store.list_recursive(&KeyPath::root()).unwrap() {
        match entry {
            Entry::Key { path } => writeln!(text, "key {path}").unwrap(),
            Entry::Value { key, name, value } => {
                writeln!(
                    text,
                    "value {key} {name:?} {} {:02x?}",
                    value.value_type().0,
                    value.data()
                )
                .unwrap();
            }
        }
    }
    for batch in store.log(1..=u64::MAX).unwrap().batches() {
        for change in batch.changes() {
            writeln!(text, "record {} {} {change:?}", batch.sequence(), batch.time()).unwrap();
        }
    }
    for port in store.ports().unwrap() {
        writeln!(text, "port {} {} {}", port.name, port.key, port.acknowledged).unwrap();
    }
    text
}

#[test]
fn stores_that_this_version_has_written_are_read_as_they_were() {
    for name in ["closed", "killed"] {
        let (_home, path) = kept(name);
        let expected = fs::read_to_string(fixtures().join(format!("{name}.txt"))).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(dump(&store), expected, "{name}");
        assert_eq!(store.torn_tail().is_some(), name == "killed");
        // And it goes on.
        let last = store.stat().unwrap().durable_sequence;
        let pending = {
            let port = store.open_port("follower").unwrap();
            let got = port.get().unwrap();
            got.batches().map(|batch| batch.sequence()).collect::<Vec<_>>()
        };
        assert_eq!(pending, (6..=last).collect::<Vec<_>>(), "{name}");
        let mut batch = Batch::at(&KeyPath::parse("Key0").unwrap());
        batch.set_value("new", Value::dword(1)).unwrap();
        assert_eq!(store.commit(batch).unwrap().sequence(), Some(last + 1));
        store.close().unwrap();
    }
}

/// Stores of the version before are refused by name, and left as they are.
#[test]
fn stores_of_another_version_are_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v2/closed");
    copy_folder(&old, &path);
    let error = Store::open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            Error::UnsupportedVersion {
                found: 2,
                supported: 3,
                ..
            }
        ),
        "{error}"
    );
    for file in ["store", "head", "ports/follower.port", SEGMENT] {
        assert_eq!(
            fs::read(path.join(file)).unwrap(),
            fs::read(old.join(file)).unwrap(),
            "{file}"
        );
    }
}

/// Writes the kept stores, once for each version of the format.
#[test]
fn the_kept_stores_are_those_of_this_version() {
    if std::env::var_os("CLUSDB_WRITE_FIXTURES").is_some() && !fixtures().exists() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let epoch = Epoch::from_bytes(*b"kept in the tree");
        let options = Store::options().epoch(epoch).segment_size_bytes(4096);
        let store = options.open(&path).unwrap();
        let port = store.port("follower", &KeyPath::root()).unwrap();
        let worker = store.port("worker", &KeyPath::parse("Key1").unwrap()).unwrap();
        for number in 0..17_u32 {
            commit_one(&store, number);
            if number == 8 {
                assert_eq!(
                    store.snapshot().unwrap(),
                    store
                        .log(1..=u64::MAX)
                        .unwrap()
                        .batches()
                        .last()
                        .map(|batch| batch.sequence())
                );
            }
            if number == 4 {
                port.get().unwrap().acknowledge().unwrap();
            }
            if number == 10 {
                // Its file follows when the port is dropped: the killed store has this in the journal alone.
                let mut batch = Batch::at(&KeyPath::parse("Done").unwrap());
                batch.create_key("").unwrap();
                worker.get().unwrap().acknowledge_with(batch).unwrap();
            }
        }
        // As a kill leaves it, with a torn record at the end.
        fs::create_dir_all(fixtures()).unwrap();
        copy_folder(&path, &fixtures().join("killed"));
        let segment = fixtures().join("killed").join(SECOND);
        let mut bytes = fs::read(&segment).unwrap();
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .unwrap()
            .next_multiple_of(8);
        bytes[end + 16..end + 40].fill(0x5a);
        fs::write(&segment, bytes).unwrap();
        fs::write(fixtures().join("killed.txt"), dump(&store)).unwrap();
        fs::write(fixtures().join("closed.txt"), dump(&store)).unwrap();
        drop((port, worker));
        store.close().unwrap();
        copy_folder(&path, &fixtures().join("closed"));
    }
    for file in ["store", "head", "ports/follower.port", SEGMENT, SECOND, SNAPSHOT] {
        let bytes = fs::read(fixtures().join("closed").join(file)).unwrap();
        assert_eq!(bytes[8..12], 3_u32.to_le_bytes(), "{file}");
    }
}

/// Every command, type and oddity that a record can have.
fn commit_one(store: &Store, number: u32) {
    let mut batch = Batch::at(&KeyPath::parse(&format!("Key{}", number % 3)).unwrap());
    batch.create_key("").unwrap();
    batch.set_value("Größe", Value::dword(number)).unwrap();
    batch.set_value("", Value::sz("näme\\")).unwrap();
    batch
        .set_value("odd", Value::new(ValueType(1000 + number), vec![number as u8; 9]))
        .unwrap();
    match number % 4 {
        1 => drop(batch.delete_value("ODD").unwrap().delete_value("never").unwrap()),
        2 => drop(
            batch
                .create_key("Ünder\\deep")
                .unwrap()
                .set_value("list", Value::multi_sz(&["a", "b"]))
                .unwrap(),
        ),
        3 => drop(batch.delete_key("ünder").unwrap()),
        _ => {}
    }
    store.commit(batch).unwrap();
}

/// What covers a field, and is computed again when the field is changed.
#[derive(Clone, Copy, Debug)]
enum Sealed {
    /// The preamble's CRC alone.
    Preamble,
    /// A CRC of all bytes before this offset, standing there.
    At(usize),
    /// The store's CRC: 8 bytes before the end.
    Store,
    /// The frame that begins here.
    Frame(usize),
    /// A slot's CRC.
    Slot(usize),
    Nothing,
}

fn seal(bytes: &mut [u8], sealed: Sealed) {
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    match sealed {
        Sealed::Nothing => {}
        Sealed::Preamble => {
            let crc = crc32fast::hash(&bytes[..12]);
            put(bytes, 12, crc);
        }
        Sealed::At(at) => {
            let crc = crc32fast::hash(&bytes[..at]);
            put(bytes, at, crc);
        }
        Sealed::Store => seal(bytes, Sealed::At(bytes.len() - 8)),
        Sealed::Slot(at) => {
            let crc = crc32fast::hash(&bytes[at..at + 60]);
            put(bytes, at + 60, crc);
        }
        Sealed::Frame(at) => {
            let length = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
            let end = (at + 64 + length.next_multiple_of(8)).min(bytes.len());
            let covered = [&bytes[32..48], &(at as u64).to_le_bytes(), &bytes[at + 4..end]].concat();
            put(bytes, at, crc32fast::hash(&covered));
        }
    }
}

/// What is changed, the file, the offset, the bytes put there, what is computed again, and what must come of it.
type Row = (&'static str, &'static str, usize, &'static [u8], Sealed, Expected);

/// What the document says of it.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Damage, at this offset of the file.
    DamagedAt(u64),
    /// Damage in another file, or at a place that the message names in these words.
    Damaged(&'static str),
    Unsupported,
    CaseTable,
    /// The store opens as if nothing were, because the file vouches for nothing then.
    AsBefore,
}

#[test]
fn each_fields_corruption_gives_the_error_that_the_document_names() {
    use Expected::{AsBefore, CaseTable, Damaged, DamagedAt, Unsupported};
    use Sealed::{At, Frame, Nothing, Preamble, Store as StoreFile};
    let first = 128;
    let (_home, path) = kept("closed");
    let segment = fs::read(path.join(SEGMENT)).unwrap();
    let length = u32::from_le_bytes(segment[first + 16..first + 20].try_into().unwrap()) as usize;
    let second = (first + 64 + length.next_multiple_of(8)) as u64;
    let rows: &[Row] = &[
        ("store: magic", "store", 0, b"CLUSDBxx", Preamble, DamagedAt(0)),
        ("store: version", "store", 8, &[4], Preamble, Unsupported),
        (
            "store: version without its CRC",
            "store",
            8,
            &[4],
            Nothing,
            DamagedAt(8),
        ),
        ("store: case table", "store", 16, &[2], StoreFile, CaseTable),
        (
            "store: length of the lineage",
            "store",
            20,
            &[2],
            StoreFile,
            DamagedAt(20),
        ),
        ("store: trim base", "store", 32, &[0], StoreFile, DamagedAt(32)),
        ("store: epoch", "store", 40, &[0xee], StoreFile, Damaged("epoch")),
        (
            "store: time without its CRC",
            "store",
            24,
            &[1],
            Nothing,
            Damaged("the checksum"),
        ),
        ("segment: magic", SEGMENT, 0, b"x", Preamble, DamagedAt(0)),
        ("segment: version", SEGMENT, 8, &[9], Preamble, Unsupported),
        ("segment: epoch", SEGMENT, 16, &[1], At(124), DamagedAt(0)),
        (
            "segment: nonce",
            SEGMENT,
            32,
            &[0xff, 0xee],
            At(124),
            DamagedAt(128),
        ),
        (
            "segment: first sequence number",
            SEGMENT,
            48,
            &[2],
            At(124),
            DamagedAt(0),
        ),
        (
            "segment: checksum of the frame before",
            SEGMENT,
            64,
            &[1],
            At(124),
            DamagedAt(128),
        ),
        ("segment: zeroes", SEGMENT, 100, &[1], At(124), DamagedAt(68)),
        (
            "segment: header without its CRC",
            SEGMENT,
            56,
            &[0],
            Nothing,
            DamagedAt(124),
        ),
        (
            "next segment: checksum of the frame before",
            SECOND,
            64,
            &[1, 2, 3, 4],
            At(124),
            Damaged("could follow"),
        ),
        (
            "frame: checksum of the frame before",
            SEGMENT,
            first + 4,
            &[1],
            Frame(first),
            DamagedAt(128),
        ),
        (
            "frame: durable before",
            SEGMENT,
            first + 8,
            &[1],
            Frame(first),
            DamagedAt(128),
        ),
        (
            "frame: length",
            SEGMENT,
            first + 16,
            &[8, 0],
            Frame(first),
            Damaged(""),
        ),
        (
            "frame: a length beyond the file",
            SEGMENT,
            first + 18,
            &[1],
            Frame(first),
            DamagedAt(128),
        ),
        (
            "frame: kind",
            SEGMENT,
            first + 20,
            &[4],
            Frame(first),
            DamagedAt(128),
        ),
        (
            "frame: sequence number",
            SEGMENT,
            first + 24,
            &[2],
            Frame(first),
            DamagedAt(128),
        ),
        (
            "frame: time",
            SEGMENT,
            first + 32,
            &[1, 2],
            Frame(first),
            DamagedAt(second),
        ),
        (
            "frame: request id",
            SEGMENT,
            first + 40,
            &[1],
            Frame(first),
            DamagedAt(second),
        ),
        (
            "frame: zeroes",
            SEGMENT,
            first + 56,
            &[1],
            Frame(first),
            DamagedAt(128),
        ),
        (
            "frame: without its checksum",
            SEGMENT,
            first + 32,
            &[1, 2],
            Nothing,
            DamagedAt(128),
        ),
        (
            "record: number of runs",
            SEGMENT,
            first + 64,
            &[9],
            Frame(first),
            Damaged("a run's head"),
        ),
        (
            "record: number of changes",
            SEGMENT,
            first + 68,
            &[9],
            Frame(first),
            Damaged("as many changes"),
        ),
        (
            "record: an option that is neither there nor not",
            SEGMENT,
            first + 72,
            &[2],
            Frame(first),
            Damaged("a record's head"),
        ),
        (
            "record: a key that is not UTF-8",
            SEGMENT,
            first + 81,
            &[0xff],
            Frame(first),
            Damaged("a run's head"),
        ),
        (
            "record: a command",
            SEGMENT,
            first + 93,
            &[77],
            Frame(first),
            Damaged("a change"),
        ),
        (
            "record: a boolean",
            SEGMENT,
            first + 94,
            &[2],
            Frame(first),
            Damaged("a change"),
        ),
        ("head: magic", "head", 0, b"x", Preamble, AsBefore),
        ("head: version", "head", 8, &[4], Preamble, Unsupported),
        ("head: sequence lock", "head", 16, &[1], Nothing, AsBefore),
        ("head: state", "head", 32, &[9], Nothing, AsBefore),
        (
            "head: durable sequence number",
            "head",
            64,
            &[0xff; 6],
            Nothing,
            AsBefore,
        ),
    ];
    let before = dump(&Store::open(&path).unwrap());
    for (what, file, at, patch, sealed, expected) in rows {
        let (_home, path) = kept("closed");
        let file = path.join(file);
        let mut bytes = fs::read(&file).unwrap();
        bytes[*at..at + patch.len()].copy_from_slice(patch);
        seal(&mut bytes, *sealed);
        fs::write(&file, bytes).unwrap();
        let result = Store::open(&path);
        match (expected, &result) {
            (AsBefore, Ok(store)) => assert_eq!(dump(store), before, "{what}"),
            (
                CaseTable,
                Err(Error::CaseTable {
                    found: 2,
                    expected: 1,
                    ..
                }),
            ) => {}
            (Unsupported, Err(Error::UnsupportedVersion { file: named, .. })) => {
                assert_eq!(*named, file, "{what}")
            }
            (
                DamagedAt(at),
                Err(Error::Damaged {
                    file: named, offset, ..
                }),
            ) => {
                assert_eq!((named, offset), (&file, at), "{what}: {result:?}");
            }
            (Damaged(words), Err(error @ Error::Damaged { .. })) => {
                assert!(error.to_string().contains(words), "{what}: {error}");
            }
            _ => panic!("{what}: {result:?}"),
        }
    }
}

#[test]
fn a_ports_file_is_refused_by_name_or_goes_back_by_one_acknowledgement() {
    let refused = |what: &str, at: usize, patch: &[u8], sealed: &dyn Fn(&mut [u8])| {
        let (_home, path) = kept("closed");
        let file = path.join("ports/follower.port");
        let mut bytes = fs::read(&file).unwrap();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        sealed(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let store = Store::open(&path).unwrap();
        let result = store.open_port("follower").map(|port| port.acknowledged());
        if let Err(Error::Damaged { file: named, .. } | Error::UnsupportedVersion { file: named, .. }) =
            &result
        {
            assert_eq!(*named, file, "{what}");
        }
        result
    };
    let preamble = |bytes: &mut [u8]| seal(bytes, Sealed::Preamble);
    let (name, key) = ("follower".len(), "".len());
    let head = |bytes: &mut [u8]| seal(bytes, Sealed::At(72 + name + key));
    let nothing = |_: &mut [u8]| {};
    let is_damaged = |result| matches!(result, Err(Error::Damaged { .. }));
    assert!(is_damaged(refused("magic", 0, b"x", &preamble)));
    assert!(matches!(
        refused("version", 8, &[4], &preamble),
        Err(Error::UnsupportedVersion { found: 4, .. })
    ));
    assert!(is_damaged(refused(
        "the head without its CRC",
        48,
        &[1],
        &nothing
    )));
    assert!(is_damaged(refused(
        "a name of another length",
        64,
        &[9],
        &nothing
    )));
    assert!(is_damaged(refused(
        "another id: no slot is its own",
        16,
        &[1, 2, 3],
        &head
    )));
    // The slots: 5 was acknowledged in the one, 0 stands in the other.
    let slots = [4096, 8192];
    let cursors: Vec<_> = slots
        .map(|slot| refused("a slot", slot + 8, &[0x77], &nothing).unwrap())
        .to_vec();
    assert!(cursors.contains(&5) && cursors.contains(&0), "{cursors:?}");
    let both = |bytes: &mut [u8]| slots.into_iter().for_each(|slot| bytes[slot + 8] ^= 1);
    assert!(is_damaged(refused("both slots", 0, b"C", &both)));
    let foreign = |bytes: &mut [u8]| {
        for slot in slots {
            bytes[slot + 24] ^= 1;
            seal(bytes, Sealed::Slot(slot));
        }
    };
    assert!(matches!(
        refused("another epoch", 0, b"C", &foreign),
        Err(Error::EpochMismatch { .. })
    ));
}
