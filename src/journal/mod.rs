//! The journal: every commit, in order, as frames in segments. It is the truth; all else can be made from it.

mod ahead;
mod decision;
mod filter;
mod follow;
mod frame;
mod head;
mod index;
mod recovery;
mod segment;
mod select;
mod sidecar;
mod survey;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub(crate) use filter::{Filter, is_deletion};
pub(crate) use follow::replay;
pub(crate) use frame::{FRAME_HEADER_BYTES, Frame, FrameKind, RecordMeta};
pub(crate) use head::{FollowedHead, Head, HeadFields, HeadState, read_head};
pub(crate) use index::{ListId, Lists};
pub use recovery::TornTail;
pub(crate) use recovery::{Found, Recovered, Recovery, Voucher};
pub(crate) use segment::{SEGMENT_BLOCK_BYTES, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};

use crate::env::{Env, Map};
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::model::RecordView;
use crate::sync::{Mutex, lock};
use ahead::Ahead;
use frame::{Chain, append_frame, frame_bytes};
use recovery::End;
use segment::Mark;
use select::Sidecars;
pub(crate) use survey::Survey;

/// A new segment's file is this long at first, and is made twice as long whenever it is full.
const FIRST_ALLOCATION_BYTES: u64 = 1 << 20;

/// Who has appended no more does not make a segment ahead of need.
const AHEAD_BYTES: u64 = 1 << 20;

/// A place between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The sequence number of the frame before; 0 at the very beginning.
    pub(crate) sequence: u64,
    /// Its checksum.
    pub(crate) checksum: u32,
    /// The first sequence number of its segment, and the offset behind it.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl Position {
    /// The place before the first frame of a segment.
    pub(crate) fn at_beginning(segment: &Segment) -> Position {
        Position {
            sequence: segment.header.first_sequence - 1,
            checksum: segment.header.previous,
            segment: segment.header.first_sequence,
            offset: SEGMENT_HEADER_BYTES as u64,
        }
    }
}

/// The segments, for all who read them.
#[derive(Debug)]
pub(crate) struct Journal {
    /// In order; never empty.
    segments: Mutex<Vec<Arc<Segment>>>,
    sidecars: Sidecars,
}

/// A verified record of the journal, and where its frame is mapped.
pub(crate) struct Visited<'a> {
    pub(crate) map: &'a Arc<Map>,
    /// In the map, as in the file.
    pub(crate) offset: usize,
    pub(crate) path: &'a Path,
    pub(crate) frame: Frame<'a>,
    pub(crate) record: RecordView<'a>,
}

/// A record on its way into the journal.
pub(crate) struct Pending<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) request_id: [u8; 16],
    pub(crate) payload: &'a [u8],
}

/// The one who appends.
#[derive(Debug)]
pub(crate) struct Writer {
    env: Arc<dyn Env>,
    layout: Layout,
    journal: Arc<Journal>,
    segment: Arc<Segment>,
    segment_size_bytes: u64,
    end: End,
    group: Vec<u8>,
    /// In this life.
    appended_bytes: u64,
    /// The next segment's file.
    ahead: Option<Ahead>,
}

/// Why a group was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing has happened.
    Refused(Error),
    /// Nobody knows what is on the disk.
    Failed(Error),
}

impl Journal {
    /// A journal as recovery left it, and who appends to it.
    pub(crate) fn open(
        env: &Arc<dyn Env>,
        layout: &Layout,
        recovered: Recovered,
        segment_size_bytes: u64,
    ) -> (Arc<Journal>, Writer) {
        let segment = Arc::clone(&recovered.segments[recovered.segments.len() - 1]);
        let journal = Arc::new(Journal {
            segments: Mutex::new(recovered.segments),
            sidecars: Sidecars {
                env: Arc::clone(env),
                layout: layout.clone(),
                are_made: true,
            },
        });
        let writer = Writer {
            env: Arc::clone(env),
            layout: layout.clone(),
            journal: Arc::clone(&journal),
            segment,
            segment_size_bytes,
            end: recovered.end,
            group: Vec::new(),
            appended_bytes: 0,
            ahead: None,
        };
        (journal, writer)
    }

    /// The first sequence number that can be read.
    pub(crate) fn first_sequence(&self) -> u64 {
        lock(&self.segments)[0].header.first_sequence
    }

    /// All segments, in order.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).clone()
    }

    /// Gives up the segments before the one that begins with this sequence number. Views of them stay valid.
    pub(crate) fn forget_before(&self, first_sequence: u64) -> Vec<Arc<Segment>> {
        let mut segments = lock(&self.segments);
        let kept = segments.partition_point(|segment| segment.header.first_sequence < first_sequence);
        // Never the last: the journal goes on in it.
        let kept = kept.min(segments.len() - 1);
        segments.drain(..kept).collect()
    }

    /// The number of segments and the bytes of their files.
    pub(crate) fn size(&self) -> Result<(u64, u64)> {
        let segments = lock(&self.segments).clone();
        let mut bytes = 0;
        for segment in &segments {
            bytes += segment
                .file
                .length()
                .context("read the length of", &segment.path)?;
        }
        Ok((segments.len() as u64, bytes))
    }

    /// Bytes of the journal between two positions, of which the second is not the earlier.
    pub(crate) fn bytes_between(&self, from: Position, to: Position) -> Result<u64> {
        if from.segment == to.segment {
            return Ok(to.offset - from.offset);
        }
        let segments = lock(&self.segments).clone();
        let mut bytes = 0;
        for segment in &segments {
            let first = segment.header.first_sequence;
            if (from.segment..to.segment).contains(&first) {
                let length = segment.file.length();
                bytes += length.context("read the length of", &segment.path)?;
            }
        }
        Ok((bytes + to.offset).saturating_sub(from.offset))
    }

    /// Bytes of the files of the segment that holds this sequence number, and of all behind it.
    pub(crate) fn bytes_from(&self, sequence: u64) -> Result<u64> {
        let (first, _) = self.segment_of(sequence);
        let mut bytes = 0;
        for segment in self.segments() {
            if segment.header.first_sequence >= first.header.first_sequence {
                let length = segment.file.length();
                bytes += length.context("read the length of", &segment.path)?;
            }
        }
        Ok(bytes)
    }

    /// The segment that holds this sequence number (or would hold it next), and the first number behind it.
    fn segment_of(&self, sequence: u64) -> (Arc<Segment>, u64) {
        let segments = lock(&self.segments);
        let later = segments.partition_point(|segment| segment.header.first_sequence <= sequence);
        let end = segments
            .get(later)
            .map_or(u64::MAX, |next| next.header.first_sequence);
        (Arc::clone(&segments[later.saturating_sub(1)]), end)
    }

    /// The place behind the frame with this sequence number, which is durable; or the beginning of the journal, if it begins behind
    /// that.
    pub(crate) fn position_after(&self, sequence: u64) -> Result<Position> {
        let (segment, _) = self.segment_of(sequence);
        let first = segment.header.first_sequence;
        if sequence < first {
            return Ok(Position::at_beginning(&segment));
        }
        let map = segment.map()?;
        let bytes = map.get(0..map.stable_bytes()).unwrap_or_default();
        let Mark {
            sequence: mut at,
            mut offset,
        } = segment.mark_before(sequence);
        loop {
            let frame = segment.frame(bytes, offset, at)?;
            offset += frame.bytes() as u64;
            if at == sequence {
                return Ok(Position {
                    sequence,
                    checksum: frame.checksum,
                    segment: segment.header.first_sequence,
                    offset,
                });
            }
            at += 1;
        }
    }

    /// Reads the records behind `position` up to the sequence number `last`, which is durable, each verified, and
    /// moves the position along. When `visit` gives false, the reading ends before that record.
    ///
    /// # Errors
    /// `Trimmed` if they are gone.
    pub(crate) fn scan(
        &self,
        position: &mut Position,
        last: u64,
        visit: &mut dyn FnMut(&Visited<'_>) -> Result<bool>,
    ) -> Result<()> {
        while position.sequence < last {
            let (segment, end) = self.segment_of(position.sequence + 1);
            if segment.header.first_sequence > position.sequence + 1 {
                let (asked, oldest) = (position.sequence + 1, segment.header.first_sequence);
                return Err(Error::Trimmed { asked, oldest });
            }
            if segment.header.first_sequence != position.segment {
                position.segment = segment.header.first_sequence;
                position.offset = SEGMENT_HEADER_BYTES as u64;
            }
            let map = segment.map()?;
            while position.sequence < last && position.sequence + 1 < end {
                let next = position.sequence + 1;
                let visited = segment.visit(&map, position.offset, next..=next)?;
                if !visit(&visited)? {
                    return Ok(());
                }
                position.sequence = next;
                position.checksum = visited.frame.checksum;
                position.offset += visited.frame.bytes() as u64;
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Where the journal ends.
    pub(crate) fn position(&self) -> Position {
        Position {
            sequence: self.end.sequence,
            checksum: self.end.checksum,
            segment: self.segment.header.first_sequence,
            offset: self.end.offset,
        }
    }

    /// Appends the records as one group, with one write and one sync. They are durable when it returns.
    pub(crate) fn append(&mut self, records: &[Pending<'_>], time: i64) -> Result<(), AppendError> {
        let bytes: usize = records
            .iter()
            .map(|record| frame_bytes(record.payload.len()))
            .sum();
        self.reserve(bytes as u64)?;
        let (mut end, durable_before) = (self.end, self.end.sequence);
        self.group.clear();
        for record in records {
            end.sequence += 1;
            self.segment.remember(Mark {
                sequence: end.sequence,
                offset: self.end.offset + self.group.len() as u64,
            });
            let meta = RecordMeta {
                kind: record.kind,
                sequence: end.sequence,
                time,
                request_id: record.request_id,
            };
            let chain = Chain {
                previous: end.checksum,
                durable_before,
            };
            let group = &mut self.group;
            end.checksum = append_frame(
                group,
                self.end.offset,
                &self.segment.salt,
                &meta,
                chain,
                record.payload,
            );
        }
        end.offset += self.group.len() as u64;
        let Segment { file, path, .. } = &*self.segment;
        let written = file.write_at(&self.group, self.end.offset);
        written.context("append to", path).map_err(AppendError::Failed)?;
        file.sync().context("sync", path).map_err(AppendError::Failed)?;
        self.end = end;
        self.segment.mark_stable(end.offset);
        self.segment.mark_sound(end.offset);
        self.appended_bytes += bytes as u64;
        // A group of unusual size does not keep its memory.
        self.group.shrink_to(FIRST_ALLOCATION_BYTES as usize);
        self.begin_ahead();
        Ok(())
    }

    /// Has the next segment's file made once this one is half full, and who writes has written much: who opens the store for one commit
    /// does not wait for it. A small one is quickly made when it is needed.
    fn begin_ahead(&mut self) {
        let is_half_full = self.end.offset > self.segment_size_bytes / 2;
        let is_busy = self.appended_bytes >= AHEAD_BYTES;
        if self.ahead.is_none() && is_half_full && is_busy && self.segment_size_bytes > FIRST_ALLOCATION_BYTES
        {
            self.ahead = Some(Ahead::begin(&self.env, &self.layout, self.segment_size_bytes));
        }
    }

    /// Ends what is made ahead of need: nothing is written to the store's folder any more.
    pub(crate) fn stop(&mut self) {
        self.ahead = None;
    }

    /// Makes room for a group: zeroes that are durable before anything is written over them, so that a full disk is
    /// met here, where nothing is lost yet.
    fn reserve(&mut self, bytes: u64) -> Result<(), AppendError> {
        let end = self.end.offset + bytes;
        let is_empty = self.end.offset == SEGMENT_HEADER_BYTES as u64;
        if end > self.segment_size_bytes && !is_empty {
            return self.rotate(bytes);
        }
        if end <= self.end.allocated {
            return Ok(());
        }
        let ahead = (self.end.allocated * 2)
            .max(FIRST_ALLOCATION_BYTES)
            .min(self.segment_size_bytes);
        let needed = end.next_multiple_of(4096);
        let ahead = needed.max(ahead);
        let extend = |to| self.segment.extend(self.end.allocated, to).map(|()| to);
        let extended = extend(ahead).or_else(|error| match error.is_no_room() && needed < ahead {
            // What is needed now may fit all the same.
            true => extend(needed),
            false => Err(error),
        });
        self.end.allocated = extended.map_err(AppendError::Refused)?;
        Ok(())
    }

    /// Seals the segment and begins the next. All that was appended before is durable, so that the header of the
    /// new segment vouches for it.
    fn rotate(&mut self, bytes: u64) -> Result<(), AppendError> {
        let needed = (SEGMENT_HEADER_BYTES as u64 + bytes).next_multiple_of(4096);
        let header = new_segment_header(
            &*self.env,
            self.segment.header.epoch,
            self.end.sequence + 1,
            self.end.checksum,
        )
        .map_err(AppendError::Refused)?;
        let is_ready = self.ahead.as_ref().is_some_and(Ahead::is_ready) && needed <= self.segment_size_bytes;
        let ahead = self.ahead.take_if(|_| is_ready).and_then(Ahead::file);
        let adopted = ahead.map(|file| Segment::adopt(&*self.env, &self.layout, header, file));
        let (length, segment) = match adopted {
            Some(Ok(segment)) => (self.segment_size_bytes, Ok(segment)),
            Some(Err(error)) if !matches!(error, Error::Preallocation { .. }) => (0, Err(error)),
            failed => {
                if let Some(Err(error)) = failed {
                    tracing::warn!(%error, "what was made ahead of need cannot become a segment");
                }
                let length = FIRST_ALLOCATION_BYTES.min(self.segment_size_bytes).max(needed);
                let segment = Segment::create(&*self.env, &self.layout, header, length);
                (length, segment)
            }
        };
        let segment = Arc::new(segment.map_err(|error| match error {
            Error::Preallocation { .. } => AppendError::Refused(error),
            // Its name may be there: a record in the old segment would now contradict it.
            other => AppendError::Failed(other),
        })?);
        tracing::debug!(path = %segment.path.display(), "rotated");
        lock(&self.journal.segments).push(Arc::clone(&segment));
        self.segment = segment;
        self.end.offset = SEGMENT_HEADER_BYTES as u64;
        self.end.allocated = length;
        Ok(())
    }
}

/// The header of a segment that begins with this sequence number, with a nonce of its own.
pub(crate) fn new_segment_header(
    env: &dyn Env,
    epoch: crate::Epoch,
    first_sequence: u64,
    previous: u32,
) -> Result<SegmentHeader> {
    let mut nonce = [0; 16];
    env.fill_random(&mut nonce)
        .context("get random bytes for", Path::new("a segment"))?;
    Ok(SegmentHeader {
        epoch,
        nonce,
        first_sequence,
        created: env.now(),
        previous,
    })
}

/// Makes the first segment of a new store.
pub(crate) fn create_first_segment(
    env: &dyn Env,
    layout: &Layout,
    epoch: crate::Epoch,
    segment_size_bytes: u64,
) -> Result<()> {
    let header = new_segment_header(env, epoch, 1, 0)?;
    Segment::create(
        env,
        layout,
        header,
        FIRST_ALLOCATION_BYTES.min(segment_size_bytes),
    )?;
    Ok(())
}
