//! Reading what a port may have to show, and no more: by the index of each segment.

use std::ops::Range;
use std::sync::Arc;

use super::index::{Index, ListId, offset_of, step_of};
use super::segment::{Mark, SEGMENT_HEADER_BYTES, Segment};
use super::sidecar::{Binding, Sidecar};
use super::{Filter, Journal, Position, Visited};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::sync::lock;

/// So few frames are read one by one: finding a place in a list would not be quicker.
const SCANNED_FRAMES: u64 = 8;

/// Where a segment's index is.
#[derive(Debug)]
pub(super) enum Indexed {
    /// In memory, of the frames before the mark; the others are added when somebody asks.
    Growing(Index, Mark),
    /// In memory for good: the segment is sealed, and its sidecar could not be made.
    Built(Index),
    /// In the sidecar of a sealed segment.
    Sealed(Sidecar),
}

impl Indexed {
    pub(super) fn new(first: Mark) -> Indexed {
        Indexed::Growing(Index::default(), first)
    }
}

/// Where sidecars are, and whether this process makes them.
#[derive(Debug)]
pub(super) struct Sidecars {
    pub(super) env: Arc<dyn Env>,
    pub(super) layout: Layout,
    pub(super) are_made: bool,
}

impl Journal {
    /// Gives what a scan would give behind `position` up to `end`, which is durable, but passes over frames that the filter
    /// does not show, most of them without reading them. What it costs is in proportion to what it gives, and to the number of
    /// segments.
    ///
    /// # Errors
    /// `Trimmed` if they are gone.
    pub(crate) fn scan_shown(
        &self,
        filter: &Filter,
        position: &mut Position,
        end: Position,
        visit: &mut dyn FnMut(&Visited<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut visit_shown = |visited: &Visited<'_>| match filter.shows_record(&visited.frame) {
            true => visit(visited),
            false => Ok(true),
        };
        match filter {
            Filter::Port(key) if !key.is_empty() => {
                self.select(&ListId::of_port(key), position, end, &mut visit_shown)
            }
            _ => self.scan(position, end.sequence, &mut visit_shown),
        }
    }

    /// Gives the frames that any of the lists names, and perhaps others, behind `position` up to `end`, which is durable.
    ///
    /// # Errors
    /// `Trimmed` if they are gone.
    pub(crate) fn select(
        &self,
        lists: &[ListId],
        position: &mut Position,
        end: Position,
        visit: &mut dyn FnMut(&Visited<'_>) -> Result<bool>,
    ) -> Result<()> {
        if end.sequence <= position.sequence + SCANNED_FRAMES {
            return self.scan(position, end.sequence, visit);
        }
        let mut steps = Vec::new();
        while position.sequence < end.sequence {
            let (segment, next) = self.segment_and_next(position.sequence + 1);
            let first = segment.header.first_sequence;
            if first > position.sequence + 1 {
                let (asked, oldest) = (position.sequence + 1, first);
                return Err(Error::Trimmed { asked, oldest });
            }
            let behind = next.as_deref().map(Position::at_beginning);
            let sealed = behind.map(|behind| segment.binding(behind));
            let stop = behind
                .filter(|behind| behind.sequence <= end.sequence)
                .unwrap_or(end);
            let from = match position.segment == first {
                true => position.offset,
                false => SEGMENT_HEADER_BYTES as u64,
            };
            let to = if stop.segment == first {
                stop.offset
            } else {
                u64::MAX
            };
            let last = stop.sequence;
            self.find(&segment, sealed, lists, from..to, last, &mut steps)?;
            if steps.is_empty() {
                *position = stop;
                continue;
            }
            let map = segment.map()?;
            for step in steps.drain(..) {
                let offset = offset_of(step);
                let visited = segment.visit(&map, offset as u64, position.sequence + 1..=last)?;
                let frame = visited.frame;
                *position = Position {
                    sequence: frame.meta.sequence - 1,
                    checksum: frame.chain.previous,
                    segment: first,
                    offset: offset as u64,
                };
                if !visit(&visited)? {
                    return Ok(());
                }
                *position = Position {
                    sequence: frame.meta.sequence,
                    checksum: frame.checksum,
                    segment: first,
                    offset: (offset + frame.bytes()) as u64,
                };
            }
            *position = stop;
        }
        Ok(())
    }

    /// Makes the sidecars of sealed segments that have none, so that nobody has to wait for them.
    pub(crate) fn make_sidecars(&self) -> Result<()> {
        let segments = self.segments();
        for pair in segments.windows(2) {
            let [segment, next] = pair else { break };
            let binding = segment.binding(Position::at_beginning(next));
            let mut indexed = lock(&segment.indexed);
            if let Indexed::Growing(..) = *indexed {
                self.seal(segment, &binding, &mut indexed)?;
            }
        }
        Ok(())
    }

    /// The segment that holds this sequence number, or would hold it next, and the one behind it.
    fn segment_and_next(&self, sequence: u64) -> (Arc<Segment>, Option<Arc<Segment>>) {
        let segments = lock(&self.segments);
        let later = segments.partition_point(|segment| segment.header.first_sequence <= sequence);
        let segment = Arc::clone(&segments[later.saturating_sub(1)]);
        (segment, segments.get(later.max(1)).cloned())
    }

    /// Finds the frames within the range that the lists name, each once and in order. All frames up to `last` are durable.
    fn find(
        &self,
        segment: &Segment,
        sealed: Option<Binding>,
        lists: &[ListId],
        range: Range<u64>,
        last: u64,
        steps: &mut Vec<u32>,
    ) -> Result<()> {
        let mut indexed = lock(&segment.indexed);
        if let (Some(binding), Indexed::Growing(..)) = (&sealed, &*indexed) {
            self.seal(segment, binding, &mut indexed)?;
        }
        if let Indexed::Growing(index, mark) = &mut *indexed {
            grow(segment, index, mark, last)?;
        }
        let mut found = Found::within(range, steps);
        if let (Indexed::Sealed(sidecar), Some(binding)) = (&*indexed, &sealed) {
            match found.collect(sidecar, lists) {
                Ok(()) => {
                    found.sort();
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "a sidecar is damaged: made again"),
            }
            found.steps.clear();
            self.build(segment, binding, &mut indexed)?;
        }
        match &*indexed {
            Indexed::Growing(index, _) | Indexed::Built(index) => {
                for list in lists {
                    found.take(index.list(*list));
                }
            }
            Indexed::Sealed(sidecar) => found.collect(sidecar, lists)?,
        }
        found.sort();
        Ok(())
    }

    /// Goes over to the sidecar, if it is whole.
    fn seal(&self, segment: &Segment, binding: &Binding, indexed: &mut Indexed) -> Result<()> {
        let Sidecars { env, layout, .. } = &self.sidecars;
        match Sidecar::open(&**env, &layout.sidecar(binding.first_sequence), binding) {
            Ok(Some(sidecar)) => {
                *indexed = Indexed::Sealed(sidecar);
                return Ok(());
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a sidecar cannot be used: made again"),
        }
        self.build(segment, binding, indexed)
    }

    /// Makes the index of a sealed segment from its frames, and its sidecar if that can be made.
    fn build(&self, segment: &Segment, binding: &Binding, indexed: &mut Indexed) -> Result<()> {
        if !matches!(indexed, Indexed::Growing(..)) {
            *indexed = Indexed::new(segment.first_mark());
        }
        let Indexed::Growing(index, mark) = indexed else {
            return Ok(());
        };
        grow(segment, index, mark, binding.last_sequence)?;
        let Sidecars {
            env,
            layout,
            are_made,
        } = &self.sidecars;
        let made = are_made.then(|| {
            let path = layout.sidecar(binding.first_sequence);
            Sidecar::write(&**env, &path, binding, index)?;
            Sidecar::open(&**env, &path, binding)
        });
        *indexed = match made.transpose() {
            Ok(Some(Some(sidecar))) => Indexed::Sealed(sidecar),
            made => {
                if let Err(error) = made {
                    tracing::warn!(%error, "a sidecar could not be made: the index stays in memory");
                }
                Indexed::Built(std::mem::take(index))
            }
        };
        Ok(())
    }
}

/// Adds the frames up to this sequence number, which are durable.
fn grow(segment: &Segment, index: &mut Index, mark: &mut Mark, last: u64) -> Result<()> {
    if mark.sequence > last {
        return Ok(());
    }
    let map = segment.map()?;
    while mark.sequence <= last {
        let visited = segment.visit(&map, mark.offset, mark.sequence..=mark.sequence)?;
        index.add(visited.offset, &visited.frame);
        mark.sequence += 1;
        mark.offset += visited.frame.bytes() as u64;
    }
    Ok(())
}

/// Places of frames that several lists name.
struct Found<'a> {
    range: Range<u32>,
    steps: &'a mut Vec<u32>,
}

impl<'a> Found<'a> {
    fn within(range: Range<u64>, steps: &'a mut Vec<u32>) -> Found<'a> {
        steps.clear();
        Found {
            range: step_of(range.start)..step_of(range.end),
            steps,
        }
    }

    fn take(&mut self, list: &[u32]) {
        let begin = list.partition_point(|step| *step < self.range.start);
        let within = list[begin..].iter().take_while(|step| **step < self.range.end);
        self.steps.extend(within);
    }

    fn collect(&mut self, sidecar: &Sidecar, lists: &[ListId]) -> Result<()> {
        for list in lists {
            let steps = sidecar.list(*list)?;
            self.steps.extend(steps.filter(|step| self.range.contains(step)));
        }
        Ok(())
    }

    fn sort(&mut self) {
        self.steps.sort_unstable();
        self.steps.dedup();
    }
}
