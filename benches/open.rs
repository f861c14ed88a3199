//! Opening a store of 100,000 and of 1,000,000 values, and what it takes on the disk and in memory:
//! `cargo bench --bench open`.
//!
//! Three ways: from the tree after a clean close; from the tree after a kill (a copy of the files of an open store);
//! and without the tree. Raw reads all entries of the same tree into a hash map, with sled alone; without the tree, it reads
//! the files of the journal.

mod support;

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use clusdb::{OpenedFrom, Store};
use foldhash::fast::RandomState;
use support::{Figures, batch_of_10, folder, timed};

const ROUNDS: usize = 5;

/// Tells a process of its own to open this store, with a tree or without, and to say what that took in memory.
const RESIDENT: &str = "CLUSDB_BENCH_RESIDENT";

fn main() {
    if let Ok(path) = std::env::var(RESIDENT) {
        let before = resident_bytes();
        let tree = std::env::args().any(|argument| argument == "tree");
        let _store = Store::options().tree(tree).open(path).expect("a store");
        println!("{}", resident_bytes() - before);
        return;
    }
    for values in [100_000, 1_000_000] {
        let folder = folder();
        let (path, killed) = (folder.path().join("store"), folder.path().join("killed"));
        let store = Store::open(&path).expect("a new store");
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let store = &store;
                scope.spawn(move || {
                    for number in (thread..values / 9).step_by(16) {
                        store.commit(batch_of_10(number, number)).expect("a commit");
                    }
                });
            }
        });
        store.close().expect("a clean close");
        drop(store);

        let resident = ["none", "tree"].map(|tree| memory_of_opening(&path, tree));
        let store = Store::open(&path).expect("a store");
        let commit = |number| store.commit(batch_of_10(number, 1)).expect("a commit");
        (0..300).for_each(|number| _ = black_box(commit(number)));
        copy_folder(&path, &killed);
        let stat = store.stat().expect("figures");
        drop(store);

        for (way, path, tree) in [
            ("from the tree", &path, true),
            ("after a kill", &killed, true),
            ("without the tree", &path, false),
        ] {
            let mut figures = Figures::new(format!("opening {values} values, {way}"), "ms");
            let mut beside_scan = Figures::new(format!("the same (raw: without opening sled), {way}"), "ms");
            for _ in 0..ROUNDS {
                let (mut time, mut scan) = (0.0, 0.0);
                let ours = || {
                    time = time_opening(path, tree);
                    time
                };
                let raw = || match tree {
                    true => {
                        let (opening, scanning) = time_scanning(path, values as usize);
                        scan = scanning;
                        opening + scanning
                    }
                    false => timed(|| read_all(&path.join("journal"))).1.as_secs_f64() * 1e3,
                };
                figures.round(ours, raw);
                beside_scan.round(|| time, || scan);
            }
            figures.print();
            if tree {
                beside_scan.print();
            }
        }
        // Path, name and data of each value, and the path of each key.
        let data = values as f64 * (6.0 + 100.0) + values as f64 / 9.0 * 40.0;
        let tree = folder_bytes(&path) - folder_bytes(&path.join("journal"));
        for (what, bytes) in [
            ("bytes of the journal", stat.journal_bytes as f64),
            ("bytes of the tree", tree as f64),
            ("memory of an open store without a tree", resident[0] as f64),
            ("memory of an open store with one", resident[1] as f64),
        ] {
            let mut figures = Figures::new(format!("{values} values: {what} (raw: data)"), "B");
            figures.round(|| bytes, || data);
            figures.print();
        }
    }
    overwritten();
}

/// A journal that is much longer than its state: what a tree is for.
fn overwritten() {
    let folder = folder();
    let path = folder.path().join("store");
    // Without a keeper: a snapshot, and what is trimmed behind it, would shorten the journal.
    let store = Store::options().keep(false).open(&path).expect("a new store");
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for number in (thread..200_000).step_by(16) {
                    store
                        .commit(batch_of_10(number % 1000, number))
                        .expect("a commit");
                }
            });
        }
    });
    drop(store);
    let mut figures = Figures::new(
        "opening 9,000 values after 200,000 batches (raw: without the tree)",
        "ms",
    );
    for _ in 0..ROUNDS {
        figures.round(|| time_opening(&path, true), || time_opening(&path, false));
    }
    figures.print();
}

/// In milliseconds.
fn time_opening(path: &Path, tree: bool) -> f64 {
    let options = || Store::options().tree(tree).keep(false);
    let (store, time) = timed(|| options().open(path).expect("a store"));
    let expected = if tree {
        OpenedFrom::Tree
    } else {
        OpenedFrom::Journal
    };
    assert_eq!(store.stat().expect("figures").opened_from, expected);
    time.as_secs_f64() * 1e3
}

fn memory_of_opening(path: &Path, tree: &str) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let output = child.arg(tree).env(RESIDENT, path).output().expect("a process");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number")
}

fn read_all(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        black_box(fs::read(entry.expect("an entry").path()).expect("a file"));
    }
}

/// In milliseconds: opening the store's tree with sled alone, and reading all its entries into a hash map. Dropping both does
/// not count.
fn time_scanning(path: &Path, values: usize) -> (f64, f64) {
    let entries = fs::read_dir(path).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let is_tree = |name: &String| name.starts_with("tree.") && !name.ends_with("aside");
    let tree = path.join(names.filter(is_tree).max().expect("a tree"));
    let config = sled::Config::new()
        .path(tree)
        .segment_size(16 << 20)
        .cache_capacity(8 << 20)
        .flush_every_ms(None);
    let (db, opening) = timed(|| config.open().expect("sled"));
    let scan = || {
        let mut map = HashMap::with_hasher(RandomState::default());
        for entry in db.iter() {
            let (name, bytes) = entry.expect("an entry");
            map.insert(name.to_vec(), bytes.to_vec());
        }
        map
    };
    let (map, scanning) = timed(scan);
    assert!(map.len() > values);
    (opening.as_secs_f64() * 1e3, scanning.as_secs_f64() * 1e3)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder");
    let size = |path: std::path::PathBuf| match path.is_dir() {
        true => folder_bytes(&path),
        false => fs::metadata(path).expect("a file").len(),
    };
    entries.map(|entry| size(entry.expect("an entry").path())).sum()
}

/// Memory of this process that no file backs.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
