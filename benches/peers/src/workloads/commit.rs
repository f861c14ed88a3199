//! Durable commits of small batches, by one and by many writers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::{Bench, Measured, Workload, micros, percentile, role};
use crate::figures::{Measure, Role, Side};
use crate::peers::record_bytes;
use crate::raw::RawFile;
use crate::work::{batch_of_10, load};

pub const WORKLOAD: Workload = Workload {
    name: "commit",
    title: "Durable commits of a 10-command batch",
    about: "A key of about 40 bytes is opened and 9 values of 100 bytes are set, over and over among 100 keys a writer; each \
            commit returns when the disk has it, and leaves a change entry. The commands are there before the time begins; what a store makes of them is timed. Raw: an append of as many bytes as clusdb's journal gets \
            to a zero-filled file and fdatasync; of several writers one writes and syncs for all who wait.",
    run,
};

const WRITERS: [u64; 3] = [1, 4, 32];
const TIME: Duration = Duration::from_millis(1500);

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let record = vec![0xa5; record_bytes(&bench.folder.join("size"), &batch_of_10(0, 0))?];
    let raw = RawFile::create(&bench.folder.join("raw"))?;
    let opened = bench.open_all(bench.folder, &[])?;
    // All keys are there before, and the files have begun.
    for one in &opened {
        load(&*one.peer, 0..100 * WRITERS[2], |number| {
            batch_of_10(number / 100, number)
        })?;
    }
    // Each key gets two batches in turn, so that all values change.
    let batches: Vec<Vec<_>> = (0..WRITERS[2])
        .map(|writer| (0..200).map(|number| [batch_of_10(writer, number)]).collect())
        .collect();
    let time = bench.time(TIME);
    let next = AtomicUsize::new(0);
    for writers in WRITERS {
        let title = |what: &str| match writers {
            1 => format!("1 writer, {what}"),
            _ => format!("{writers} writers, {what}"),
        };
        let measures = vec![
            Measure::lower(title("p50"), "µs"),
            Measure::lower(title("p99"), "µs"),
            Measure::higher(title("batches a second"), "/s"),
        ];
        let record = &record;
        let raw = &raw;
        let mut sides = vec![Side::new("raw: append + sync", Role::Raw, move || {
            measure(writers, time, &|_| raw.append(record))
        })];
        for one in &opened {
            let (next, batches) = (&next, &batches);
            sides.push(Side::new(one.store.name(), role(one.store), move || {
                measure(writers, time, &|writer| {
                    let number = next.fetch_add(1, Ordering::Relaxed) % 200;
                    one.peer.write(&batches[writer as usize][number])
                })
            }));
        }
        measured.figures.extend(bench.take_turns(measures, sides)?);
    }
    let length = record.len();
    measured
        .notes
        .push(format!("A batch takes {length} bytes in clusdb's journal."));
    for one in opened {
        one.peer.close()?;
    }
    Ok(measured)
}

/// Commits by so many writers for so long: the latency that half of them stay below, that 99 % stay below, and batches a second.
fn measure(
    writers: u64,
    time: Duration,
    commit: &(dyn Fn(u64) -> Result<()> + Sync),
) -> Result<Vec<Option<f64>>> {
    let began = Instant::now();
    let write = |writer| -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let mut now = Instant::now();
        while now.duration_since(began) < time {
            commit(writer)?;
            let before = std::mem::replace(&mut now, Instant::now());
            times.push(now.duration_since(before));
        }
        Ok(times)
    };
    let mut times = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..writers)
            .map(|writer| scope.spawn(move || write(writer)))
            .collect();
        for thread in threads {
            times.extend(thread.join().map_err(|_| anyhow!("a writer panicked"))??);
        }
        Ok(())
    })?;
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    let mut part = |part| percentile(&mut times, part).map(micros);
    Ok(vec![part(0.5), part(0.99), Some(rate)])
}
