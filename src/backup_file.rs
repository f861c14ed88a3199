//! What a backup says of itself: the record that it goes up to, and the identity of its store. Written last, so that a backup that
//! was cut short is still the one before. `docs/format.md` has the bytes.

use std::path::Path;

use crate::env::Env;
use crate::error::{Error, IoContext, Result};
use crate::format::{self, BACKUP_MAGIC, PREAMBLE_BYTES, get_u32, get_u64, put};
use crate::identity::Identity;
use crate::journal::Position;
use crate::layout::write_aside;

const SEQUENCE: usize = PREAMBLE_BYTES;
const FRAME_CHECKSUM: usize = SEQUENCE + 8;
const SEGMENT: usize = FRAME_CHECKSUM + 8;
const OFFSET: usize = SEGMENT + 8;
const TIME: usize = OFFSET + 8;
const SNAPSHOT: usize = TIME + 8;
const PORTS: usize = SNAPSHOT + 8;
const IDENTITY: usize = PORTS + 8;
const TRAILER_BYTES: usize = 4;
/// A record a nanosecond for a hundred years.
const MAX_SEQUENCE: u64 = 1 << 62;
const MAX_BYTES: u64 = 2 << 20;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupFile {
    /// The end of what counts: whatever stands behind it does not.
    pub(crate) end: Position,
    pub(crate) time: i64,
    /// The record of its snapshot; 0 if it has none, and its journal begins with the first record.
    pub(crate) snapshot: u64,
    /// Which of two folders has its ports: the other is written by the next.
    pub(crate) ports: u64,
    /// Of the store, whose journal begins with the first segment of the backup.
    pub(crate) identity: Identity,
}

impl BackupFile {
    pub(crate) fn write(&self, env: &dyn Env, path: &Path) -> Result<()> {
        write_aside(env, path, &self.encode())
    }

    /// # Errors
    /// `Damaged`, `UnsupportedVersion`, and the system's.
    pub(crate) fn read(env: &dyn Env, path: &Path) -> Result<BackupFile> {
        let file = env.open_file(path).context("open", path)?;
        BackupFile::decode(&format::read_whole(&*file, path, MAX_BYTES)?, path)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; IDENTITY];
        format::put_preamble(&mut bytes, BACKUP_MAGIC);
        put(&mut bytes, SEQUENCE, self.end.sequence.to_le_bytes());
        put(&mut bytes, FRAME_CHECKSUM, self.end.checksum.to_le_bytes());
        put(&mut bytes, SEGMENT, self.end.segment.to_le_bytes());
        put(&mut bytes, OFFSET, self.end.offset.to_le_bytes());
        put(&mut bytes, TIME, self.time.to_le_bytes());
        put(&mut bytes, SNAPSHOT, self.snapshot.to_le_bytes());
        put(&mut bytes, PORTS, self.ports.to_le_bytes());
        bytes.extend(self.identity.encode());
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<BackupFile> {
        format::check_preamble(bytes, BACKUP_MAGIC, path)?;
        let Some(covered) = bytes
            .len()
            .checked_sub(TRAILER_BYTES)
            .filter(|end| *end >= IDENTITY)
        else {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::damaged(path, 0, "a whole backup file", found));
        };
        let stored = get_u32(bytes, covered);
        format::check_checksum(&bytes[..covered], stored, path, covered as u64, "the checksum")?;
        let sequence = get_u64(bytes, SEQUENCE);
        if sequence >= MAX_SEQUENCE {
            let expected = "a sequence number";
            return Err(Error::damaged(
                path,
                SEQUENCE as u64,
                expected,
                sequence.to_string(),
            ));
        }
        Ok(BackupFile {
            end: Position {
                sequence,
                checksum: get_u32(bytes, FRAME_CHECKSUM),
                segment: get_u64(bytes, SEGMENT),
                offset: get_u64(bytes, OFFSET),
            },
            time: get_u64(bytes, TIME).cast_signed(),
            snapshot: get_u64(bytes, SNAPSHOT),
            ports: get_u64(bytes, PORTS) % 2,
            identity: Identity::decode(&bytes[IDENTITY..covered], path)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OsEnv;
    use crate::epoch::Epoch;

    #[test]
    fn a_backup_file_is_read_as_it_was_written_and_no_flipped_byte_or_cut_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let backup = BackupFile {
            end: Position {
                sequence: 7,
                checksum: 9,
                segment: 3,
                offset: 4000,
            },
            time: -1,
            snapshot: 2,
            ports: 1,
            identity: Identity::new(Epoch::from_bytes([1; 16]), 5),
        };
        backup.write(&OsEnv, &path).unwrap();
        assert_eq!(BackupFile::read(&OsEnv, &path).unwrap(), backup);
        let bytes = backup.encode();
        for offset in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[offset] ^= 2;
            assert!(BackupFile::decode(&flipped, &path).is_err(), "{offset}");
            assert!(BackupFile::decode(&bytes[..offset], &path).is_err(), "{offset}");
        }
    }
}
