//! Faults at every operation: the error is typed, nothing that was promised is lost, and opening the store anew recovers.
//! `CLUSDB_CRASH_POINTS=long` tries every fault at every operation, and `CLUSDB_CASES` more of those in a recovery.

#[path = "support/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the model")]
mod harness;
#[path = "support/naive.rs"]
#[allow(dead_code, reason = "shared with the tests of the model")]
mod naive;
#[path = "support/sim.rs"]
#[allow(dead_code, reason = "shared with the tests of crashes")]
mod sim;
#[path = "support/steps.rs"]
#[allow(dead_code, reason = "shared with the tests of crashes")]
mod steps;
#[path = "support/workload.rs"]
#[allow(dead_code, reason = "shared with the tests of crashes")]
mod workload;
#[path = "support/world.rs"]
mod world;

use clusdb::Error;
use sim::{Disk, Fault, Loss, Plan, Rng};
use steps::{another_life, resumption, workload};
use workload::{Run, Step};
use world::World;

const FAULTS: [Fault; 4] = [Fault::Io, Fault::NoSpace, Fault::ShortWrite, Fault::LostSync];

fn count() -> u64 {
    let mut whole = Run::new(0, Plan::Nothing);
    whole.steps(&workload());
    whole.sim.count()
}

/// Does all steps, whatever fails, and opens the store anew where it could not be opened. What the first failure has left
/// recovers too. Gives what failed.
fn go_on(run: &mut Run, steps: &[Step], seed: u64) -> Vec<Error> {
    let mut failures = Vec::new();
    for step in steps {
        if let Err(error) = run.step(step) {
            let is_typed = matches!(
                error,
                Error::Io { .. } | Error::Preallocation { .. } | Error::Poisoned { .. }
            );
            assert!(is_typed, "{step:?}: {error}");
            if failures.is_empty() {
                recovers(&run.sim.disk(), &run.worlds, !seed);
            }
            failures.push(error);
            if matches!(step, Step::Open) {
                run.steps(&[Step::Open]);
            }
        }
    }
    failures
}

/// What is left recovers, whether the process was killed or the power was lost, and then the power is lost again.
fn recovers(disk: &Disk, worlds: &[World], seed: u64) {
    for disk in [disk, &disk.after(Loss::Some(seed))] {
        let mut run = Run::on(disk, worlds, seed, Plan::Nothing);
        run.steps(&[Step::Open]);
        run.steps(&resumption());
        let (disk, worlds) = run.end();
        Run::on(&disk.after(Loss::All), &worlds, seed, Plan::Nothing).steps(&[Step::Open]);
    }
}

/// The power is lost soon after the failure, while the step that failed is tried again, or a little later.
fn crashes_soon(fails: Plan, steps: &[Step], failed: usize, soons: std::ops::RangeInclusive<u64>) {
    for soon in soons {
        let mut run = Run::new(soon, fails);
        let failures = steps[..=failed].iter().filter(|step| run.step(step).is_err());
        assert_eq!(failures.count(), 1);
        run.sim.plan(Plan::Crash {
            at: run.sim.count() + soon,
            is_done: true,
        });
        for step in &steps[failed..] {
            if !run.sim.is_crashed() {
                // Refused, if the failure has poisoned the store.
                let _ = run.step(step);
            }
        }
        let (disk, worlds) = run.end();
        for seed in 0..3 {
            Run::on(&disk.after(Loss::Some(seed)), &worlds, seed, Plan::Nothing).steps(&[Step::Open]);
        }
    }
}

#[test]
fn an_operation_that_fails_is_told_of_and_loses_nothing_that_was_promised() {
    let is_long = std::env::var("CLUSDB_CRASH_POINTS").is_ok_and(|points| points == "long");
    let mut met = 0;
    let operations = count();
    for (index, fault) in (0..).zip(FAULTS) {
        for at in 1..=operations {
            // In the short form each operation fails in two of the four ways, and the power is lost at one of three moments.
            let soons = match is_long {
                true => 1..=3,
                false if (at + index) % 2 == 0 => 1 + at % 3..=1 + at % 3,
                false => continue,
            };
            let checked = std::panic::catch_unwind(|| {
                let (fails, steps) = (Plan::Fails { at, fault }, workload());
                let mut run = Run::new(at, fails);
                let Some(failed) = steps.iter().position(|step| run.step(step).is_err()) else {
                    return 0;
                };
                // What the failure has left is closed well, and was not synced by anybody since.
                run.steps(&another_life());
                let (disk, worlds) = run.end();
                Run::on(&disk.after(Loss::All), &worlds, at, Plan::Nothing).steps(&[Step::Open]);

                crashes_soon(fails, &steps, failed, soons.clone());

                let mut run = Run::new(at, fails);
                let failures = go_on(&mut run, &steps, at);
                // What comes of it much later is looked at for one in four.
                if (at + index) % 4 == 0 {
                    let (disk, worlds) = run.end();
                    recovers(&disk, &worlds, at);
                }
                failures.len()
            });
            met += checked.unwrap_or_else(|_| panic!("at this point: {fault:?} at {at}"));
        }
    }
    println!("{met} steps failed, of {operations} operations");
    assert!(met > 300, "{met} steps failed");
}

#[test]
fn a_recovery_that_fails_is_begun_again_and_loses_nothing_that_was_promised() {
    let cases = std::env::var("CLUSDB_CASES").map_or(200, |cases| cases.parse().expect("a number"));
    let operations = count();
    let mut rng = Rng::new(cases);
    for case in 0..cases {
        let crash = Plan::Crash {
            at: 1 + rng.next() % operations,
            is_done: rng.coin(),
        };
        let mut run = Run::new(case, crash);
        run.steps(&workload());
        let (disk, worlds) = run.end();
        let loss = [None, Some(Loss::All), Some(Loss::Some(rng.next()))][rng.below(3)];
        let disk = loss.map_or(disk.clone(), |loss| disk.after(loss));
        let fails = Plan::Fails {
            at: 1 + rng.next() % 40,
            fault: FAULTS[rng.below(FAULTS.len())],
        };
        let point = format!("{crash:?}, {loss:?}, then {fails:?}, case {case} of {cases}");
        let checked = std::panic::catch_unwind(|| {
            let mut run = Run::on(&disk, &worlds, case, fails);
            go_on(&mut run, &[Step::Open], case);
            go_on(&mut run, &resumption(), case);
            go_on(&mut run, &[Step::Close, Step::Open], case);
            let (disk, worlds) = run.end();
            recovers(&disk, &worlds, case);
        });
        checked.unwrap_or_else(|_| panic!("at this point: {point}"));
    }
}

/// Preallocation is where a full disk is met: nothing is poisoned, and the store goes on by itself.
#[test]
fn a_disk_that_is_full_from_any_operation_on_refuses_batches_until_there_is_room() {
    let mut met = 0;
    for from in 1..=count() {
        let mut run = Run::new(from, Plan::Full { from });
        for step in &workload() {
            let Err(error) = run.step(step) else {
                continue;
            };
            let is_refused = matches!(error, Error::Preallocation { .. });
            met += usize::from(is_refused);
            match step {
                Step::Commit(_) | Step::Plain(_) | Step::AcknowledgeWith(..) => {
                    assert!(is_refused, "{step:?}, full from {from}: {error}");
                }
                _ => assert!(
                    is_refused || matches!(error, Error::Io { .. }),
                    "{step:?}, full from {from}: {error}"
                ),
            }
        }
        run.sim.plan(Plan::Nothing);
        if !run.is_open() {
            run.steps(&[Step::Open]);
        }
        run.steps(&resumption());
        if from % 4 == 0 {
            let (disk, worlds) = run.end();
            recovers(&disk, &worlds, from);
        }
    }
    assert!(met > 300, "only {met} batches were refused");
}
