//! Threads that join, lead and follow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

type Numbers = Groups<Vec<u32>, Option<u32>>;
type NumbersState = State<Vec<u32>, Option<u32>>;
type LedNumbers<'a> = Led<'a, Vec<u32>, Option<u32>>;

/// Each gets its number and 7.
fn answer(numbers: Vec<u32>, mut led: LedNumbers<'_>) {
    led.hand_over(|_| ());
    led.answer(numbers.into_iter().map(|number| Some(number + 7)));
}

fn submit(groups: &Numbers, number: u32, lead: impl FnOnce(Vec<u32>, LedNumbers<'_>)) -> Option<u32> {
    let join = |forming: &mut Vec<u32>| {
        forming.push(number);
        Join::Member
    };
    groups.submit(join, std::mem::take, lead, &|| None)
}

#[test]
fn every_caller_gets_its_own_result_and_they_are_led_in_the_order_in_which_they_joined() {
    let groups = Numbers::new(Vec::new());
    let (joined, led) = (Mutex::new(Vec::<u32>::new()), Mutex::new(Vec::<u32>::new()));
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (groups, joined, led) = (&groups, &joined, &led);
            scope.spawn(move || {
                for number in 0..200 {
                    let number = caller * 1000 + number;
                    let join = |forming: &mut Vec<u32>| {
                        forming.push(number);
                        lock(joined).push(number);
                        Join::Member
                    };
                    let lead = |numbers: Vec<u32>, of: Led<'_, _, _>| {
                        lock(led).extend(&numbers);
                        answer(numbers, of);
                    };
                    let result = groups.submit(join, std::mem::take, lead, &|| None);
                    assert_eq!(result, Some(number + 7));
                }
            });
        }
    });
    assert_eq!(lock(&joined).len(), 1600);
    assert_eq!(*lock(&joined), *lock(&led));
}

#[test]
fn a_group_that_was_handed_over_is_still_under_way_while_the_next_is_led() {
    let groups = Numbers::new(Vec::new());
    let second_is_through = Barrier::new(2);
    std::thread::scope(|scope| {
        let lead = |numbers, mut led: Led<'_, _, _>| {
            led.hand_over(|_| ());
            scope.spawn(|| {
                assert_eq!(submit(&groups, 2, answer), Some(9));
                second_is_through.wait();
            });
            second_is_through.wait();
            led.answer(Vec::into_iter(numbers).map(Some));
        };
        assert_eq!(submit(&groups, 1, lead), Some(1));
    });
}

#[test]
fn who_finds_no_room_joins_the_next_group() {
    let groups = Numbers::new(Vec::new());
    let asked = AtomicU32::new(0);
    let submit = |number, lead: &dyn Fn(Vec<u32>, LedNumbers<'_>)| {
        let join = |forming: &mut Vec<u32>| {
            asked.fetch_add(1, Ordering::SeqCst);
            if !forming.is_empty() {
                return Join::Full;
            }
            forming.push(number);
            Join::Member
        };
        groups.submit(join, std::mem::take, lead, &|| None)
    };
    std::thread::scope(|scope| {
        let wait_for = |count| {
            while asked.load(Ordering::SeqCst) < count {
                std::thread::yield_now();
            }
        };
        let lead = |numbers, led: Led<'_, _, _>| {
            // The second is the next group, and the third has found no room in it.
            scope.spawn(|| assert_eq!(submit(2, &answer), Some(9)));
            wait_for(2);
            scope.spawn(|| assert_eq!(submit(3, &answer), Some(10)));
            wait_for(3);
            answer(numbers, led);
        };
        assert_eq!(submit(1, &lead), Some(8));
    });
    assert!(asked.load(Ordering::SeqCst) > 3, "the third was asked again");
}

#[test]
fn who_panics_while_it_joins_holds_up_nobody() {
    let groups = Numbers::new(Vec::new());
    let joined = || {
        let join = |_: &mut Vec<u32>| panic!("a panic while joining, on purpose");
        groups.submit(join, std::mem::take, answer, &|| None)
    };
    assert!(catch_unwind(AssertUnwindSafe(joined)).is_err());
    assert_eq!(submit(&groups, 1, answer), Some(8));
    // The same of one that has waited for room: the one behind it gets its turn.
    let wait_for = |is_so: fn(&NumbersState) -> bool| {
        while !is_so(&lock(&groups.state)) {
            std::thread::yield_now();
        }
    };
    let joins_an_empty_group_and_panics = || {
        let join = |forming: &mut Vec<u32>| match forming.is_empty() {
            false => Join::Full,
            true => panic!("a panic while joining, on purpose"),
        };
        groups.submit(join, std::mem::take, answer, &|| None)
    };
    std::thread::scope(|scope| {
        let lead = |numbers, led: LedNumbers<'_>| {
            scope.spawn(|| assert_eq!(submit(&groups, 2, answer), Some(9)));
            wait_for(|state| state.members == 1);
            scope.spawn(|| {
                let panics = AssertUnwindSafe(joins_an_empty_group_and_panics);
                assert!(catch_unwind(panics).is_err());
            });
            wait_for(|state| state.waiting() == 1);
            scope.spawn(|| assert_eq!(submit(&groups, 3, answer), Some(10)));
            wait_for(|state| state.waiting() == 2);
            answer(numbers, led);
        };
        assert_eq!(submit(&groups, 1, lead), Some(8));
    });
}

/// Crash story 8: a leader that panics does not leave its followers waiting for ever.
#[test]
fn a_leader_that_panics_wakes_its_followers_and_the_next_group_is_led() {
    let groups = Numbers::new(Vec::new());
    let led = AtomicU32::new(0);
    let barrier = Barrier::new(4);
    let abandoned = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|number| {
                let (groups, led, barrier) = (&groups, &led, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let lead = |_: Vec<u32>, _led: LedNumbers<'_>| {
                        // The first waits until the others have joined, so that the second group has all of them.
                        if led.fetch_add(1, Ordering::SeqCst) == 0 {
                            while lock(&groups.state).members < 3 {
                                std::thread::yield_now();
                            }
                        }
                        panic!("a leader's panic, on purpose");
                    };
                    catch_unwind(AssertUnwindSafe(|| submit(groups, number, lead)))
                })
            })
            .collect();
        let results = callers.into_iter().map(|caller| caller.join().unwrap());
        results.filter(|result| matches!(result, Ok(None))).count()
    });
    assert_eq!(led.load(Ordering::SeqCst), 2);
    assert_eq!(abandoned, 2, "the followers of the second group were told");
    assert_eq!(submit(&groups, 9, answer), Some(16));
}
