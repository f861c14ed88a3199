//! Views of the journal: batches and changes, borrowed from the mapped segments.

use std::fmt;
use std::sync::Arc;

use crate::env::Map;
use crate::error::Result;
use crate::journal::{Filter, Frame, FrameKind, Journal, Position, Visited, is_deletion};
use crate::model::wire::{WireError, encode_changes};
use crate::model::{Change, Changes, RecordView, Runs};

/// Frames that stand one behind the other in a mapped segment, all of which are shown.
#[derive(Debug, Clone)]
struct Span {
    map: Arc<Map>,
    start: usize,
    end: usize,
}

impl Span {
    fn bytes(&self) -> &[u8] {
        // Stable since the span was made, so that this cannot be None.
        self.map.get(self.start..self.end).unwrap_or_default()
    }
}

/// A part of the journal, verified and mapped: whole batches in commit order.
///
/// Nothing is copied: texts and data are borrowed from the memory map of the journal's files. The view stays valid
/// as long as it lives, after later gets and after the port or the store were closed. Walking it cannot fail, does
/// not wait, and does not allocate.
#[derive(Clone)]
pub struct JournalView {
    spans: Vec<Span>,
    filter: Filter,
    batches: usize,
}

impl JournalView {
    fn new(filter: Filter) -> JournalView {
        JournalView {
            spans: Vec::new(),
            filter,
            batches: 0,
        }
    }

    /// All records behind `position` up to `last`.
    pub(crate) fn of_log(journal: &Journal, position: &mut Position, last: u64) -> Result<JournalView> {
        let mut view = JournalView::new(Filter::Everything);
        journal.scan(position, last, &mut |visited| {
            view.push(visited);
            Ok(true)
        })?;
        Ok(view)
    }

    /// What the filter shows behind `position` up to `end`. Moves the position behind what was looked at. Stops before
    /// a batch that would make the view larger than `limit_bytes`, unless it is the first.
    pub(crate) fn of_port(
        journal: &Journal,
        position: &mut Position,
        end: Position,
        filter: &Filter,
        limit_bytes: u64,
    ) -> Result<JournalView> {
        let mut view = JournalView::new(filter.clone());
        let mut bytes: u64 = 0;
        journal.scan_shown(filter, position, end, &mut |visited| {
            bytes = bytes.saturating_add(visited.frame.bytes() as u64);
            if bytes > limit_bytes && view.batches > 0 {
                return Ok(false);
            }
            view.push(visited);
            Ok(true)
        })?;
        Ok(view)
    }

    fn push(&mut self, visited: &Visited<'_>) {
        let (start, end) = (visited.offset, visited.offset + visited.frame.bytes());
        self.batches += 1;
        match self.spans.last_mut() {
            Some(span) if Arc::ptr_eq(&span.map, visited.map) && span.end == start => {
                span.end = end;
            }
            _ => self.spans.push(Span {
                map: Arc::clone(visited.map),
                start,
                end,
            }),
        }
    }

    /// The batches, in commit order.
    #[must_use]
    pub fn batches(&self) -> Batches<'_> {
        Batches {
            filter: &self.filter,
            spans: self.spans.iter(),
            rest: &[],
        }
    }

    /// The number of batches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batches
    }

    /// Whether there is no batch in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// All commands as the protocol's bytes (specification, section 7): the registry's own stream, with paths relative to the
    /// port's key (for the log: to the root). The boundaries between batches cannot be seen in them;
    /// [`BatchView::to_wire`] gives one batch.
    ///
    /// # Errors
    /// Data of 4 GiB or more, which the protocol cannot tell.
    pub fn to_wire(&self) -> Result<Vec<u8>, WireError> {
        encode_changes(
            self.filter.key(),
            self.batches().flat_map(|batch| batch.commands()),
        )
    }

    /// The addresses in memory of the view's first and last byte, to show that it is mapped and not copied. None if
    /// it is empty.
    #[must_use]
    pub fn addresses(&self) -> Option<(usize, usize)> {
        let (first, last) = (self.spans.first()?, self.spans.last()?);
        Some((
            first.map.address() + first.start,
            last.map.address() + last.end - 1,
        ))
    }
}

impl fmt::Debug for JournalView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.batches()).finish()
    }
}

impl<'a> IntoIterator for &'a JournalView {
    type Item = BatchView<'a>;
    type IntoIter = Batches<'a>;

    fn into_iter(self) -> Batches<'a> {
        self.batches()
    }
}

/// Walks the batches of a [`JournalView`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    filter: &'a Filter,
    spans: std::slice::Iter<'a, Span>,
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = BatchView<'a>;

    fn next(&mut self) -> Option<BatchView<'a>> {
        if self.rest.is_empty() {
            self.rest = self.spans.next()?.bytes();
        }
        let frame = Frame::verified(self.rest)?;
        self.rest = self.rest.get(frame.bytes()..)?;
        Some(BatchView {
            frame,
            filter: self.filter,
        })
    }
}

/// One committed batch, as far as the view shows it.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    frame: Frame<'a>,
    filter: &'a Filter,
}

impl<'a> BatchView<'a> {
    /// The sequence number of its commit.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.frame.meta.sequence
    }

    /// The time of its commit in microseconds since 1970, by the clock of the machine that committed it.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.frame.meta.time
    }

    /// The id that the caller gave it; zeroes if none was given.
    #[must_use]
    pub fn request_id(&self) -> [u8; 16] {
        self.frame.meta.request_id
    }

    /// Whether it is a plain write, which only the log shows.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.frame.meta.kind == FrameKind::Plain
    }

    /// The changes, in command order: each with the new and the previous value.
    pub fn changes(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        Shown {
            filter: self.filter,
            runs: RecordView::verified(self.frame.payload).runs(),
            run: None,
        }
    }

    /// The registry's own stream: VALUE_DELETED with the old data before each SET_VALUE and DELETE_VALUE whose
    /// value had data at that moment (specification, section 3).
    pub fn commands(&self) -> impl Iterator<Item = Change<'a>> + use<'a> {
        self.changes().flat_map(Change::commands)
    }

    /// The batch's commands as the protocol's bytes, as [`JournalView::to_wire`] has them.
    ///
    /// # Errors
    /// Those of [`JournalView::to_wire`].
    pub fn to_wire(&self) -> Result<Vec<u8>, WireError> {
        encode_changes(self.filter.key(), self.commands())
    }
}

/// The changes of a batch that its view shows. Written out, because a walk over a million of them spends its time here.
struct Shown<'a> {
    filter: &'a Filter,
    runs: Runs<'a>,
    /// What is left of the run, and whether all of it is shown or its deletions alone.
    run: Option<(Changes<'a>, bool)>,
}

impl<'a> Iterator for Shown<'a> {
    type Item = Change<'a>;

    #[inline]
    fn next(&mut self) -> Option<Change<'a>> {
        loop {
            if let Some((changes, all)) = &mut self.run {
                for change in changes {
                    if *all || is_deletion(&change) {
                        return Some(change);
                    }
                }
            }
            self.run = self.filter.shown_of(self.runs.next()?);
        }
    }

    /// As `next` does it, without a change having to be written down for each step.
    #[inline]
    fn fold<B, F: FnMut(B, Change<'a>) -> B>(self, init: B, mut f: F) -> B {
        let Shown { filter, runs, run } = self;
        let mut folded = init;
        for (changes, all) in run.into_iter().chain(runs.filter_map(|run| filter.shown_of(run))) {
            folded = match all {
                true => changes.fold(folded, &mut f),
                false => changes.filter(is_deletion).fold(folded, &mut f),
            };
        }
        folded
    }
}

impl fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.sequence())?;
        f.debug_list().entries(self.changes()).finish()
    }
}
