//! What the benchmarks share: figures of rounds in which two sides take turns, and a probe of the bare disk.
//!
//! The machine is noisy and the disk swings: only the ratio of two sides that took turns within one run means something.
//! `-- --json` prints a line of JSON for each figure.

#![allow(dead_code, reason = "each benchmark uses a part of this")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use clusdb::{Batch, KeyPath, Value};

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the stores")
}

/// A batch of 10 commands: a key of about 40 bytes, and 9 values of 100.
pub fn batch_of_10(writer: u64, number: u64) -> Batch {
    let key = KeyPath::parse(&format!(r"Cluster\Resources\Benchmark\Writer{writer:04}")).expect("a path");
    let mut batch = Batch::at(&key);
    batch.create_key("").expect("a command");
    for name in 0..9u64 {
        let mut data = [0; 100];
        data[..8].copy_from_slice(&(number * 10 + name).to_le_bytes());
        let value = Value::binary(data);
        batch
            .set_value(&format!("value{name}"), value)
            .expect("a command");
    }
    batch
}

/// Two sides, measured in turn.
pub struct Figures {
    bench: String,
    unit: &'static str,
    rounds: Vec<(f64, f64)>,
}

impl Figures {
    pub fn new(bench: impl Into<String>, unit: &'static str) -> Figures {
        Figures {
            bench: bench.into(),
            unit,
            rounds: Vec::new(),
        }
    }

    /// Measures both sides. Who goes first changes from round to round, so that neither always follows the other's
    /// load.
    pub fn round(&mut self, ours: impl FnOnce() -> f64, raw: impl FnOnce() -> f64) {
        let round = match self.rounds.len() % 2 {
            0 => {
                let ours = ours();
                (ours, raw())
            }
            _ => {
                let raw = raw();
                (ours(), raw)
            }
        };
        self.rounds.push(round);
    }

    /// Medians of the rounds; the ratio is the median of the rounds' own ratios, with their least and most.
    pub fn print(&self) {
        let of = |pick: fn(&(f64, f64)) -> f64| median(self.rounds.iter().map(pick).collect());
        let (ours, raw) = (of(|round| round.0), of(|round| round.1));
        let mut ratios: Vec<_> = self.rounds.iter().map(|(ours, raw)| ours / raw).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let (ratio, rounds) = (median(ratios), self.rounds.len());
        let Figures { bench, unit, .. } = self;
        if std::env::args().any(|argument| argument == "--json") {
            println!(
                r#"{{"bench":"{bench}","ours":{ours:.3},"raw":{raw:.3},"ratio":{ratio:.3},"rounds":{rounds}}}"#
            );
        } else {
            println!(
                "{bench:52} ours {ours:10.2} {unit}, raw {raw:10.2} {unit}, ratio {ratio:.2} ({least:.2} to {most:.2})"
            );
        }
    }
}

/// The real hive as text, unpacked into the folder if need be; none without `CLUSDB_INPUTS`.
pub fn hive(folder: &Path) -> Option<PathBuf> {
    let inputs = PathBuf::from(std::env::var_os("CLUSDB_INPUTS")?);
    let (plain, packed) = (inputs.join("system-hive.reg"), inputs.join("system-hive.reg.xz"));
    if plain.exists() {
        return Some(plain);
    }
    let unpacked = folder.join("system-hive.reg");
    let mut xz = Command::new("xz");
    xz.arg("-dc").arg(packed).stdout(File::create(&unpacked).ok()?);
    xz.status().ok()?.success().then_some(unpacked)
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

pub fn median_micros(times: &[Duration]) -> f64 {
    median(times.iter().map(|time| time.as_secs_f64() * 1e6).collect())
}

/// Runs it, and gives what it gave with the time that it took.
pub fn timed<R>(run: impl FnOnce() -> R) -> (R, Duration) {
    let began = Instant::now();
    let result = run();
    (result, began.elapsed())
}

/// A file that is appended to by leader and followers, and nothing else.
pub struct RawFile {
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

impl RawFile {
    pub fn create(path: &Path) -> RawFile {
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
        RawFile {
            file,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub fn append(&self, record: &[u8]) {
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
