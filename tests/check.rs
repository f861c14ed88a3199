//! Checking a whole store, and repairing a damaged one.

use std::fs;
use std::path::{Path, PathBuf};

use clusdb::{Batch, Entry, Error, KeyPath, Options, Reader, Store, TrimReason, Value};

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn options() -> Options {
    Store::options().segment_size_bytes(4096).keep(false).tree(false)
}

/// A store that was closed, and what it held after each record.
struct Home {
    folder: tempfile::TempDir,
    states: Vec<Vec<Entry>>,
}

const RECORDS: u32 = 60;

impl Home {
    /// Snapshots after the records 20 and 50 if there are to be some; two ports that have acknowledged 10 and all.
    fn new(snapshots: bool) -> Home {
        let folder = tempfile::tempdir().unwrap();
        let store = options().open(folder.path().join("store")).unwrap();
        let ports = ["behind", "ahead"].map(|name| store.port(name, &KeyPath::root()).unwrap());
        let mut states = vec![Vec::new()];
        for number in 1..=RECORDS {
            let mut batch = Batch::at(&key(&format!("K{}", number % 7)));
            batch.create_key("").unwrap();
            let mut data = [0; 300];
            data[..4].copy_from_slice(&number.to_le_bytes());
            batch.set_value("v", Value::binary(data)).unwrap();
            store.commit(batch).unwrap();
            states.push(store.list_recursive(&KeyPath::root()).unwrap());
            if number == 10 {
                ports[0].get().unwrap().acknowledge().unwrap();
            }
            if snapshots && [20, 50].contains(&number) {
                store.snapshot().unwrap();
            }
        }
        ports[1].get().unwrap().acknowledge().unwrap();
        drop(ports);
        drop(store);
        Home { folder, states }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The segment that holds this record, and the record's offset in it.
    fn place(&self, sequence: u64) -> (PathBuf, usize) {
        let mut segments: Vec<_> = fs::read_dir(self.path().join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        segments.sort();
        let first = |path: &Path| {
            path.file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let path = segments
            .into_iter()
            .rfind(|path| first(path) <= sequence)
            .unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut at = 128;
        for _ in first(&path)..sequence {
            let length = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
            at += (64 + length).next_multiple_of(8);
        }
        (path, at)
    }

    fn flip(&self, path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn damage(&self, sequence: u64) {
        let (path, at) = self.place(sequence);
        self.flip(&path, at + 70);
    }

    #[track_caller]
    fn opens_at(&self, sequence: u64) -> Store {
        let report = options().check(self.path(), true).unwrap();
        assert!(report.is_whole(), "{:?}", report.faults);
        let store = options().open(self.path()).unwrap();
        assert_eq!(store.stat().unwrap().durable_sequence, sequence);
        assert_eq!(
            store.list_recursive(&KeyPath::root()).unwrap(),
            self.states[sequence as usize]
        );
        store
    }

    /// All bytes of the store, by file.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn visit(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => visit(&path, found),
                    false => found.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        let mut found = Vec::new();
        visit(&self.path(), &mut found);
        found.sort();
        found
    }
}

fn offset_of(error: &Error) -> (PathBuf, u64) {
    match error {
        Error::Damaged { file, offset, .. } => (file.clone(), *offset),
        error => panic!("{error}"),
    }
}

#[test]
fn a_whole_store_has_no_fault_and_a_check_changes_nothing() {
    let home = Home::new(true);
    let before = home.files();
    for deep in [false, true] {
        let report = options().check(home.path(), deep).unwrap();
        assert!(report.is_whole(), "{:?}", report.faults);
        assert_eq!((report.records, report.snapshots, report.ports), (60, 2, 2));
        assert_eq!(home.files(), before);
    }
    let store = options().open(home.path()).unwrap();
    assert!(matches!(
        options().check(home.path(), false),
        Err(Error::InUse { .. })
    ));
    drop(store);
    let missing = options().check(home.folder.path().join("none"), false);
    assert!(matches!(missing, Err(Error::StoreNotFound { .. })));
    assert!(options().repair(home.path()).unwrap().aside.is_none());
    home.opens_at(60);
}

#[test]
fn every_fault_is_told_with_file_and_offset_and_not_the_first_alone() {
    let home = Home::new(true);
    // Two records of one segment, all of another's header, a snapshot, the head, a port.
    let expected = [home.place(3), home.place(5), home.place(25)];
    home.damage(3);
    home.damage(5);
    home.damage(25);
    let (header, _) = home.place(40);
    home.flip(&header, 20);
    let snapshot = home.path().join("snapshots/00000000000000000020.snapshot");
    home.flip(&snapshot, 100);
    home.flip(&home.path().join("head"), 70);
    let port = home.path().join("ports/behind.port");
    home.flip(&port, 30);
    let report = options().check(home.path(), true).unwrap();
    let told: Vec<_> = report.faults.iter().map(offset_of).collect();
    for (path, at) in expected {
        assert!(
            told.contains(&(path.clone(), at as u64)),
            "{} at {at}: {told:?}",
            path.display()
        );
    }
    for path in [&header, &snapshot, &home.path().join("head"), &port] {
        assert!(
            told.iter().any(|(file, _)| file == path),
            "{}: {told:?}",
            path.display()
        );
    }
    assert_eq!(report.faults.len(), 7, "{:?}", report.faults);
    let first = header
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    let behind = (first..=60)
        .find(|sequence| home.place(*sequence).0 != header)
        .unwrap();
    assert_eq!(report.missing, [3..=3, 5..=5, 25..=25, first..=behind - 1]);
    assert_eq!(report.records, 60 - 3 - (behind - first));
}

#[test]
fn a_snapshot_or_a_tree_that_is_not_the_state_of_the_records_is_found_by_a_deep_check() {
    let home = Home::new(true);
    let other = Home::new(true);
    // Whole, and of another store: its records are the same, their times are not.
    let name = "snapshots/00000000000000000020.snapshot";
    let mut bytes = fs::read(other.path().join(name)).unwrap();
    let ours = fs::read(home.path().join(name)).unwrap();
    let meta = bytes.len() - 80;
    let theirs = bytes[meta + 32..meta + 72].to_vec();
    assert_ne!(theirs, ours[ours.len() - 48..ours.len() - 8]);
    bytes[meta + 8..meta + 24].copy_from_slice(&ours[ours.len() - 72..ours.len() - 56]);
    bytes[meta + 72..meta + 76].copy_from_slice(&ours[ours.len() - 8..ours.len() - 4]);
    let crc = crc32fast::hash(&bytes[meta..meta + 76]);
    bytes[meta + 76..].copy_from_slice(&crc.to_le_bytes());
    let at = meta - 16;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(at as u64).to_le_bytes());
    hasher.update(&bytes[at..at + 8]);
    hasher.update(&bytes[at + 12..]);
    bytes[at + 8..at + 12].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(home.path().join(name), bytes).unwrap();
    assert!(options().check(home.path(), false).unwrap().is_whole());
    let report = options().check(home.path(), true).unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert_eq!(offset_of(&report.faults[0]).0, home.path().join(name));
}

#[test]
fn what_is_spoilt_and_not_needed_is_set_aside_and_nothing_is_lost() {
    let home = Home::new(true);
    let spoilt = [
        "snapshots/00000000000000000050.snapshot",
        "head",
        "ports/behind.port",
    ];
    let mut kept = Vec::new();
    for name in spoilt {
        home.flip(&home.path().join(name), 60);
        kept.push((name.replace('/', "."), fs::read(home.path().join(name)).unwrap()));
    }
    let plan = options().plan_repair(home.path()).unwrap();
    assert_eq!(
        (plan.faults.len(), &plan.lost, &plan.trimmed, &plan.aside),
        (3, &None, &None, &None)
    );
    let repair = options().repair(home.path()).unwrap();
    assert_eq!((repair.lost, repair.trimmed, repair.epoch), (None, None, None));
    let aside = repair.aside.unwrap();
    for (name, bytes) in kept {
        assert_eq!(fs::read(aside.join(name)).unwrap(), bytes);
    }
    let store = home.opens_at(60);
    assert!(matches!(
        store.open_port("behind"),
        Err(Error::PortNotFound { .. })
    ));
    assert_eq!(store.open_port("ahead").unwrap().acknowledged(), 60);
}

#[test]
fn what_another_version_has_written_is_told_and_not_repaired() {
    let home = Home::new(true);
    for name in [
        "head",
        "ports/behind.port",
        "snapshots/00000000000000000050.snapshot",
        "journal/00000000000000000001.segment",
        "store",
    ] {
        let path = home.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut newer = whole.clone();
        newer[8] = 99;
        let crc = crc32fast::hash(&newer[..12]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &newer).unwrap();
        let report = options().check(home.path(), false).unwrap();
        let is_it = |fault: &Error| matches!(fault, Error::UnsupportedVersion { file, found: 99, .. } if *file == path);
        assert!(report.faults.iter().any(is_it), "{:?}", report.faults);
        let before = home.files();
        let error = options().repair(home.path()).unwrap_err();
        assert!(is_it(&error), "{error}");
        assert_eq!(home.files(), before);
        fs::write(&path, whole).unwrap();
    }
    home.opens_at(60);
}

/// Each record in turn.
#[test]
fn a_damaged_record_is_cut_out_with_all_behind_it_in_a_new_epoch_that_says_which_are_lost() {
    for damaged in [1, 2, 9, 11, 30, 59, 60] {
        let home = Home::new(false);
        home.damage(damaged);
        assert!(matches!(options().open(home.path()), Err(Error::Damaged { .. })));
        let before = home.files();
        let plan = options().plan_repair(home.path()).unwrap();
        assert_eq!(plan.lost, Some(damaged..=60));
        assert_eq!(home.files(), before, "a plan changes nothing");
        let repair = options().repair(home.path()).unwrap();
        assert_eq!((&repair.lost, &repair.trimmed), (&Some(damaged..=60), &None));
        let aside = repair.aside.unwrap();
        // Every byte that is gone is kept.
        for (path, bytes) in &before {
            if fs::read(path).ok().as_ref() != Some(bytes)
                && path.extension().is_some_and(|extension| extension == "segment")
            {
                let name = path
                    .strip_prefix(home.path())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('/', ".");
                assert_eq!(&fs::read(aside.join(name)).unwrap(), bytes);
            }
        }
        // Also for who only reads: the head is from before.
        let reader = Reader::open(home.path()).unwrap();
        assert!(!reader.was_closed());
        assert_eq!(reader.stat().unwrap().durable_sequence, damaged - 1);
        drop(reader);
        let store = home.opens_at(damaged - 1);
        assert_eq!(Some(store.stat().unwrap().epoch), repair.epoch);
        // Ports that stood before the cut go on, the other is told.
        match damaged > 10 {
            true => assert_eq!(store.open_port("behind").unwrap().acknowledged(), 10),
            false => assert!(matches!(
                store.open_port("behind"),
                Err(Error::EpochMismatch { .. })
            )),
        }
        assert!(matches!(
            store.open_port("ahead"),
            Err(Error::EpochMismatch { .. })
        ));
        let mut batch = Batch::at(&key("New"));
        batch.create_key("").unwrap();
        assert_eq!(store.commit(batch).unwrap().sequence(), Some(damaged));
    }
}

#[test]
fn damage_behind_which_there_is_a_snapshot_loses_nothing_of_the_state_and_ports_are_told() {
    for damaged in [1, 15, 30] {
        let home = Home::new(true);
        home.damage(damaged);
        // The opening begins at the snapshot; who reads before it, meets the damage.
        let store = options().open(home.path()).unwrap();
        let met = store.log(1..=60).unwrap_err();
        assert!(matches!(met, Error::Damaged { .. }), "{met}");
        drop(store);
        let repair = options().repair(home.path()).unwrap();
        let trimmed = repair.trimmed.unwrap();
        assert_eq!((repair.lost, repair.epoch, *trimmed.start()), (None, None, 1));
        assert!(trimmed.contains(&damaged) && *trimmed.end() < 50);
        let store = home.opens_at(60);
        assert_eq!(store.stat().unwrap().first_sequence, trimmed.end() + 1);
        let error = store.open_port("behind").unwrap().try_get().map(drop);
        match *trimmed.end() > 10 {
            true => {
                let error = error.unwrap_err();
                assert!(
                    matches!(
                        error,
                        Error::Lagged {
                            asked: 11,
                            reason: TrimReason::Repair,
                            ..
                        }
                    ),
                    "{error}"
                );
            }
            false => error.unwrap(),
        }
        assert!(store.open_port("ahead").unwrap().try_get().unwrap().is_none());
    }
}

#[test]
fn a_segment_that_is_missing_or_whose_header_is_damaged_is_repaired_likewise() {
    for is_missing in [true, false] {
        for sequence in [1u64, 30, 60] {
            let home = Home::new(false);
            let (path, _) = home.place(sequence);
            let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            match is_missing {
                true => fs::remove_file(&path).unwrap(),
                false => home.flip(&path, 33),
            }
            let repair = options().repair(home.path()).unwrap();
            assert_eq!(repair.lost, Some(first..=60), "{sequence} {is_missing}");
            home.opens_at(first - 1);
        }
    }
}

#[test]
fn without_a_state_to_start_from_nothing_is_repaired_and_nothing_is_touched() {
    let home = Home::new(true);
    let store = options().open(home.path()).unwrap();
    store
        .open_port("behind")
        .unwrap()
        .resync()
        .unwrap()
        .acknowledge()
        .unwrap();
    assert!(store.trim().unwrap().segments > 0);
    drop(store);
    for sequence in [20, 50] {
        home.flip(
            &home.path().join(format!("snapshots/{sequence:020}.snapshot")),
            60,
        );
    }
    home.damage(55);
    let before = home.files();
    let error = options().repair(home.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(home.files(), before);
    // Nor where nobody knows which store it was.
    let home = Home::new(false);
    home.flip(&home.path().join("store"), 50);
    let report = options().check(home.path(), false).unwrap();
    assert_eq!(offset_of(&report.faults[0]).0, home.path().join("store"));
    let error = options().repair(home.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}
