//! Snapshots and the trimming of the journal: what goes, what stays, and what ports are told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clusdb::{Batch, Entry, Error, KeyPath, OpenedFrom, Options, PortInfo, Reader, Store, TrimReason, Value};

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

/// Segments of 4 KiB, nothing done without being asked, and no tree to open from.
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

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> Store {
        options().open(self.path()).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// 400 bytes of data, so that a segment has some records.
fn set(store: &Store, path: &str, number: u32) -> u64 {
    let mut data = [0; 400];
    data[..4].copy_from_slice(&number.to_le_bytes());
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    batch.set_value("v", Value::binary(data)).unwrap();
    store.commit(batch).unwrap().sequence().unwrap()
}

fn fill(store: &Store, path: &str, count: u32) -> u64 {
    (0..count).fold(0, |_, number| set(store, path, number))
}

fn contents(reader: &Reader) -> Vec<Entry> {
    reader.list_recursive(&KeyPath::root()).unwrap()
}

fn info(reader: &Reader, name: &str) -> PortInfo {
    reader
        .ports()
        .unwrap()
        .into_iter()
        .find(|port| port.name == name)
        .unwrap()
}

/// Two snapshots, and then trimming.
fn snapshots_and_trim(store: &Store) -> clusdb::Trimmed {
    store.snapshot().unwrap();
    fill(store, "Other", 1);
    store.snapshot().unwrap();
    store.trim().unwrap()
}

#[test]
fn a_trimmed_store_opens_from_its_snapshot_with_the_exact_state() {
    let home = Home::new();
    let store = home.open();
    fill(&store, "A\\B", 40);
    let trimmed = snapshots_and_trim(&store);
    assert!(
        trimmed.segments > 1 && trimmed.bytes == trimmed.segments * 4096,
        "{trimmed:?}"
    );
    assert_eq!(
        home.names("journal")[0],
        format!("{:020}.segment", trimmed.oldest)
    );
    let last = fill(&store, "A\\B", 3);
    let expected = contents(&store);
    assert_eq!(store.stat().unwrap().first_sequence, trimmed.oldest);
    let head = fs::read(home.path().join("head")).unwrap();
    assert_eq!(head[96..104], trimmed.oldest.to_le_bytes());
    drop(store);

    let reader = Reader::open(home.path()).unwrap();
    assert_eq!(contents(&reader), expected);
    assert_eq!(reader.stat().unwrap().opened_from, OpenedFrom::Snapshot);
    drop(reader);
    let store = home.open();
    assert_eq!(contents(&store), expected);
    let stat = store.stat().unwrap();
    assert_eq!(
        (stat.opened_from, stat.durable_sequence),
        (OpenedFrom::Snapshot, last)
    );
    assert_eq!(stat.replayed, 3);
    let log = store.log(1..=u64::MAX).unwrap();
    assert_eq!(log.batches().next().unwrap().sequence(), trimmed.oldest);
    assert_eq!(set(&store, "A", 1), last + 1);
}

/// Crash story 6: the journal reaches back to the older of two snapshots.
#[test]
fn without_two_whole_snapshots_nothing_is_trimmed_and_one_rotten_snapshot_loses_nothing() {
    let home = Home::new();
    let store = home.open();
    fill(&store, "A", 40);
    assert_eq!(store.trim().unwrap().segments, 0);
    let first = store.snapshot().unwrap().unwrap();
    assert_eq!(store.snapshot().unwrap(), Some(first), "it is there already");
    assert_eq!(store.trim().unwrap().segments, 0);
    fill(&store, "A", 40);
    let second = store.snapshot().unwrap().unwrap();
    let paths =
        [first, second].map(|sequence| home.path().join(format!("snapshots/{sequence:020}.snapshot")));
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for rotten in &paths {
        flip(rotten);
        assert_eq!(
            store.trim().unwrap().segments,
            0,
            "one whole snapshot is not enough"
        );
        flip(rotten);
    }
    let trimmed = store.trim().unwrap();
    assert!(trimmed.segments > 0 && trimmed.oldest <= first + 1, "{trimmed:?}");
    let expected = contents(&store);
    drop(store);
    for rotten in &paths {
        flip(rotten);
        let store = home.open();
        assert_eq!(contents(&store), expected);
        let stat = store.stat().unwrap();
        assert_eq!(stat.opened_from, OpenedFrom::Snapshot);
        assert_eq!(
            store.trim().unwrap().segments,
            0,
            "one whole snapshot is not enough"
        );
        drop(store);
        assert_eq!(contents(&Reader::open(home.path()).unwrap()), expected);
        flip(rotten);
    }
    paths.iter().for_each(|path| flip(path));
    for error in [
        options().open(home.path()).map(drop),
        Reader::open(home.path()).and_then(|reader| reader.stat().map(drop)),
    ] {
        let error = error.unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { file, .. } if file.ends_with("snapshots")),
            "{error}"
        );
    }
}

#[test]
fn a_port_holds_what_it_has_not_read_and_a_quiet_one_holds_nothing_and_loses_nothing() {
    let home = Home::new();
    let store = home.open();
    for (name, path) in [("quiet", "Quiet"), ("idle", "Quiet"), ("busy", "Busy")] {
        store.port(name, &key(path)).unwrap();
    }
    let needed = set(&store, "Busy", 7);
    fill(&store, "Other", 60);
    // The quiet port is open, and has not looked at anything.
    let quiet = store.open_port("quiet").unwrap();
    let trimmed = snapshots_and_trim(&store);
    assert_eq!(
        (trimmed.segments, trimmed.oldest),
        (0, 1),
        "the busy port holds the first segment"
    );
    let busy = info(&store, "busy");
    assert_eq!((busy.pending, busy.is_lagging), (1, false));
    assert!(busy.bytes_until_lost.unwrap() > 1 << 29);
    let got = store.open_port("busy").unwrap().get().unwrap();
    assert_eq!(got.batches().next().unwrap().sequence(), needed);
    assert!(got.acknowledge().is_err(), "its port was dropped");
    store.open_port("busy").unwrap().get().unwrap();
    let busy = store.open_port("busy").unwrap();
    busy.get().unwrap().acknowledge().unwrap();

    let trimmed = store.trim().unwrap();
    assert!(trimmed.segments > 0 && trimmed.lagging.is_empty(), "{trimmed:?}");
    assert!(trimmed.oldest > needed);
    // The view that is out keeps its bytes.
    assert_eq!(
        got.batches()
            .next()
            .unwrap()
            .changes()
            .last()
            .unwrap()
            .value()
            .unwrap()
            .data[0],
        7
    );
    let seen = |port: &clusdb::Port| {
        let got = port.try_get().unwrap();
        got.map(|got| got.batches().map(|batch| batch.sequence()).collect::<Vec<_>>())
    };
    assert_eq!(seen(&quiet), None);
    let noise = set(&store, "Quiet\\Below", 1);
    assert_eq!(seen(&quiet), Some(vec![noise]));
    drop((quiet, busy, store));
    // In other processes, and after opening the store anew.
    let reader = Reader::open(home.path()).unwrap();
    assert_eq!(info(&reader, "idle").pending, 1);
    assert_eq!(seen(&reader.open_port("idle").unwrap()), Some(vec![noise]));
    drop(reader);
    let store = home.open();
    for name in ["quiet", "idle"] {
        assert_eq!(seen(&store.open_port(name).unwrap()), Some(vec![noise]), "{name}");
    }
    assert_eq!(seen(&store.open_port("busy").unwrap()), None);
}

#[test]
fn a_port_that_is_left_behind_is_told_what_it_asked_for_and_why_until_it_reads_the_contents() {
    let home = Home::new();
    let store = options().journal_limit_bytes(16 << 10).open(home.path()).unwrap();
    let port = store.port("p", &key("A")).unwrap();
    let first = fill(&store, "Other", 3) + 1;
    fill(&store, "A", 60);
    let before = info(&store, "p");
    assert_eq!(
        (before.pending, before.bytes_until_lost, before.is_lagging),
        (60, Some(0), false)
    );
    let trimmed = snapshots_and_trim(&store);
    assert_eq!(trimmed.lagging, ["p"]);
    assert!(store.stat().unwrap().journal_bytes <= 16 << 10);
    let told = |result: clusdb::Result<()>| match result.unwrap_err() {
        Error::Lagged {
            name,
            epoch,
            asked,
            oldest,
            time,
            reason,
        } => {
            assert_eq!(
                (&*name, asked, oldest, reason),
                ("p", first, trimmed.oldest, TrimReason::Bytes)
            );
            assert_eq!(epoch, store.stat().unwrap().epoch);
            assert!(time > 1_700_000_000_000_000);
        }
        error => panic!("{error}"),
    };
    told(port.try_get().map(drop));
    told(port.get().map(drop));
    port.rewind().unwrap();
    told(port.get_timeout(Duration::ZERO).map(drop));
    drop(port);
    let port = store.open_port("p").unwrap();
    told(port.get().map(drop));
    assert!(info(&store, "p").is_lagging);
    drop(port);
    {
        // By way of another process.
        let reader = Reader::open(home.path()).unwrap();
        assert!(info(&reader, "p").is_lagging);
        told(reader.open_port("p").unwrap().get().map(drop));
    }
    let port = store.open_port("p").unwrap();
    let contents = port.resync().unwrap();
    assert_eq!(contents.entries().len(), 2);
    contents.acknowledge().unwrap();
    assert_eq!(port.try_get().unwrap().map(drop), None);
    assert!(!info(&store, "p").is_lagging);
    let next = set(&store, "A", 1);
    assert_eq!(port.get().unwrap().batches().next().unwrap().sequence(), next);
    // A port made anew under the name has nothing to do with it.
    drop(port);
    store.remove_port("p").unwrap();
    assert!(home.names("ports").iter().all(|name| !name.starts_with("p.")));
    let port = store.port("p", &key("A")).unwrap();
    let next = set(&store, "A", 2);
    assert_eq!(port.get().unwrap().batches().next().unwrap().sequence(), next);
}

#[test]
fn what_is_not_known_of_the_part_that_is_gone_counts_as_lost() {
    let home = Home::new();
    let store = home.open();
    store.port("p", &key("Quiet")).unwrap();
    fill(&store, "Other", 60);
    assert!(snapshots_and_trim(&store).segments > 0);
    let note = home.path().join("ports/p.trimmed");
    let whole = fs::read(&note).unwrap();
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    for bytes in [Some(damaged), None] {
        match bytes {
            Some(bytes) => fs::write(&note, bytes).unwrap(),
            None => fs::remove_file(&note).unwrap(),
        }
        let error = store.open_port("p").unwrap().try_get().map(drop).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Lagged {
                    asked: 1,
                    reason: TrimReason::Unknown,
                    time: 0,
                    ..
                }
            ),
            "{error}"
        );
    }
    fs::write(&note, whole).unwrap();
    assert!(store.open_port("p").unwrap().try_get().unwrap().is_none());
}

#[test]
fn an_acknowledgement_with_a_batch_that_is_trimmed_stays() {
    let home = Home::new();
    let store = home.open();
    let port = store.port("p", &key("A")).unwrap();
    let first = set(&store, "A", 1);
    port.get()
        .unwrap()
        .acknowledge_with({
            let mut batch = Batch::at(&key("Results"));
            batch.create_key("").unwrap();
            batch
        })
        .unwrap();
    fill(&store, "Other", 60);
    let trimmed = snapshots_and_trim(&store);
    assert!(
        trimmed.oldest > first + 1 && trimmed.lagging.is_empty(),
        "{trimmed:?}"
    );
    // As a kill leaves the store: the port's file has not followed.
    let copy = home.folder.path().join("copy");
    assert!(
        std::process::Command::new("cp")
            .arg("-r")
            .args([home.path(), copy.clone()])
            .status()
            .unwrap()
            .success()
    );
    let killed = options().open(copy).unwrap();
    let port = killed.open_port("p").unwrap();
    assert_eq!(port.acknowledged(), first);
    assert_eq!(port.try_get().unwrap().map(drop), None);
    let next = set(&killed, "A", 2);
    assert_eq!(port.get().unwrap().batches().next().unwrap().sequence(), next);
}

/// Crash story 6: the files may come back in any order after a crash.
#[test]
fn what_was_trimmed_and_comes_back_is_removed_and_not_read() {
    let home = Home::new();
    let store = home.open();
    fill(&store, "A", 60);
    let names = home.names("journal");
    let kept: Vec<_> = names
        .iter()
        .map(|name| fs::read(home.path().join("journal").join(name)).unwrap())
        .collect();
    let trimmed = snapshots_and_trim(&store);
    assert!(trimmed.segments > 3);
    let expected = contents(&store);
    drop(store);
    let after = home.names("journal");
    for (name, bytes) in names
        .iter()
        .zip(&kept)
        .take(trimmed.segments as usize)
        .skip(1)
        .step_by(2)
    {
        fs::write(home.path().join("journal").join(name), bytes).unwrap();
    }
    assert!(options().check(home.path(), true).unwrap().is_whole());
    let reader = Reader::open(home.path()).unwrap();
    assert_eq!(contents(&reader), expected);
    assert_eq!(reader.stat().unwrap().first_sequence, trimmed.oldest);
    let store = home.open();
    assert_eq!(contents(&store), expected);
    assert_eq!(home.names("journal"), after);
}

/// No SIGBUS, and no gap: a reader of another process is where the writer trims.
#[test]
fn views_are_walked_while_the_journal_is_trimmed_under_them() {
    let home = Home::new();
    let store = options().journal_limit_bytes(32 << 10).open(home.path()).unwrap();
    let port = store.port("p", &key("A")).unwrap();
    let follower = Reader::open(home.path()).unwrap();
    let followed = follower.port("f", &key("A")).unwrap();
    let is_done = AtomicBool::new(false);
    let walk = |port: &clusdb::Port| {
        let (mut held, mut seen, mut lagged) = (Vec::new(), 0u64, 0);
        while !is_done.load(Ordering::Acquire) {
            match port.get_timeout(Duration::from_millis(5)) {
                Ok(Some(got)) => held.push(got),
                Ok(None) => {}
                Err(Error::Lagged { .. }) => {
                    lagged += 1;
                    port.resync().unwrap().acknowledge().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
            // All that are out, again and again.
            for got in &held {
                for batch in got.batches() {
                    let value = batch.changes().last().unwrap().value().unwrap();
                    assert_eq!(value.data.len(), 400);
                    seen += u64::from(value.data[0]);
                }
            }
            if held.len() > 20 {
                held.clear();
            }
        }
        (seen, lagged)
    };
    let walk = &walk;
    std::thread::scope(|scope| {
        let walkers = [&port, &followed].map(|port| scope.spawn(move || walk(port)));
        for _ in 0..15 {
            fill(&store, "A", 20);
            snapshots_and_trim(&store);
        }
        is_done.store(true, Ordering::Release);
        for walker in walkers {
            assert!(walker.join().unwrap().0 > 0);
        }
    });
    assert!(store.stat().unwrap().journal_bytes <= 36 << 10);
}

#[test]
fn a_snapshot_is_of_one_record_while_eight_writers_commit() {
    let home = Home::new();
    let store = Store::options()
        .keep(false)
        .tree(false)
        .open(home.path())
        .unwrap();
    fill(&store, "Large", 1);
    for number in 0..3000 {
        set(&store, &format!("Large\\{number}"), number);
    }
    let is_done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        for writer in 0..8 {
            let (store, is_done) = (&store, &is_done);
            scope.spawn(move || {
                for number in 0.. {
                    if is_done.load(Ordering::Acquire) {
                        return;
                    }
                    let path = format!("Large\\{}\\{writer}", number % 3000);
                    match number % 3 {
                        0 => drop(set(store, &path, number)),
                        1 => {
                            let mut batch = Batch::at(&KeyPath::root());
                            batch
                                .delete_key(&format!("Large\\{}", number * 7 % 3000))
                                .unwrap();
                            store.commit(batch).unwrap();
                        }
                        _ => drop(set(store, &format!("Small\\{writer}"), number)),
                    }
                }
            });
        }
        let taken: Vec<_> = (0..6).map(|_| store.snapshot().unwrap().unwrap()).collect();
        is_done.store(true, Ordering::Release);
        taken
    });
    assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?}");
    let expected = contents(&store);
    drop(store);
    // The newest alone: what it holds, and the records behind it.
    let store = home.open();
    let stat = store.stat().unwrap();
    assert_eq!(stat.opened_from, OpenedFrom::Snapshot);
    assert_eq!(stat.replayed, stat.durable_sequence - taken[5]);
    assert_eq!(contents(&store), expected);
}

#[test]
fn a_store_keeps_itself_once_enough_has_come() {
    let home = Home::new();
    let store = Store::options()
        .segment_size_bytes(1 << 20)
        .value_limit_bytes(4 << 20)
        .tree(false)
        .open(home.path())
        .unwrap();
    let data = vec![7; 900 << 10];
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let mut number = 0u32;
    while store.stat().unwrap().first_sequence == 1 {
        assert!(std::time::Instant::now() < deadline, "nothing was trimmed");
        let mut batch = Batch::at(&key("A"));
        batch.create_key("").unwrap();
        let mut data = data.clone();
        data[..4].copy_from_slice(&number.to_le_bytes());
        batch.set_value("v", Value::binary(data)).unwrap();
        store.commit(batch).unwrap();
        number += 1;
    }
    // Two snapshots, each after 64 MiB of journal.
    assert!(number > 128 * 10 / 18, "{number} batches");
    assert_eq!(home.names("snapshots").len(), 2);
    let expected = contents(&store);
    drop(store);
    assert_eq!(contents(&home.open()), expected);
}
