//! By the order of operations: what a call answers for is on the disk when it returns.

use std::collections::BTreeSet;
use std::path::Path;

use clusdb::{Batch, KeyPath, Store, Value};

#[path = "support/probe.rs"]
#[allow(dead_code, reason = "shared with the other test files")]
mod probe;

use probe::{Op, Probe};

/// What a loss of power could still take: the content of files, and the names in folders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unsynced {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Unsynced {
    /// Follows the operations, and says what was unsynced at the moment when a file took this name, and at the end.
    fn follow(ops: &[Op], mark: &str, places: &Places) -> (Option<Unsynced>, Unsynced) {
        let mut now = Unsynced::default();
        let mut at_mark = None;
        for op in ops {
            match op {
                // It has no content.
                Op::Create(file) if file == "lock" => {}
                Op::Create(file) => {
                    now.files.insert(file.clone());
                    now.folders.insert(places.folder_of(file));
                }
                Op::Write { file, .. } => _ = now.files.insert(file.clone()),
                Op::Sync(file) => _ = now.files.remove(file),
                Op::SyncDir(folder) => _ = now.folders.remove(folder),
                Op::Rename { from, to } => {
                    if to == mark {
                        // What takes the name was made in the same folder.
                        now.folders.remove(&places.folder_of(from));
                        at_mark = Some(Unsynced {
                            files: now.files.clone(),
                            folders: now.folders.clone(),
                        });
                    }
                    if now.files.remove(from) {
                        now.files.insert(to.clone());
                    }
                    now.folders.insert(places.folder_of(to));
                }
                Op::Exchange(..) | Op::MapPage(_) => {}
            }
        }
        (at_mark, now)
    }
}

/// Names of folders: a store's or a backup's, and what that is in.
struct Places {
    root: String,
    above: String,
}

impl Places {
    fn new(root: &str, above: &Path) -> Places {
        Places {
            root: root.to_owned(),
            above: above.file_name().unwrap().to_str().unwrap().to_owned(),
        }
    }

    fn folder_of(&self, file: &str) -> String {
        let name = file.strip_suffix(".unfinished").unwrap_or(file);
        match name.rsplit_once('.') {
            Some((_, "segment")) => "journal".to_owned(),
            Some((_, "snapshot")) => "snapshots".to_owned(),
            _ if self.root == format!("{name}.unfinished") => self.above.clone(),
            _ => self.root.clone(),
        }
    }
}

fn commit(store: &Store, count: u8) {
    for number in 0..count {
        let mut batch = Batch::at(&KeyPath::parse("K").unwrap());
        batch.create_key("").unwrap();
        batch.set_value("v", Value::binary([number; 500])).unwrap();
        store.commit(batch).unwrap();
    }
}

fn store(probe: &Probe, folder: &Path) -> Store {
    Store::options()
        .env(probe.env())
        .segment_size_bytes(4096)
        .open(folder.join("db"))
        .unwrap()
}

#[test]
fn a_snapshot_has_its_content_before_its_name_and_both_when_it_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let probe = Probe::new();
    let store = store(&probe, folder.path());
    commit(&store, 3);
    probe.take();
    let sequence = store.snapshot().unwrap().expect("records");
    let name = format!("{sequence:020}.snapshot");
    let (named, told) = Unsynced::follow(&probe.take(), &name, &Places::new("db", folder.path()));
    assert_eq!(named, Some(Unsynced::default()));
    assert_eq!(told, Unsynced::default());
}

/// The first writes all, the second goes on from it.
#[test]
fn a_backup_is_whole_before_it_says_of_itself_that_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let probe = Probe::new();
    let store = store(&probe, folder.path());
    for round in 0..2 {
        commit(&store, 20);
        store.snapshot().unwrap();
        commit(&store, 20);
        probe.take();
        let backup = store.backup(folder.path().join("kept")).unwrap();
        assert!(backup.copied_bytes > 0);
        let (named, told) = Unsynced::follow(&probe.take(), "backup", &Places::new("kept", folder.path()));
        assert_eq!(named, Some(Unsynced::default()), "round {round}");
        assert_eq!(told, Unsynced::default(), "round {round}");
    }
}

#[test]
fn a_restored_store_is_whole_before_it_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let probe = Probe::new();
    let store = store(&probe, folder.path());
    commit(&store, 20);
    store.snapshot().unwrap();
    commit(&store, 20);
    store.backup(folder.path().join("kept")).unwrap();
    store.close().unwrap();
    probe.take();
    Store::options()
        .env(probe.env())
        .segment_size_bytes(4096)
        .restore(folder.path().join("kept"), folder.path().join("new"))
        .unwrap();
    let places = Places::new("new.unfinished", folder.path());
    let (named, told) = Unsynced::follow(&probe.take(), "new", &places);
    assert_eq!(named, Some(Unsynced::default()));
    assert_eq!(told, Unsynced::default());
}
