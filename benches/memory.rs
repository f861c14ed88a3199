//! What the state takes on the heap, counted by an allocator: `cargo bench --bench memory`, with the folder of
//! system-hive.reg.xz in `CLUSDB_INPUTS` for the first row.
//!
//! The state alone, without the store around it. Raw are the bytes of key component names, value names and data; a path
//! counts once for each of its components.

mod support;

use std::hint::black_box;
use std::process::{Command, Stdio};

use allocation_counter::measure;
use clusdb::model::{Limits, State, evaluate};
use clusdb::{Batch, Entry, KeyPath, Store};
use support::{Figures, batch_of_10, folder, hive};

/// Records of a handful of values would hide what applying many to one state leaves behind.
const ENTRIES_PER_BATCH: usize = 10_000;

fn main() {
    let folder = folder();
    match hive(folder.path()) {
        Some(hive) => {
            let path = folder.path().join("store");
            let mut import = Command::new(env!("CARGO_BIN_EXE_clusdb"));
            import.arg("--store").arg(&path).arg("import").arg(&hive);
            let status = import.stdout(Stdio::null()).status().expect("the command line");
            assert!(status.success());
            let store = Store::options().tree(false).open(&path).expect("a store");
            let entries = store.list_recursive(&KeyPath::root()).expect("the root");
            measure_state("a hive of 73,456 values", &batches(&entries));
        }
        None => eprintln!("no system-hive.reg in CLUSDB_INPUTS: the hive is passed over"),
    }
    let batches: Vec<_> = (0..1_000_000 / 9).map(|key| batch_of_10(key, key)).collect();
    measure_state("1,000,000 values, 9 of 100 bytes a key", &batches);
}

/// Batches that make these entries.
fn batches(entries: &[Entry]) -> Vec<Batch> {
    let chunks = entries.chunks(ENTRIES_PER_BATCH).map(|entries| {
        let mut batch = Batch::at(&KeyPath::root());
        let mut current = None;
        for entry in entries {
            let (Entry::Key { path: key } | Entry::Value { key, .. }) = entry;
            if current.as_ref() != Some(key) {
                batch.create_key(key).expect("a command");
                current = Some(key.clone());
            }
            if let Entry::Value { name, value, .. } = entry {
                batch.set_value(name, value.clone()).expect("a command");
            }
        }
        batch
    });
    chunks.collect()
}

fn measure_state(what: &str, batches: &[Batch]) {
    let mut state = State::new();
    let mut heap = 0;
    for (time, batch) in (1..).zip(batches) {
        // Decided outside: a state that is replayed or loaded is not evaluated.
        let record = evaluate(&state, batch, &Limits::default()).expect("a valid batch");
        let view = record.view();
        let applied = measure(|| state.apply(view, time));
        heap += applied.bytes_current;
    }
    let entries = state.walk("", true).expect("the root");
    let values = entries
        .iter()
        .filter(|entry| matches!(entry, Entry::Value { .. }));
    let values = values.count() as f64;
    let logical: usize = entries.iter().map(logical_bytes).sum();
    drop(entries);
    let mut figures = Figures::new(format!("{what}: heap (raw: names and data)"), "B");
    figures.round(|| heap as f64, || logical as f64);
    figures.print();
    let mut figures = Figures::new(format!("{what}: heap a value (raw: names and data)"), "B");
    figures.round(|| heap as f64 / values, || logical as f64 / values);
    figures.print();
    black_box(state);
}

fn logical_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Key { path } => path.rsplit('\\').next().map_or(0, str::len),
        Entry::Value { name, value, .. } => name.len() + value.data().len(),
    }
}
