//! A segment: one file of the journal. A header, then frames, then zeroes.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::frame::{FRAME_HEADER_BYTES, Frame, Salt};
use super::select::Indexed;
use super::sidecar::Binding;
use super::{Position, Visited};
use crate::env::{Env, File, Map};
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::format::{self, PREAMBLE_BYTES, SEGMENT_MAGIC, get, get_u32, get_u64, put};
use crate::layout::{Layout, remove_if_there};
use crate::model::RecordView;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

const EPOCH: usize = PREAMBLE_BYTES;
const NONCE: usize = EPOCH + 16;
const FIRST_SEQUENCE: usize = NONCE + 16;
const CREATED: usize = FIRST_SEQUENCE + 8;
const PREVIOUS: usize = CREATED + 8;
const RESERVED: usize = PREVIOUS + 4;
const HEADER_CHECKSUM: usize = RESERVED + 56;
/// Bytes of a segment before its first frame.
pub(crate) const SEGMENT_HEADER_BYTES: usize = HEADER_CHECKSUM + 4;

/// The length of a segment's file is a multiple of this.
pub(crate) const SEGMENT_BLOCK_BYTES: usize = 4096;

/// Zeroes are written in pieces of this size.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
/// A segment remembers where a frame begins about this often, so that finding a record reads little.
const MARK_INTERVAL_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) epoch: Epoch,
    pub(crate) nonce: [u8; 16],
    /// The sequence number of the first frame.
    pub(crate) first_sequence: u64,
    pub(crate) created: i64,
    /// The checksum of the frame before the first; zero for the first of all.
    pub(crate) previous: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        format::put_preamble(&mut bytes, SEGMENT_MAGIC);
        put(&mut bytes, EPOCH, self.epoch.to_bytes());
        put(&mut bytes, NONCE, self.nonce);
        put(&mut bytes, FIRST_SEQUENCE, self.first_sequence.to_le_bytes());
        put(&mut bytes, CREATED, self.created.to_le_bytes());
        put(&mut bytes, PREVIOUS, self.previous.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..HEADER_CHECKSUM]);
        put(&mut bytes, HEADER_CHECKSUM, checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(segment: &[u8], path: &Path) -> Result<SegmentHeader> {
        format::check_preamble(segment, SEGMENT_MAGIC, path)?;
        let Some(bytes) = segment.get(..SEGMENT_HEADER_BYTES) else {
            let found = format!("{} bytes", segment.len());
            return Err(Error::damaged(path, 0, "a segment's header", found));
        };
        let stored = get_u32(bytes, HEADER_CHECKSUM);
        let covered = &bytes[..HEADER_CHECKSUM];
        format::check_checksum(
            covered,
            stored,
            path,
            HEADER_CHECKSUM as u64,
            "the header's checksum",
        )?;
        if bytes[RESERVED..HEADER_CHECKSUM].iter().any(|byte| *byte != 0) {
            let offset = RESERVED as u64;
            return Err(Error::damaged(path, offset, "reserved zeroes", "other bytes"));
        }
        Ok(SegmentHeader {
            epoch: Epoch::from_bytes(get(bytes, EPOCH)),
            nonce: get(bytes, NONCE),
            first_sequence: get_u64(bytes, FIRST_SEQUENCE),
            created: get_u64(bytes, CREATED).cast_signed(),
            previous: get_u32(bytes, PREVIOUS),
        })
    }
}

/// Where a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
}

/// An open segment. Shared by the writer and by all who read.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
    pub(crate) salt: Salt,
    /// Bytes from the start that are durable, and so will never change.
    stable_bytes: AtomicU64,
    map: Mutex<Option<Arc<Map>>>,
    /// Bytes from the start whose records this process has verified in the map.
    verified_bytes: std::sync::atomic::AtomicU64,
    /// Bytes from the start whose records this process has encoded, or decoded when it recovered the segment.
    sound_bytes: std::sync::atomic::AtomicU64,
    /// In order, the first frame first.
    marks: Mutex<Vec<Mark>>,
    /// Which frames touch what.
    pub(super) indexed: Mutex<Indexed>,
}

impl Segment {
    pub(crate) fn new(path: PathBuf, header: SegmentHeader, file: Arc<dyn File>) -> Segment {
        let first = Mark {
            sequence: header.first_sequence,
            offset: SEGMENT_HEADER_BYTES as u64,
        };
        Segment {
            path,
            salt: Salt::new(header.nonce),
            header,
            file,
            stable_bytes: AtomicU64::new(first.offset),
            map: Mutex::new(None),
            verified_bytes: std::sync::atomic::AtomicU64::new(first.offset),
            sound_bytes: std::sync::atomic::AtomicU64::new(first.offset),
            marks: Mutex::new(vec![first]),
            indexed: Mutex::new(Indexed::new(first)),
        }
    }

    /// The place of the first frame.
    pub(super) fn first_mark(&self) -> Mark {
        Mark {
            sequence: self.header.first_sequence,
            offset: SEGMENT_HEADER_BYTES as u64,
        }
    }

    /// What a sidecar is bound to, once the segment is sealed; `behind` is the place behind its last frame.
    pub(super) fn binding(&self, behind: Position) -> Binding {
        Binding {
            nonce: self.header.nonce,
            first_sequence: self.header.first_sequence,
            last_sequence: behind.sequence,
            last_checksum: behind.checksum,
        }
    }

    /// Makes a segment with its header and zeroes up to `length`, whole and durable under its name, or not at all.
    ///
    /// # Errors
    /// `Preallocation` if the file could not be made: nothing has happened then. Any other error came once its name
    /// may have been there, so that nobody knows whether it is.
    pub(crate) fn create(
        env: &dyn Env,
        layout: &Layout,
        header: SegmentHeader,
        length: u64,
    ) -> Result<Segment> {
        let aside = Layout::unfinished(&layout.segment(header.first_sequence));
        let file = Segment::write_unfinished(env, &aside, &header, length).map_err(|error| {
            // Best effort: what stays is removed when the store is opened.
            let _ = env.remove_file(&aside);
            preallocation(error)
        })?;
        Segment::name(env, layout, header, file, &aside)
    }

    /// Makes a segment of a file of durable zeroes that stands beside, as [`Segment::create`] does.
    ///
    /// # Errors
    /// Those of [`Segment::create`].
    pub(super) fn adopt(
        env: &dyn Env,
        layout: &Layout,
        header: SegmentHeader,
        file: Arc<dyn File>,
    ) -> Result<Segment> {
        let aside = layout.next_segment();
        file.write_at(&header.encode(), 0)
            .and_then(|()| file.sync())
            .context("write", &aside)
            .map_err(|error| {
                // Best effort, as above.
                let _ = env.remove_file(&aside);
                preallocation(error)
            })?;
        Segment::name(env, layout, header, file, &aside)
    }

    /// Gives a segment that is whole its name.
    fn name(
        env: &dyn Env,
        layout: &Layout,
        header: SegmentHeader,
        file: Arc<dyn File>,
        aside: &Path,
    ) -> Result<Segment> {
        let path = layout.segment(header.first_sequence);
        let renamed = env.rename(aside, &path);
        let is_gone = matches!(&renamed, Err(error) if error.kind() == std::io::ErrorKind::NotFound);
        // What is not there has got no name.
        let refused = |error| if is_gone { preallocation(error) } else { error };
        renamed.context("rename", aside).map_err(refused)?;
        let journal = layout.journal();
        env.sync_dir(&journal).context("sync the folder", &journal)?;
        Ok(Segment::new(path, header, file))
    }

    fn write_unfinished(
        env: &dyn Env,
        aside: &Path,
        header: &SegmentHeader,
        length: u64,
    ) -> Result<Arc<dyn File>> {
        remove_if_there(env, aside)?;
        let file = env.create_file(aside).context("create", aside)?;
        let header = header.encode();
        file.write_at(&header, 0).context("write", aside)?;
        write_zeroes(&*file, header.len() as u64, length).context("write zeroes to", aside)?;
        file.sync().context("sync", aside)?;
        Ok(file)
    }

    /// Makes the file longer by durable zeroes, from `from` (its length) up to `to`.
    ///
    /// # Errors
    /// `Preallocation`. The file may be longer then; what is behind `from` counts for nothing, and is written again
    /// by the next try.
    pub(crate) fn extend(&self, from: u64, to: u64) -> Result<()> {
        write_zeroes(&*self.file, from, to)
            .and_then(|()| self.file.sync())
            .context("extend", &self.path)
            .map_err(preallocation)
    }

    /// Says that all bytes before `offset` are durable.
    pub(crate) fn mark_stable(&self, offset: u64) {
        self.stable_bytes.fetch_max(offset, Ordering::Release);
    }

    /// Says that this process has encoded or decoded all records before `offset`: where the checksum is right, the structure is too.
    pub(super) fn mark_sound(&self, offset: u64) {
        self.sound_bytes.fetch_max(offset, Relaxed);
    }

    /// Remembers where a frame begins, if the last remembered one is far enough away.
    pub(crate) fn remember(&self, mark: Mark) {
        let mut marks = lock(&self.marks);
        if marks
            .last()
            .is_none_or(|last| mark.offset >= last.offset + MARK_INTERVAL_BYTES)
        {
            marks.push(mark);
        }
    }

    /// The remembered frame nearest before this sequence number, or at it.
    pub(crate) fn mark_before(&self, sequence: u64) -> Mark {
        let marks = lock(&self.marks);
        let later = marks.partition_point(|mark| mark.sequence <= sequence);
        marks[later.saturating_sub(1)]
    }

    /// A map of the file in which all durable bytes can be read.
    pub(crate) fn map(&self) -> Result<Arc<Map>> {
        let stable = self.stable_bytes.load(Ordering::Acquire);
        let stable = usize::try_from(stable).unwrap_or(usize::MAX);
        let mut current = lock(&self.map);
        if let Some(map) = current.as_ref().filter(|map| map.len() >= stable) {
            map.mark_stable(stable);
            return Ok(Arc::clone(map));
        }
        // Views of the old, shorter map keep it as long as they live.
        let map = Arc::new(self.file.map().context("map", &self.path)?);
        map.mark_stable(stable);
        *current = Some(Arc::clone(&map));
        Ok(map)
    }

    /// The frame at this offset, verified, if it is the one with this sequence number.
    pub(crate) fn frame<'a>(&self, bytes: &'a [u8], offset: u64, sequence: u64) -> Result<Frame<'a>> {
        self.frame_within(bytes, offset, sequence..=sequence)
    }

    /// The record whose frame is at this offset, if it is one of these sequence numbers. Its checksum is verified, unless this process has
    /// verified it before, in a walk from the segment's beginning; and its structure, unless this process has encoded or decoded it.
    pub(super) fn visit<'a>(
        &'a self,
        map: &'a Arc<Map>,
        offset: u64,
        sequences: RangeInclusive<u64>,
    ) -> Result<Visited<'a>> {
        let bytes = map.get(0..map.stable_bytes()).unwrap_or_default();
        // No order is needed: what is marked never changes.
        let verified = self.verified_bytes.load(Relaxed);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let known =
            || Frame::verified(bytes.get(at..)?).filter(|frame| sequences.contains(&frame.meta.sequence));
        let visited = |frame: Frame<'a>, record| Visited {
            map,
            offset: at,
            path: &self.path,
            frame,
            record,
        };
        if offset < verified
            && let Some(frame) = known()
        {
            return Ok(visited(frame, RecordView::verified(frame.payload)));
        }
        let frame = self.frame_within(bytes, offset, sequences)?;
        let record = match offset < self.sound_bytes.load(Relaxed) {
            true => RecordView::verified(frame.payload),
            false => RecordView::verify(frame.payload).map_err(|malformed| {
                let at = at + FRAME_HEADER_BYTES + malformed.offset;
                Error::damaged(&self.path, at as u64, malformed.expected, "other bytes")
            })?,
        };
        if offset == verified {
            let behind = offset + frame.bytes() as u64;
            self.verified_bytes.fetch_max(behind, Relaxed);
        }
        Ok(visited(frame, record))
    }

    /// The frame at this offset, verified, if it is one of these sequence numbers.
    fn frame_within<'a>(
        &self,
        bytes: &'a [u8],
        offset: u64,
        sequences: RangeInclusive<u64>,
    ) -> Result<Frame<'a>> {
        let frame = usize::try_from(offset)
            .ok()
            .and_then(|offset| Frame::at(bytes, offset, &self.salt));
        match frame {
            Some(frame) if sequences.contains(&frame.meta.sequence) => Ok(frame),
            found => {
                let (first, last) = (sequences.start(), sequences.end());
                let expected = match first == last {
                    true => format!("the record {first}"),
                    false => format!("one of the records {first} to {last}"),
                };
                let found = found.map_or("no valid frame".to_owned(), |frame| {
                    format!("the record {}", frame.meta.sequence)
                });
                Err(Error::damaged(&self.path, offset, expected, found))
            }
        }
    }
}

/// Overwrites `from..to` with zeroes.
pub(crate) fn write_zeroes(file: &dyn File, from: u64, to: u64) -> std::io::Result<()> {
    let mut offset = from;
    while offset < to {
        let length = (to - offset).min(ZEROES.len() as u64) as usize;
        file.write_at(&ZEROES[..length], offset)?;
        offset += length as u64;
    }
    Ok(())
}

fn preallocation(error: Error) -> Error {
    match error {
        Error::Io { file, source, .. } => Error::Preallocation { file, source },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::{Fixture, append};
    use crate::journal::{FrameKind, Pending};

    #[test]
    fn a_segment_header_is_read_as_it_was_written_and_no_flipped_bit_is_accepted() {
        let header = SegmentHeader {
            epoch: Epoch::from_bytes([1; 16]),
            nonce: [2; 16],
            first_sequence: 9,
            created: -3,
            previous: 77,
        };
        let bytes = header.encode();
        assert_eq!(bytes.len(), 128);
        let path = Path::new("segment");
        assert_eq!(SegmentHeader::decode(&bytes, path).unwrap(), header);
        for offset in 0..bytes.len() {
            let mut flipped = bytes;
            flipped[offset] ^= 32;
            let error = SegmentHeader::decode(&flipped, path).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{offset}: {error}");
        }
    }

    /// A checksum says that these bytes were written, not that they are a record: who has not decoded them before does so.
    #[test]
    fn what_was_not_read_at_the_opening_is_decoded_before_it_is_shown() {
        let fixture = Fixture {
            segment_size_bytes: 4096,
            ..Fixture::new()
        };
        let mut writer = fixture.open().writer;
        append(&mut writer, &["key"]);
        let at = writer.position().offset;
        let no_record = Pending {
            kind: FrameKind::Batch,
            request_id: [0; 16],
            payload: &[1; 40],
        };
        writer.append(&[no_record], 5).unwrap();
        while writer.position().segment == 1 {
            append(&mut writer, &["key"]);
        }
        let last = writer.position();
        let journal = fixture
            .recover_behind(last.sequence, Vec::new(), None)
            .unwrap()
            .journal;
        let mut position = journal.position_after(0).unwrap();
        let mut seen = 0;
        let scanned = journal.scan(&mut position, last.sequence, &mut |_| {
            seen += 1;
            Ok(true)
        });
        assert!(
            matches!(scanned, Err(Error::Damaged { offset, .. }) if offset >= at + FRAME_HEADER_BYTES as u64),
            "{scanned:?}"
        );
        assert_eq!(seen, 1);
    }
}
