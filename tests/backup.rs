//! Backups, made while commits go on, and the stores that are made from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clusdb::{Batch, Entry, Epoch, Error, KeyPath, Options, Reader, Store, Value};

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn options() -> Options {
    Store::options().segment_size_bytes(4096).keep(false).tree(false)
}

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        Home {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> Store {
        options().open(self.path(name)).unwrap()
    }
}

fn set(store: &Store, path: &str, number: u32) -> u64 {
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    let mut data = [0; 300];
    data[..4].copy_from_slice(&number.to_le_bytes());
    batch.set_value("v", Value::binary(data)).unwrap();
    store.commit(batch).unwrap().sequence().unwrap()
}

fn fill(store: &Store, path: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        set(store, path, number);
    }
}

fn contents(reader: &Reader) -> Vec<Entry> {
    reader.list_recursive(&KeyPath::root()).unwrap()
}

fn sequences(store: &Reader, port: &str) -> Vec<u64> {
    let got = store.open_port(port).unwrap().try_get().unwrap();
    got.map(|got| got.batches().map(|batch| batch.sequence()).collect())
        .unwrap_or_default()
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_restored_store_is_the_store_after_one_record_and_goes_on_in_an_epoch_of_its_own() {
    for count in [0, 1, 5, 40] {
        let home = Home::new();
        let store = home.open("store");
        fill(&store, "A", 0..count);
        let epoch = store.stat().unwrap().epoch;
        let backup = store.backup(home.path("backup")).unwrap();
        assert_eq!((backup.sequence, backup.epoch), (u64::from(count), epoch));
        let expected = contents(&store);
        set(&store, "Later", 1);
        let restored = Store::restore(home.path("backup"), home.path("restored")).unwrap();
        assert_eq!((restored.sequence, restored.parent), (u64::from(count), epoch));
        assert_ne!(restored.epoch, epoch);
        let copy = home.open("restored");
        assert_eq!(contents(&copy), expected, "{count}");
        assert_eq!(copy.stat().unwrap().epoch, restored.epoch);
        let log = |store: &Store| -> Vec<_> {
            let log = store.log(1..=u64::from(count)).unwrap();
            log.batches()
                .map(|batch| (batch.sequence(), batch.time()))
                .collect()
        };
        assert_eq!(log(&copy), log(&store));
        assert_eq!(set(&copy, "Branch", 1), u64::from(count) + 1);
        drop(copy);
        let copy = home.open("restored");
        assert_eq!(contents(&copy).len(), expected.len() + 2);
        // And a backup of the branch is restored likewise.
        copy.backup(home.path("backup of the branch")).unwrap();
        Store::restore(home.path("backup of the branch"), home.path("again")).unwrap();
        assert_eq!(contents(&home.open("again")), contents(&copy));
    }
}

#[test]
fn a_later_backup_copies_what_is_new_and_one_that_is_cut_short_leaves_the_earlier_one() {
    let home = Home::new();
    let store = home.open("store");
    fill(&store, "A", 0..100);
    let first = store.backup(home.path("backup")).unwrap();
    assert!(first.copied_bytes > 30_000);
    let before = contents(&store);
    let kept = files(&home.path("backup"));
    set(&store, "A", 100);
    let second = store.backup(home.path("backup")).unwrap();
    assert!((400..1500).contains(&second.copied_bytes), "{second:?}");
    assert_eq!(store.backup(home.path("backup")).unwrap().copied_bytes, 0);
    fill(&store, "B", 0..30);
    let third = store.backup(home.path("backup")).unwrap();
    assert!((10_000..30_000).contains(&third.copied_bytes), "{third:?}");
    Store::restore(home.path("backup"), home.path("third")).unwrap();
    assert_eq!(contents(&home.open("third")), contents(&store));
    // Cut short: all was copied but the file that says so.
    let (path, bytes) = kept
        .iter()
        .find(|(path, _)| path.ends_with("backup/backup"))
        .unwrap();
    fs::write(path, bytes).unwrap();
    Store::restore(home.path("backup"), home.path("first")).unwrap();
    assert_eq!(contents(&home.open("first")), before);
    // And the next one goes on from there.
    store.backup(home.path("backup")).unwrap();
    Store::restore(home.path("backup"), home.path("next")).unwrap();
    assert_eq!(contents(&home.open("next")), contents(&store));
}

#[test]
fn a_backup_of_a_trimmed_store_has_its_snapshot_and_what_ports_have_to_read() {
    let home = Home::new();
    let store = home.open("store");
    let port = store.port("p", &key("A")).unwrap();
    store.port("behind", &key("B")).unwrap();
    let behind = set(&store, "B", 1);
    for round in 0..4 {
        fill(&store, "A", round * 100..round * 100 + 40);
        port.get().unwrap().acknowledge().unwrap();
        if round == 2 {
            // From here on, much is trimmed.
            store.open_port("behind").unwrap().get().unwrap();
            let got = store.open_port("behind").unwrap();
            got.get().unwrap().acknowledge().unwrap();
        }
        store.snapshot().unwrap();
        let trimmed = store.trim().unwrap().segments;
        assert_eq!(trimmed > 0, round >= 2, "{round}");
        let last = set(&store, "A", 7);
        store.backup(home.path("backup")).unwrap();
        let name = format!("restored {round}");
        Store::restore(home.path("backup"), home.path(&name)).unwrap();
        let copy = home.open(&name);
        assert_eq!(contents(&copy), contents(&store));
        assert_eq!(sequences(&copy, "p"), [last]);
        match round {
            0 | 1 => assert_eq!(sequences(&copy, "behind"), [behind]),
            _ => assert_eq!(sequences(&copy, "behind"), [0; 0]),
        }
        port.get().unwrap().acknowledge().unwrap();
        assert_eq!(fs::read_dir(home.path("backup/snapshots")).unwrap().count(), 1);
        let segments = |folder| {
            let names = fs::read_dir(home.path(folder)).unwrap();
            let paths = names.map(|entry| entry.unwrap().path());
            paths
                .filter(|path| path.extension().unwrap() == "segment")
                .count()
        };
        assert_eq!(segments("backup/journal"), segments("store/journal"));
    }
}

/// Crash story 5: the two branches of a history are told apart.
#[test]
fn ports_at_or_before_the_parent_go_on_and_others_are_refused_by_name() {
    let home = Home::new();
    let store = home.open("store");
    for name in ["before", "at", "ahead"] {
        store.port(name, &key("A")).unwrap();
    }
    let acknowledge = |name: &str| {
        store
            .open_port(name)
            .unwrap()
            .get()
            .unwrap()
            .acknowledge()
            .unwrap()
    };
    set(&store, "A", 1);
    acknowledge("before");
    let parent = set(&store, "A", 2);
    acknowledge("at");
    store.backup(home.path("backup")).unwrap();
    set(&store, "A", 3);
    acknowledge("ahead");
    // Of other keys, so that this one stands where it stood, and was saved later.
    let ours = home.path("store/ports");
    Store::restore(home.path("backup"), home.path("restored")).unwrap();
    for name in ["before", "at", "ahead"] {
        fs::copy(
            ours.join(format!("{name}.port")),
            home.path("restored/ports").join(format!("{name}.port")),
        )
        .unwrap();
    }
    let copy = home.open("restored");
    let branch = set(&copy, "A", 4);
    assert_eq!(branch, parent + 1);
    assert_eq!(sequences(&copy, "before"), [parent, branch]);
    assert_eq!(sequences(&copy, "at"), [branch]);
    let error = copy.open_port("ahead").unwrap_err();
    let epoch = store.stat().unwrap().epoch;
    assert!(
        matches!(&error, Error::EpochMismatch { name, found } if name == "ahead" && *found == epoch),
        "{error}"
    );
    // It says so after a kill as well, and is no damage.
    drop(copy);
    let copy = home.open("restored");
    assert!(matches!(
        copy.open_port("ahead"),
        Err(Error::EpochMismatch { .. })
    ));
}

/// A port that acknowledged with batches of the branch that was left does not pass over those of the new one.
#[test]
fn acknowledgements_of_the_branch_that_was_left_do_not_count_in_the_new_one() {
    let home = Home::new();
    let store = home.open("store");
    let done = || {
        let mut batch = Batch::at(&key("Done"));
        batch.create_key("").unwrap();
        batch
    };
    store.port("p", &key("A")).unwrap();
    set(&store, "A", 1);
    store.backup(home.path("backup")).unwrap();
    let port = store.open_port("p").unwrap();
    // Acknowledged at 1, as of a record far behind the parent.
    let got = port.get().unwrap();
    fill(&store, "Other", 0..5);
    got.acknowledge().unwrap();
    drop(port);
    Store::restore(home.path("backup"), home.path("restored")).unwrap();
    fs::copy(
        home.path("store/ports/p.port"),
        home.path("restored/ports/p.port"),
    )
    .unwrap();
    let copy = home.open("restored");
    let second = set(&copy, "A", 2);
    let port = copy.open_port("p").unwrap();
    let got = port.get().unwrap();
    assert_eq!(got.batches().next().unwrap().sequence(), second);
    got.acknowledge_with(done()).unwrap();
    // As a kill leaves it: the port's file has not followed.
    assert!(
        std::process::Command::new("cp")
            .arg("-r")
            .args([home.path("restored"), home.path("killed")])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(home.open("killed").open_port("p").unwrap().acknowledged(), second);
}

#[test]
fn a_folder_of_something_else_is_refused_and_a_store_is_not_written_over() {
    let home = Home::new();
    let (store, other) = (home.open("store"), home.open("other"));
    set(&store, "A", 1);
    set(&other, "A", 1);
    fs::create_dir(home.path("foreign")).unwrap();
    fs::write(home.path("foreign/file"), b"x").unwrap();
    let error = store.backup(home.path("foreign")).unwrap_err();
    assert!(
        matches!(&error, Error::ForeignDirectory { found, .. } if found == "file"),
        "{error}"
    );
    let error = store.backup(home.path("other")).unwrap_err();
    assert!(matches!(error, Error::ForeignDirectory { .. }), "{error}");
    store.backup(home.path("backup")).unwrap();
    let before = files(&home.path("backup"));
    let error = other.backup(home.path("backup")).unwrap_err();
    assert!(
        matches!(&error, Error::BackupOfAnother { expected, .. } if *expected == other.stat().unwrap().epoch),
        "{error}"
    );
    assert_eq!(files(&home.path("backup")), before);

    let restore = |to: &str| Store::restore(home.path("backup"), home.path(to)).unwrap_err();
    assert!(matches!(restore("other"), Error::StoreExists { .. }));
    assert!(matches!(restore("foreign"), Error::ForeignDirectory { .. }));
    let error = Store::restore(home.path("foreign"), home.path("new")).unwrap_err();
    assert!(matches!(error, Error::BackupNotFound { .. }), "{error}");
    assert!(!home.path("new").exists());
    let epoch = Epoch::from_bytes([9; 16]);
    assert_eq!(
        options()
            .epoch(epoch)
            .restore(home.path("backup"), home.path("new"))
            .unwrap()
            .epoch,
        epoch
    );
}

#[test]
fn a_damaged_backup_is_refused_with_file_and_offset_and_leaves_no_store() {
    let home = Home::new();
    let store = home.open("store");
    fill(&store, "A", 0..30);
    store.snapshot().unwrap();
    fill(&store, "A", 0..30);
    store.backup(home.path("backup")).unwrap();
    let whole = files(&home.path("backup"));
    let mut tried = 0;
    for (path, bytes) in &whole {
        if path.extension().is_some_and(|extension| extension == "port") {
            continue;
        }
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for at in [9, 40, used / 2, used] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            fs::write(path, flipped).unwrap();
            let error = Store::restore(home.path("backup"), home.path("restored"));
            assert!(
                matches!(error, Err(Error::Damaged { .. })),
                "{} at {at}: {error:?}",
                path.display()
            );
            assert!(!home.path("restored").exists());
            tried += 1;
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(tried >= 5 * 4, "{tried}");
    // What they have left is no hindrance.
    Store::restore(home.path("backup"), home.path("restored")).unwrap();
    assert_eq!(contents(&home.open("restored")), contents(&store));
}

#[test]
fn a_backup_is_of_one_record_while_others_commit_and_trim() {
    let home = Home::new();
    let store = home.open("store");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (store, is_done, home) = (&store, &is_done, &home);
        for writer in 0..3u32 {
            scope.spawn(move || {
                for number in 0.. {
                    if is_done.load(Ordering::Acquire) {
                        return;
                    }
                    set(store, &format!("W{writer}\\{}", number % 50), number);
                    if writer == 0 && number % 40 == 0 {
                        store.snapshot().unwrap();
                        store.trim().unwrap();
                    }
                }
            });
        }
        for round in 0..8 {
            let backup = store.backup(home.path("backup")).unwrap();
            let name = format!("restored {round}");
            Store::restore(home.path("backup"), home.path(&name)).unwrap();
            let copy = home.open(&name);
            assert_eq!(copy.stat().unwrap().durable_sequence, backup.sequence);
            // Each writer counts: what it set last is at most 50 ahead of what it set longest ago.
            for writer in 0..3 {
                let entries = copy.list_recursive(&KeyPath::root()).unwrap();
                let prefix = format!("W{writer}\\");
                let numbers = entries.iter().filter_map(|entry| match entry {
                    Entry::Value { key, value, .. } if key.starts_with(&prefix) => {
                        Some(u32::from_le_bytes(value.data()[..4].try_into().unwrap()))
                    }
                    _ => None,
                });
                let numbers: Vec<_> = numbers.collect();
                let (min, max) = (numbers.iter().min(), numbers.iter().max());
                assert!(
                    max.zip(min).is_none_or(|(max, min)| max - min < 50),
                    "{numbers:?}"
                );
            }
        }
        is_done.store(true, Ordering::Release);
    });
}

#[test]
fn a_reader_of_a_store_that_is_restored_to_an_earlier_record_is_told() {
    let home = Home::new();
    let store = home.open("store");
    let parent = set(&store, "A", 1);
    store.backup(home.path("backup")).unwrap();
    let behind = Reader::open(home.path("store")).unwrap();
    set(&store, "A", 2);
    let ahead = Reader::open(home.path("store")).unwrap();
    let port = behind.port("p", &key("A")).unwrap();
    port.resync().unwrap();
    drop(store);
    fs::rename(home.path("store"), home.path("set aside")).unwrap();
    Store::restore(home.path("backup"), home.path("store")).unwrap();
    let copy = home.open("store");
    let branch = set(&copy, "A", 3);
    assert_eq!(branch, parent + 1);
    std::thread::sleep(std::time::Duration::from_millis(250));
    let error = ahead.stat().unwrap_err();
    assert!(matches!(error, Error::StoreReplaced { .. }), "{error}");
}
