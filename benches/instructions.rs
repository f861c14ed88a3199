//! Instructions of the three hot paths, which no noise moves: `cargo bench --bench instructions`, with valgrind.
//!
//! Each path runs a number of times, and twice as often, under callgrind; the difference is what one run takes, without what leads up
//! to it. `-- --check` fails where one takes a tenth more than `benches/instructions.txt` says, `-- --write` writes that file.
//! Kernel time is not in it, and so no sync.

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use clusdb::{Batch, KeyPath, Reader, Store, Value};
use support::batch_of_10;

/// Name, what one run is, and how many there are.
const PATHS: [(&str, &str, u64); 3] = [
    ("commit", "a durable batch of 10 commands", 1000),
    ("walk", "one pending change: got, verified, walked", WALKED),
    ("get", "a value by key and name", 20_000),
];

/// Pending changes.
const WALKED: u64 = 20_000;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--child") {
        return run(&arguments[at + 1], arguments[at + 2].parse().expect("a number"));
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: no instructions are counted");
        return;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let known = recorded();
    let (mut lines, mut failed) = (String::new(), false);
    for (name, what, count) in PATHS {
        let instructions = (count_instructions(name, 2 * count) - count_instructions(name, count)) / count;
        let before = known.get(name).copied();
        let is_more = before.is_some_and(|before| instructions > before + before / 10);
        failed |= is_more || before.is_none();
        println!(
            "{name:8} {instructions:8} instructions for {what}, recorded {}{}",
            before.map_or("none".to_owned(), |before| before.to_string()),
            if is_more { ": MORE THAN A TENTH MORE" } else { "" }
        );
        lines += &format!("{name} {instructions}\n");
    }
    if has("--write") {
        std::fs::write(file(), lines).expect("a file");
    } else if has("--check") && failed {
        std::process::exit(1);
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn recorded() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let parse = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

/// What callgrind collects of a child that runs the path so often.
fn count_instructions(path: &str, count: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--child", path, &count.to_string()])
        .output()
        .expect("valgrind");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = report.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.expect("a count");
    collected.trim().parse().expect("a number")
}

fn run(path: &str, count: u64) {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).expect("memory"),
        false => support::folder(),
    };
    let options = Store::options().tree(false).keep(false);
    let store = options.open(path_of(&folder)).expect("a new store");
    match path {
        "commit" => commits(&store, count),
        "walk" => {
            drop(store.port("bench", &KeyPath::root()).expect("a new port"));
            commits(&store, WALKED / 10);
            (0..count / WALKED).for_each(|_| walk(&path_of(&folder)));
        }
        _ => gets(&store, count),
    }
}

fn path_of(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("store")
}

/// By a reader that has verified nothing before.
fn walk(store: &Path) {
    let reader = Reader::open(store).expect("a store");
    let port = reader.open_port("bench").expect("a port");
    let got = port.try_get().expect("a get").expect("changes");
    let changes = got.batches().flat_map(|batch| batch.changes());
    assert_eq!(
        changes
            .map(|change| black_box(change).key().len().min(1) as u64)
            .sum::<u64>(),
        WALKED
    );
}

fn commits(store: &Store, count: u64) {
    for number in 0..count {
        store.commit(batch_of_10(number % 50, number)).expect("a commit");
    }
}

/// Of 10,000 values, 10 to a key.
fn gets(store: &Store, count: u64) {
    let keys: Vec<_> = (0..1000)
        .map(|number| KeyPath::parse(&format!(r"Cluster\Resources\Resource{number:04}")).expect("a path"))
        .collect();
    for key in &keys {
        let mut batch = Batch::at(key);
        batch.create_key("").expect("a command");
        for name in 0..10 {
            let value = Value::qword(name);
            batch
                .set_value(&format!("Value{name}"), value)
                .expect("a command");
        }
        store.commit(batch).expect("a commit");
    }
    for number in 0..count {
        let key = &keys[(number * 7919 % 1000) as usize];
        let found = store.get(key, "Value7").expect("an open store");
        assert!(black_box(found).is_some());
    }
}
