//! A notification of 1,000,000 pending small changes, beside a hand-written walk of as many checksummed records that
//! decodes the same fields: `cargo bench --bench notification`.
//!
//! Raw is a loop over the bytes of the same segments, read into memory, that does what `docs/format.md` says: it checks the checksums, the
//! bounds, and that keys and names are UTF-8. Both add up what they see. The first get after the store was opened maps the journal and
//! verifies all of it; what was verified once is not verified again.

mod support;

use std::hint::black_box;
use std::path::Path;

use clusdb::{Batch, Change, KeyPath, Notification, Port, Store, Value};
use support::{Figures, folder, timed};

const ROUNDS: usize = 9;
const CHANGES: u32 = 1_000_000;
const CHANGES_PER_BATCH: u32 = 10;

fn main() {
    let folder = folder();
    let path = folder.path().join("store");
    let open = || {
        let options = Store::options().tree(false).keep(false);
        options.open(&path).expect("a store")
    };
    let store = open();
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
    drop((port, store));
    let records = segments(&path);

    let mut first = Figures::new("first get and walk (raw: verify and decode)", "ms");
    let mut again = Figures::new("get and walk again (raw: verify and decode)", "ms");
    let mut by_for = Figures::new("the same by a for loop (raw: verify and decode)", "ms");
    let mut get = Figures::new("first get alone (raw: verify alone)", "ms");
    let mut walk = Figures::new("walk alone (raw: decode alone)", "ms");
    for _ in 0..ROUNDS {
        // A store that was opened anew has verified nothing yet.
        let opened = || {
            let store = open();
            (store.open_port("bench").expect("a port"), store)
        };
        let (port, store) = opened();
        first.round(
            || millis(|| fold(&port)),
            || millis(|| walk_raw(&records, true, true)),
        );
        let rewind = || port.rewind().expect("a rewind");
        rewind();
        again.round(
            || millis(|| fold(&port)),
            || millis(|| walk_raw(&records, true, true)),
        );
        rewind();
        by_for.round(
            || millis(|| walk_by_for(&port)),
            || millis(|| walk_raw(&records, true, true)),
        );
        drop((port, store));
        let (port, _store) = opened();
        get.round(
            || millis(|| changes_of(&port)),
            || millis(|| walk_raw(&records, true, false)),
        );
        port.rewind().expect("a rewind");
        let got = changes_of(&port);
        let sum = || {
            got.batches()
                .flat_map(|batch| batch.changes())
                .fold(0, |sum, change| sum + weigh(&change))
        };
        assert_eq!(sum(), walk_raw(&records, true, true));
        walk.round(|| millis(sum), || millis(|| walk_raw(&records, false, true)));
    }
    for figures in [first, again, by_for, get, walk] {
        figures.print();
    }
    let bytes: usize = records.iter().map(Vec::len).sum();
    eprintln!("{bytes} bytes of segments; medians of {ROUNDS} rounds");
}

fn changes_of(port: &Port) -> Notification {
    port.try_get().expect("a get").expect("changes")
}

fn fold(port: &Port) -> u64 {
    let got = changes_of(port);
    let changes = got.batches().flat_map(|batch| batch.changes());
    changes.fold(0, |sum, change| sum + weigh(&change))
}

fn walk_by_for(port: &Port) -> u64 {
    let mut sum = 0;
    for batch in changes_of(port).batches() {
        for change in batch.changes() {
            sum += weigh(&change);
        }
    }
    sum
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
    let command = change.kind() as u64 + u64::from(change.changed());
    command + (change.key().len() + name.len()) as u64 + data(change.value()) + data(change.previous())
}

fn sum(data: &[u8]) -> u64 {
    data.iter().map(|byte| u64::from(*byte)).sum()
}

/// The bytes of the journal's segments.
fn segments(store: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(store.join("journal")).expect("a folder");
    let paths = files.map(|file| file.expect("a file").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == "segment"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a file"))
        .collect()
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn take_u32(bytes: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(bytes, 4).try_into().expect("four bytes"))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = u64::from_le_bytes(take(bytes, 8).try_into().expect("eight bytes"));
    take(bytes, length as usize)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> &'a str {
    str::from_utf8(take_bytes(bytes)).expect("UTF-8")
}

/// As `docs/format.md` has it: segments, frames, records.
fn walk_raw(segments: &[Vec<u8>], verify: bool, decode: bool) -> u64 {
    let mut total = 0;
    for segment in segments {
        let mut salt = crc32fast::Hasher::new();
        salt.update(&segment[32..48]);
        let mut offset = 128;
        while let Some(header) = segment
            .get(offset..offset + 64)
            .filter(|header| header[24..32] != [0; 8])
        {
            let length = take_u32(&mut &header[16..]) as usize;
            let frame = &segment[offset..offset + 64 + length.next_multiple_of(8)];
            if verify {
                let mut hasher = salt.clone();
                hasher.update(&(offset as u64).to_le_bytes());
                hasher.update(&frame[4..]);
                assert_eq!(hasher.finalize(), take_u32(&mut &header[..]));
            }
            if decode {
                total += decode_raw(&frame[64..64 + length]);
            }
            offset += frame.len();
        }
    }
    total
}

fn decode_raw(mut record: &[u8]) -> u64 {
    let mut total = 0;
    let runs = take_u32(&mut record);
    take(&mut record, 5);
    for _ in 0..runs {
        let key = take_text(&mut record);
        let changes = take_u32(&mut record);
        take(&mut record, 4);
        for _ in 0..changes {
            let [command, changed] = take(&mut record, 2).try_into().expect("two bytes");
            assert!(
                (1..=4).contains(&command) && changed <= 1,
                "a command that is known"
            );
            total += u64::from(command) + u64::from(changed);
            total += (key.len() + take_text(&mut record).len()) as u64;
            for _ in 0..2 {
                if take(&mut record, 1) == [1] {
                    total += u64::from(take_u32(&mut record)) + sum(take_bytes(&mut record));
                }
            }
        }
    }
    total
}
