//! A notification of 1,000,000 pending small changes, beside a hand-written walk of as many checksummed records that
//! decodes the same fields: `cargo bench --bench notification`.
//!
//! Raw reads a file of records, each with a CRC32, a key, a name, a type, new and old data, all lengths 4 bytes; it checks the
//! checksum, the bounds, and that key and name are UTF-8. Both add up what they see.

mod support;

use std::hint::black_box;

use clusdb::{Batch, Change, KeyPath, Port, Store, Value};
use support::{Figures, folder, timed};

const ROUNDS: usize = 9;
const CHANGES: u32 = 1_000_000;
const CHANGES_PER_BATCH: u32 = 10;

fn main() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).expect("a new store");
    let port = store.port("bench", &KeyPath::root()).expect("a new port");
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for number in (thread..CHANGES / CHANGES_PER_BATCH).step_by(16) {
                    store.commit(batch(number)).expect("a commit");
                }
            });
        }
    });
    let records = raw_records(&port);

    let mut get = Figures::new("get of 1,000,000 changes (raw: verify alone)", "ms");
    let mut walk = Figures::new("walk of them (raw: decode alone)", "ms");
    let mut both = Figures::new("get and walk (raw: verify and decode)", "ms");
    for _ in 0..ROUNDS {
        let notification = || port.try_get().expect("a get").expect("changes");
        let rewind = || port.rewind().expect("a rewind");
        get.round(
            || {
                rewind();
                millis(notification)
            },
            || millis(|| walk_raw(&records, true, false)),
        );
        rewind();
        let got = notification();
        let walk_ours = || {
            let changes = got.batches().flat_map(|batch| batch.changes());
            changes.fold(0, |sum, change| sum + weigh(&change))
        };
        assert_eq!(walk_ours(), walk_raw(&records, true, true));
        walk.round(
            || millis(walk_ours),
            || millis(|| walk_raw(&records, false, true)),
        );
        both.round(
            || {
                rewind();
                millis(|| {
                    let got = notification();
                    let changes = got.batches().flat_map(|batch| batch.changes());
                    changes.fold(0, |sum, change| sum + weigh(&change))
                })
            },
            || millis(|| walk_raw(&records, true, true)),
        );
    }
    get.print();
    walk.print();
    both.print();
    eprintln!("{} raw bytes; medians of {ROUNDS} rounds", records.len());
}

fn batch(number: u32) -> Batch {
    let key = KeyPath::parse(&format!(
        r"Cluster\Resources\Resource{:04}\Parameters",
        number % 500
    ))
    .expect("a path");
    let mut batch = Batch::at(&key);
    batch.create_key("").expect("a command");
    for name in 1..CHANGES_PER_BATCH {
        let value = Value::qword(u64::from(number) * 10 + u64::from(name));
        batch
            .set_value(&format!("Parameter{name}"), value)
            .expect("a command");
    }
    batch
}

fn millis<R>(run: impl FnOnce() -> R) -> f64 {
    timed(|| black_box(run())).1.as_secs_f64() * 1e3
}

/// Touches every field.
fn weigh(change: &Change<'_>) -> u64 {
    let data = |value: Option<clusdb::ValueRef<'_>>| {
        value.map_or(0, |value| u64::from(value.value_type.0) + sum(value.data))
    };
    let name = change.name().unwrap_or_default();
    (change.key().len() + name.len()) as u64 + data(change.value()) + data(change.previous())
}

fn sum(data: &[u8]) -> u64 {
    data.iter().map(|byte| u64::from(*byte)).sum()
}

fn raw_records(port: &Port) -> Vec<u8> {
    let got = port.try_get().expect("a get").expect("changes");
    let mut records = Vec::new();
    for change in got.batches().flat_map(|batch| batch.changes()) {
        let mut body = Vec::new();
        for text in [change.key(), change.name().unwrap_or_default()] {
            body.extend((text.len() as u32).to_le_bytes());
            body.extend(text.as_bytes());
        }
        for value in [change.value(), change.previous()] {
            let (value_type, data) = value.map_or((0, &[][..]), |value| (value.value_type.0, value.data));
            body.extend(value_type.to_le_bytes());
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(data);
        }
        records.extend((body.len() as u32).to_le_bytes());
        records.extend(crc32fast::hash(&body).to_le_bytes());
        records.extend(body);
    }
    records
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn take_u32(bytes: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(bytes, 4).try_into().expect("four bytes"))
}

fn walk_raw(records: &[u8], verify: bool, decode: bool) -> u64 {
    let mut rest = records;
    let mut total = 0;
    while !rest.is_empty() {
        let length = take_u32(&mut rest) as usize;
        let checksum = take_u32(&mut rest);
        let mut body = take(&mut rest, length);
        if verify {
            assert_eq!(crc32fast::hash(body), checksum);
        }
        if !decode {
            continue;
        }
        for _ in 0..2 {
            let length = take_u32(&mut body) as usize;
            total += str::from_utf8(take(&mut body, length)).expect("UTF-8").len() as u64;
        }
        for _ in 0..2 {
            let value_type = take_u32(&mut body);
            let length = take_u32(&mut body) as usize;
            total += u64::from(value_type) + sum(take(&mut body, length));
        }
    }
    total
}
