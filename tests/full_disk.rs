//! A full disk: commits are refused, nothing is lost, and everything else goes on; also opening the store. In an environment
//! where all that takes room fails, and on a small file system that is really full, where one can be mounted.

#[path = "support/events.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod events;
#[path = "support/folder.rs"]
mod folder;
#[path = "support/probe.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod probe;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clusdb::{Batch, Error, KeyPath, OpenedFrom, Reader, Store, Value};
use folder::copy_folder;
use probe::{Fate, Op, Probe};
use tempfile::TempDir;

const STORE: &str = "CLUSDB_TEST_FULL_DISK_STORE";

fn set(store: &Store, number: u32) -> clusdb::Result<u64> {
    let mut batch = Batch::at(&KeyPath::root());
    batch.set_value("v", Value::dword(number))?;
    Ok(store.commit(batch)?.sequence().unwrap())
}

fn set_large(store: &Store, bytes: usize) -> clusdb::Result<u64> {
    let mut batch = Batch::at(&KeyPath::root());
    batch.set_value("large", Value::binary(vec![7; bytes]))?;
    Ok(store.commit(batch)?.sequence().unwrap())
}

fn value(reader: &Reader) -> Option<Value> {
    reader.get(&KeyPath::root(), "v").unwrap()
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Preallocation { .. }) && error.word() == "no_space"
}

/// Whether the operation takes room: a file that is made or written aside, and a segment that is made longer.
fn takes_room(op: &Op) -> bool {
    match op {
        Op::Create(_) => true,
        Op::Write { file, offset, bytes } => {
            file.ends_with(".unfinished")
                || file.ends_with(".segment") && offset + bytes.len() as u64 > 1 << 20
        }
        _ => false,
    }
}

fn fill(probe: &Probe) {
    probe.rule(|op| match takes_room(op) {
        true => Fate::Fails(ErrorKind::StorageFull),
        false => Fate::Done,
    });
}

#[test]
fn on_a_full_disk_a_store_is_read_closed_and_opened_and_goes_on_once_there_is_room() {
    let (probe, home) = (Probe::new(), tempfile::tempdir().unwrap());
    let path = home.path().join("store");
    let open = |path: &Path| Store::options().env(probe.env()).open(path).unwrap();
    let store = open(&path);
    let port = store.port("p", &KeyPath::root()).unwrap();
    set(&store, 1).unwrap();
    fill(&probe);
    assert!(is_refused(&set_large(&store, 1 << 20).unwrap_err()));
    assert_eq!(set(&store, 2).unwrap(), 2, "a small one still fits");
    let reader = Reader::options().env(probe.env()).open_reader(&path).unwrap();
    assert_eq!(
        (value(&store), value(&reader)),
        (Some(Value::dword(2)), Some(Value::dword(2)))
    );
    port.get().unwrap().acknowledge().unwrap();
    let error = store.port("q", &KeyPath::root()).unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
        "{error}"
    );
    // What the next life finds after a kill, and after an end.
    let killed = home.path().join("killed");
    copy_folder(&path, &killed);
    drop(port);
    store.close().unwrap();
    for path in [&killed, &path] {
        let store = open(path);
        assert_eq!(value(&store), Some(Value::dword(2)));
        assert_eq!(store.open_port("p").unwrap().acknowledged(), 2);
        assert_eq!(set(&store, 3).unwrap(), 3);
        assert!(is_refused(&set_large(&store, 1 << 20).unwrap_err()));
        probe.rule(|_| Fate::Done);
        assert_eq!(set_large(&store, 1 << 20).unwrap(), 4, "it goes on by itself");
        fill(&probe);
        store.close().unwrap();
    }
    // Whoever followed it went along with the head that the spare became.
    probe.rule(|_| Fate::Done);
    let store = open(&path);
    assert_eq!(value(&reader), Some(Value::dword(3)));
    set(&store, 5).unwrap();
    assert_eq!(value(&reader), Some(Value::dword(5)));
}

/// Crash story 11: the spare too is written and synced before it is mapped, and who waits on the old page is sent on.
#[test]
fn the_spare_is_written_and_synced_before_it_is_the_head_and_mapped() {
    let (probe, home) = (Probe::new(), tempfile::tempdir().unwrap());
    let path = home.path().join("store");
    let options = || Store::options().env(probe.env());
    let store = options().open(&path).unwrap();
    set(&store, 1).unwrap();
    let spare = fs::read(path.join("head.spare")).unwrap();
    assert!(spare.len() == 4096 && !spare.contains(&0), "no hole");
    store.close().unwrap();
    let before = fs::File::open(path.join("head")).unwrap();
    fill(&probe);
    probe.take();
    let store = options().open(&path).unwrap();
    let ops = probe.take();
    let at = |wanted: Op| {
        ops.iter()
            .position(|op| *op == wanted)
            .unwrap_or_else(|| panic!("no {wanted:?}: {ops:?}"))
    };
    let is_written = |op: &Op| matches!(op, Op::Write { file, offset: 0, bytes } if file == "head.spare" && bytes.len() == 4096);
    let written = ops.iter().position(is_written).expect("the spare is written");
    let renamed = at(Op::Exchange("head.spare".into(), "head".into()));
    let synced = at(Op::Sync("head.spare".into()));
    let folder = ops[renamed..]
        .iter()
        .position(|op| *op == Op::SyncDir("store".into()));
    assert!(
        written < synced && synced < renamed && folder.is_some(),
        "{ops:?}"
    );
    let maps: Vec<_> = (0..ops.len())
        .filter(|at| matches!(&ops[*at], Op::MapPage(_)))
        .collect();
    assert!(
        maps.len() == 2 && maps[0] < written && maps[1] > renamed,
        "the old one, to tell it; then the new one: {ops:?}"
    );
    let mut page = Vec::new();
    (&before).read_to_end(&mut page).unwrap();
    assert_eq!(page[32], 4, "replaced");
    store.close().unwrap();
}

/// A page that a reader still has mapped becomes the head of another store in the same place: the reader is not misled.
#[test]
fn a_page_that_is_used_again_is_told_from_the_one_that_it_was() {
    let (probe, home) = (Probe::new(), tempfile::tempdir().unwrap());
    let (path, other) = (home.path().join("store"), home.path().join("other"));
    let options = || Store::options().env(probe.env());
    set(&options().open(&path).unwrap(), 1).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(value(&reader), Some(Value::dword(1)));
    let store = options().open(&other).unwrap();
    for number in 0..9 {
        set(&store, number).unwrap();
    }
    store.close().unwrap();
    fs::rename(path.join("head"), other.join("head.spare")).unwrap();
    fs::remove_dir_all(&path).unwrap();
    fs::rename(&other, &path).unwrap();
    fill(&probe);
    let store = options().open(&path).unwrap();
    set(&store, 10).unwrap();
    let error = reader.get(&KeyPath::root(), "v").unwrap_err();
    assert!(matches!(error, Error::StoreReplaced { .. }), "{error}");
    store.close().unwrap();
}

/// Nothing of it is believed, whatever a crash has left in it; and without it, room is all that is missing.
#[test]
fn a_spare_in_any_state_is_no_harm_and_without_one_opening_says_that_there_is_no_room() {
    let (probe, home) = (Probe::new(), tempfile::tempdir().unwrap());
    let path = home.path().join("store");
    let open = || Store::options().env(probe.env()).open(&path);
    set(&open().unwrap(), 7).unwrap();
    let (head, spare) = (path.join("head"), path.join("head.spare"));
    let valid = fs::read(&head).unwrap();
    for left in [&valid[..], &valid[..100], &[0; 4096], &[]] {
        fs::write(&spare, left).unwrap();
        for is_full in [false, true] {
            if is_full && left.len() == 4096 {
                fill(&probe);
            }
            assert_eq!(value(&open().unwrap()), Some(Value::dword(7)));
            probe.rule(|_| Fate::Done);
        }
        drop(open().unwrap());
        assert_eq!(fs::read(&spare).unwrap().len(), 4096, "made again");
    }
    fs::remove_file(&spare).unwrap();
    let before = fs::read(&head).unwrap();
    fill(&probe);
    let error = open().unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
        "{error}"
    );
    assert_eq!(fs::read(&head).unwrap(), before, "nothing was changed");
    probe.rule(|_| Fate::Done);
    assert_eq!(value(&open().unwrap()), Some(Value::dword(7)));
}

/// Room for more than the batch is made where there is room: where there is less, what the batch needs.
#[test]
fn where_there_is_no_room_ahead_of_need_a_batch_takes_what_it_needs() {
    let (probe, home) = (Probe::new(), tempfile::tempdir().unwrap());
    let store = Store::options()
        .env(probe.env())
        .open(home.path().join("store"))
        .unwrap();
    set(&store, 1).unwrap();
    // The segment would be made 2 MiB long.
    probe.rule(|op| match op {
        Op::Write { offset, bytes, .. } if offset + bytes.len() as u64 > 1536 << 10 => {
            Fate::Fails(ErrorKind::StorageFull)
        }
        _ => Fate::Done,
    });
    set_large(&store, 700 << 10).unwrap();
    assert!(
        is_refused(&set_large(&store, 700 << 10).unwrap_err()),
        "a record holds the old value too"
    );
    set_large(&store, 1).unwrap();
    store.close().unwrap();
}

/// A file system of this size in memory, which ends with this.
struct Disk(TempDir);

impl Disk {
    /// None where it cannot be mounted, which is said.
    fn mount(mebibytes: u32) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "clusdb-test"]);
        match mount.arg(folder.path()).output() {
            Ok(output) if output.status.success() => Some(Disk(folder)),
            _ => {
                eprintln!("no file system can be mounted here: passed over");
                None
            }
        }
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all the room but so much.
    fn fill(&self, left_bytes: usize) {
        let reserve = self.0.path().join("reserve");
        fs::write(&reserve, vec![1; left_bytes]).unwrap();
        let mut filler = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        while filler.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
        fs::remove_file(reserve).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The process that is killed: opens the store, commits what fits, and waits.
#[test]
fn the_process_that_is_killed() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = Store::options().tree(false).open(path).unwrap();
    let last = set(&store, 99).unwrap();
    println!("committed {last}");
    std::thread::sleep(Duration::from_secs(600));
}

fn open_commit_and_be_killed(path: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["the_process_that_is_killed", "--exact", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    let mut output = child.stdout.take().unwrap();
    while !String::from_utf8_lossy(&told).contains("committed ") {
        let mut byte = [0];
        assert_eq!(
            output.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&told)
        );
        told.push(byte[0]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn on_a_disk_that_is_really_full_a_store_is_read_closed_killed_and_opened_and_goes_on_once_there_is_room() {
    let Some(disk) = Disk::mount(6) else { return };
    let open = || Store::options().tree(false).open(disk.store()).unwrap();
    let store = open();
    let port = store.port("p", &KeyPath::root()).unwrap();
    set(&store, 1).unwrap();
    disk.fill(300 << 10);
    let refused = (0..100).find_map(|_| set_large(&store, 64 << 10).err());
    assert!(refused.as_ref().is_some_and(is_refused), "{refused:?}");
    disk.fill(0);
    assert!(is_refused(&set_large(&store, 64 << 10).unwrap_err()));
    store.port("q", &KeyPath::root()).unwrap_err();
    let mut left = fs::read_dir(disk.store().join("ports")).unwrap();
    assert!(
        left.all(|entry| !entry.unwrap().path().to_string_lossy().ends_with(".unfinished")),
        "what fails leaves nothing that takes room"
    );
    assert_eq!(value(&store), Some(Value::dword(1)));
    port.get().unwrap().acknowledge().unwrap();
    let acknowledged = port.acknowledged();
    drop(port);
    store.close().unwrap();
    // However often, also while somebody has the first head mapped.
    let follower = Reader::open(disk.store()).unwrap();
    for round in 0..5 {
        disk.fill(0);
        let store = open();
        let last = set(&store, round).unwrap();
        assert_eq!(value(&store), Some(Value::dword(round)));
        let reader = Reader::open(disk.store()).unwrap();
        assert_eq!(reader.stat().unwrap().durable_sequence, last);
        assert_eq!(store.open_port("p").unwrap().acknowledged(), acknowledged);
        drop(reader);
        store.close().unwrap();
        disk.fill(0);
        open_commit_and_be_killed(&disk.store());
        assert!(!Reader::open(disk.store()).unwrap().was_closed());
    }
    disk.fill(0);
    let store = open();
    assert_eq!(
        (value(&store), value(&follower)),
        (Some(Value::dword(99)), Some(Value::dword(99)))
    );
    let before = store.stat().unwrap().durable_sequence;
    assert!(is_refused(&set_large(&store, 1 << 20).unwrap_err()));
    fs::remove_file(disk.filler()).unwrap();
    assert_eq!(
        set_large(&store, 1 << 20).unwrap(),
        before + 1,
        "it goes on by itself"
    );
    let log = store.log(1..=u64::MAX).unwrap();
    assert_eq!(log.len() as u64, before + 1, "nothing is missing");
    store.close().unwrap();
}

/// sled meets the full disk while it copies: the tree is lost, and nothing else.
#[test]
fn a_tree_that_finds_no_room_is_given_up_and_the_store_goes_on() {
    let Some(disk) = Disk::mount(48) else { return };
    let told = events::record_all();
    let store = Store::open(disk.store()).unwrap();
    // Few and large records, which are no reason for a tree yet.
    for number in 0..20 {
        let mut batch = Batch::at(&KeyPath::parse(&format!("K{number}")).unwrap());
        batch.create_key("").unwrap();
        for value in 0..100 {
            batch
                .set_value(&format!("v{value}"), Value::binary(vec![7; 1000]))
                .unwrap();
        }
        store.commit(batch).unwrap();
    }
    disk.fill(1 << 20);
    for number in 0..600 {
        set(&store, number).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !told.text().contains("the tree was set aside") {
        assert!(Instant::now() < deadline, "{}", told.text());
        std::thread::sleep(Duration::from_millis(20));
    }
    for number in 600..700 {
        set(&store, number).unwrap();
    }
    assert_eq!(store.stat().unwrap().tree_sequence, 0);
    let contents = store.list_recursive(&KeyPath::root()).unwrap();
    store.close().unwrap();
    for is_full in [true, false] {
        if !is_full {
            fs::remove_file(disk.filler()).unwrap();
        }
        let store = Store::open(disk.store()).unwrap();
        assert_eq!(store.stat().unwrap().opened_from, OpenedFrom::Journal);
        assert!(
            store.list_recursive(&KeyPath::root()).unwrap() == contents,
            "{is_full}"
        );
        store.close().unwrap();
    }
    let store = Store::open(disk.store()).unwrap();
    assert_eq!(
        store.stat().unwrap().opened_from,
        OpenedFrom::Tree,
        "with room there is one again"
    );
    assert!(store.list_recursive(&KeyPath::root()).unwrap() == contents);
}
