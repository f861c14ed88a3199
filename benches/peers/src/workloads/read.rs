//! Point reads, listings and whole iterations.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use clusdb::KeyPath;

use super::{Bench, Measured, Workload, micros, millis, percentile, role, timed};
use crate::figures::{Measure, Role, Side};
use crate::number::count;
use crate::peer::{Entry, Peer};
use crate::peers::apply;
use crate::raw::RawRows;
use crate::work::{
    KEYS_PER_GROUP, VALUES_PER_KEY, batch_of_10, data, load, path, read_batch, read_key, read_name,
};

pub const WORKLOAD: Workload = Workload {
    name: "read",
    title: "Reading",
    about: "100,000 and 1,000,000 values of 40 bytes, 10 a key, 100 keys side by side. A get is of a value at random, key and name parsed \
            before; a miss asks a key that exists for a name that does not. A listing is of 100 keys side by side, an iteration of everything, all \
            fields decoded. Beside a writer: gets while another thread commits durable batches of 10 commands. clusdb ignores case, the \
            others do not. Raw: for gets a hash map from (key, name) to data, for the others an ordered map of the peers' rows; both never changed and without a lock.",
    run,
};

const SIZES: [u64; 2] = [100_000, 1_000_000];
const GETS: u64 = 100_000;
const LISTINGS: u64 = 300;
const BESIDE: Duration = Duration::from_millis(700);

type Name = Arc<str>;
type Map = HashMap<(Name, Name), Arc<[u8]>>;

/// Where to look, the same places for everyone.
struct Places {
    found: Vec<(KeyPath, String)>,
    missed: Vec<(KeyPath, String)>,
    listed: Vec<(KeyPath, usize)>,
    values: u64,
}

impl Places {
    fn new(keys: u64, gets: u64, listings: u64) -> Places {
        // A stride that has no factor in common with any number of keys here goes everywhere.
        let key = |number: u64| read_key(number * 7_919 % keys);
        let name = |number: u64| read_name(number % VALUES_PER_KEY);
        let groups = keys.div_ceil(KEYS_PER_GROUP);
        let listed = |number: u64| {
            let group = number * 31 % groups;
            let count = (keys - group * KEYS_PER_GROUP).min(KEYS_PER_GROUP);
            (path(&format!(r"Cluster\Group{group:05}")), count as usize)
        };
        Places {
            found: (0..gets).map(|number| (key(number), name(number))).collect(),
            missed: (0..gets)
                .map(|number| (key(number), name(number) + "X"))
                .collect(),
            listed: (0..listings).map(listed).collect(),
            values: keys * VALUES_PER_KEY,
        }
    }
}

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    for full in SIZES {
        let keys = bench.count_from(10, full / VALUES_PER_KEY);
        let folder = bench.folder.join(full.to_string());
        let opened = bench.open_all(&folder, &[])?;
        bench.for_each(&opened, |peer| load(peer, 0..keys, read_batch))?;
        let places = Places::new(keys, bench.count_from(100, GETS), bench.count_from(10, LISTINGS));
        let map = map(keys);
        let mut rows = RawRows::default();
        for number in 0..keys {
            apply(&read_batch(number), &mut rows)?;
        }
        let values = count(places.values);
        let of = |what: &str| format!("{what}, {values} values");
        let measures = vec![
            Measure::lower(of("get, hit"), "ns"),
            Measure::lower(of("get, miss"), "ns"),
            Measure::lower(of("listing 100 keys"), "µs"),
            Measure::lower(of("iterating over everything"), "ms"),
            Measure::lower(of("get beside a writer, p50"), "µs"),
            Measure::lower(of("get beside a writer, p99"), "µs"),
        ];
        let found = pairs(&places.found);
        let missed = pairs(&places.missed);
        let mut sides = vec![Side::new("raw: hash map", Role::Raw, || {
            let look = |pairs: &[(Name, Name)], is_there| {
                nanos_each(pairs, |pair| {
                    let found = map.get(pair).cloned();
                    Ok(black_box(found).is_some() == is_there)
                })
            };
            Ok(vec![Some(look(&found, true)?), Some(look(&missed, false)?)])
        })];
        sides.push(Side::new("raw: ordered map", Role::Raw, || {
            let listing = time_listing(&places, |key, visit| rows.list(key, visit))?;
            let iterating = time_iterating(&places, |visit| rows.iterate(visit))?;
            Ok(vec![None, None, Some(listing), Some(iterating)])
        }));
        let beside = bench.time(BESIDE);
        for one in &opened {
            let places = &places;
            sides.push(Side::new(one.store.name(), role(one.store), move || {
                measure(&*one.peer, places, beside)
            }));
        }
        measured.figures.extend(bench.take_turns(measures, sides)?);
        for one in opened {
            one.peer.close()?;
        }
    }
    Ok(measured)
}

fn map(keys: u64) -> Map {
    let names: Vec<Name> = (0..VALUES_PER_KEY)
        .map(|number| read_name(number).into())
        .collect();
    let mut map = Map::new();
    for key in 0..keys {
        let path: Name = read_key(key).as_str().into();
        for (name, number) in names.iter().zip(key * VALUES_PER_KEY..) {
            map.insert((Arc::clone(&path), Arc::clone(name)), data(number, 40).into());
        }
    }
    map
}

fn pairs(places: &[(KeyPath, String)]) -> Vec<(Name, Name)> {
    let pairs = places.iter();
    pairs
        .map(|(key, name)| (key.as_str().into(), name.as_str().into()))
        .collect()
}

fn measure(peer: &dyn Peer, places: &Places, beside: Duration) -> Result<Vec<Option<f64>>> {
    let get = |places: &[(KeyPath, String)], is_there| {
        nanos_each(places, |(key, name)| {
            let found = peer.get(key, name, &mut |value| {
                black_box(value);
            })?;
            Ok(found == is_there)
        })
    };
    let (hit, miss) = (get(&places.found, true)?, get(&places.missed, false)?);
    let listing = time_listing(places, |key, visit| peer.list(key, visit))?;
    let iterating = time_iterating(places, |visit| peer.iterate(visit))?;
    let mut times = get_beside_a_writer(peer, places, beside)?;
    let mut part = |part| percentile(&mut times, part).map(micros);
    Ok(vec![
        Some(hit),
        Some(miss),
        Some(listing),
        Some(iterating),
        part(0.5),
        part(0.99),
    ])
}

/// In microseconds.
fn time_listing(
    places: &Places,
    list: impl Fn(&KeyPath, &mut dyn FnMut(&Entry<'_>)) -> Result<()>,
) -> Result<f64> {
    let nanos = nanos_each(&places.listed, |(key, expected)| {
        let (mut count, mut weight) = (0, 0);
        list(key, &mut |entry| {
            count += 1;
            weight += entry.weigh();
        })?;
        black_box(weight);
        Ok(count == *expected)
    })?;
    Ok(nanos / 1e3)
}

/// In milliseconds.
fn time_iterating(
    places: &Places,
    iterate: impl FnOnce(&mut dyn FnMut(&Entry<'_>)) -> Result<()>,
) -> Result<f64> {
    let (mut entries, mut weight) = (0u64, 0);
    let time = timed(|| {
        iterate(&mut |entry| {
            entries += 1;
            weight += entry.weigh();
        })
    })?;
    black_box(weight);
    ensure!(entries > places.values, "{entries} entries are there");
    Ok(millis(time))
}

fn nanos_each<T>(all: &[T], mut look: impl FnMut(&T) -> Result<bool>) -> Result<f64> {
    let mut as_expected = true;
    let time = timed(|| {
        for one in all {
            as_expected &= look(one)?;
        }
        Ok(())
    })?;
    ensure!(as_expected, "a read did not find what is there");
    Ok(time.as_secs_f64() * 1e9 / all.len() as f64)
}

fn get_beside_a_writer(peer: &dyn Peer, places: &Places, time: Duration) -> Result<Vec<Duration>> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let write = || -> Result<()> {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                peer.write(&[batch_of_10(0, number)])?;
                number += 1;
            }
            Ok(())
        };
        let writer = scope.spawn(write);
        let times = time_gets(peer, places, time);
        is_over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        times
    })
}

fn time_gets(peer: &dyn Peer, places: &Places, time: Duration) -> Result<Vec<Duration>> {
    let began = Instant::now();
    let mut times = Vec::new();
    for (key, name) in places.found.iter().cycle() {
        let before = Instant::now();
        peer.get(key, name, &mut |value| {
            black_box(value);
        })?;
        times.push(before.elapsed());
        if began.elapsed() > time {
            break;
        }
    }
    Ok(times)
}
