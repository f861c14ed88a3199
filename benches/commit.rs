//! Durable commits beside the bare disk: `cargo bench --bench commit` (`-- --json` for a line of JSON each).
//!
//! A commit is a batch of 10 commands (keys of about 40 bytes, values of 100). "Raw" writes as many bytes at the
//! next offset of a zero-filled, synced file and calls fdatasync; with several writers, whoever finds no leader
//! writes for all who wait. Both take turns within one run, because the disk swings by a factor of 2 to 5.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use clusdb::{Batch, KeyPath, Store, Value};

const ROUNDS: usize = 9;
const LONE_COMMITS: usize = 400;
const GROUP_WRITERS: usize = 16;
const GROUP_COMMITS: usize = 150;

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the stores");
    let store = Store::open(folder.path().join("store")).expect("a new store");
    let raw = Raw::create(&folder.path().join("raw"));
    let bytes = frame_bytes(&store);
    let mut lone = Figures::new("commit of 10 commands, 1 writer, p50", "µs", json);
    let mut group = Figures::new("commits of 10 commands, 16 writers", "/s", json);
    for round in 0..ROUNDS {
        let ours = |writer, commits| time_commits(&store, (round * GROUP_WRITERS + writer) as u64, commits);
        let bare = |_, commits| time_raw(&raw, bytes, commits);
        // Who goes first changes, so that neither always follows the other's load.
        let in_turn = |one: &dyn Fn(bool) -> f64| match round % 2 {
            0 => (one(true), one(false)),
            _ => {
                let raw = one(false);
                (one(true), raw)
            }
        };
        lone.add(in_turn(&|is_ours| {
            let times = if is_ours {
                ours(0, LONE_COMMITS)
            } else {
                bare(0, LONE_COMMITS)
            };
            median(times.iter().map(|time| time.as_secs_f64() * 1e6).collect())
        }));
        group.add(in_turn(&|is_ours| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for writer in 0..GROUP_WRITERS {
                    let (ours, bare) = (&ours, &bare);
                    scope.spawn(move || match is_ours {
                        true => ours(writer, GROUP_COMMITS),
                        false => bare(writer, GROUP_COMMITS),
                    });
                }
            });
            (GROUP_WRITERS * GROUP_COMMITS) as f64 / began.elapsed().as_secs_f64()
        }));
    }
    lone.print();
    group.print();
    if !json {
        println!("a record of {bytes} bytes; medians of {ROUNDS} rounds; ratio = ours / raw, round by round");
    }
}

fn batch(writer: u64, number: u64) -> Batch {
    let key = KeyPath::parse(&format!(r"Cluster\Resources\Benchmark\Writer{writer:04}")).expect("a path");
    let mut batch = Batch::at(&key);
    batch.create_key("").expect("a command");
    for name in 0..9u64 {
        let mut data = [0; 100];
        data[..8].copy_from_slice(&(number * 10 + name).to_le_bytes());
        batch
            .set_value(&format!("value{name}"), Value::binary(data))
            .expect("a command");
    }
    batch
}

/// Bytes of the frame of a batch that overwrites: a header of 64, and the record on a grid of 8.
fn frame_bytes(store: &Store) -> usize {
    store.commit(batch(0, 0)).expect("a commit");
    let record = store.dry_run(&batch(0, 1)).expect("a record");
    64 + record.payload().len().next_multiple_of(8)
}

fn time_commits(store: &Store, writer: u64, commits: usize) -> Vec<Duration> {
    let one = |number| {
        let batch = batch(writer % GROUP_WRITERS as u64, writer << 32 | number as u64);
        let began = Instant::now();
        store.commit(batch).expect("a commit");
        began.elapsed()
    };
    (0..commits).map(one).collect()
}

fn time_raw(raw: &Raw, bytes: usize, commits: usize) -> Vec<Duration> {
    let record = vec![0xa5; bytes];
    let one = |_| {
        let began = Instant::now();
        raw.append(&record);
        began.elapsed()
    };
    (0..commits).map(one).collect()
}

/// A file that is appended to by leader and followers, and nothing else.
struct Raw {
    file: File,
    state: Mutex<RawState>,
    changed: Condvar,
}

#[derive(Default)]
struct RawState {
    waiting: Vec<u8>,
    /// Number of the group that is filling, and of the last one that is durable.
    filling: u64,
    durable: u64,
    has_leader: bool,
    offset: u64,
}

impl Raw {
    fn create(path: &Path) -> Raw {
        let file = File::options()
            .create_new(true)
            .write(true)
            .open(path)
            .expect("a file");
        let zeroes = vec![0; 1 << 20];
        for offset in 0..128 {
            file.write_all_at(&zeroes, offset << 20).expect("zeroes");
        }
        file.sync_all().expect("a sync");
        let state = RawState {
            filling: 1,
            ..RawState::default()
        };
        Raw {
            file,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn append(&self, record: &[u8]) {
        let mut state = self.state.lock().expect("a lock");
        state.waiting.extend_from_slice(record);
        let own = state.filling;
        while state.durable < own {
            if state.has_leader {
                state = self.changed.wait(state).expect("a lock");
                continue;
            }
            state.has_leader = true;
            let group = std::mem::take(&mut state.waiting);
            let (led, offset) = (state.filling, state.offset);
            state.filling += 1;
            // Begins again before the zero-filled part ends.
            state.offset = (offset + group.len() as u64) % (120 << 20);
            drop(state);
            self.file.write_all_at(&group, offset).expect("a write");
            self.file.sync_data().expect("a sync");
            state = self.state.lock().expect("a lock");
            state.durable = led;
            state.has_leader = false;
            self.changed.notify_all();
        }
    }
}

struct Figures {
    bench: &'static str,
    unit: &'static str,
    json: bool,
    rounds: Vec<(f64, f64)>,
}

impl Figures {
    fn new(bench: &'static str, unit: &'static str, json: bool) -> Figures {
        Figures {
            bench,
            unit,
            json,
            rounds: Vec::new(),
        }
    }

    fn add(&mut self, (ours, raw): (f64, f64)) {
        self.rounds.push((ours, raw));
    }

    fn print(&self) {
        let of = |pick: fn(&(f64, f64)) -> f64| median(self.rounds.iter().map(pick).collect());
        let (ours, raw) = (of(|round| round.0), of(|round| round.1));
        let ratios: Vec<_> = self.rounds.iter().map(|(ours, raw)| ours / raw).collect();
        let (least, most) = ratios
            .iter()
            .fold((f64::MAX, 0.0), |(least, most): (f64, f64), ratio| {
                (least.min(*ratio), most.max(*ratio))
            });
        let (ratio, rounds, bench, unit) = (median(ratios), self.rounds.len(), self.bench, self.unit);
        if self.json {
            println!(
                r#"{{"bench":"{bench}","ours":{ours:.1},"raw":{raw:.1},"ratio":{ratio:.3},"rounds":{rounds}}}"#
            );
        } else {
            println!(
                "{bench:40} ours {ours:9.1} {unit}, raw {raw:9.1} {unit}, ratio {ratio:.2} ({least:.2} to {most:.2})"
            );
        }
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
