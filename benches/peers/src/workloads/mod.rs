//! What is measured.

mod changes;
mod commit;
mod idle;
mod import;
mod open;
mod read;
mod subtree;
mod trace;
mod wake;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clusdb::KeyPath;

use crate::arguments::Arguments;
use crate::figures::{Figure, Measure, Role, Side, take_turns};
use crate::peer::Peer;
use crate::peers::Store;
use crate::report::Section;
use crate::watchdog::Watchdog;

pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    pub about: &'static str,
    pub run: fn(&Bench<'_>) -> Result<Measured>,
}

/// What a workload has found.
#[derive(Default)]
pub struct Measured {
    pub figures: Vec<Figure>,
    /// Counts and the like, that the table does not have.
    pub notes: Vec<String>,
}

pub const ALL: &[Workload] = &[
    commit::WORKLOAD,
    changes::WORKLOAD,
    subtree::WORKLOAD,
    idle::WORKLOAD,
    wake::WORKLOAD,
    read::WORKLOAD,
    trace::WORKLOAD,
    open::WORKLOAD,
    import::WORKLOAD,
];

impl Workload {
    pub fn with(&self, measured: Measured) -> Section {
        Section {
            name: self.name,
            title: self.title,
            about: self.about,
            figures: measured.figures,
            notes: measured.notes,
        }
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a workload runs with.
pub struct Bench<'a> {
    pub arguments: &'a Arguments,
    pub watchdog: &'a Watchdog,
    /// An empty folder on the disk, for this workload.
    pub folder: &'a Path,
}

/// A store that is open.
pub struct Opened {
    pub store: Store,
    pub peer: Box<dyn Peer>,
}

impl Bench<'_> {
    /// So many, at scale 1.
    pub fn count(&self, full: u64) -> u64 {
        ((full as f64 * self.arguments.scale).round() as u64).max(1)
    }

    /// So many, at scale 1, and never less than the least that gives a figure.
    pub fn count_from(&self, least: u64, full: u64) -> u64 {
        self.count(full).max(least)
    }

    /// So long, at scale 1.
    pub fn time(&self, full: Duration) -> Duration {
        full.mul_f64(self.arguments.scale).max(Duration::from_millis(20))
    }

    /// A store of every kind, in folders of their own below this one.
    pub fn open_all(&self, folder: &Path, followed: &[KeyPath]) -> Result<Vec<Opened>> {
        let stores = self.arguments.stores.iter();
        stores.map(|store| self.open(*store, folder, followed)).collect()
    }

    pub fn open(&self, store: Store, folder: &Path, followed: &[KeyPath]) -> Result<Opened> {
        let _guarded = self.watchdog.guard(store.name());
        let peer = store.open(&folder.join(store.name()), followed);
        Ok(Opened {
            store,
            peer: peer.with_context(|| format!("opening {store}"))?,
        })
    }

    /// Does something long with every store, such as filling it.
    pub fn for_each(&self, opened: &[Opened], mut work: impl FnMut(&dyn Peer) -> Result<()>) -> Result<()> {
        for one in opened {
            let _guarded = self.watchdog.guard(one.store.name());
            let began = Instant::now();
            work(&*one.peer).with_context(|| one.store.name())?;
            eprintln!("  filled {} in {:.1?}", one.store, began.elapsed());
        }
        Ok(())
    }

    pub fn take_turns(&self, measures: Vec<Measure>, sides: Vec<Side<'_>>) -> Result<Vec<Figure>> {
        take_turns(self.arguments.rounds, self.watchdog, measures, sides)
    }
}

pub fn role(store: Store) -> Role {
    match store {
        Store::Clusdb => Role::Ours,
        _ => Role::Peer,
    }
}

/// Runs it, and gives how long it took.
fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The time that this part of them do not go over; none of none.
fn percentile(times: &mut [Duration], part: f64) -> Option<Duration> {
    times.sort_unstable();
    let index = (times.len() as f64 * part) as usize;
    times.get(index.min(times.len().checked_sub(1)?)).copied()
}
