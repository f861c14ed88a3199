//! Crashes at every operation, and again at every operation of the recovery. `docs/testing.md` names the guarantees.
//!
//! `CLUSDB_CRASH_POINTS` is about how many points are tried, or `long`; `CLUSDB_SEED` chooses what is lost in each.

#[path = "support/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the model")]
mod harness;
#[path = "support/naive.rs"]
#[allow(dead_code, reason = "shared with the tests of the model")]
mod naive;
#[path = "support/sim.rs"]
#[allow(dead_code, reason = "shared with the tests of faults")]
mod sim;
#[path = "support/steps.rs"]
#[allow(dead_code, reason = "shared with the tests of faults")]
mod steps;
#[path = "support/workload.rs"]
#[allow(dead_code, reason = "shared with the tests of faults")]
mod workload;
#[path = "support/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use sim::{Disk, Loss, Plan, Rng};
use steps::{resumption, unseen_life, workload};
use workload::{Run, Step};
use world::World;

const POINTS: u64 = 2500;
const LONG: u64 = 120_000;

/// How a life of the store ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The process is killed: the next one finds all that it has written, and what was not synced can be lost yet.
    Kill,
    Power(Loss),
}

impl End {
    fn leaves(self, disk: &Disk) -> Disk {
        match self {
            End::Kill => disk.clone(),
            End::Power(loss) => disk.after(loss),
        }
    }

    fn any(rng: &mut Rng) -> End {
        match rng.below(6) {
            0 => End::Kill,
            1 => End::Power(Loss::All),
            2 => End::Power(Loss::Nothing),
            _ => End::Power(Loss::Some(rng.next())),
        }
    }
}

/// Opens what a crash has left, and goes on with it. Gives the number of operations that this takes.
///
/// What the store shows, and what it takes after that, is lost by no later crash.
fn recover(disk: &Disk, worlds: &[World], seed: u64) -> u64 {
    let opened = |disk: &Disk, worlds: &[World]| {
        let mut run = Run::on(disk, worlds, seed, Plan::Nothing);
        run.steps(&[Step::Open]);
        run
    };
    let mut run = opened(disk, worlds);
    opened(&run.sim.disk().after(Loss::All), &run.worlds);
    run.steps(&resumption());
    opened(&run.sim.disk().after(Loss::All), &run.worlds);
    run.steps(&[Step::Close, Step::Open]);
    run.sim.count()
}

/// Trims what a kill has left, before anybody has opened a port, and loses what was not synced.
fn trim_unseen(disk: &Disk, worlds: &[World], seed: u64) {
    let mut run = Run::on(disk, worlds, seed, Plan::Nothing);
    run.steps(&unseen_life());
    let (disk, worlds) = run.end();
    recover(&disk.after(Loss::All), &worlds, seed);
}

/// Crashes while it recovers and goes on, and recovers from that.
fn crash_again(disk: &Disk, worlds: &[World], crash: Plan, end: End, seed: u64) {
    let mut run = Run::on(disk, worlds, seed + 1, crash);
    run.steps(&[Step::Open]);
    run.steps(&resumption());
    run.steps(&[Step::Close, Step::Open]);
    let (disk, worlds) = run.end();
    recover(&end.leaves(&disk), &worlds, seed + 2);
}

/// Says which point it was when a check fails.
fn at_point<R>(point: impl Fn() -> String, check: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        eprintln!("at this point: {}", point());
        resume_unwind(panic)
    })
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

#[test]
fn whatever_is_lost_in_a_crash_and_in_one_of_its_recovery_the_store_is_what_it_promised() {
    let began = Instant::now();
    let points = match setting("CLUSDB_CRASH_POINTS").as_deref() {
        None => POINTS,
        Some("long") => LONG,
        Some(number) => number.parse().expect("a number of points, or `long`"),
    };
    let seed = setting("CLUSDB_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut whole = Run::new(seed, Plan::Nothing);
    whole.steps(&workload());
    let operations = whole.sim.count();
    let (disk, worlds) = whole.end();
    assert!(worlds[0].oldest.0 > 1, "something was trimmed");
    let recovery = recover(&disk, &worlds, seed);

    // Each operation is tried in each way; of the crashes in a recovery, as many as there is time for.
    let ways = if points > POINTS { 5 } else { 2 };
    let firsts = 2 * (operations + 1) * ways as u64;
    let seconds = firsts * recovery * 2;
    let mut rng = Rng::new(seed);
    let (mut tried, mut tried_twice) = (0, 0);
    for at in 1..=operations + 1 {
        for is_done in [false, true] {
            let crash = Plan::Crash { at, is_done };
            let (last, disk, worlds) = at_point(
                || format!("{crash:?}, seed {seed}"),
                || {
                    let mut run = Run::new(seed, crash);
                    run.steps(&workload());
                    let last = run.sim.last();
                    let (disk, worlds) = run.end();
                    (last, disk, worlds)
                },
            );
            let some = |rng: &mut Rng| End::Power(Loss::Some(rng.next()));
            let ends = [
                End::Kill,
                some(&mut rng),
                End::Power(Loss::All),
                End::Power(Loss::Nothing),
                some(&mut rng),
            ];
            for end in ends.into_iter().take(ways) {
                let point = || format!("{at} ({last}), done: {is_done}, {end:?}, seed {seed}");
                let disk = end.leaves(&disk);
                if matches!(end, End::Kill) {
                    at_point(point, || trim_unseen(&disk, &worlds, seed));
                }
                let recovery = at_point(point, || recover(&disk, &worlds, seed));
                tried += 1;
                for again in 1..=recovery {
                    for is_done in [false, true] {
                        if rng.next() % seconds >= points.saturating_sub(firsts) {
                            continue;
                        }
                        let end = End::any(&mut rng);
                        let point = || format!("{}, then {again}, done: {is_done}, {end:?}", point());
                        let crash = Plan::Crash { at: again, is_done };
                        at_point(point, || crash_again(&disk, &worlds, crash, end, seed));
                        tried_twice += 1;
                    }
                }
            }
        }
    }
    println!(
        "{operations} operations, {tried} crashes and {tried_twice} crashes in a recovery of about {recovery} operations, \
         seed {seed}, {:.0?}",
        began.elapsed()
    );
}
