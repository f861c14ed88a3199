//! A port on a subtree that has one of a thousand batches of the journal, beside a scan of the journal; and the same port where
//! the journal has become twice and four times as long: `cargo bench --bench subtree`.
//!
//! The store is in `/dev/shm` where there is one: the disk is not what is measured. A scan is a walk over the log that looks at each
//! change's key. "New" is the first get after the store was opened, which opens the sidecars; the others come after it.

mod support;

use std::path::Path;

use clusdb::{Batch, KeyPath, Options, Port, Store, Value};
use support::{Figures, timed};

const ROUNDS: usize = 9;
const BATCHES: u64 = 1_000_000;
const EVERY: u64 = 1000;

fn main() {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).expect("memory"),
        false => support::folder(),
    };
    let path = folder.path().join("store");
    let store = options().open(&path).expect("a new store");
    let quiet = KeyPath::parse("Quiet").expect("a path");
    drop(store.port("quiet", &quiet).expect("a new port"));
    drop(store);

    let mut times = Vec::new();
    for times_as_long in [1, 2, 4] {
        let store = options().open(&path).expect("a store");
        let last = store.stat().expect("figures").durable_sequence;
        for number in last..times_as_long * BATCHES {
            let is_quiet = number % EVERY == 7 && number < BATCHES;
            store.commit(batch(number, is_quiet)).expect("a commit");
        }
        drop(warm(&store));
        drop(store);
        let mut rounds = Figures::new(
            format!("0.1 % of 1,000,000 batches, journal {times_as_long} times as long (raw: scan)"),
            "ms",
        );
        let mut cold = Figures::new("the same, new (raw: scan)", "ms");
        let mut own = Vec::new();
        for _ in 0..ROUNDS {
            let store = options().open(&path).expect("a store");
            let port = store.open_port("quiet").expect("a port");
            cold.round(|| get(&port), || scan(&store));
            let ours = || {
                port.rewind().expect("a rewind");
                let millis = get(&port);
                own.push(millis);
                millis
            };
            rounds.round(ours, || scan(&store));
        }
        cold.print();
        rounds.print();
        times.push(support::median(own));
    }
    let ratio = |at: usize| times[at] / times[0];
    println!(
        "twice as long: {:.2} times the time; four times as long: {:.2}",
        ratio(1),
        ratio(2)
    );
}

fn options() -> Options {
    Store::options().tree(false).keep(false)
}

fn batch(number: u64, is_quiet: bool) -> Batch {
    let key = match is_quiet {
        true => r"Quiet\Resource".to_owned(),
        false => format!(r"Cluster\Resources\Resource{:03}", number % 500),
    };
    let mut batch = Batch::at(&KeyPath::parse(&key).expect("a path"));
    batch.create_key("").expect("a command");
    batch.set_value("State", Value::qword(number)).expect("a command");
    batch
}

/// Has the sidecars made.
fn warm(store: &Store) -> Port {
    let port = store.open_port("quiet").expect("a port");
    get(&port);
    port
}

fn get(port: &Port) -> f64 {
    let (count, took) = timed(|| port.try_get().expect("a get").expect("batches").len());
    assert_eq!(count as u64, BATCHES / EVERY);
    took.as_secs_f64() * 1e3
}

fn scan(store: &Store) -> f64 {
    let (count, took) = timed(|| {
        let log = store.log(1..=u64::MAX).expect("the log");
        let is_quiet =
            |batch: &clusdb::BatchView<'_>| batch.changes().any(|change| change.key().starts_with("Quiet"));
        log.batches().filter(is_quiet).count()
    });
    assert_eq!(count as u64, BATCHES / EVERY);
    took.as_secs_f64() * 1e3
}
