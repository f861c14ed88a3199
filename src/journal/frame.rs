//! A frame: one record in a segment, with what makes it verifiable (`docs/format.md`, "Frames").
//!
//! The first 16 bytes are local to this journal; everything from the payload's length on is what would travel to
//! another node.

use crate::format::{get, get_u32, get_u64, put};
use crate::model::MAX_RECORD_BYTES;

const CHECKSUM: usize = 0;
const PREVIOUS: usize = CHECKSUM + 4;
const DURABLE_BEFORE: usize = PREVIOUS + 4;
const PAYLOAD_LENGTH: usize = DURABLE_BEFORE + 8;
const KIND: usize = PAYLOAD_LENGTH + 4;
const SEQUENCE: usize = KIND + 4;
const TIME: usize = SEQUENCE + 8;
const REQUEST_ID: usize = TIME + 8;
const RESERVED: usize = REQUEST_ID + 16;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: usize = RESERVED + 8;

/// Frames begin and end on multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

/// Bytes of a frame with a payload of this length: header, payload, zeroes up to the grid.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    FRAME_HEADER_BYTES + payload_bytes.next_multiple_of(ALIGNMENT)
}

/// What kind of commit a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// A batch, which ports show.
    Batch = 1,
    /// A plain write, which they do not.
    Plain = 2,
}

/// What travels with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordMeta {
    pub(crate) kind: FrameKind,
    pub(crate) sequence: u64,
    /// Commit time, microseconds since 1970.
    pub(crate) time: i64,
    pub(crate) request_id: [u8; 16],
}

/// What ties a frame to its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The checksum of the frame before.
    pub(crate) previous: u32,
    /// The last sequence number known durable when the frame was written.
    pub(crate) durable_before: u64,
}

/// Seeds the checksums of a segment: the same frame elsewhere, or left by an earlier use of the disk, is not valid.
#[derive(Debug, Clone)]
pub(crate) struct Salt(crc32fast::Hasher);

impl Salt {
    pub(crate) fn new(nonce: [u8; 16]) -> Salt {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&nonce);
        Salt(hasher)
    }

    /// The checksum of a frame: of the nonce, the offset, and the frame from behind the checksum to its end.
    fn checksum(&self, offset: u64, frame: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&offset.to_le_bytes());
        hasher.update(&frame[PREVIOUS..]);
        hasher.finalize()
    }
}

/// A valid frame, borrowed from a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) checksum: u32,
    pub(crate) chain: Chain,
    pub(crate) meta: RecordMeta,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at this offset of a segment whose bytes begin at its first, if what stands there is valid by
    /// itself: rules 1 to 6 of `docs/format.md`. Whether it is the next one is for the caller to check.
    pub(crate) fn at(segment: &'a [u8], offset: usize, salt: &Salt) -> Option<Frame<'a>> {
        let rest = segment.get(offset..)?;
        let header = rest.get(..FRAME_HEADER_BYTES)?;
        let payload_length = get_u32(header, PAYLOAD_LENGTH);
        if u64::from(payload_length) > MAX_RECORD_BYTES {
            return None;
        }
        let frame = rest.get(..frame_bytes(payload_length as usize))?;
        let kind = match get_u32(header, KIND) {
            1 => FrameKind::Batch,
            2 => FrameKind::Plain,
            _ => return None,
        };
        let parsed = Frame::parse(frame, kind, payload_length as usize);
        // Cheap to ask, and false nearly everywhere that a search for frames looks.
        let is_sound = parsed.meta.sequence > parsed.chain.durable_before
            && header[RESERVED..].iter().all(|byte| *byte == 0)
            && frame[FRAME_HEADER_BYTES + payload_length as usize..]
                .iter()
                .all(|byte| *byte == 0);
        (is_sound && salt.checksum(offset as u64, frame) == parsed.checksum).then_some(parsed)
    }

    /// Whether a header stands at this offset that follows these, of a frame that would end behind the file. Nothing
    /// else of it need be there.
    pub(crate) fn is_cut_short(segment: &[u8], offset: usize, sequence: u64, previous: u32) -> bool {
        let rest = segment.get(offset..).unwrap_or_default();
        match rest.get(..FRAME_HEADER_BYTES) {
            Some(header) => {
                let follows = get_u64(header, SEQUENCE) == sequence && get_u32(header, PREVIOUS) == previous;
                follows && frame_bytes(get_u32(header, PAYLOAD_LENGTH) as usize) > rest.len()
            }
            // No frame begins so near the end of a file that is whole.
            None => rest.iter().any(|byte| *byte != 0),
        }
    }

    /// A frame that `at` has found valid before.
    pub(crate) fn verified(frame: &'a [u8]) -> Option<Frame<'a>> {
        let header = frame.get(..FRAME_HEADER_BYTES)?;
        let payload_length = get_u32(header, PAYLOAD_LENGTH) as usize;
        let kind = match get_u32(header, KIND) {
            2 => FrameKind::Plain,
            _ => FrameKind::Batch,
        };
        let frame = frame.get(..frame_bytes(payload_length))?;
        Some(Frame::parse(frame, kind, payload_length))
    }

    fn parse(frame: &'a [u8], kind: FrameKind, payload_length: usize) -> Frame<'a> {
        let (header, rest) = frame.split_at(FRAME_HEADER_BYTES);
        Frame {
            checksum: get_u32(header, CHECKSUM),
            chain: Chain {
                previous: get_u32(header, PREVIOUS),
                durable_before: get_u64(header, DURABLE_BEFORE),
            },
            meta: RecordMeta {
                kind,
                sequence: get_u64(header, SEQUENCE),
                time: get_u64(header, TIME).cast_signed(),
                request_id: get(header, REQUEST_ID),
            },
            payload: &rest[..payload_length],
        }
    }

    /// Bytes from this frame's first to the next one's.
    pub(crate) fn bytes(&self) -> usize {
        frame_bytes(self.payload.len())
    }
}

/// Appends a frame to `group`, which will stand at `group_offset` of its segment, and gives the frame's checksum.
pub(crate) fn append_frame(
    group: &mut Vec<u8>,
    group_offset: u64,
    salt: &Salt,
    meta: &RecordMeta,
    chain: Chain,
    payload: &[u8],
) -> u32 {
    let start = group.len();
    let mut header = [0; FRAME_HEADER_BYTES];
    put(&mut header, PREVIOUS, chain.previous.to_le_bytes());
    put(&mut header, DURABLE_BEFORE, chain.durable_before.to_le_bytes());
    // `evaluate` keeps every record below MAX_RECORD_BYTES.
    put(&mut header, PAYLOAD_LENGTH, (payload.len() as u32).to_le_bytes());
    put(&mut header, KIND, (meta.kind as u32).to_le_bytes());
    put(&mut header, SEQUENCE, meta.sequence.to_le_bytes());
    put(&mut header, TIME, meta.time.to_le_bytes());
    put(&mut header, REQUEST_ID, meta.request_id);
    group.extend_from_slice(&header);
    group.extend_from_slice(payload);
    group.resize(start + frame_bytes(payload.len()), 0);
    let frame = &mut group[start..];
    let checksum = salt.checksum(group_offset + start as u64, frame);
    put(frame, CHECKSUM, checksum.to_le_bytes());
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: RecordMeta = RecordMeta {
        kind: FrameKind::Batch,
        sequence: 8,
        time: -5,
        request_id: [9; 16],
    };
    const CHAIN: Chain = Chain {
        previous: 77,
        durable_before: 7,
    };

    fn segment(offset: u64, payload: &[u8]) -> (Vec<u8>, Salt) {
        let salt = Salt::new([3; 16]);
        let mut group = Vec::new();
        append_frame(&mut group, offset, &salt, &META, CHAIN, payload);
        let mut segment = vec![0; offset as usize];
        segment.extend(group);
        (segment, salt)
    }

    #[test]
    fn a_frame_is_read_as_it_was_appended() {
        for payload in [&b""[..], b"12345678", b"123456789"] {
            let (segment, salt) = segment(128, payload);
            assert_eq!(segment.len() % ALIGNMENT, 0);
            let frame = Frame::at(&segment, 128, &salt).unwrap();
            assert_eq!((frame.meta, frame.chain, frame.payload), (META, CHAIN, payload));
            assert_eq!(128 + frame.bytes(), segment.len());
        }
    }

    #[test]
    fn no_flipped_bit_of_a_frame_is_accepted_padding_and_header_included() {
        let (segment, salt) = segment(128, b"payload");
        for offset in 128..segment.len() {
            for bit in 0..8 {
                let mut flipped = segment.clone();
                flipped[offset] ^= 1 << bit;
                assert!(Frame::at(&flipped, 128, &salt).is_none(), "{offset}");
            }
        }
        for cut in 128..segment.len() {
            assert!(Frame::at(&segment[..cut], 128, &salt).is_none());
        }
    }

    /// Crash story 1: a stale frame of another segment, or of another place, is not valid here.
    #[test]
    fn a_frame_is_valid_only_at_its_offset_and_under_its_nonce() {
        let (segment, salt) = segment(128, b"payload");
        let mut moved = vec![0; 8];
        moved.extend(&segment);
        assert!(Frame::at(&moved, 136, &salt).is_none());
        assert!(Frame::at(&segment, 128, &Salt::new([4; 16])).is_none());
        assert!(Frame::at(&segment, 128, &salt).is_some());
    }

    #[test]
    fn zeroes_are_not_a_frame() {
        let salt = Salt::new([3; 16]);
        assert!(Frame::at(&[0; 4096], 128, &salt).is_none());
    }
}
