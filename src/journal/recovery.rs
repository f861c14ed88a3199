//! Recovery: reads the journal from its first frame to its last, decides what its end means, and makes it whole.
//!
//! Nothing is published before it is durable: after an unclean close, the frames that nothing vouches for may stand
//! in the page cache only, or in pages that a failed sync has marked clean, and are written again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decision::{Next, Rest, Verdict, Vouched, decide};
use super::frame::{ALIGNMENT, FRAME_HEADER_BYTES, Frame};
use super::segment::{Mark, SEGMENT_BLOCK_BYTES, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, write_zeroes};
use crate::env::{Env, File};
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::format;
use crate::identity::Identity;
use crate::layout::Layout;
use crate::model::RecordView;

/// Somebody's word that a record is durable. A lower bound: there may be more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voucher {
    /// The file that says so.
    pub(crate) by: PathBuf,
    pub(crate) epoch: Epoch,
    pub(crate) sequence: u64,
    /// The checksum of that record's frame.
    pub(crate) checksum: u32,
}

/// The end of a journal that was cut when the store was opened: bytes of commits that were never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: PathBuf,
    /// The offset of the first byte that was cut.
    pub offset: u64,
    /// The number of bytes up to the last one that was not zero.
    pub bytes: u64,
}

/// Where the last frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) sequence: u64,
    pub(crate) checksum: u32,
    /// Offset in the last segment.
    pub(crate) offset: u64,
    /// Length of the last segment's zero-filled file, as far as it is known to be durable.
    pub(crate) allocated: u64,
}

pub(crate) struct Recovered {
    /// In order; never empty.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) end: End,
    pub(crate) torn_tail: Option<TornTail>,
}

/// What recovery needs to know beside the segments.
pub(crate) struct Recovery<'a> {
    pub(crate) env: &'a dyn Env,
    pub(crate) layout: &'a Layout,
    pub(crate) identity: &'a Identity,
    /// In any order.
    pub(crate) vouchers: Vec<Voucher>,
    /// The voucher that was written by a clean close, if one was.
    pub(crate) clean_close: Option<Voucher>,
    /// The last record that need not be replayed. Segments that end before it are opened, and not read.
    pub(crate) start: u64,
}

/// What the journal has of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its frame's checksum; also of the last record before the journal's first.
    Checksum(u32),
    /// The journal begins behind it.
    Before,
    /// The journal ends before it.
    Behind,
}

/// How far the walk has come.
struct Walk {
    sequence: u64,
    checksum: u32,
    /// The highest sequence number that anything says was durable.
    promised: u64,
}

impl Recovery<'_> {
    /// Where the journal has this record.
    pub(crate) fn find(&self, sequence: u64) -> Result<Found> {
        let firsts = self.list_segments()?;
        if firsts.first().is_none_or(|first| sequence + 1 < *first) {
            return Ok(Found::Before);
        }
        let index = segment_of(&firsts, sequence).unwrap_or(0);
        let (segment, bytes) = self.open_segment(firsts[index])?;
        let mut walk = Walk {
            sequence: firsts[index] - 1,
            checksum: segment.header.previous,
            promised: 0,
        };
        let mut checksum = (walk.sequence == sequence).then_some(walk.checksum);
        self.walk_segment(&segment, &bytes, &mut walk, &mut |frame, _, _| {
            if frame.meta.sequence == sequence {
                checksum = Some(frame.checksum);
            }
        })?;
        Ok(checksum.map_or(Found::Behind, Found::Checksum))
    }

    /// Recovers the journal; `replay` is given every record behind the start in order, with the bytes read so far.
    pub(crate) fn run(
        mut self,
        replay: &mut dyn FnMut(&Frame<'_>, RecordView<'_>, u64),
    ) -> Result<Recovered> {
        self.sort_vouchers();
        let firsts = self.list_segments()?;
        let mut segments = Vec::with_capacity(firsts.len());
        let begin = segment_of(&firsts, self.start).unwrap_or(0);
        let mut walk = Walk {
            sequence: self.identity.trim_base - 1,
            checksum: 0,
            promised: self.promised_by_vouchers(),
        };
        let mut bytes_before = 0;
        for first in &firsts[..begin] {
            let (segment, bytes) = self.open_sealed(*first)?;
            segments.push(Arc::new(segment));
            bytes_before += bytes;
        }
        for (index, first) in firsts.iter().enumerate().skip(begin) {
            let (segment, bytes) = self.open_segment(*first)?;
            if index == begin {
                (walk.sequence, walk.checksum) = (first - 1, segment.header.previous);
            }
            walk.promised = walk.promised.max(first - 1);
            let offset = self.walk_segment(&segment, &bytes, &mut walk, &mut |frame, record, at| {
                if frame.meta.sequence > self.start {
                    replay(frame, record, bytes_before + at);
                }
            })?;
            bytes_before += bytes.len() as u64;
            let next = match firsts.get(index + 1) {
                None => Next::None,
                Some(first) => self.compare_next(*first, &walk)?,
            };
            let rest = match next {
                Next::None => classify_rest(&segment, &bytes, offset, walk.sequence, walk.checksum),
                _ => Rest::Zeroes,
            };
            let missing = self
                .vouchers
                .last()
                .filter(|voucher| voucher.sequence > walk.sequence);
            let vouched = missing.map_or(Vouched::Reached, |_| Vouched::Missing);
            let verdict = decide(rest, next, vouched);
            segment.mark_stable(offset as u64);
            segment.mark_sound(offset as u64);
            segments.push(Arc::new(segment));
            match verdict {
                Verdict::Sealed => {}
                Verdict::End => return self.finish(segments, &bytes, offset, &walk, false),
                Verdict::TornTail => return self.finish(segments, &bytes, offset, &walk, true),
                Verdict::Damage => {
                    let path = self.layout.segment(*first);
                    let expected = format!("the record {}", walk.sequence + 1);
                    let found = self.describe_gap(rest, firsts.get(index + 1), missing);
                    return Err(Error::damaged(&path, offset as u64, expected, found));
                }
            }
        }
        let journal = self.layout.journal();
        Err(Error::damaged(&journal, 0, "a segment", "none"))
    }

    /// Leaves the vouchers that say something of this history, in order.
    pub(super) fn sort_vouchers(&mut self) {
        self.vouchers.extend(self.clean_close.clone());
        self.vouchers.retain(|voucher| {
            self.identity.epoch_of(voucher.sequence) == voucher.epoch && voucher.sequence > 0
        });
        self.vouchers.sort_by_key(|voucher| voucher.sequence);
    }

    fn promised_by_vouchers(&self) -> u64 {
        self.vouchers.last().map_or(0, |voucher| voucher.sequence)
    }

    fn list_segments(&self) -> Result<Vec<u64>> {
        let firsts = self.find_segments()?;
        match firsts.first() {
            Some(first) if *first > self.identity.trim_base => Err(self.first_is_missing(*first)),
            _ => Ok(firsts),
        }
    }

    pub(super) fn first_is_missing(&self, first: u64) -> Error {
        let missing = self.layout.segment(self.identity.trim_base);
        let found = format!("the journal begins with the record {first}");
        Error::damaged(&missing, 0, "the journal's first segment", found)
    }

    /// The first sequence numbers of the segments that are there.
    pub(super) fn find_segments(&self) -> Result<Vec<u64>> {
        let journal = self.layout.journal();
        let names = self.env.list_dir(&journal).context("list", &journal)?;
        let mut firsts = Vec::with_capacity(names.len());
        for name in &names {
            match Layout::parse_segment(name) {
                Some(first) => firsts.push(first),
                None if Layout::parse_sidecar(name).is_some() => {}
                None if self.layout.next_segment().file_name() == Some(name) => {}
                None => tracing::warn!(?name, "passed over a file that is no segment"),
            }
        }
        // What stands before was trimmed, and may come back in part after a crash.
        firsts.retain(|first| *first >= self.identity.trim_base);
        firsts.sort_unstable();
        Ok(firsts)
    }

    pub(super) fn open_segment(&self, first: u64) -> Result<(Segment, Vec<u8>)> {
        let path = self.layout.segment(first);
        let file = self.env.open_file(&path).context("open", &path)?;
        let bytes = format::read_whole(&*file, &path, u64::MAX)?;
        Ok((self.check_header(first, path, file, &bytes)?, bytes))
    }

    /// A segment that is not read: all of it is as durable as it will ever be. Gives its length too.
    fn open_sealed(&self, first: u64) -> Result<(Segment, u64)> {
        let path = self.layout.segment(first);
        let file = self.env.open_file(&path).context("open", &path)?;
        let header = read_header(&*file, &path)?;
        let length = file.length().context("read the length of", &path)?;
        let segment = self.check_header(first, path, file, &header)?;
        segment.mark_stable(length);
        Ok((segment, length))
    }

    fn check_header(&self, first: u64, path: PathBuf, file: Arc<dyn File>, bytes: &[u8]) -> Result<Segment> {
        let header = SegmentHeader::decode(bytes, &path)?;
        if header.first_sequence != first {
            let found = format!("{}", header.first_sequence);
            return Err(Error::damaged(
                &path,
                0,
                format!("first sequence number {first}"),
                found,
            ));
        }
        let epoch = self.identity.epoch_of(first);
        if header.epoch != epoch {
            let found = format!("epoch {}", header.epoch);
            return Err(Error::damaged(&path, 0, format!("epoch {epoch}"), found));
        }
        Ok(Segment::new(path, header, file))
    }

    /// Walks the frames that follow each other, and gives the offset behind the last.
    fn walk_segment(
        &self,
        segment: &Segment,
        bytes: &[u8],
        walk: &mut Walk,
        replay: &mut dyn FnMut(&Frame<'_>, RecordView<'_>, u64),
    ) -> Result<usize> {
        let mut offset = SEGMENT_HEADER_BYTES;
        while let Some(frame) = Frame::at(bytes, offset, &segment.salt) {
            let sequence = walk.sequence + 1;
            if frame.meta.sequence != sequence || frame.chain.previous != walk.checksum {
                break;
            }
            let record = RecordView::verify(frame.payload).map_err(|malformed| {
                let at = offset + FRAME_HEADER_BYTES + malformed.offset;
                Error::damaged(&segment.path, at as u64, malformed.expected, "other bytes")
            })?;
            self.check_vouchers(segment, offset, &frame)?;
            segment.remember(Mark {
                sequence,
                offset: offset as u64,
            });
            walk.sequence = sequence;
            walk.checksum = frame.checksum;
            walk.promised = walk.promised.max(frame.chain.durable_before);
            replay(&frame, record, offset as u64);
            offset += frame.bytes();
        }
        Ok(offset)
    }

    /// A voucher for a record of this number and another content: one of them is from another history.
    pub(super) fn check_vouchers(&self, segment: &Segment, offset: usize, frame: &Frame<'_>) -> Result<()> {
        // Sorted, and found by halving: there may be ten thousand ports, and a million frames.
        let sequence = frame.meta.sequence;
        let first = self
            .vouchers
            .partition_point(|voucher| voucher.sequence < sequence);
        for voucher in self.vouchers[first..]
            .iter()
            .take_while(|voucher| voucher.sequence == sequence)
        {
            if voucher.checksum != frame.checksum {
                let expected = format!(
                    "the record {} with the checksum {:#010x}, for which {} vouches",
                    voucher.sequence,
                    voucher.checksum,
                    voucher.by.display()
                );
                let found = format!("{:#010x}", frame.checksum);
                return Err(Error::damaged(&segment.path, offset as u64, expected, found));
            }
        }
        Ok(())
    }

    fn compare_next(&self, first: u64, walk: &Walk) -> Result<Next> {
        if first != walk.sequence + 1 {
            return Ok(Next::BeginsElsewhere);
        }
        let path = self.layout.segment(first);
        let file = self.env.open_file(&path).context("open", &path)?;
        let header = SegmentHeader::decode(&read_header(&*file, &path)?, &path)?;
        Ok(if header.previous == walk.checksum {
            Next::GoesOn
        } else {
            Next::BeginsElsewhere
        })
    }

    fn describe_gap(&self, rest: Rest, next: Option<&u64>, missing: Option<&Voucher>) -> String {
        match (next, missing) {
            (Some(next), _) => {
                let path = self.layout.segment(*next);
                format!("no valid frame that {} could follow", path.display())
            }
            (None, Some(voucher)) => format!(
                "no valid frame, while {} vouches for the record {}",
                voucher.by.display(),
                voucher.sequence
            ),
            (None, None) if rest == Rest::PromisedFrame => {
                "no valid frame, while a later frame says that it was durable".into()
            }
            (None, None) if rest == Rest::CutFile => "the end of a file that was longer".into(),
            (None, None) => "no valid frame".into(),
        }
    }

    /// Makes the end of the journal whole and durable.
    fn finish(
        &self,
        segments: Vec<Arc<Segment>>,
        bytes: &[u8],
        offset: usize,
        walk: &Walk,
        is_torn: bool,
    ) -> Result<Recovered> {
        let segment = &segments[segments.len() - 1];
        let mut allocated = bytes.len() as u64;
        let mut torn_tail = None;
        let was_closed = self
            .clean_close
            .as_ref()
            .is_some_and(|close| (close.sequence, close.checksum) == (walk.sequence, walk.checksum));
        if is_torn {
            // Crash here, and the tail is partly zero: still torn, still nobody's; it is cut again.
            write_zeroes(&*segment.file, offset as u64, allocated)
                .context("cut the torn tail of", &segment.path)?;
            let tail = &bytes[offset..];
            let used = tail
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            tracing::warn!(segment = %segment.path.display(), offset, bytes = used, "cut a torn tail");
            torn_tail = Some(TornTail {
                segment: segment.path.clone(),
                offset: offset as u64,
                bytes: used as u64,
            });
        }
        if !was_closed {
            let from = offset_of(segment, bytes, walk.promised + 1)
                .unwrap_or(offset)
                .min(offset);
            segment
                .file
                .write_at(&bytes[from..offset], from as u64)
                .context("write again", &segment.path)?;
        }
        if is_torn || !was_closed {
            segment.file.sync().context("sync", &segment.path)?;
            let journal = self.layout.journal();
            self.env.sync_dir(&journal).context("sync the folder", &journal)?;
        }
        if !was_closed && !is_torn {
            // Nobody knows whether the zeroes behind the end were synced: they are made anew before they are used.
            allocated = offset as u64;
        }
        let end = End {
            sequence: walk.sequence,
            checksum: walk.checksum,
            offset: offset as u64,
            allocated,
        };
        Ok(Recovered {
            segments,
            end,
            torn_tail,
        })
    }
}

/// The segment that holds this record, of those that begin with these.
fn segment_of(firsts: &[u64], sequence: u64) -> Option<usize> {
    let later = firsts.partition_point(|first| *first <= sequence.max(1));
    later.checked_sub(1)
}

/// The bytes of a segment's header, or as many of them as there are.
fn read_header(file: &dyn File, path: &Path) -> Result<Vec<u8>> {
    let length = file.length().context("read the length of", path)?;
    let mut header = vec![0; (SEGMENT_HEADER_BYTES as u64).min(length) as usize];
    file.read_at(&mut header, 0).context("read", path)?;
    Ok(header)
}

/// What stands behind the last frame.
pub(super) fn classify_rest(
    segment: &Segment,
    bytes: &[u8],
    offset: usize,
    sequence: u64,
    checksum: u32,
) -> Rest {
    let missing = sequence + 1;
    let tail = bytes.get(offset..).unwrap_or_default();
    if ends_too_early(bytes, offset) || Frame::is_cut_short(bytes, offset, missing, checksum) {
        return Rest::CutFile;
    }
    if tail.iter().all(|byte| *byte == 0) {
        return Rest::Zeroes;
    }
    let frames = (offset..bytes.len())
        .step_by(ALIGNMENT)
        .filter_map(|at| Frame::at(bytes, at, &segment.salt));
    let mut rest = Rest::Garbage;
    for frame in frames {
        if frame.chain.durable_before >= missing {
            return Rest::PromisedFrame;
        }
        rest = Rest::UnpromisedFrame;
    }
    rest
}

/// Files are made of whole blocks of zeroes before a frame stands in them. What is left of a block at the end comes from
/// making the file longer, which did not succeed, and is zero: unless the file was cut.
fn ends_too_early(bytes: &[u8], offset: usize) -> bool {
    let whole = bytes.len() - bytes.len() % SEGMENT_BLOCK_BYTES;
    whole < bytes.len() && (offset > whole || bytes[whole..].iter().any(|byte| *byte != 0))
}

/// The offset of a frame that the walk has seen in this segment, or of the first one behind it.
fn offset_of(segment: &Segment, bytes: &[u8], sequence: u64) -> Option<usize> {
    let mut at = segment.mark_before(sequence).offset as usize;
    loop {
        let frame = Frame::at(bytes, at, &segment.salt)?;
        if frame.meta.sequence >= sequence {
            return Some(at);
        }
        at += frame.bytes();
    }
}
