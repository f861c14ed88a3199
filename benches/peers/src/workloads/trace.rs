//! A recorded trace of a real registry, with its true mix.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Bench, Measured, Workload, micros, millis, role};
use crate::figures::{Measure, Role, Side};
use crate::inputs::{self, Step, Trace};
use crate::peer::Peer;
use crate::raw::RawTree;

pub const WORKLOAD: Workload = Workload {
    name: "trace",
    title: "A real registry's trace",
    about: "90 seconds of 35 processes, replayed as fast as it goes: changes of one process within 10 ms are one durable batch, look-ups and listings stand \
            between them as they came. What was read before it was written is there from the beginning. Raw: rows in a map in \
            memory, and an append with fdatasync for each batch. The trace is not scaled.",
    run,
};

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let Some(trace) = inputs::trace()? else {
        return Ok(Measured {
            notes: vec!["The trace is not there: nothing was measured.".to_owned()],
            ..Measured::default()
        });
    };
    let trace = &trace;
    let fresh = |name: &str, round: u64| bench.folder.join(format!("{name}-{round}"));
    let mut round = 0;
    let mut sides = vec![Side::new("raw: map + append", Role::Raw, || {
        round += 1;
        let tree = RawTree::create(&fresh("raw", round))?;
        replay(Box::new(tree), trace)
    })];
    for store in &bench.arguments.stores {
        let mut round = 0;
        sides.push(Side::new(store.name(), role(*store), move || {
            round += 1;
            let folder = fresh(store.name(), round);
            let values = replay(store.open(&folder, &[])?, trace)?;
            std::fs::remove_dir_all(folder)?;
            Ok(values)
        }));
    }
    let measures = vec![
        Measure::lower("the whole trace", "ms"),
        Measure::lower("its commits, mean", "µs"),
        Measure::lower("its look-ups, mean", "µs"),
        Measure::lower("its listings, mean", "µs"),
    ];
    let count = |of: fn(&Step) -> bool| trace.steps.iter().filter(|step| of(step)).count();
    let notes = vec![format!(
        "{} commits, {} look-ups, {} listings.",
        count(|step| matches!(step, Step::Commit(_))),
        count(|step| matches!(step, Step::Get(..))),
        count(|step| matches!(step, Step::List(_))),
    )];
    let figures = bench.take_turns(measures, sides)?;
    Ok(Measured { figures, notes })
}

/// Does every step on a new store: all of it, and each kind's mean.
fn replay(peer: Box<dyn Peer>, trace: &Trace) -> Result<Vec<Option<f64>>> {
    peer.write(std::slice::from_ref(&trace.before))?;
    let mut weight = 0;
    let mut kinds = [(Duration::ZERO, 0u32); 3];
    for step in &trace.steps {
        let began = Instant::now();
        let kind = match step {
            Step::Commit(batch) => {
                peer.write(std::slice::from_ref(batch))?;
                0
            }
            Step::Get(key, name) => {
                peer.get(key, name, &mut |value| weight += value.data.len())?;
                1
            }
            Step::List(key) => {
                peer.list(key, &mut |entry| weight += entry.weigh() as usize)?;
                2
            }
        };
        kinds[kind].0 += began.elapsed();
        kinds[kind].1 += 1;
    }
    black_box(weight);
    peer.close()?;
    let whole = kinds.iter().map(|(time, _)| *time).sum();
    let means = kinds.map(|(time, count)| Some(micros(time) / f64::from(count)));
    Ok([[Some(millis(whole))].as_slice(), &means].concat())
}
