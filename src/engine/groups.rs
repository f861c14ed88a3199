//! Groups: whoever comes joins the group that is forming, and one of its members leads it while the next one forms.
//! A lone caller never changes threads.

use crate::sync::{Arc, Condvar, Mutex, MutexGuard, lock, wait};

/// Callers whose work is done in groups, in the order in which they join. `F` is what they join: the group that is forming.
#[derive(Debug)]
pub(crate) struct Groups<F, R> {
    state: Mutex<State<F, R>>,
    /// There is room, or another one's turn to try.
    room: Condvar,
}

// Whoever notifies knows whether anybody waits: notifying is a system call all the same, and a lone caller makes none.

#[derive(Debug)]
struct State<F, R> {
    forming: F,
    /// Of the members of the forming group.
    turn: Arc<Turn<R>>,
    members: usize,
    /// Callers that have waited for room so far, and those of them that have had their turn: they join in the order in which they came.
    tickets: u64,
    served: u64,
    /// Whether a group is being led, or a member of the forming one was told to.
    has_leader: bool,
}

/// What the members of one group wait for.
#[derive(Debug)]
struct Turn<R> {
    news: Mutex<News<R>>,
    changed: Condvar,
}

#[derive(Debug)]
struct News<R> {
    /// One of the members leads the group: whoever sees this first.
    may_be_led: bool,
    /// Members that sleep.
    asleep: usize,
    /// One for each member, in the order in which they joined.
    results: Option<Vec<Option<R>>>,
}

/// What becomes of who wants to join.
pub(crate) enum Join<R> {
    /// A member, which gets the result of its place.
    Member,
    /// There is nothing to wait for.
    Answered(R),
    /// There is no room: tried again with the next group.
    Full,
}

/// The group that is being led. Whatever happens, its members are answered and the next group is led.
pub(crate) struct Led<'a, F, R> {
    groups: &'a Groups<F, R>,
    turn: Arc<Turn<R>>,
    members: usize,
    abandoned: &'a dyn Fn() -> R,
    is_handed_over: bool,
    is_answered: bool,
}

impl<R> Turn<R> {
    fn new() -> Arc<Turn<R>> {
        let news = News {
            may_be_led: false,
            asleep: 0,
            results: None,
        };
        Arc::new(Turn {
            news: Mutex::new(news),
            changed: Condvar::new(),
        })
    }

    /// Waits until the group is answered, or until it is this member's to lead it. True for the latter.
    fn wait(&self) -> bool {
        let mut news = lock(&self.news);
        loop {
            if news.results.is_some() {
                return false;
            }
            if std::mem::take(&mut news.may_be_led) {
                return true;
            }
            news.asleep += 1;
            news = wait(&self.changed, news);
            news.asleep -= 1;
        }
    }

    fn offer_lead(&self) {
        let mut news = lock(&self.news);
        news.may_be_led = true;
        let sleeps = news.asleep > 0;
        drop(news);
        if sleeps {
            // All who sleep here are members of the group, and any of them will do.
            self.changed.notify_one();
        }
    }

    fn answer(&self, results: Vec<Option<R>>) {
        let mut news = lock(&self.news);
        news.results = Some(results);
        let sleep = news.asleep > 0;
        drop(news);
        if sleep {
            self.changed.notify_all();
        }
    }

    fn result(&self, place: usize) -> Option<R> {
        lock(&self.news).results.as_mut()?.get_mut(place)?.take()
    }
}

impl<F, R> State<F, R> {
    /// Callers that wait for room.
    fn waiting(&self) -> u64 {
        self.tickets - self.served
    }
}

impl<F, R> Groups<F, R> {
    pub(crate) fn new(forming: F) -> Groups<F, R> {
        Groups {
            state: Mutex::new(State {
                forming,
                turn: Turn::new(),
                members: 0,
                tickets: 0,
                served: 0,
                has_leader: false,
            }),
            room: Condvar::new(),
        }
    }

    /// Joins the forming group, and gives the result of its place, once a leader has worked the group off.
    ///
    /// Only one group is led at a time: `lead` gets what `take` has taken out of the forming group. If it panics, the members
    /// that it has not answered get `abandoned()`, and the next group is led all the same.
    pub(crate) fn submit<T>(
        &self,
        mut join: impl FnMut(&mut F) -> Join<R>,
        take: impl FnOnce(&mut F) -> T,
        lead: impl FnOnce(T, Led<'_, F, R>),
        abandoned: &dyn Fn() -> R,
    ) -> R {
        let mut state = lock(&self.state);
        // Nobody overtakes who waits for room.
        let mut joined = match state.waiting() {
            0 => join(&mut state.forming),
            _ => Join::Full,
        };
        if matches!(joined, Join::Full) {
            let ticket = state.tickets;
            state.tickets += 1;
            while matches!(joined, Join::Full) {
                state = wait(&self.room, state);
                if state.served == ticket {
                    state.served += 1;
                    // Before it is tried: if that panics, the next one has its turn all the same.
                    self.room.notify_all();
                    joined = join(&mut state.forming);
                    if matches!(joined, Join::Full) {
                        state.served -= 1;
                    }
                }
            }
        }
        if let Join::Answered(result) = joined {
            return result;
        }
        let place = state.members;
        state.members += 1;
        let turn = Arc::clone(&state.turn);
        let follows = std::mem::replace(&mut state.has_leader, true);
        if follows {
            drop(state);
            if turn.wait() {
                let (taken, led) = self.take(lock(&self.state), take, abandoned);
                lead(taken, led);
            }
        } else {
            let (taken, led) = self.take(state, take, abandoned);
            lead(taken, led);
        }
        turn.result(place).unwrap_or_else(abandoned)
    }

    fn take<'a, T>(
        &'a self,
        mut state: MutexGuard<'_, State<F, R>>,
        take: impl FnOnce(&mut F) -> T,
        abandoned: &'a dyn Fn() -> R,
    ) -> (T, Led<'a, F, R>) {
        let led = Led {
            groups: self,
            turn: std::mem::replace(&mut state.turn, Turn::new()),
            members: std::mem::take(&mut state.members),
            abandoned,
            is_handed_over: false,
            is_answered: false,
        };
        let taken = take(&mut state.forming);
        if state.waiting() > 0 {
            self.room.notify_all();
        }
        (taken, led)
    }
}

impl<F, R> Led<'_, F, R> {
    /// Lets the next group be led, after `prepare`, while which nobody joins it.
    pub(crate) fn hand_over<T>(&mut self, prepare: impl FnOnce(&mut F) -> T) -> T {
        let mut state = lock(&self.groups.state);
        let prepared = prepare(&mut state.forming);
        // Not before: if `prepare` panics, it is handed over without.
        self.is_handed_over = true;
        match state.members {
            0 => state.has_leader = false,
            _ => {
                let turn = Arc::clone(&state.turn);
                // Who is woken takes the group, and needs the lock for that.
                drop(state);
                turn.offer_lead();
            }
        }
        prepared
    }

    /// Gives the members their results, in the order in which they have joined.
    pub(crate) fn answer(mut self, results: impl IntoIterator<Item = R>) {
        self.is_answered = true;
        self.turn.answer(results.into_iter().map(Some).collect());
    }
}

impl<F, R> Drop for Led<'_, F, R> {
    fn drop(&mut self) {
        if !self.is_answered {
            let results = (0..self.members).map(|_| Some((self.abandoned)()));
            self.turn.answer(results.collect());
        }
        if !self.is_handed_over {
            self.hand_over(|_| ());
        }
    }
}

#[cfg(test)]
impl<F, R> Groups<F, R> {
    /// How many have joined the forming group.
    pub(crate) fn members(&self) -> usize {
        lock(&self.state).members
    }

    /// Lets so many join one group, and leads it: threads would group them differently each time.
    pub(crate) fn submit_together<T>(
        &self,
        count: usize,
        mut join: impl FnMut(usize, &mut F) -> Join<R>,
        take: impl FnOnce(&mut F) -> T,
        lead: impl FnOnce(T, Led<'_, F, R>),
        abandoned: &dyn Fn() -> R,
    ) -> Vec<R> {
        let mut state = lock(&self.state);
        assert!(
            !std::mem::replace(&mut state.has_leader, true),
            "nobody else is here"
        );
        let turn = Arc::clone(&state.turn);
        let answers: Vec<_> = (0..count)
            .map(|number| join(number, &mut state.forming))
            .collect();
        state.members = answers
            .iter()
            .filter(|answer| matches!(answer, Join::Member))
            .count();
        let (taken, led) = self.take(state, take, abandoned);
        lead(taken, led);
        let mut place = 0;
        let result = |answer| match answer {
            Join::Answered(result) => result,
            Join::Member => {
                place += 1;
                turn.result(place - 1).expect("an answer for each member")
            }
            Join::Full => panic!("no room for all of the group"),
        };
        answers.into_iter().map(result).collect()
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests;

#[cfg(all(test, clusdb_loom))]
mod models {
    use super::*;

    /// Run with `RUSTFLAGS="--cfg clusdb_loom" cargo test --lib --release models`.
    #[test]
    fn the_leadership_is_handed_over_and_nobody_sleeps_for_ever() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let groups = Arc::new(Groups::new(Vec::new()));
            let submit = |groups: &Groups<Vec<u32>, Option<u32>>, number: u32| {
                // A group has room for two.
                let join = |forming: &mut Vec<u32>| {
                    if forming.len() == 2 {
                        return Join::Full;
                    }
                    forming.push(number);
                    Join::Member
                };
                let lead = |numbers: Vec<u32>, mut led: Led<'_, _, _>| {
                    led.hand_over(|_| ());
                    led.answer(numbers.into_iter().map(Some));
                };
                groups.submit(join, std::mem::take, lead, &|| None)
            };
            let callers: Vec<_> = (0..2)
                .map(|number| {
                    let groups = Arc::clone(&groups);
                    loom::thread::spawn(move || submit(&groups, number))
                })
                .collect();
            assert_eq!(submit(&groups, 9), Some(9));
            for (number, caller) in callers.into_iter().enumerate() {
                assert_eq!(caller.join().unwrap(), Some(number as u32));
            }
        });
    }
}
