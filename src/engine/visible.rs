//! What everyone may see: the state, and the place in the journal that it has come to. They move together, under one lock, so that
//! a port never shows a change that a read does not.
//!
//! A group is shown before it is applied: meanwhile what it has decided lies over the state, and values are found through that, so that
//! nobody waits for all of a large group with a get, or to be told. All else that reads waits until the state is settled.

use std::sync::TryLockError;

use crate::error::{Error, Result};
use crate::journal::Position;
use crate::model::{Decisions, Layer, RecordApplied, RecordView, State, Value};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, lock, spin_loop, yield_now};

/// The records of a group that costs no more are applied each in one hold of the lock: about as long as it takes to wake somebody.
const SMALL_COST: usize = if cfg!(clusdb_loom) { 4 } else { 512 };
/// Of a larger one, as much is applied in one hold.
const STEP_COST: usize = if cfg!(clusdb_loom) { 1 } else { 16 };

/// Who reads tries so often before it falls asleep: for some microseconds.
const TRIES: u32 = if cfg!(clusdb_loom) { 0 } else { 200 };

/// The state as it is shown.
#[derive(Debug)]
pub(crate) struct Visible {
    pub(crate) state: State,
    pub(crate) position: Position,
    /// What was decided and is shown, and may not be in the state yet.
    over: Decisions,
}

/// Who reads and who shows.
#[derive(Debug)]
pub(crate) struct Published {
    visible: RwLock<Visible>,
    /// Held as long as anything lies over the state.
    applying: Mutex<()>,
    /// Who has not got the lock at once, to read.
    waiting: AtomicUsize,
}

/// The right to show the next group: nobody reads the state meanwhile.
pub(super) struct Showing<'a> {
    published: &'a Published,
    visible: RwLockWriteGuard<'a, Visible>,
    applying: MutexGuard<'a, ()>,
}

impl Visible {
    pub(crate) fn new(state: State, position: Position) -> Visible {
        Visible {
            state,
            position,
            over: Decisions::default(),
        }
    }

    fn is_settled(&self) -> bool {
        self.over.is_empty()
    }

    /// The state under what lies over it.
    pub(super) fn view(&self) -> Layer<'_> {
        self.over.over(&self.state)
    }

    /// A value, by folded path and name.
    pub(crate) fn value(&self, path: &str, name: &str) -> Option<&Value> {
        match self.is_settled() {
            true => self.state.value(path, name),
            false => Some(self.view().value(path, name)?.1),
        }
    }
}

impl Published {
    pub(super) fn new(visible: Visible) -> Published {
        Published {
            visible: RwLock::new(visible),
            applying: Mutex::new(()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The state itself, once it is settled. Waits for memory work at most.
    ///
    /// # Errors
    /// `LeaderPanicked`: a panic has left the state half changed.
    pub(super) fn settled(&self) -> Result<RwLockReadGuard<'_, Visible>> {
        let visible = self.now()?;
        if visible.is_settled() {
            return Ok(visible);
        }
        drop(visible);
        if let Some(visible) = self.soon(Visible::is_settled) {
            return Ok(visible);
        }
        let _applying = lock(&self.applying);
        let visible = self.now()?;
        // What nobody applies any more was left by a panic.
        visible
            .is_settled()
            .then_some(visible)
            .ok_or(Error::LeaderPanicked)
    }

    /// The state under what lies over it. Waits for a step of an application, and for who decides beside it.
    ///
    /// # Errors
    /// Those of [`Published::settled`].
    pub(super) fn now(&self) -> Result<RwLockReadGuard<'_, Visible>> {
        match self.visible.try_read() {
            Ok(visible) => Ok(visible),
            Err(TryLockError::Poisoned(_)) => Err(Error::LeaderPanicked),
            Err(TryLockError::WouldBlock) => {
                self.waiting.fetch_add(1, Relaxed);
                let visible = self.soon(|_| true).map_or_else(|| self.visible.read(), Ok);
                self.waiting.fetch_sub(1, Relaxed);
                visible.map_err(|_| Error::LeaderPanicked)
            }
        }
    }

    /// Without falling asleep: to be woken takes longer than most of what holds the lock.
    fn soon(&self, is_it: impl Fn(&Visible) -> bool) -> Option<RwLockReadGuard<'_, Visible>> {
        (0..TRIES).find_map(|_| {
            spin_loop();
            self.visible.try_read().ok().filter(|visible| is_it(visible))
        })
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Visible>> {
        self.visible.write().map_err(|_| Error::LeaderPanicked)
    }

    /// Waits until what was shown before is applied, and nobody reads; `before_waiting` is called if it has to.
    ///
    /// # Errors
    /// Those of [`Published::settled`].
    pub(super) fn begin(&self, before_waiting: impl FnOnce()) -> Result<Showing<'_>> {
        let at_once = || Some((self.applying.try_lock().ok()?, self.visible.try_write().ok()?));
        let (applying, visible) = match at_once() {
            Some(both) => both,
            None => {
                before_waiting();
                (lock(&self.applying), self.write()?)
            }
        };
        if !visible.is_settled() {
            return Err(Error::LeaderPanicked);
        }
        Ok(Showing {
            published: self,
            visible,
            applying,
        })
    }
}

impl Showing<'_> {
    /// Shows the records, whose decisions these are, up to the position, and applies them. `once_shown` is called in between: nobody who is
    /// told of them waits for that. What it gives is given back once nothing is held any more.
    ///
    /// # Errors
    /// Those of [`Published::settled`].
    pub(super) fn show<T>(
        self,
        records: &[RecordView<'_>],
        decisions: Decisions,
        position: Position,
        time: i64,
        once_shown: impl FnOnce() -> T,
    ) -> Result<T> {
        let Showing {
            published,
            mut visible,
            applying,
        } = self;
        visible.position = position;
        visible.over = decisions;
        drop(visible);
        let mut shown = Shown {
            published,
            _applying: applying,
            records: Some(records),
            time,
        };
        let given = once_shown();
        let over = shown.apply();
        drop(shown);
        // Behind the locks: there may be much to be freed, and nobody waits for it.
        drop(over?);
        Ok(given)
    }
}

/// What is shown and to be applied: also where a panic comes in between.
struct Shown<'a, 'r> {
    published: &'a Published,
    _applying: MutexGuard<'a, ()>,
    /// None once they are applied.
    records: Option<&'r [RecordView<'r>]>,
    time: i64,
}

impl Shown<'_, '_> {
    /// Gives what has lain over the state.
    fn apply(&mut self) -> Result<Decisions> {
        let (published, time) = (self.published, self.time);
        let Some(records) = self.records.take() else {
            return Ok(Decisions::default());
        };
        let step = match records.iter().map(RecordView::cost).sum() {
            0..=SMALL_COST => usize::MAX,
            _ => STEP_COST,
        };
        for record in records {
            let mut record = RecordApplied::new(*record, time);
            while record.step(&mut published.write()?.state, step) {
                // Who waits gets in between: the lock alone would let the same thread have it again.
                if published.waiting.load(Relaxed) > 0 {
                    yield_now();
                }
            }
        }
        Ok(std::mem::take(&mut published.write()?.over))
    }
}

impl Drop for Shown<'_, '_> {
    fn drop(&mut self) {
        // What cannot be written any more is in doubt, and everyone is told so. A second panic here ends the process.
        let _ = self.apply();
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::engine::tests::SetWhenDropped;
    use crate::model::{Batch, KeyPath, Limits, Record};

    const VALUES: u32 = 2 * SMALL_COST as u32;

    fn position(sequence: u64) -> Position {
        Position {
            sequence,
            checksum: 0,
            segment: 1,
            offset: 0,
        }
    }

    /// Sets all values to this number.
    fn decide(visible: &Visible, number: u32) -> (Record, Decisions) {
        let mut batch = Batch::at(&KeyPath::root());
        for name in 0..VALUES {
            batch
                .set_value(&format!("V{name}"), Value::dword(number))
                .unwrap();
        }
        let mut decisions = Decisions::default();
        let record = decisions.evaluate(&visible.view(), &batch, &Limits::default());
        (record.unwrap(), decisions)
    }

    fn show(published: &Published, number: u32, show: impl FnOnce()) {
        let (record, decisions) = decide(&published.settled().unwrap(), number);
        let showing = published.begin(|| ()).unwrap();
        let at = position(number.into());
        showing.show(&[record.view()], decisions, at, 7, show).unwrap();
    }

    /// The number of the first and of the last value.
    fn ends(value: impl Fn(&str) -> Option<Value>) -> [Option<u32>; 2] {
        [0, VALUES - 1].map(|name| {
            let value = value(&format!("V{name}"))?;
            Some(u32::from_le_bytes(value.data().try_into().unwrap()))
        })
    }

    #[test]
    fn a_large_group_is_seen_whole_before_the_state_has_it() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        show(&published, 1, || ());
        let mut is_called = false;
        show(&published, 2, || {
            is_called = true;
            let visible = published.now().unwrap();
            assert_eq!(visible.position.sequence, 2);
            assert_eq!(ends(|name| visible.value("", name).cloned()), [Some(2); 2]);
            let allocated = allocation_counter::measure(|| assert!(visible.value("", "V7").is_some()));
            assert_eq!(allocated.count_total, 0);
            let in_state = ends(|name| Some(visible.state.value("", name)?.clone()));
            assert_eq!(in_state, [Some(1); 2], "it comes later");
        });
        assert!(is_called);
        let visible = published.settled().unwrap();
        let in_state = ends(|name| Some(visible.state.value("", name)?.clone()));
        assert_eq!(in_state, [Some(2); 2]);
        assert!(visible.is_settled());
    }

    #[test]
    fn who_reads_beside_a_large_group_never_sees_a_part_of_it() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = SetWhenDropped(&is_over);
            let mut last = 0;
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let visible = published.settled().unwrap();
                    let seen = ends(|name| Some(visible.state.value("", name)?.clone()));
                    let expected = Some(visible.position.sequence as u32).filter(|number| *number > 0);
                    assert_eq!(seen, [expected; 2]);
                }
            });
            let is_over = &is_over;
            let published = &published;
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    // One get after the other: time does not go back.
                    let seen = ends(|name| published.now().unwrap().value("", name).cloned());
                    for number in seen.map(Option::unwrap_or_default) {
                        assert!(number >= last, "{number} behind {last}");
                        last = number;
                    }
                }
            });
            for number in 1..=200 {
                show(published, number, || ());
            }
        });
    }

    #[test]
    fn who_has_to_wait_for_a_reader_before_showing_says_so_first() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        drop(
            published
                .begin(|| panic!("there is nothing to wait for"))
                .unwrap(),
        );
        let (says_so, is_said) = std::sync::mpsc::channel();
        let reading = published.now().unwrap();
        std::thread::scope(|scope| {
            let begins = || drop(published.begin(move || says_so.send(()).unwrap()).unwrap());
            let begun = scope.spawn(begins);
            let said = is_said.recv_timeout(std::time::Duration::from_secs(60));
            assert!(!begun.is_finished());
            drop(reading);
            said.expect("said before it waits");
        });
    }

    #[test]
    fn what_is_shown_is_applied_although_who_was_told_of_it_panics() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        show(&published, 1, || ());
        let panics = || show(&published, 2, || panic!("a panic in between, on purpose"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
        let visible = published.settled().unwrap();
        assert_eq!(ends(|name| visible.state.value("", name).cloned()), [Some(2); 2]);
        drop(visible);
        show(&published, 3, || ());
    }

    /// A panic while something is applied leaves a lock that says so.
    #[test]
    fn a_state_that_a_panic_has_left_half_changed_is_not_shown() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        let panics = || {
            let _visible = published.visible.write();
            panic!("a panic of whoever changes the state, on purpose");
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
        assert!(matches!(published.now(), Err(Error::LeaderPanicked)));
        assert!(matches!(published.settled(), Err(Error::LeaderPanicked)));
        assert!(matches!(
            published.begin(|| ()).err(),
            Some(Error::LeaderPanicked)
        ));
    }

    /// What was decided while a group is applied was decided on all of it.
    #[test]
    fn who_decides_beside_a_large_group_decides_on_all_of_it() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        show(&published, 1, || ());
        show(&published, 2, || {
            let (record, _) = decide(&published.now().unwrap(), 3);
            let previous: Vec<_> = record
                .view()
                .changes()
                .map(|change| change.previous().unwrap())
                .collect();
            assert!(previous.iter().all(|value| value.data == 2_u32.to_le_bytes()));
        });
    }
}
