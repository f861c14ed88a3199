//! What followers cost a writer who never touches what they follow.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Bench, Measured, Workload, micros, percentile, role};
use crate::figures::{Measure, Role, Side};
use crate::number;
use crate::peer::{Peer, Watcher};
use crate::peers::{Store, record_bytes};
use crate::process::thread_time;
use crate::raw::RawFile;
use crate::work::{batch_of_10, load, path};

pub const WORKLOAD: Workload = Workload {
    name: "idle",
    title: "Commits beside idle followers",
    about: "One writer commits batches of 10 commands while 0, 100 or 10,000 followers are open, each on a key of its own, 8 levels \
            deep, that never changes. clusdb: ports. sled: `watch_prefix`. The others have no followers of their own. On the disk; and in memory \
            (/dev/shm), where a sync costs next to nothing, so that the rest can be seen: there also the processor's time of the committing thread. \
            clusdb's ratios are to itself without followers.",
    run,
};

const FOLLOWERS: [u64; 3] = [0, 100, 10_000];
const COMMITS: u64 = 1000;

struct Crowd {
    label: String,
    store: Store,
    peer: Box<dyn Peer>,
    _watchers: Vec<Box<dyn Watcher>>,
}

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    let memory = tempfile::tempdir_in(&bench.arguments.memory).context("the folder of --memory")?;
    let record = vec![0xa5; record_bytes(&bench.folder.join("size"), &batch_of_10(0, 0))?];
    let commits = bench.count_from(20, COMMITS);
    let next = AtomicU64::new(1);
    for (place, folder) in [("on the disk", bench.folder), ("in memory", memory.path())] {
        let raw = RawFile::create(&folder.join("raw"))?;
        let crowds = crowds(bench, folder)?;
        let in_memory = place == "in memory";
        let mut measures = vec![Measure::lower(format!("a commit {place}, p50"), "µs")];
        if in_memory {
            measures.push(Measure::lower("processor's time of a commit in memory", "µs"));
        }
        let mut sides = vec![Side::new("raw: append + sync", Role::Raw, || {
            measure(commits, &|| raw.append(&record))
        })];
        for crowd in &crowds {
            let next = &next;
            sides.push(Side::new(crowd.label.as_str(), role(crowd.store), move || {
                measure(commits, &|| {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    crowd.peer.write(&[batch_of_10(0, number)])
                })
            }));
        }
        measured.figures.extend(bench.take_turns(measures, sides)?);
    }
    Ok(measured)
}

/// For each store that has followers, one with each number of them.
fn crowds(bench: &Bench<'_>, folder: &Path) -> Result<Vec<Crowd>> {
    let mut crowds = Vec::new();
    for store in &bench.arguments.stores {
        for followers in FOLLOWERS {
            let count = match followers {
                0 => 0,
                _ => bench.count_from(10, followers),
            };
            let _guarded = bench.watchdog.guard(store.name());
            let folder = folder.join(format!("{store}-{followers}"));
            let peer = store.open(&folder, &[])?;
            load(&*peer, 0..100, |number| batch_of_10(0, number))?;
            let watch = |number| peer.watch(&format!("idle{number}"), &path(&idle_key(number)));
            let Some(first) = watch(count)? else { break };
            // It was only asked for to see whether there are any.
            drop(first);
            let watchers = (0..count).filter_map(|number| watch(number).transpose());
            let watchers = watchers.collect::<Result<Vec<_>>>()?;
            crowds.push(Crowd {
                label: format!("{store}, {} followers", number::count(count)),
                store: *store,
                peer,
                _watchers: watchers,
            });
        }
    }
    Ok(crowds)
}

fn idle_key(number: u64) -> String {
    format!(
        r"Idle\Site{}\Rack\Node{number}\Service\Instance\Settings\Limits",
        number % 10
    )
}

/// So many commits: the latency that half of them stay below, and the processor's time of one.
fn measure(commits: u64, commit: &dyn Fn() -> Result<()>) -> Result<Vec<Option<f64>>> {
    let mut times: Vec<Duration> = Vec::new();
    let before = thread_time();
    for _ in 0..commits {
        let began = Instant::now();
        commit()?;
        times.push(began.elapsed());
    }
    let processor = (thread_time() - before) / commits as u32;
    Ok(vec![
        percentile(&mut times, 0.5).map(micros),
        Some(micros(processor)),
    ])
}
