//! Keeping a store where its steps meet others: a trimming between two steps of an opening, a second loss, histories that were
//! left, repairs that are cut short.

#[path = "support/events.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod events;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/probe.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod probe;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, io};

use clusdb::env::{Env, File, OsEnv};
use clusdb::{Batch, Error, KeyPath, Options, Port, Reader, Store, TrimReason, Value};
use folder::copy_folder;
use probe::{Fate, Probe};

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn options() -> Options {
    Store::options().segment_size_bytes(4096).keep(false).tree(false)
}

/// A record of some 500 bytes.
fn batch(path: &str, number: u32) -> Batch {
    let mut data = [0; 400];
    data[..4].copy_from_slice(&number.to_le_bytes());
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    batch.set_value("v", Value::binary(data)).unwrap();
    batch
}

fn set(store: &Store, path: &str, number: u32) -> u64 {
    store.commit(batch(path, number)).unwrap().sequence().unwrap()
}

fn fill(store: &Store, path: &str, count: u32) -> u64 {
    (0..count).fold(0, |_, number| set(store, path, number))
}

fn snapshots_and_trim(store: &Store) -> clusdb::Trimmed {
    store.snapshot().unwrap();
    fill(store, "Other", 1);
    store.snapshot().unwrap();
    store.trim().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    (folder, path)
}

fn shown(port: &Port) -> Vec<u64> {
    let got = port.try_get().unwrap();
    got.map(|got| got.batches().map(|batch| batch.sequence()).collect())
        .unwrap_or_default()
}

/// What a port that was left behind asked for, and why it is gone.
#[track_caller]
fn lagged(port: &Port) -> (u64, TrimReason) {
    match port.try_get().map(drop).unwrap_err() {
        Error::Lagged { asked, reason, .. } => (asked, reason),
        error => panic!("{error}"),
    }
}

type Hook = Box<dyn FnMut(&Path) + Send>;

/// The real files, and something that happens when one is opened.
#[derive(Clone, Default)]
struct Hooked(Arc<Mutex<Option<Hook>>>);

impl Hooked {
    fn hook(&self, hook: impl FnMut(&Path) + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(hook));
    }
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Env for Hooked {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsEnv.create_dir(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        OsEnv.list_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsEnv.sync_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        OsEnv.create_file(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OsEnv.open_file(path);
        // What it does opens files too.
        let hook = self.0.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(path);
            self.0.lock().unwrap().get_or_insert(hook);
        }
        file
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsEnv.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsEnv.remove_file(path)
    }

    fn now(&self) -> i64 {
        OsEnv.now()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()> {
        OsEnv.fill_random(buffer)
    }
}

#[test]
fn a_port_that_is_opened_while_the_journal_is_trimmed_misses_nothing_silently() {
    let (_home, path) = home();
    let env = Hooked::default();
    let options = options().journal_limit_bytes(8192).env(Arc::new(env.clone()));
    let store = options.open(&path).unwrap();
    drop(store.port("p", &key("A")).unwrap());
    fill(&store, "Other", 40);
    assert!(snapshots_and_trim(&store).lagging.is_empty());
    let first = set(&store, "A", 1);
    fill(&store, "A", 40);
    fill(&store, "Other", 30);
    store.snapshot().unwrap();
    set(&store, "Other", 1);
    store.snapshot().unwrap();
    let (trimming, mut seen) = (store.clone(), 0);
    env.hook(move |path| {
        if path.ends_with("p.trimmed") {
            seen += 1;
            // Once for the acknowledgements, once for the place.
            if seen == 2 {
                assert_eq!(trimming.trim().unwrap().lagging, ["p"]);
            }
        }
    });
    let port = store.open_port("p").unwrap();
    assert_eq!(lagged(&port), (first, TrimReason::Bytes));
}

#[test]
fn a_reader_that_is_opened_while_the_journal_is_trimmed_sees_a_whole_one() {
    let (_home, path) = home();
    let store = options().open(&path).unwrap();
    fill(&store, "Other", 60);
    store.snapshot().unwrap();
    set(&store, "Other", 1);
    store.snapshot().unwrap();
    let (trimming, mut is_done) = (store.clone(), false);
    let env = Hooked::default();
    env.hook(move |path| {
        if !is_done && path.ends_with("00000000000000000001.segment") {
            is_done = true;
            assert!(trimming.trim().unwrap().segments > 0);
        }
    });
    let reader = Reader::options().env(Arc::new(env)).open_reader(&path).unwrap();
    let log = reader.log(1..=u64::MAX).unwrap();
    let first = log.batches().next().unwrap().sequence();
    assert_eq!(log.len() as u64, 61 - (first - 1));
    assert_eq!(reader.stat().unwrap().first_sequence, first);
    assert_eq!(
        reader.list_recursive(&KeyPath::root()).unwrap(),
        store.list_recursive(&KeyPath::root()).unwrap()
    );
}

#[test]
fn what_was_lost_stays_lost_through_later_trimmings_whatever_became_of_the_note() {
    for spoil in [None, Some(false), Some(true)] {
        let (_home, path) = home();
        let store = options().journal_limit_bytes(8192).open(&path).unwrap();
        drop(store.port("p", &key("A")).unwrap());
        fill(&store, "A", 40);
        fill(&store, "Other", 30);
        assert_eq!(snapshots_and_trim(&store).lagging, ["p"]);
        let note = path.join("ports/p.trimmed");
        match spoil {
            None => {}
            Some(true) => fs::remove_file(&note).unwrap(),
            Some(false) => flip(&note, 50),
        }
        let reason = spoil.map_or(TrimReason::Bytes, |_| TrimReason::Unknown);
        for _ in 0..2 {
            assert_eq!(lagged(&store.open_port("p").unwrap()), (1, reason));
            fill(&store, "Other", 60);
            assert!(snapshots_and_trim(&store).segments > 0);
        }
        assert_eq!(lagged(&store.open_port("p").unwrap()), (1, reason));
        assert!(store.ports().unwrap()[0].is_lagging);
    }
}

#[test]
fn an_acknowledgement_of_a_record_that_is_gone_acknowledges_no_other() {
    for is_trimmed_again in [false, true] {
        let (folder, path) = home();
        let options = || options().journal_limit_bytes(8192).notification_limit_bytes(3000);
        let store = options().open(&path).unwrap();
        let port = store.port("p", &key("A")).unwrap();
        fill(&store, "A", 40);
        let got = port.try_get().unwrap().unwrap();
        let last = got.batches().last().unwrap().sequence();
        assert_eq!(snapshots_and_trim(&store).lagging, ["p"]);
        got.acknowledge_with(batch("Results", 1)).unwrap();
        if is_trimmed_again {
            fill(&store, "Other", 60);
            snapshots_and_trim(&store);
        }
        // As a kill leaves it.
        let copy = folder.path().join("copy");
        copy_folder(&path, &copy);
        let store = options().open(copy).unwrap();
        let port = store.open_port("p").unwrap();
        assert_eq!(port.acknowledged(), last);
        assert_eq!(lagged(&port), (last + 1, TrimReason::Bytes));
    }
}

#[test]
fn an_acknowledgement_with_a_batch_lets_go_of_what_it_acknowledges() {
    for limit in [u64::MAX, 8192] {
        let (_home, path) = home();
        let store = options().journal_limit_bytes(limit).open(&path).unwrap();
        let port = store.port("p", &key("A")).unwrap();
        fill(&store, "A", 40);
        let got = port.get().unwrap();
        got.acknowledge_with(batch("Results", 1)).unwrap();
        fill(&store, "Other", 60);
        let trimmed = snapshots_and_trim(&store);
        assert!(trimmed.oldest > 40 && trimmed.lagging.is_empty(), "{trimmed:?}");
        assert_eq!(shown(&port), [0; 0]);
    }
}

#[test]
fn a_note_of_a_branch_that_was_left_says_nothing_of_the_new_one() {
    let (folder, path) = home();
    let store = options().open(&path).unwrap();
    drop(store.port("p", &key("A")).unwrap());
    fill(&store, "Other", 10);
    store.backup(folder.path().join("backup")).unwrap();
    fill(&store, "Other", 100);
    assert!(snapshots_and_trim(&store).oldest > 40);
    drop(store);
    let restored = folder.path().join("restored");
    Store::restore(folder.path().join("backup"), &restored).unwrap();
    for name in ["ports/p.port", "ports/p.trimmed"] {
        fs::copy(path.join(name), restored.join(name)).unwrap();
    }
    let store = options().open(&restored).unwrap();
    let first = set(&store, "A", 1);
    fill(&store, "Other", 60);
    let trimmed = snapshots_and_trim(&store);
    assert!(trimmed.oldest <= first, "the port needs it: {trimmed:?}");
    assert_eq!(shown(&store.open_port("p").unwrap()), [first]);
}

#[test]
fn a_reader_does_not_take_one_branch_for_another() {
    let (folder, path) = home();
    let store = options().open(&path).unwrap();
    let parent = fill(&store, "A", 5);
    let backup = folder.path().join("backup");
    store.backup(&backup).unwrap();
    drop(store);
    let restored = folder.path().join("restored");
    Store::restore(&backup, &restored).unwrap();
    let writer = options().open(&restored).unwrap();
    let reader = Reader::open(&restored).unwrap();
    let port = reader.port("p", &key("A")).unwrap();
    assert_eq!(reader.stat().unwrap().durable_sequence, parent);
    fill(&writer, "A", 3);
    drop(writer);
    fs::rename(&restored, folder.path().join("left")).unwrap();
    Store::restore(&backup, &restored).unwrap();
    let writer = options().open(&restored).unwrap();
    fill(&writer, "A", 3);
    std::thread::sleep(Duration::from_millis(300));
    for error in [reader.stat().map(drop), port.try_get().map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, Error::StoreReplaced { .. }), "{error}");
    }
}

#[test]
fn the_ports_of_an_empty_store_go_on_in_one_that_is_restored_from_it() {
    let (folder, path) = home();
    let store = options().open(&path).unwrap();
    drop(store.port("p", &key("A")).unwrap());
    let backup = folder.path().join("backup");
    store.backup(&backup).unwrap();
    let restored = folder.path().join("restored");
    Store::restore(&backup, &restored).unwrap();
    let copy = options().open(&restored).unwrap();
    let first = set(&copy, "A", 1);
    assert_eq!(shown(&copy.open_port("p").unwrap()), [first]);
    store.backup(&backup).unwrap();
}

#[test]
fn a_backup_that_is_cut_short_leaves_the_ports_of_the_earlier_one() {
    let (folder, path) = home();
    let probe = Probe::new();
    let store = options().env(probe.env()).open(&path).unwrap();
    let port = store.port("p", &key("A")).unwrap();
    drop(store.port("gone", &key("A")).unwrap());
    let first = set(&store, "A", 1);
    let backup = folder.path().join("backup");
    store.backup(&backup).unwrap();
    port.get().unwrap().acknowledge().unwrap();
    store.remove_port("gone").unwrap();
    set(&store, "A", 2);
    for cut in 0.. {
        let mut left = cut;
        probe.rule(move |_| match left {
            0 => Fate::Fails(io::ErrorKind::Other),
            _ => {
                left -= 1;
                Fate::Done
            }
        });
        let is_done = store.backup(&backup).is_ok();
        probe.rule(|_| Fate::Done);
        let restored = folder.path().join(format!("restored {cut}"));
        let sequence = Store::restore(&backup, &restored).unwrap().sequence;
        let copy = options().open(&restored).unwrap();
        match sequence == first {
            true => {
                assert_eq!(shown(&copy.open_port("p").unwrap()), [first], "{cut}");
                assert_eq!(shown(&copy.open_port("gone").unwrap()), [first], "{cut}");
            }
            false => assert_eq!(shown(&copy.open_port("p").unwrap()), [first + 1], "{cut}"),
        }
        if is_done {
            assert!(cut > 5);
            return;
        }
    }
}

/// Crash story 4.
#[test]
fn a_snapshot_vouches_whatever_the_state_is_read_from() {
    let (folder, path) = home();
    let options = || Store::options().keep(false).segment_size_bytes(64 << 10);
    let store = options().open(&path).unwrap();
    fill(&store, "A", 600);
    drop(store);
    let copy = folder.path().join("copy");
    copy_folder(&path, &copy);
    let store = options().tree(false).open(&path).unwrap();
    fill(&store, "A", 50);
    store.snapshot().unwrap();
    drop(store);
    // The tree is of the record 600, and so is the journal now.
    fs::remove_dir_all(path.join("journal")).unwrap();
    copy_folder(&copy.join("journal"), &path.join("journal"));
    fs::remove_file(path.join("head")).unwrap();
    assert!(fs::read_dir(&path).unwrap().any(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.starts_with("tree.")
    }));
    let error = options().open(&path).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn a_repair_that_is_cut_short_leaves_no_store_that_has_lost_records_in_its_old_epoch() {
    for is_head_spoilt in [false, true] {
        for cut in 0.. {
            let (_home, path) = home();
            let options = || options().segment_size_bytes(1 << 20);
            let store = options().open(&path).unwrap();
            fill(&store, "A", 40);
            let epoch = store.stat().unwrap().epoch;
            drop(store);
            flip(&path.join("journal/00000000000000000001.segment"), 10_000);
            if is_head_spoilt {
                flip(&path.join("head"), 3);
            }
            let (probe, mut left) = (Probe::new(), cut);
            probe.rule(move |_| match left {
                0 => Fate::Fails(io::ErrorKind::Other),
                _ => {
                    left -= 1;
                    Fate::Done
                }
            });
            let is_done = options().env(probe.env()).repair(&path).is_ok();
            if let Ok(store) = options().open(&path) {
                assert_ne!(store.stat().unwrap().epoch, epoch, "cut at {cut}");
            }
            if is_done {
                assert!(cut > 10);
                break;
            }
            // And it can be finished.
            if options().open(&path).is_err() {
                options().repair(&path).unwrap();
                assert_ne!(options().open(&path).unwrap().stat().unwrap().epoch, epoch);
            }
        }
    }
}

#[test]
fn a_trimmed_store_without_a_whole_snapshot_has_a_fault_and_keeps_what_is_left_of_them() {
    for is_rotten in [false, true] {
        let (_home, path) = home();
        let store = options().open(&path).unwrap();
        fill(&store, "A", 40);
        assert!(snapshots_and_trim(&store).segments > 0);
        drop(store);
        for entry in fs::read_dir(path.join("snapshots")).unwrap() {
            let file = entry.unwrap().path();
            match is_rotten {
                true => flip(&file, 60),
                false => fs::remove_file(file).unwrap(),
            }
        }
        let report = options().check(&path, false).unwrap();
        let is_it =
            |fault: &Error| matches!(fault, Error::Damaged { file, .. } if file.ends_with("snapshots"));
        assert!(report.faults.iter().any(is_it), "{:?}", report.faults);
        let before = fs::read_dir(path.join("snapshots")).unwrap().count();
        assert!(options().repair(&path).is_err());
        assert_eq!(fs::read_dir(path.join("snapshots")).unwrap().count(), before);
    }
}

#[test]
fn a_repair_keeps_what_a_trimming_has_noted_of_acknowledgements() {
    let (folder, path) = home();
    let options = || options().journal_limit_bytes(8192);
    let store = options().open(&path).unwrap();
    let port = store.port("p", &key("A")).unwrap();
    let last = fill(&store, "A", 3);
    let got = port.get().unwrap();
    got.acknowledge_with(batch("Results", 1)).unwrap();
    fill(&store, "Other", 60);
    let oldest = snapshots_and_trim(&store).oldest;
    fill(&store, "Other", 30);
    store.snapshot().unwrap();
    let copy = folder.path().join("copy");
    copy_folder(&path, &copy);
    flip(&copy.join(format!("journal/{oldest:020}.segment")), 300);
    assert!(options().repair(&copy).unwrap().trimmed.is_some());
    let store = options().open(&copy).unwrap();
    let port = store.open_port("p").unwrap();
    assert_eq!(port.acknowledged(), last);
    assert_eq!(lagged(&port).1, TrimReason::Repair);
}

#[test]
fn a_port_that_cannot_be_opened_hides_no_other_and_holds_nothing_up() {
    let (folder, path) = home();
    let store = options().open(&path).unwrap();
    for name in ["bad", "good", "link"] {
        drop(store.port(name, &key("A")).unwrap());
    }
    fs::write(path.join("ports/bad.port"), "x").unwrap();
    let link = path.join("ports/link.port");
    fs::rename(&link, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
    fill(&store, "Other", 60);
    let ports = store.ports().unwrap();
    let faults: Vec<_> = ports
        .iter()
        .map(|port| (&*port.name, port.fault.is_some()))
        .collect();
    assert_eq!(faults, [("bad", true), ("good", false), ("link", true)]);
    assert!(snapshots_and_trim(&store).segments > 0);
    store.backup(folder.path().join("backup")).unwrap();
}

#[test]
fn the_keeper_trims_what_is_over_the_limit_in_age() {
    let (_home, path) = home();
    let options = Store::options().segment_size_bytes(4096).tree(false);
    let options = options.journal_limit_age(Duration::from_millis(300));
    let store = options.open(&path).unwrap();
    let port = store.port("p", &key("A")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.stat().unwrap().first_sequence == 1 {
        assert!(Instant::now() < deadline, "nothing was trimmed");
        set(&store, "A", 1);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(lagged(&port), (1, TrimReason::Age));
}

/// Three quarters of the limit are used.
#[test]
fn a_port_that_is_about_to_be_left_behind_is_warned_of_and_one_that_has_room_is_not() {
    for (limit, is_warned) in [(60 << 10, true), (100 << 10, false)] {
        let (_home, path) = home();
        let store = options().journal_limit_bytes(limit).open(&path).unwrap();
        drop(store.port("behind", &key("A")).unwrap());
        fill(&store, "A", 45);
        let (trimmed, told) = events::record(|| snapshots_and_trim(&store));
        assert_eq!((trimmed.segments, trimmed.lagging.len()), (0, 0));
        let bytes = store.stat().unwrap().journal_bytes;
        assert!((limit * 3 / 4..limit).contains(&bytes) == is_warned, "{bytes}");
        assert_eq!(told.contains("about to be left behind"), is_warned, "{told}");
        assert!(!is_warned || told.contains(r#"port="behind""#), "{told}");
    }
}

#[test]
fn the_keeper_trims_a_journal_that_is_over_its_limit() {
    let (_home, path) = home();
    let limit = 256 << 10;
    let options = Store::options().segment_size_bytes(16 << 10).tree(false);
    let store = options.journal_limit_bytes(limit).open(&path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    fill(&store, "A", 2000);
    while store.stat().unwrap().journal_bytes > limit {
        assert!(Instant::now() < deadline, "{:?}", store.stat().unwrap());
        std::thread::sleep(Duration::from_millis(100));
        fill(&store, "A", 20);
    }
}
