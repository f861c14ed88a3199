//! From a commit to the follower that it wakes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, Measured, Workload, micros, percentile, role};
use crate::figures::{Measure, Role, Side};
use crate::peer::{Batch, Command, Watcher};
use crate::peers::record_bytes;
use crate::raw::{CondvarPing, FutexPing, Ping, RawFile};
use crate::work::{data, path, set_value};

pub const WORKLOAD: Workload = Workload {
    name: "wake",
    title: "From the call of commit to the wake of a follower",
    about: "A thread waits for changes of a key, another commits a batch that sets one value; the time goes from the call of commit (the commands are there before) to the \
            return of the follower's call. In one process, the stores in memory (/dev/shm), so that no disk is in it; the follower has had the time to fall \
            asleep. clusdb: `Port::get`. sled: `watch_prefix`, which wakes before the commit is durable, as soon as it is applied. The others have \
            nothing that wakes. Raw: one wake through a futex, and one through a condition variable; and an append of as many bytes as clusdb's journal gets to a \
            file in the same memory, its fdatasync, and then the futex.",
    run,
};

const PINGS: u64 = 500;
const ASLEEP: Duration = Duration::from_micros(300);
/// A follower that has not woken after this will not.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the follower woke, as seen by the clock that began with it.
struct Woken {
    began: Instant,
    at_nanos: AtomicU64,
    count: AtomicU64,
    is_over: AtomicBool,
}

impl Woken {
    fn note(&self) {
        let nanos = self.began.elapsed().as_nanos() as u64;
        self.at_nanos.store(nanos, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// What is appended before the wake.
struct AppendPing {
    file: RawFile,
    record: Vec<u8>,
    ping: FutexPing,
}

impl Ping for AppendPing {
    fn send(&self) {
        self.file.append(&self.record).expect("an append to memory");
        self.ping.send();
    }

    fn wait(&self, seen: u32) -> u32 {
        self.ping.wait(seen)
    }
}

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let memory = tempfile::tempdir_in(&bench.arguments.memory).context("the folder of --memory")?;
    let pings = bench.count_from(20, PINGS);
    let followed = path(r"Cluster\Resources\Followed");
    let next = AtomicU64::new(1);
    let batch = || Batch {
        at: followed.clone(),
        commands: vec![
            Command::CreateKey(String::new()),
            set_value("Parameter", data(next.fetch_add(1, Ordering::Relaxed), 40)),
        ],
    };
    let opened = bench.open_all(memory.path(), &[])?;
    let mut watchers: Vec<(_, Box<dyn Watcher>)> = Vec::new();
    for one in &opened {
        one.peer.write(&[batch()])?;
        if let Some(watcher) = one.peer.watch("follower", &followed)? {
            watchers.push((one, watcher));
        }
    }
    let (futex, condvar) = (FutexPing::default(), CondvarPing::default());
    let appended = AppendPing {
        file: RawFile::create(&memory.path().join("raw"))?,
        record: vec![0xa5; record_bytes(&memory.path().join("size"), &batch())?],
        ping: FutexPing::default(),
    };
    let mut sides = Vec::new();
    let pings_of: [(_, &dyn Ping); 3] = [
        ("raw: futex", &futex),
        ("raw: condvar", &condvar),
        ("raw: append, then futex", &appended),
    ];
    for (label, ping) in pings_of {
        let mut seen = 0;
        let mut wait = move || {
            seen = ping.wait(seen);
            Ok(())
        };
        let send = |(): ()| {
            ping.send();
            Ok(())
        };
        sides.push(Side::new(label, Role::Raw, move || {
            measure(pings, || (), &send, &mut wait)
        }));
    }
    for (one, mut watcher) in watchers {
        let batch = &batch;
        let send = move |batch| one.peer.write(&[batch]);
        sides.push(Side::new(one.store.name(), role(one.store), move || {
            measure(pings, batch, &send, &mut || watcher.wait())
        }));
    }
    let measures = vec![
        Measure::lower("commit to wake, p50", "µs"),
        Measure::lower("commit to wake, p99", "µs"),
    ];
    let figures = bench.take_turns(measures, sides)?;
    for one in opened {
        one.peer.close()?;
    }
    Ok(Measured {
        figures,
        notes: Vec::new(),
    })
}

/// Wakes so many times: the latency that half of them stay below, and that 99 % stay below.
fn measure<T>(
    pings: u64,
    make: impl Fn() -> T,
    send: &dyn Fn(T) -> Result<()>,
    wait: &mut (dyn FnMut() -> Result<()> + Send),
) -> Result<Vec<Option<f64>>> {
    let woken = Woken {
        began: Instant::now(),
        at_nanos: AtomicU64::new(0),
        count: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    };
    let mut times = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let follow = || -> Result<()> {
            while !woken.is_over.load(Ordering::Acquire) {
                wait()?;
                woken.note();
            }
            Ok(())
        };
        let follower = scope.spawn(follow);
        for sent in 1..=pings {
            thread::sleep(ASLEEP);
            ensure!(
                woken.count.load(Ordering::Acquire) < sent,
                "it woke without a reason"
            );
            let what = make();
            let before = woken.began.elapsed();
            send(what)?;
            while woken.count.load(Ordering::Acquire) < sent {
                ensure!(
                    woken.began.elapsed() - before < PATIENCE,
                    "the follower does not wake"
                );
                thread::sleep(Duration::from_micros(50));
            }
            let at = Duration::from_nanos(woken.at_nanos.load(Ordering::Relaxed));
            times.push(at.saturating_sub(before));
        }
        woken.is_over.store(true, Ordering::Release);
        send(make())?;
        follower.join().expect("a follower that does not panic")
    })?;
    Ok([0.5, 0.99]
        .map(|part| percentile(&mut times, part).map(micros))
        .to_vec())
}
