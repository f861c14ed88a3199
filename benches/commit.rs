//! Durable commits beside the bare disk, and beside a store without a tree: `cargo bench --bench commit`.
//!
//! "Raw" writes as many bytes at the next offset of a zero-filled, synced file and calls fdatasync; with several
//! writers, whoever finds no leader writes for all who wait. In the rows on the tree, raw is a store that keeps none.

mod support;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clusdb::Store;
use support::{Figures, RawFile, batch_of_10, folder, median_micros, timed};

const ROUNDS: u64 = 9;
const LONE_COMMITS: u64 = 400;
const GROUP_COMMITS: u64 = 9600;

fn main() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).expect("a new store");
    let options = Store::options().tree(false);
    let treeless = options.open(folder.path().join("treeless")).expect("a new store");
    let raw = RawFile::create(&folder.path().join("raw"));
    let record = vec![0xa5; frame_bytes(&store)];

    let next_key = Cell::new(0);
    // In the rows on the tree each batch makes a key of its own, so that the tree has all of it to write.
    let ours = |store: &Store, same_key: bool| {
        let commit = |number| {
            let key = if same_key {
                0
            } else {
                next_key.replace(next_key.get() + 1)
            };
            let batch = batch_of_10(key, number);
            timed(|| store.commit(batch).expect("a commit")).1
        };
        median_micros(&(0..LONE_COMMITS).map(commit).collect::<Vec<_>>())
    };
    let bare = || {
        let append = |_| timed(|| raw.append(&record)).1;
        median_micros(&(0..LONE_COMMITS).map(append).collect::<Vec<_>>())
    };
    let mut lone = Figures::new("commit of 10 commands, 1 writer, p50", "µs");
    let mut tree = Figures::new("of new keys, with a tree and (raw) without", "µs");
    for _ in 0..ROUNDS {
        lone.round(|| ours(&store, true), bare);
        tree.round(|| ours(&store, false), || ours(&treeless, false));
    }
    lone.print();
    tree.print();

    // Each batch changes all its values.
    let next_number = AtomicU64::new(1);
    for (writers, keys) in [(4, 1), (32, 1), (32, 100)] {
        let group = |one: &(dyn Fn(u64) + Sync)| {
            let all = || {
                std::thread::scope(|scope| {
                    for writer in 0..writers {
                        scope.spawn(move || (0..GROUP_COMMITS / writers).for_each(|_| one(writer)));
                    }
                });
            };
            GROUP_COMMITS as f64 / timed(all).1.as_secs_f64()
        };
        let commit = |store: &Store, writer| {
            let number = next_number.fetch_add(1, Ordering::Relaxed);
            let key = writer * keys + number % keys;
            store.commit(batch_of_10(key, number)).expect("a commit");
        };
        let mut beside_raw = Figures::new(
            format!("commits of 10 commands, {writers} writers of {keys} keys"),
            "/s",
        );
        let mut tree = Figures::new("the same, with a tree and (raw) without", "/s");
        for _ in 0..ROUNDS {
            let ours = || group(&|writer| commit(&store, writer));
            beside_raw.round(ours, || group(&|_| raw.append(&record)));
            tree.round(ours, || group(&|writer| commit(&treeless, writer)));
        }
        beside_raw.print();
        tree.print();
    }
    // The tree is behind by what it has not had time for; its share of the machine is bounded.
    std::thread::sleep(Duration::from_secs(1));
    let stat = store.stat().expect("figures");
    eprintln!(
        "a record of {} bytes; medians of {ROUNDS} rounds; the tree ended {} of {} batches behind",
        record.len(),
        stat.durable_sequence - stat.tree_sequence,
        stat.durable_sequence
    );
}

/// Bytes of the frame of a batch that overwrites: a header of 64, and the record on a grid of 8.
fn frame_bytes(store: &Store) -> usize {
    store.commit(batch_of_10(0, 0)).expect("a commit");
    let record = store.dry_run(&batch_of_10(0, 1)).expect("a record");
    64 + record.payload().len().next_multiple_of(8)
}
