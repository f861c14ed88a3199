//! Reading pending changes back.

use std::hint::black_box;

use anyhow::{Result, ensure};
use clusdb::KeyPath;

use super::{Bench, Measured, Workload, role, timed};
use crate::figures::{Measure, Role, Side};
use crate::number::count;
use crate::peer::{Batch, Change, Command, ValueRef};
use crate::peers::apply;
use crate::raw::{RawRows, Records, RecordsWriter, memcpy};
use crate::work::{data, load, path, set_value};

pub const WORKLOAD: Workload = Workload {
    name: "changes",
    title: "Reading 1,000,000 pending changes",
    about: "All changes since the store was made, in batches of 10, every field decoded and texts checked to be UTF-8. clusdb: a port that was \
            created at the beginning, `get` (which verifies checksums) and a walk of all. Peers: a scan of their change table. Raw: a \
            walk, written by hand, over the same entries as checksummed records in a mapped file; and a copy of that file's bytes. \
            Bytes are those of the fields. RocksDB reads its write-ahead log, which has no previous values.",
    run,
};

const CHANGES: u64 = 1_000_000;
const CHANGES_PER_BATCH: u64 = 10;
const KEYS: u64 = 500;

fn batch(number: u64) -> Batch {
    let mut commands = vec![Command::CreateKey(String::new())];
    let set = |name| set_value(format!("Parameter{name:03}"), data(number * 10 + name, 40));
    commands.extend((1..CHANGES_PER_BATCH).map(set));
    Batch {
        at: path(&format!(
            r"Cluster\Resources\Resource{:04}\Parameters",
            number % KEYS
        )),
        commands,
    }
}

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let root = KeyPath::root();
    let batches = bench.count(CHANGES / CHANGES_PER_BATCH);
    let opened = bench.open_all(bench.folder, std::slice::from_ref(&root))?;
    bench.for_each(&opened, |peer| load(peer, 0..batches, batch))?;
    let mut records = RecordsWriter::create(&bench.folder.join("records"))?;
    let mut rows = RawRows::default();
    for number in 0..batches {
        records.push(&apply(&batch(number), &mut rows)?)?;
    }
    records.sync()?;
    let records = Records::open(&bench.folder.join("records"))?;

    let expected = batches * CHANGES_PER_BATCH;
    let records = &records;
    // All pages of both are there before.
    let mut copy = records.bytes().to_vec();
    let mut sides = vec![
        Side::new("raw: mapped walk", Role::Raw, || {
            measure(expected, |visit| records.walk(&KeyPath::root(), visit))
        }),
        Side::new("raw: memcpy", Role::Raw, move || {
            let seconds = memcpy(records.bytes(), &mut copy).as_secs_f64();
            Ok(vec![None, Some(records.bytes().len() as f64 / seconds / 1e6)])
        }),
    ];
    for one in &opened {
        let root = &root;
        sides.push(Side::new(one.store.name(), role(one.store), move || {
            measure(expected, |visit| one.peer.changes(root, visit))
        }));
    }
    let measures = vec![
        Measure::higher("changes a second", "million/s"),
        Measure::higher("bytes of fields a second", "MB/s"),
    ];
    let figures = bench.take_turns(measures, sides)?;
    let notes = vec![format!(
        "{} changes; the mapped records have {} bytes.",
        count(expected),
        count(records.bytes().len() as u64)
    )];
    for one in opened {
        one.peer.close()?;
    }
    Ok(Measured { figures, notes })
}

/// Reads all changes: millions a second, and megabytes of fields a second.
fn measure(
    expected: u64,
    read: impl FnOnce(&mut dyn FnMut(&Change<'_>)) -> Result<()>,
) -> Result<Vec<Option<f64>>> {
    let (mut count, mut bytes, mut weight) = (0, 0, 0);
    let length = |value: Option<ValueRef<'_>>| value.map_or(0, |value| value.data.len());
    let seconds = timed(|| {
        read(&mut |change| {
            count += 1;
            bytes += change.key.len() + change.name.len() + length(change.value) + length(change.previous);
            weight += change.weigh();
        })
    })?;
    black_box(weight);
    let seconds = seconds.as_secs_f64();
    // A store may show a few more: the parents of a key, say.
    ensure!(count >= expected, "{count} changes are there of {expected}");
    let rate = |amount: f64| Some(amount / seconds / 1e6);
    Ok(vec![rate(count as f64), rate(bytes as f64)])
}
