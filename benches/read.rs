//! A point get among 100,000 values, beside a plain hash map from (path, name) to data that is never changed and has
//! no lock: `cargo bench --bench read`.

mod support;

use std::collections::HashMap;
use std::hint::black_box;

use clusdb::{Batch, KeyPath, Store, Value};
use support::{Figures, folder, timed};

const ROUNDS: usize = 9;
const KEYS: usize = 10_000;
const VALUES_PER_KEY: usize = 10;
const GETS: usize = 500_000;

fn main() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).expect("a new store");
    let paths: Vec<_> = (0..KEYS)
        .map(|key| format!(r"CLUSTER\RESOURCES\RESOURCE{key:05}"))
        .collect();
    let names: Vec<_> = (0..VALUES_PER_KEY)
        .map(|name| format!("PARAMETER{name}"))
        .collect();
    let mut map = HashMap::new();
    for path in &paths {
        let mut batch = Batch::at(&KeyPath::parse(path).expect("a path"));
        batch.create_key("").expect("a command");
        for name in &names {
            batch
                .set_value(name, Value::sz("a value of usual length"))
                .expect("a command");
            map.insert((path.clone(), name.clone()), Value::sz("a value of usual length"));
        }
        store.commit(batch).expect("a commit");
    }
    let keys: Vec<_> = paths
        .iter()
        .map(|path| KeyPath::parse(path).expect("a path"))
        .collect();
    let lookups: Vec<_> = (0..GETS)
        .map(|number| (number * 7919 % KEYS, number % VALUES_PER_KEY))
        .collect();
    for (what, names) in [
        ("hit", names.clone()),
        ("miss", names.iter().map(|name| format!("{name}X")).collect()),
    ] {
        let pairs: Vec<Vec<_>> = paths
            .iter()
            .map(|path| names.iter().map(|name| (path.clone(), name.clone())).collect())
            .collect();
        let mut figures = Figures::new(format!("get among 100,000 values, {what}"), "ns");
        for _ in 0..ROUNDS {
            figures.round(
                || {
                    nanos(
                        |(key, name)| store.get(&keys[key], &names[name]).expect("an open store"),
                        &lookups,
                    )
                },
                || nanos(|(key, name)| map.get(&pairs[key][name]).cloned(), &lookups),
            );
        }
        figures.print();
    }
    let (entries, time) = timed(|| store.list_recursive(&KeyPath::root()).expect("the root"));
    eprintln!(
        "all {} entries listed in {time:.1?}; medians of {ROUNDS} rounds",
        entries.len()
    );
}

fn nanos<R>(get: impl Fn((usize, usize)) -> R, lookups: &[(usize, usize)]) -> f64 {
    let all = || lookups.iter().for_each(|lookup| drop(black_box(get(*lookup))));
    timed(all).1.as_secs_f64() * 1e9 / lookups.len() as f64
}
