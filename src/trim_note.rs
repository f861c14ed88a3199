//! What trimming knows of a port whose cursor stands in the part of the journal that is gone: a file beside the port's, which
//! belongs to the writer, as the port's own belongs to its owner. `docs/format.md` has the bytes.

use std::path::Path;

use crate::env::Env;
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result, TrimReason};
use crate::format::{self, NOTE_MAGIC, PREAMBLE_BYTES, get, get_u32, get_u64, put};
use crate::layout::write_aside;
use crate::port_file::Cursor;

const PORT_ID: usize = PREAMBLE_BYTES;
const TRIMMED_TO: usize = PORT_ID + 16;
const SEQUENCE: usize = TRIMMED_TO + 8;
const EPOCH: usize = SEQUENCE + 8;
const FRAME_CHECKSUM: usize = EPOCH + 16;
const REASON: usize = FRAME_CHECKSUM + 4;
const FIRST_LOST: usize = REASON + 4;
const LAST_LOST: usize = FIRST_LOST + 8;
const TIME: usize = LAST_LOST + 8;
const TRIMMED_EPOCH: usize = TIME + 8;
const CHECKSUM: usize = TRIMMED_EPOCH + 16;
const NOTE_BYTES: usize = CHECKSUM + 4;

/// What a port had not acknowledged when it was trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The first and the last record that the port would have shown.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) time: i64,
    pub(crate) reason: TrimReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrimNote {
    pub(crate) port_id: [u8; 16],
    /// The last record that is gone. All acknowledgements up to it are folded into the cursor.
    pub(crate) trimmed_to: u64,
    /// The epoch of that record: of another branch of the history the note says nothing.
    pub(crate) trimmed_epoch: Epoch,
    /// Where the port stood.
    pub(crate) cursor: Cursor,
    /// None if nothing between the cursor and the last record that is gone was for the port.
    pub(crate) lost: Option<Lost>,
}

impl TrimNote {
    /// Whether it is of the history that has these epochs.
    pub(crate) fn is_of(&self, epoch_of: impl Fn(u64) -> Epoch) -> bool {
        let has = |epoch, sequence| sequence == 0 || epoch_of(sequence) == epoch;
        has(self.trimmed_epoch, self.trimmed_to) && has(self.cursor.epoch, self.cursor.sequence)
    }

    pub(crate) fn write(&self, env: &dyn Env, path: &Path) -> Result<()> {
        write_aside(env, path, &self.encode())
    }

    /// The note on the port with this id; none if there is none.
    ///
    /// # Errors
    /// `Damaged`, and the system's.
    pub(crate) fn read(env: &dyn Env, path: &Path, port_id: [u8; 16]) -> Result<Option<TrimNote>> {
        let file = match env.open_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context("open", path)?,
        };
        let bytes = format::read_whole(&*file, path, NOTE_BYTES as u64)?;
        let note = TrimNote::decode(&bytes, path)?;
        Ok(Some(note).filter(|note| note.port_id == port_id))
    }

    fn encode(&self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        format::put_preamble(&mut bytes, NOTE_MAGIC);
        put(&mut bytes, PORT_ID, self.port_id);
        put(&mut bytes, TRIMMED_EPOCH, self.trimmed_epoch.to_bytes());
        put(&mut bytes, TRIMMED_TO, self.trimmed_to.to_le_bytes());
        put(&mut bytes, SEQUENCE, self.cursor.sequence.to_le_bytes());
        put(&mut bytes, EPOCH, self.cursor.epoch.to_bytes());
        put(
            &mut bytes,
            FRAME_CHECKSUM,
            self.cursor.frame_checksum.to_le_bytes(),
        );
        if let Some(lost) = self.lost {
            put(&mut bytes, REASON, lost.reason.number().to_le_bytes());
            put(&mut bytes, FIRST_LOST, lost.first.to_le_bytes());
            put(&mut bytes, LAST_LOST, lost.last.to_le_bytes());
            put(&mut bytes, TIME, lost.time.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..CHECKSUM]);
        put(&mut bytes, CHECKSUM, checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<TrimNote> {
        format::check_preamble(bytes, NOTE_MAGIC, path)?;
        if bytes.len() != NOTE_BYTES {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::damaged(path, 0, format!("{NOTE_BYTES} bytes"), found));
        }
        let covered = &bytes[..CHECKSUM];
        let stored = get_u32(bytes, CHECKSUM);
        format::check_checksum(covered, stored, path, CHECKSUM as u64, "the checksum")?;
        let lost = match get_u32(bytes, REASON) {
            0 => None,
            reason => Some(Lost {
                first: get_u64(bytes, FIRST_LOST),
                last: get_u64(bytes, LAST_LOST),
                time: get_u64(bytes, TIME).cast_signed(),
                reason: TrimReason::from_number(reason),
            }),
        };
        let trimmed_to = get_u64(bytes, TRIMMED_TO);
        Ok(TrimNote {
            port_id: get(bytes, PORT_ID),
            trimmed_to,
            trimmed_epoch: Epoch::from_bytes(get(bytes, TRIMMED_EPOCH)),
            cursor: Cursor {
                epoch: Epoch::from_bytes(get(bytes, EPOCH)),
                sequence: get_u64(bytes, SEQUENCE),
                frame_checksum: get_u32(bytes, FRAME_CHECKSUM),
                as_of: trimmed_to,
            },
            lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OsEnv;

    #[test]
    fn a_note_is_read_as_it_was_written_and_no_flipped_byte_or_cut_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.trimmed");
        let lost = Lost {
            first: 6,
            last: 8,
            time: -3,
            reason: TrimReason::Age,
        };
        for lost in [None, Some(lost)] {
            let note = TrimNote {
                port_id: [1; 16],
                trimmed_to: 9,
                trimmed_epoch: Epoch::from_bytes([3; 16]),
                cursor: Cursor {
                    epoch: Epoch::from_bytes([2; 16]),
                    sequence: 5,
                    frame_checksum: 77,
                    as_of: 9,
                },
                lost,
            };
            note.write(&OsEnv, &path).unwrap();
            assert_eq!(TrimNote::read(&OsEnv, &path, [1; 16]).unwrap(), Some(note));
            assert_eq!(TrimNote::read(&OsEnv, &path, [3; 16]).unwrap(), None);
            let bytes = note.encode();
            for offset in 0..bytes.len() {
                let mut flipped = bytes;
                flipped[offset] ^= 16;
                let error = TrimNote::decode(&flipped, &path).unwrap_err();
                assert!(matches!(error, Error::Damaged { .. }), "{offset}: {error}");
                assert!(TrimNote::decode(&bytes[..offset], &path).is_err());
            }
        }
    }
}
