//! What everyone may see: the state, and the place in the journal that it has come to. They move together, under one lock, so that
//! a port never shows a change that a read does not.
//!
//! A large group is shown at once and applied in steps: meanwhile what it has decided lies over the state, and values are found through
//! that. So no get waits for long. All else that reads waits until the state is settled.

use crate::error::{Error, Result};
use crate::journal::Position;
use crate::model::{Decisions, Layer, RecordApplied, RecordView, State, Value, View};
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, lock, yield_now};

/// A group of no more changes is applied in one hold of the lock: about as long as it takes to wake somebody.
const SMALL_CHANGES: usize = if cfg!(clusdb_loom) { 4 } else { 512 };
/// Of a larger one, so many are applied in one hold.
const STEP_CHANGES: usize = if cfg!(clusdb_loom) { 1 } else { 16 };

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
    turn: Mutex<()>,
}

/// The right to show the next group: nobody reads the state meanwhile.
pub(super) struct Showing<'a> {
    shown: &'a Published,
    visible: RwLockWriteGuard<'a, Visible>,
    turn: MutexGuard<'a, ()>,
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
        let (_, value) = match self.is_settled() {
            true => self.state.value(path, name)?,
            false => self.over.value(&self.state, path, name)?,
        };
        Some(value)
    }
}

impl Published {
    pub(super) fn new(visible: Visible) -> Published {
        Published {
            visible: RwLock::new(visible),
            turn: Mutex::new(()),
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
        let _turn = lock(&self.turn);
        self.now()
    }

    /// The state under what lies over it. Waits for a step of an application at most.
    ///
    /// # Errors
    /// Those of [`Published::settled`].
    pub(super) fn now(&self) -> Result<RwLockReadGuard<'_, Visible>> {
        self.visible.read().map_err(|_| Error::LeaderPanicked)
    }

    /// Waits until what was shown before is applied.
    ///
    /// # Errors
    /// Those of [`Published::settled`].
    pub(super) fn begin(&self) -> Result<Showing<'_>> {
        let turn = lock(&self.turn);
        let visible = self.visible.write().map_err(|_| Error::LeaderPanicked)?;
        Ok(Showing {
            shown: self,
            visible,
            turn,
        })
    }
}

impl Showing<'_> {
    /// Shows the records, whose decisions these are, up to the position, and applies them. `show` is called once they are shown.
    pub(super) fn show(
        self,
        records: &[RecordView<'_>],
        decisions: Decisions,
        position: Position,
        time: i64,
        show: impl FnOnce(),
    ) {
        let Showing {
            shown,
            mut visible,
            turn,
        } = self;
        visible.position = position;
        let changes: usize = records.iter().map(RecordView::len).sum();
        if changes <= SMALL_CHANGES {
            records
                .iter()
                .for_each(|record| visible.state.apply(*record, time));
            drop(visible);
            drop(turn);
            show();
            return;
        }
        visible.over = decisions;
        drop(visible);
        show();
        for record in records {
            let mut applied = RecordApplied::new(*record, time);
            let mut is_more = true;
            while is_more {
                let Ok(mut visible) = shown.visible.write() else {
                    return;
                };
                is_more = applied.step(&mut visible.state, STEP_CHANGES);
                drop(visible);
                // Who waits gets in between.
                yield_now();
            }
        }
        let Ok(mut visible) = shown.visible.write() else {
            return;
        };
        let over = std::mem::take(&mut visible.over);
        drop(visible);
        drop(turn);
        // Much to be freed, perhaps, and nobody waits for it.
        drop(over);
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::model::{Batch, KeyPath, Limits, Record};

    const VALUES: u32 = 2 * SMALL_CHANGES as u32;

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
        let showing = published.begin().unwrap();
        showing.show(&[record.view()], decisions, position(number.into()), 7, show);
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
            let in_state = ends(|name| Some(visible.state.value("", name)?.1.clone()));
            assert_eq!(in_state, [Some(1); 2], "it comes later");
        });
        assert!(is_called);
        let visible = published.settled().unwrap();
        let in_state = ends(|name| Some(visible.state.value("", name)?.1.clone()));
        assert_eq!(in_state, [Some(2); 2]);
        assert!(visible.is_settled());
    }

    #[test]
    fn who_reads_beside_a_large_group_never_sees_a_part_of_it() {
        let published = Published::new(Visible::new(State::new(), position(0)));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut last = 0;
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let visible = published.settled().unwrap();
                    let seen = ends(|name| Some(visible.state.value("", name)?.1.clone()));
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
            is_over.store(true, Ordering::Release);
        });
    }
}
