//! Reading among 100,000 and 1,000,000 values, beside a bare hash map of (key, name) pairs: `cargo bench --bench read`.
//!
//! Names are parsed once, outside of what is measured, on both sides. The map has the hash function of the state. It
//! has no order and knows no keys: where keys are listed, it is asked for a value of each of them.

mod support;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clusdb::{Batch, Entry, KeyPath, Store, Value, ValueName};
use foldhash::fast::RandomState;
use support::{Figures, folder, median_micros, timed};

const ROUNDS: usize = 9;
const VALUES_PER_KEY: usize = 10;
const KEYS_PER_GROUP: usize = 100;
const GETS: usize = 200_000;
const LISTINGS: usize = 1_000;

/// A folded path and a folded name.
type Pair = (Box<str>, Box<str>);
type Map = HashMap<Pair, Value, RandomState>;

fn main() {
    for values in [100_000, 1_000_000] {
        let folder = folder();
        let store = Store::options().tree(false).keep(false);
        let store = store.open(folder.path().join("store")).expect("a new store");
        let keys = values / VALUES_PER_KEY;
        fill(&store, keys);
        let mut map = Map::default();
        for key in 0..keys {
            let path: Box<str> = path(key).folded().into();
            for name in 0..VALUES_PER_KEY {
                map.insert((path.clone(), folded_name(name).into()), value(key));
            }
        }
        assert_eq!(map.len(), values);
        for (what, suffix) in [("hit", ""), ("miss", "X")] {
            gets(
                &store,
                &map,
                &format!("get among {values} values, {what}"),
                suffix,
            );
        }
        listings(&store, &map, values);
        beside_a_writer(&store, values);
    }
}

fn fill(store: &Store, keys: usize) {
    for group in 0..keys / KEYS_PER_GROUP {
        let mut batch = Batch::at(&KeyPath::root());
        for key in group * KEYS_PER_GROUP..(group + 1) * KEYS_PER_GROUP {
            batch.create_key(path(key).as_str()).expect("a command");
            for name in 0..VALUES_PER_KEY {
                let name = format!("Parameter{name}");
                batch.set_value(&name, value(key)).expect("a command");
            }
        }
        store.commit(batch).expect("a commit");
    }
}

fn group(key: usize) -> String {
    format!(r"Cluster\Group{:05}", key / KEYS_PER_GROUP)
}

fn path(key: usize) -> KeyPath {
    let path = format!(r"{}\Resource{:02}", group(key), key % KEYS_PER_GROUP);
    KeyPath::parse(&path).expect("a path")
}

fn folded_name(name: usize) -> String {
    format!("PARAMETER{name}")
}

fn value(key: usize) -> Value {
    Value::sz(&format!("the value of {key:09}"))
}

/// In an order that no cache foresees.
fn scattered(number: usize, below: usize) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % below
}

fn gets(store: &Store, map: &Map, what: &str, suffix: &str) {
    let keys = map.len() / VALUES_PER_KEY;
    let name = |number| format!("Parameter{}{suffix}", scattered(number + GETS, VALUES_PER_KEY));
    let parsed: Vec<_> = (0..GETS)
        .map(|number| {
            let name = ValueName::parse(&name(number)).expect("a name");
            (path(scattered(number, keys)), name)
        })
        .collect();
    let pairs: Vec<Pair> = parsed
        .iter()
        .map(|(key, name)| (key.folded().into(), name.folded().into()))
        .collect();
    let text: Vec<_> = (0..GETS)
        .map(|number| (path(scattered(number, keys)), name(number)))
        .collect();
    let mut by_name = Figures::new(what, "ns");
    let mut by_text = Figures::new(format!("{what}, by text"), "ns");
    for _ in 0..ROUNDS {
        let raw = || nanos(&pairs, |pair| map.get(pair).cloned());
        by_name.round(
            || {
                nanos(&parsed, |(key, name)| {
                    store.get(key, name).expect("an open store")
                })
            },
            raw,
        );
        by_text.round(
            || nanos(&text, |(key, name)| store.get(key, name).expect("an open store")),
            raw,
        );
    }
    by_name.print();
    by_text.print();
}

/// For each of these.
fn nanos<L, R>(lookups: &[L], mut look_up: impl FnMut(&L) -> R) -> f64 {
    let all = || lookups.iter().for_each(|lookup| drop(black_box(look_up(lookup))));
    timed(all).1.as_secs_f64() * 1e9 / lookups.len() as f64
}

fn listings(store: &Store, map: &Map, values: usize) {
    let keys = values / VALUES_PER_KEY;
    let groups: Vec<_> = (0..LISTINGS)
        .map(|number| {
            let first = scattered(number, keys) / KEYS_PER_GROUP * KEYS_PER_GROUP;
            let pairs = (first..first + KEYS_PER_GROUP).map(|key| -> Pair {
                let name = folded_name(0);
                (path(key).folded().into(), name.into())
            });
            let group = KeyPath::parse(&group(first)).expect("a path");
            (group, pairs.collect::<Vec<_>>())
        })
        .collect();
    let mut figures = Figures::new(format!("listing 100 keys among {values} values"), "ns");
    for _ in 0..ROUNDS {
        figures.round(
            || {
                nanos(&groups, |(group, _)| {
                    let entries = store.list(group).expect("a group");
                    assert_eq!(entries.len(), KEYS_PER_GROUP);
                    entries
                })
            },
            || {
                nanos(&groups, |(_, pairs)| -> Vec<_> {
                    pairs.iter().map(|pair| map.get(pair).cloned()).collect()
                })
            },
        );
    }
    figures.print();

    let mut figures = Figures::new(format!("all {values} values (raw: all pairs)"), "ms");
    for _ in 0..ROUNDS {
        figures.round(
            || {
                let list = || store.list_recursive(&KeyPath::root()).expect("the root");
                let (entries, time) = timed(list);
                let is_value = |entry: &&Entry| matches!(entry, Entry::Value { .. });
                assert_eq!(entries.iter().filter(is_value).count(), values);
                time.as_secs_f64() * 1e3
            },
            || {
                let list = || -> Vec<_> {
                    map.iter()
                        .map(|(pair, value)| (pair.clone(), value.clone()))
                        .collect()
                };
                let (pairs, time) = timed(list);
                assert_eq!(pairs.len(), values);
                time.as_secs_f64() * 1e3
            },
        );
    }
    figures.print();
}

/// What a reader waits at most while batches of 10,000 values are committed. Raw: while nothing is.
fn beside_a_writer(store: &Store, values: usize) {
    let keys: Vec<_> = (0..1000)
        .map(|number| path(scattered(number, values / VALUES_PER_KEY)))
        .collect();
    let latencies = |time: Duration| {
        let began = Instant::now();
        let mut latencies = Vec::new();
        while began.elapsed() < time {
            for key in &keys {
                let got = timed(|| store.get(key, "PARAMETER3").expect("an open store"));
                latencies.push(got.1);
            }
        }
        latencies.sort_unstable();
        latencies
    };
    let quiet = latencies(Duration::from_secs(2));
    let busy = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..20u32 {
                let mut batch = Batch::at(&KeyPath::root());
                for key in 0..1000 {
                    batch.create_key(path(key).as_str()).expect("a command");
                    for name in 0..VALUES_PER_KEY {
                        let value = Value::binary([round as u8; 40]);
                        batch.set_value(&folded_name(name), value).expect("a command");
                    }
                }
                store.commit(batch).expect("a commit");
            }
        });
        let mut busy = Vec::new();
        while !writer.is_finished() {
            busy.extend(latencies(Duration::from_millis(10)));
        }
        busy.sort_unstable();
        busy
    });
    for (what, share) in [("p50", 0.5), ("p99.9", 0.999), ("the longest", 1.0)] {
        let at = |latencies: &[Duration]| {
            let index = ((latencies.len() - 1) as f64 * share) as usize;
            median_micros(&latencies[index..=index])
        };
        let what = format!("get among {values} values beside a writer, {what}");
        let mut figures = Figures::new(what, "µs");
        figures.round(|| at(&busy), || at(&quiet));
        figures.print();
    }
}
