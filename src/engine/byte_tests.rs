//! Every byte of a small store's journal flipped, and every length of its segments: an error that names file and offset, or
//! exactly what was committed. Never other data, never a panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::model::{Batch, Entry, KeyPath, Value};
use crate::store::Store;
use crate::tree::SledBackend;
use crate::tree::stand_in::StandIn;

/// All that can be read: the state, and the records with their changes.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    entries: Vec<Entry>,
    log: Vec<(u64, i64, Vec<String>)>,
}

/// The files of a store, to be written again and again.
struct Master {
    files: BTreeMap<PathBuf, Vec<u8>>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    seen: Seen,
    /// What was to be seen after each record; before the first, nothing.
    history: Vec<Seen>,
}

struct Home {
    folder: tempfile::TempDir,
    stand_in: Arc<StandIn>,
}

impl Home {
    fn new() -> Home {
        Home {
            folder: tempfile::tempdir().unwrap(),
            stand_in: Arc::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn options(&self) -> Options {
        let mut options = Store::options().segment_size_bytes(4096);
        options.tree.backend = Arc::<StandIn>::clone(&self.stand_in);
        options.tree.behind_records = 1;
        options
    }

    /// Two segments and a bit, a port in the middle, a tree at the end.
    fn make(&self) -> Master {
        let store = self.options().open(self.path()).unwrap();
        let port = store.port("p", &KeyPath::parse("K").unwrap()).unwrap();
        let mut history = vec![seen(&store).unwrap()];
        for number in 0..26_u32 {
            let mut batch = Batch::at(&KeyPath::parse(&format!("K\\k{}", number % 4)).unwrap());
            batch.create_key("").unwrap();
            batch
                .set_value("v", Value::binary(vec![number as u8 + 1; 40]))
                .unwrap();
            if number % 5 == 4 {
                batch.delete_key("").unwrap();
            }
            store.commit(batch).unwrap();
            history.push(seen(&store).unwrap());
            if number == 15 {
                port.get().unwrap().acknowledge().unwrap();
            }
        }
        drop(port);
        store.close().unwrap();
        drop(store);
        let mut files = BTreeMap::new();
        for folder in ["", "journal", "ports"] {
            for entry in std::fs::read_dir(self.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    files.insert(path.clone(), std::fs::read(path).unwrap());
                }
            }
        }
        let tree = self.path().join("tree.1");
        Master {
            files,
            entries: self.stand_in.with_entries(&tree, |entries| entries.clone()),
            seen: history[history.len() - 1].clone(),
            history,
        }
    }

    /// Puts the store as it was, but for one file.
    fn restore(&self, master: &Master, changed: &Path, bytes: &[u8]) {
        for (path, original) in &master.files {
            let bytes = if path == changed { bytes } else { original };
            // Not truncated in place: the file may be mapped by a view of the variant before.
            let _ = std::fs::remove_file(path);
            std::fs::write(path, bytes).unwrap();
        }
        for folder in std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if folder.file_name().unwrap().to_str().unwrap().starts_with("tree.") {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
        std::fs::create_dir(self.path().join("tree.1")).unwrap();
        let tree = self.path().join("tree.1");
        self.stand_in
            .with_entries(&tree, |entries| entries.clone_from(&master.entries));
    }
}

fn seen(store: &Store) -> Result<Seen> {
    let view = store.log(1..=u64::MAX)?;
    let changes =
        |batch: crate::view::BatchView<'_>| batch.changes().map(|change| format!("{change:?}")).collect();
    Ok(Seen {
        entries: store.list_recursive(&KeyPath::root())?,
        log: view
            .batches()
            .map(|batch| (batch.sequence(), batch.time(), changes(batch)))
            .collect(),
    })
}

fn segments(master: &Master) -> Vec<&PathBuf> {
    let is_segment = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    let segments: Vec<_> = master.files.keys().filter(is_segment).collect();
    assert!(segments.len() >= 2, "{segments:?}");
    segments
}

/// Each byte of each segment with one bit flipped, and each segment cut at each length; every `step`th of both.
fn variants(bytes: &[u8], step: usize) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let flips = (0..bytes.len()).step_by(step).map(|at| {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        (format!("flipped at {at}"), flipped)
    });
    let cuts = (0..bytes.len())
        .step_by(step)
        .map(|length| (format!("cut to {length}"), bytes[..length].to_vec()));
    flips.chain(cuts)
}

fn assert_names_the_place(error: &Error, file: &Path, what: &str) {
    match error {
        Error::Damaged {
            file: named, offset, ..
        } => {
            // A segment that ends early may be noticed at the beginning of the next.
            let in_journal = named.parent() == file.parent() && *offset <= 1 << 20;
            assert!(in_journal, "{what} in {}: {error}", file.display());
        }
        Error::UnsupportedVersion { file: named, .. } => assert_eq!(named, file, "{what}: {error}"),
        _ => panic!("{what} in {}: {error}", file.display()),
    }
}

/// What is read is right, or is refused by name; at the latest where it is read.
fn assert_exact_or_refused(options: &Options, home: &Home, master: &Master, file: &Path, what: &str) -> bool {
    let store = match options.clone().open(home.path()) {
        Ok(store) => store,
        Err(error) => {
            assert_names_the_place(&error, file, what);
            return false;
        }
    };
    let entries = store.list_recursive(&KeyPath::root()).unwrap();
    assert_eq!(entries, master.seen.entries, "{what} in {}", file.display());
    // A segment that the tree spared the opening is read by the log.
    match seen(&store) {
        Ok(seen) => assert_eq!(seen, master.seen, "{what} in {}", file.display()),
        Err(error) => assert_names_the_place(&error, file, what),
    }
    true
}

#[test]
fn with_head_port_and_tree_in_place_each_variant_is_exact_or_refused_by_name() {
    let home = Home::new();
    let master = home.make();
    let (mut opened, mut refused) = (0, 0);
    for file in segments(&master) {
        for (what, bytes) in variants(&master.files[file], 1) {
            home.restore(&master, file, &bytes);
            match assert_exact_or_refused(&home.options(), &home, &master, file, &what) {
                true => opened += 1,
                false => refused += 1,
            }
        }
    }
    assert!(
        opened > 100 && refused > 1000,
        "{opened} opened, {refused} refused"
    );
}

/// The same through sled, which takes longer: every 64th, or as `CLUSDB_STEP` says.
#[test]
fn with_sled_in_place_each_variant_is_exact_or_refused_by_name() {
    let step = std::env::var("CLUSDB_STEP").map_or(64, |step| step.parse().unwrap());
    let home = Home::new();
    let master = home.make();
    let mut options = home.options();
    options.tree.backend = Arc::new(SledBackend);
    // A tree by sled in place of the stand-in's.
    std::fs::remove_dir_all(home.path().join("tree.1")).unwrap();
    drop(options.clone().open(home.path()).unwrap());
    let kept = home.folder.path().join("kept");
    let tree = home.path().join("tree.1");
    std::fs::rename(&tree, &kept).unwrap();
    let put_back = || {
        std::fs::create_dir_all(tree.join("blobs")).unwrap();
        for name in ["db", "conf"] {
            std::fs::copy(kept.join(name), tree.join(name)).unwrap();
        }
    };
    let mut from_tree = 0;
    for file in segments(&master) {
        for (what, bytes) in variants(&master.files[file], step) {
            home.restore(&master, file, &bytes);
            put_back();
            from_tree += u32::from(assert_exact_or_refused(&options, &home, &master, file, &what));
        }
    }
    assert!(from_tree > 0);
}

/// Nothing vouches for the last frame then: it may be cut, with a report; nothing before it.
#[test]
fn without_anything_that_vouches_at_most_the_last_frame_is_cut_and_that_is_reported() {
    let home = Home::new();
    let master = home.make();
    let options = home.options().tree(false);
    let vouchers = [home.path().join("head"), home.path().join("ports/p.port")];
    let last = master.history.len() - 1;
    let (mut cut, mut refused) = (0, 0);
    for file in segments(&master) {
        for (what, bytes) in variants(&master.files[file], 1) {
            home.restore(&master, file, &bytes);
            vouchers
                .iter()
                .for_each(|voucher| std::fs::remove_file(voucher).unwrap());
            let store = match options.clone().open(home.path()) {
                Ok(store) => store,
                Err(error) => {
                    assert_names_the_place(&error, file, &what);
                    refused += 1;
                    continue;
                }
            };
            let seen = seen(&store).unwrap();
            if seen == master.seen {
                continue;
            }
            assert!(seen == master.history[last - 1], "{what} in {}", file.display());
            assert!(store.torn_tail().is_some(), "{what} in {}", file.display());
            cut += 1;
        }
    }
    assert!(cut > 100 && refused > 1000, "{cut} cut, {refused} refused");
}
