//! Operations with a fault plan: steps of a store in the simulated environment, which fails or loses power at one of them; and
//! again while it recovers. What is promised is kept; `tests/support/workload.rs` says what that is.

use crate::naive::single::Plain;
use crate::naive::{Batch, Command};
use crate::sim::{Fault, Loss, Plan};
use crate::steps::resumption;
use crate::workload::{Run, Step};

const KEYS: [&str; 5] = ["", "a", "a\\b", "A\\B\\c", "d"];
const PORTS: [(&str, &str); 3] = [("all", ""), ("part", "a\\b"), ("other", "d")];
const SIZES: [usize; 6] = [1, 60, 400, 900, 3000, 5000];
const FAULTS: [Fault; 4] = [Fault::Io, Fault::NoSpace, Fault::ShortWrite, Fault::LostSync];
const MAX_STEPS: usize = 24;
const MAX_WORLDS: usize = 64;

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        Some(of[usize::from(self.next()?) % of.len()])
    }

    fn batch(&mut self) -> Option<Batch> {
        let key = self.pick(&KEYS)?.to_owned();
        let bytes = self.pick(&SIZES)?;
        let set = Command::SetValue {
            name: "v".into(),
            value_type: 3,
            data: vec![bytes as u8; bytes],
        };
        let create = Command::CreateKey { path: String::new() };
        let commands = match self.next()? % 4 {
            0 if !key.is_empty() => vec![Command::DeleteKey { path: String::new() }],
            _ => vec![create, set],
        };
        Some(Batch { key, commands })
    }

    fn steps(&mut self) -> Option<Vec<Step>> {
        let kind = self.next()? % 20;
        let (name, key) = self.pick(&PORTS)?;
        let step = match kind {
            0..=4 => Step::Commit(self.batch()?),
            // One notification at a time: what was got before and not acknowledged comes again.
            8..=11 => {
                let mut steps = vec![Step::Rewind(name), Step::Get(name)];
                match self.next()? % 3 {
                    0 => {}
                    1 => steps.push(Step::Acknowledge(name)),
                    _ => steps.push(Step::AcknowledgeWith(name, self.batch()?)),
                }
                return Some(steps);
            }
            5 => Step::Plain(Plain::CreateKey {
                path: self.pick(&KEYS[1..])?.into(),
            }),
            6 | 7 => Step::Port(name, key),
            12 => Step::Rewind(name),
            13 => Step::Resync(name),
            14 => Step::RemovePort(name),
            15 => Step::Snapshot,
            16 => Step::Trim,
            17 => Step::Backup,
            18 => Step::Restore,
            _ => match self.next()? % 3 {
                0 => Step::Read,
                1 => Step::Close,
                _ => Step::Open,
            },
        };
        Some(vec![step])
    }

    fn plan(&mut self) -> Option<Plan> {
        let at = 1 + u64::from(u16::from_le_bytes([self.next()?, self.next()? % 2]));
        Some(match self.next()? % 4 {
            0 => Plan::Fails {
                at,
                fault: self.pick(&FAULTS)?,
            },
            1 => Plan::Full { from: at },
            kind => Plan::Crash {
                at,
                is_done: kind == 2,
            },
        })
    }
}

/// Runs the steps, whatever fails, up to a crash.
fn try_all(run: &mut Run, steps: &[Step]) {
    for step in steps {
        // Each step that nobody knows the end of doubles what may be.
        if run.sim.is_crashed() || run.worlds.len() > MAX_WORLDS {
            return;
        }
        let is_open = matches!(step, Step::Open);
        let done = match (run.is_open(), is_open) {
            // One store at a time; one that could not be opened is opened again.
            (true, true) => run.step(&Step::Close).and_then(|()| run.step(step)),
            _ => run.step(step),
        };
        if done.is_err() && is_open && !run.sim.is_crashed() {
            let _ = run.step(&Step::Open);
        }
    }
}

fn follow(data: &[u8]) -> Option<()> {
    let mut bytes = Bytes(data);
    let (seed, plan, again) = (u64::from(bytes.next()?), bytes.plan()?, bytes.plan()?);
    let loss = match bytes.next()? {
        0 => None,
        1 => Some(Loss::All),
        2 => Some(Loss::Nothing),
        seed => Some(Loss::Some(seed.into())),
    };
    let mut steps = vec![Step::Open, Step::Port("all", ""), Step::Port("part", "a\\b")];
    steps.extend(std::iter::from_fn(|| bytes.steps()).take(MAX_STEPS).flatten());
    let mut run = Run::new(seed, plan);
    try_all(&mut run, &steps);
    let (disk, worlds) = run.end();
    let after = |disk: crate::sim::Disk| loss.map_or(disk.clone(), |loss| disk.after(loss));
    // It recovers, and crashes or fails while it does.
    let mut run = Run::on(&after(disk), &worlds, seed + 1, again);
    try_all(&mut run, &[Step::Open]);
    try_all(&mut run, &resumption());
    let (disk, worlds) = run.end();
    let mut run = Run::on(&after(disk), &worlds, seed + 2, Plan::Nothing);
    run.steps(&[Step::Open]);
    run.steps(&resumption());
    Some(())
}

/// Too few bytes are no plan.
pub fn run(data: &[u8]) {
    let _ = follow(data);
}
