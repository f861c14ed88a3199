//! The tree with sled itself: it shortens opening, and whatever happens to its files, the state is exact.

#[path = "support/folder.rs"]
mod folder;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clusdb::{Batch, Entry, KeyPath, OpenedFrom, Store, Value};
use folder::copy_folder;

const FOLDER: &str = "CLUSDB_TEST_TREE_FOLDER";

fn batch(key: &str, number: u32) -> Batch {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.create_key("").unwrap();
    batch.set_value("number", Value::dword(number)).unwrap();
    batch
}

fn contents(store: &Store) -> Vec<Entry> {
    store.list_recursive(&KeyPath::root()).unwrap()
}

/// Commits numbers in groups, as several threads do: fewer syncs for as many batches.
fn commit_many(store: &Store, numbers: u32, key_of: impl Fn(u32) -> String + Sync) {
    const THREADS: u32 = 16;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let key_of = &key_of;
            scope.spawn(move || {
                for number in (thread..numbers).step_by(THREADS as usize) {
                    store.commit(batch(&key_of(number), number)).unwrap();
                }
            });
        }
    });
}

/// The state that the journal alone gives, and how many records that took.
fn from_journal(path: &Path) -> (Vec<Entry>, u64) {
    let store = Store::options().tree(false).open(path).unwrap();
    let stat = store.stat().unwrap();
    assert_eq!((stat.opened_from, stat.tree_sequence), (OpenedFrom::Journal, 0));
    (contents(&store), stat.replayed)
}

fn trees(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let is_tree = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("tree.");
    entries.filter(is_tree).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

#[test]
fn after_100_000_batches_a_store_opens_from_the_tree_and_without_it_from_the_journal() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let store = Store::open(&path).unwrap();
    commit_many(&store, 100_000, |number| {
        format!("Keys\\{}\\{}", number % 10, number % 3000)
    });
    let before = contents(&store);
    store.close().unwrap();
    drop(store);

    let store = Store::open(&path).unwrap();
    let stat = store.stat().unwrap();
    assert_eq!(
        (stat.opened_from, stat.durable_sequence),
        (OpenedFrom::Tree, 100_000)
    );
    assert!(stat.replayed < 1000, "{}", stat.replayed);
    assert!(stat.tree_sequence > 99_000, "{}", stat.tree_sequence);
    assert_eq!(contents(&store), before);
    drop(store);

    for tree in trees(&path) {
        fs::remove_dir_all(tree).unwrap();
    }
    assert_eq!(from_journal(&path), (before, 100_000));
}

/// Flipped at random places and cut at random lengths: sled may panic, err, or show other data. The state never differs.
#[test]
fn whatever_is_flipped_or_cut_in_sleds_files_the_state_is_exact() {
    let variants = std::env::var("CLUSDB_VARIANTS").map_or(200, |variants| variants.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let store = Store::open(&path).unwrap();
    commit_many(&store, 3000, |number| format!("Keys\\{}", number % 700));
    let before = contents(&store);
    drop(store);
    let [tree] = &trees(&path)[..] else {
        panic!("one tree")
    };
    let files: Vec<_> = files_below(tree)
        .into_iter()
        .filter(|file| fs::metadata(file).unwrap().len() > 0)
        .collect();
    assert!(files.len() >= 2, "at least db and conf: {files:?}");

    let seed = std::env::var("CLUSDB_SEED").map_or(5, |seed| seed.parse().unwrap());
    println!("CLUSDB_SEED={seed}");
    let dice = Dice(seed);
    let variant = |number: u64| {
        let mut dice = Dice(dice.0 ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let copy = home.path().join(format!("variant{number}"));
        copy_folder(&path, &copy);
        let file = &files[dice.roll(files.len() as u64) as usize];
        let file = copy.join(file.strip_prefix(&path).unwrap());
        let what = damage(&file, &mut dice);
        let store = Store::open(&copy).unwrap();
        assert_eq!(contents(&store), before, "variant {number}: {what}");
        let from = store.stat().unwrap().opened_from;
        drop(store);
        // What the closing has left behind is right, too.
        let store = Store::open(&copy).unwrap();
        assert_eq!(contents(&store), before, "variant {number}, opened again: {what}");
        drop(store);
        fs::remove_dir_all(copy).unwrap();
        from
    };
    let half = |remainder: u64| {
        (0..variants)
            .filter(|number| number % 2 == remainder)
            .map(variant)
            .collect::<Vec<_>>()
    };
    let results: Vec<_> = thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let even = half(0);
        even.into_iter().chain(odd.join().unwrap()).collect()
    });
    let refused = results
        .iter()
        .filter(|from| **from == OpenedFrom::Journal)
        .count();
    println!("{refused} of {} trees were refused", results.len());
    assert!(refused > 0 && refused < results.len());
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Flips a bit, mostly where something is, or cuts the file.
fn damage(file: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(file).unwrap();
    let length = bytes.len() as u64;
    if dice.roll(2) == 0 {
        let cut = dice.roll(length);
        bytes.truncate(cut as usize);
        fs::write(file, bytes).unwrap();
        return format!("{} cut to {cut} of {length}", file.display());
    }
    let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let at = used[dice.roll(used.len() as u64) as usize];
    bytes[at] ^= 1 << dice.roll(8);
    fs::write(file, bytes).unwrap();
    format!("{} flipped at {at}", file.display())
}

#[test]
fn an_older_copy_of_the_tree_is_brought_up_to_date() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let store = Store::open(&path).unwrap();
    commit_many(&store, 1000, |number| format!("Keys\\{number}"));
    drop(store);
    let [tree] = &trees(&path)[..] else {
        panic!("one tree")
    };
    let kept = home.path().join("kept");
    copy_folder(tree, &kept);

    let store = Store::open(&path).unwrap();
    commit_many(&store, 2000, |number| format!("Keys\\{}", number % 1500));
    let mut deletes = Batch::at(&KeyPath::root());
    deletes.delete_key("Keys\\7").unwrap();
    store.commit(deletes).unwrap();
    let before = contents(&store);
    drop(store);
    fs::remove_dir_all(tree).unwrap();
    copy_folder(&kept, tree);

    let store = Store::open(&path).unwrap();
    let stat = store.stat().unwrap();
    assert_eq!((stat.opened_from, stat.replayed), (OpenedFrom::Tree, 2001));
    assert_eq!(contents(&store), before);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert!(store.stat().unwrap().replayed < 500, "it has followed");
    assert_eq!(contents(&store), before);
}

#[test]
fn an_empty_folder_and_a_file_in_the_place_of_the_tree_are_set_aside() {
    for make in [
        |tree: &Path| fs::create_dir(tree).unwrap(),
        |tree: &Path| fs::write(tree, "tree").unwrap(),
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let store = Store::open(&path).unwrap();
        commit_many(&store, 600, |number| format!("Keys\\{number}"));
        let before = contents(&store);
        drop(store);
        let [tree] = &trees(&path)[..] else {
            panic!("one tree")
        };
        fs::remove_dir_all(tree).unwrap();
        make(tree);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.stat().unwrap().opened_from, OpenedFrom::Journal);
        assert_eq!(contents(&store), before);
        drop(store);
        assert!(path.join("tree.1.aside").exists() && path.join("tree.2").is_dir());
    }
}

/// Does nothing, unless this process is a child.
#[test]
fn child_process() {
    let Ok(path) = std::env::var(FOLDER) else { return };
    let store = Store::open(path).unwrap();
    commit_many(&store, u32::MAX, |number| {
        format!("Keys\\{}\\{}", number % 40, number % 1000)
    });
}

#[test]
fn killed_at_any_moment_of_the_copying_the_tree_is_the_state_after_one_record() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let mut dice = Dice(u64::from(std::process::id()));
    println!("seed {}", dice.0);
    let mut from_tree = 0;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "child_process", "--nocapture"])
            .env(FOLDER, &path);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(200 + dice.roll(600)));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&path).unwrap();
        let found = contents(&store);
        // A kill may come before the first copy is finished. From then on none is torn, and none is refused.
        match store.stat().unwrap().opened_from {
            OpenedFrom::Tree => from_tree += 1,
            _ => assert_eq!(from_tree, 0, "round {round}: the tree was refused"),
        }
        drop(store);
        assert_eq!(found, from_journal(&path).0, "round {round}");
    }
    println!("{from_tree} of 20 openings were from the tree");
    assert!(from_tree > 0);
}
