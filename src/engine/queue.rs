//! Leader and followers: whoever finds the queue without a leader works off what is queued, and wakes the others.
//! A lone caller never changes threads.

use std::collections::VecDeque;

use crate::sync::{Arc, Condvar, Mutex, lock, wait};

/// Items that wait to be worked off in groups, in the order of their submission.
#[derive(Debug)]
pub(crate) struct GroupQueue<T, R> {
    state: Mutex<State<T, R>>,
}

#[derive(Debug)]
struct State<T, R> {
    waiting: VecDeque<(T, Arc<Turn<R>>)>,
    has_leader: bool,
}

/// What one caller waits for.
#[derive(Debug)]
struct Turn<R> {
    news: Mutex<Option<News<R>>>,
    arrived: Condvar,
}

#[derive(Debug)]
enum News<R> {
    /// Lead the next group, in which your own item is the first.
    Lead,
    /// A leader has done it.
    Done(R),
}

impl<R> Turn<R> {
    fn tell(&self, news: News<R>) {
        *lock(&self.news) = Some(news);
        self.arrived.notify_one();
    }

    fn wait(&self) -> News<R> {
        let mut news = lock(&self.news);
        loop {
            match news.take() {
                Some(news) => return news,
                None => news = wait(&self.arrived, news),
            }
        }
    }
}

impl<T, R> GroupQueue<T, R> {
    pub(crate) fn new() -> GroupQueue<T, R> {
        GroupQueue {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                has_leader: false,
            }),
        }
    }

    /// Has the item worked off, by this thread or by another, and gives its result.
    ///
    /// A leader takes as many items as `fits` says of the ones so far and the next, at least one, and gives `lead`
    /// the group; `lead` gives a result for each, in order. If it panics, each of its group gets `abandoned()`, and
    /// the next group has a leader all the same.
    pub(crate) fn submit(
        &self,
        item: T,
        fits: impl Fn(&[T], &T) -> bool,
        lead: impl FnOnce(Vec<T>) -> Vec<R>,
        abandoned: impl Fn() -> R,
    ) -> R {
        let turn = Arc::new(Turn {
            news: Mutex::new(None),
            arrived: Condvar::new(),
        });
        let follows = {
            let mut state = lock(&self.state);
            state.waiting.push_back((item, Arc::clone(&turn)));
            std::mem::replace(&mut state.has_leader, true)
        };
        if follows && let News::Done(result) = turn.wait() {
            return result;
        }
        let (items, turns) = self.take_group(fits);
        let group = Group {
            queue: self,
            turns,
            abandoned: &abandoned,
            is_finished: false,
        };
        let results = lead(items);
        group.finish(results)
    }

    fn take_group(&self, fits: impl Fn(&[T], &T) -> bool) -> (Vec<T>, VecDeque<Arc<Turn<R>>>) {
        let mut state = lock(&self.state);
        let (mut items, mut turns) = (Vec::new(), VecDeque::new());
        while let Some((item, _)) = state.waiting.front() {
            if !items.is_empty() && !fits(&items, item) {
                break;
            }
            if let Some((item, turn)) = state.waiting.pop_front() {
                items.push(item);
                turns.push_back(turn);
            }
        }
        (items, turns)
    }

    /// Lets the first of the waiting lead, or leaves the queue without a leader.
    fn hand_over(&self) {
        let mut state = lock(&self.state);
        match state.waiting.front() {
            Some((_, next)) => next.tell(News::Lead),
            None => state.has_leader = false,
        }
    }
}

/// A group that is being worked off. Whatever happens, its members are woken and the leadership goes on.
struct Group<'a, T, R, F: Fn() -> R> {
    queue: &'a GroupQueue<T, R>,
    /// Of those who do not know yet; the leader's own is the first.
    turns: VecDeque<Arc<Turn<R>>>,
    abandoned: &'a F,
    is_finished: bool,
}

impl<T, R, F: Fn() -> R> Group<'_, T, R, F> {
    /// Gives out the results, and returns the leader's own.
    fn finish(mut self, results: Vec<R>) -> R {
        let mut results = results.into_iter();
        let own = results.next();
        self.turns.pop_front();
        // The next group begins before this one's members are awake.
        self.queue.hand_over();
        self.is_finished = true;
        for turn in self.turns.drain(..) {
            let result = results.next().unwrap_or_else(self.abandoned);
            turn.tell(News::Done(result));
        }
        own.unwrap_or_else(self.abandoned)
    }
}

impl<T, R, F: Fn() -> R> Drop for Group<'_, T, R, F> {
    fn drop(&mut self) {
        if !self.is_finished {
            for turn in self.turns.drain(..) {
                turn.tell(News::Done((self.abandoned)()));
            }
            self.queue.hand_over();
        }
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn every_caller_gets_its_own_result_in_the_order_of_submission() {
        let queue = GroupQueue::new();
        let done = Mutex::new(Vec::<u32>::new());
        std::thread::scope(|scope| {
            for caller in 0..8 {
                let (queue, done) = (&queue, &done);
                scope.spawn(move || {
                    for number in 0..200 {
                        let item = caller * 1000 + number;
                        let lead = |items: Vec<u32>| {
                            lock(done).extend(&items);
                            items.into_iter().map(|item| Some(item + 7)).collect()
                        };
                        let result = queue.submit(item, |_, _| true, lead, || None);
                        assert_eq!(result, Some(item + 7));
                    }
                });
            }
        });
        let done = lock(&done);
        assert_eq!(done.len(), 1600);
        for caller in 0..8 {
            let own: Vec<_> = done.iter().filter(|item| **item / 1000 == caller).collect();
            assert!(own.is_sorted(), "{own:?}");
        }
    }

    #[test]
    fn a_group_ends_where_the_next_item_does_not_fit() {
        let queue: GroupQueue<u32, u32> = GroupQueue::new();
        for item in [1, 2, 3, 9] {
            let turn = Turn {
                news: Mutex::new(None),
                arrived: Condvar::new(),
            };
            lock(&queue.state).waiting.push_back((item, Arc::new(turn)));
        }
        let fits = |items: &[u32], next: &u32| items.iter().sum::<u32>() + next <= 5;
        assert_eq!(queue.take_group(fits).0, [1, 2]);
        assert_eq!(queue.take_group(fits).0, [3]);
        assert_eq!(queue.take_group(fits).0, [9]);
    }

    /// Crash story 8: a leader that panics does not leave its followers waiting for ever.
    #[test]
    fn a_leader_that_panics_wakes_its_followers_and_the_next_group_is_led() {
        let queue = GroupQueue::new();
        let led = AtomicU32::new(0);
        let barrier = Barrier::new(4);
        let abandoned = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4)
                .map(|item| {
                    let (queue, led, barrier) = (&queue, &led, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let lead = |_: Vec<u32>| -> Vec<bool> {
                            // The first waits until the others are queued, so that the second group has all of them.
                            if led.fetch_add(1, Ordering::SeqCst) == 0 {
                                while lock(&queue.state).waiting.len() < 3 {
                                    std::thread::yield_now();
                                }
                            }
                            panic!("a leader's panic, on purpose");
                        };
                        let fits = |_: &[u32], _: &u32| led.load(Ordering::SeqCst) > 0;
                        let submit = || queue.submit(item, fits, lead, || false);
                        catch_unwind(AssertUnwindSafe(submit))
                    })
                })
                .collect();
            let results = callers.into_iter().map(|caller| caller.join().unwrap());
            results.filter(|result| matches!(result, Ok(false))).count()
        });
        assert_eq!(led.load(Ordering::SeqCst), 2);
        assert_eq!(abandoned, 2, "the followers of the second group were told");
        assert!(queue.submit(9, |_, _| true, |_| vec![true], || false));
    }
}

#[cfg(all(test, clusdb_loom))]
mod models {
    use super::*;

    /// Run with `RUSTFLAGS="--cfg clusdb_loom" cargo test --lib --release models`.
    #[test]
    fn the_leadership_is_handed_over_and_nobody_sleeps_for_ever() {
        loom::model(|| {
            let queue = Arc::new(GroupQueue::new());
            let callers: Vec<_> = (0..2)
                .map(|item: u32| {
                    let queue = Arc::clone(&queue);
                    loom::thread::spawn(move || {
                        let lead = |items: Vec<u32>| items.into_iter().map(Some).collect();
                        queue.submit(item, |_, _| true, lead, || None)
                    })
                })
                .collect();
            let lead = |items: Vec<u32>| items.into_iter().map(Some).collect();
            assert_eq!(queue.submit(9, |_, _| false, lead, || None), Some(9));
            for (item, caller) in callers.into_iter().enumerate() {
                assert_eq!(caller.join().unwrap(), Some(item as u32));
            }
        });
    }
}
