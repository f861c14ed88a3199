//! The file of a port: an immutable head, and two cursor slots that are written in turn, so that a crash while one
//! is written leaves the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Env, File};
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::format::{self, PORT_MAGIC, PREAMBLE_BYTES, get, get_u32, get_u64, put};
use crate::layout::{sync_parent, write_aside};
use crate::model::KeyPath;

/// The head and each slot begin on blocks of their own.
const BLOCK_BYTES: usize = 4096;

const ID: usize = PREAMBLE_BYTES;
const EPOCH: usize = ID + 16;
const CREATED: usize = EPOCH + 16;
const OPTIONS: usize = CREATED + 8;
const NAME_BYTES: usize = OPTIONS + 8;
const KEY_BYTES: usize = NAME_BYTES + 4;
const TEXT: usize = KEY_BYTES + 4;
const CHECKSUM_BYTES: usize = 4;
/// A name of 64 bytes and a path of 512 components of 255 units, which are at most 3 bytes each.
const MAX_HEAD_BYTES: u64 = 1 << 20;

const SLOT_COUNTER: usize = 0;
const SLOT_SEQUENCE: usize = SLOT_COUNTER + 8;
const SLOT_AS_OF: usize = SLOT_SEQUENCE + 8;
const SLOT_EPOCH: usize = SLOT_AS_OF + 8;
const SLOT_PORT_ID: usize = SLOT_EPOCH + 16;
const SLOT_FRAME_CHECKSUM: usize = SLOT_PORT_ID + 16;
const SLOT_CHECKSUM: usize = SLOT_FRAME_CHECKSUM + 4;
const SLOT_BYTES: usize = SLOT_CHECKSUM + 4;

/// What a port is, for all its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortHead {
    /// Random: a port made anew under the same name is another port.
    pub(crate) id: [u8; 16],
    pub(crate) epoch: Epoch,
    pub(crate) created: i64,
    pub(crate) name: String,
    pub(crate) key: KeyPath,
}

/// Up to where a port has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) epoch: Epoch,
    pub(crate) sequence: u64,
    /// The checksum of the frame of that sequence: the cursor is a voucher.
    pub(crate) frame_checksum: u32,
    /// Acknowledgements in the journal up to this sequence number are folded in.
    pub(crate) as_of: u64,
}

/// A port's file, open.
#[derive(Debug)]
pub(crate) struct PortFile {
    path: PathBuf,
    file: Arc<dyn File>,
    pub(crate) head: PortHead,
    pub(crate) cursor: Cursor,
    slots_at: u64,
    /// Of the slot that holds the cursor; odd counters stand in the first slot, even ones in the second.
    counter: u64,
}

impl PortFile {
    /// Makes the file of a new port, durably.
    pub(crate) fn create(env: &dyn Env, path: &Path, head: &PortHead, cursor: Cursor) -> Result<()> {
        let mut bytes = head.encode();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let slots_at = bytes.len();
        bytes.resize(slots_at + 2 * BLOCK_BYTES, 0);
        put(&mut bytes, slots_at, encode_slot(head.id, &cursor, 1));
        write_aside(env, path, &bytes)
    }

    /// Opens and reads the file.
    ///
    /// # Errors
    /// A file that is missing, of another version, or whose head or both slots are damaged.
    pub(crate) fn open(env: &dyn Env, path: &Path) -> Result<PortFile> {
        PortFile::read(env.open_file(path).context("open", path)?, path)
    }

    fn read(file: Arc<dyn File>, path: &Path) -> Result<PortFile> {
        let bytes = format::read_whole(&*file, path, MAX_HEAD_BYTES)?;
        let (head, head_bytes) = PortHead::decode(&bytes, path)?;
        let slots_at = head_bytes.next_multiple_of(BLOCK_BYTES);
        let slot = |index: usize| {
            let at = slots_at + index * BLOCK_BYTES;
            decode_slot(bytes.get(at..at + SLOT_BYTES)?, head.id)
        };
        let newest = [slot(0), slot(1)]
            .into_iter()
            .flatten()
            .max_by_key(|(counter, _)| *counter);
        let Some((counter, cursor)) = newest else {
            let offset = slots_at as u64;
            return Err(Error::damaged(
                path,
                offset,
                "a valid cursor in one of two slots",
                "none",
            ));
        };
        Ok(PortFile {
            path: path.to_owned(),
            file,
            head,
            cursor,
            slots_at: slots_at as u64,
            counter,
        })
    }

    /// Takes the port for this handle alone, as long as it lives. None if another has it, or if the file was
    /// replaced meanwhile.
    pub(crate) fn lock(self) -> Result<Option<PortFile>> {
        let PortFile { file, path, .. } = self;
        let is_ours =
            file.try_lock().context("lock", &path)? && file.is_at(&path).context("look at", &path)?;
        // Read again: another owner may have moved the cursor before the lock was ours.
        is_ours.then(|| PortFile::read(file, &path)).transpose()
    }

    /// Makes the file durable as it was read. An owner that was killed may have left its name and its cursor in the page
    /// cache only, or in pages that a failed sync has marked clean: the next save would overwrite the one slot that is on
    /// the disk, and a crash then leave none. Waits for the disk.
    pub(crate) fn make_durable(&self, env: &dyn Env) -> Result<()> {
        self.write_slot(&self.cursor, self.counter)?;
        sync_parent(env, &self.path)
    }

    /// Makes what its owner has written so far durable, for whoever relies on it. Waits for the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().context("sync", &self.path)
    }

    /// Saves the cursor, durably. Waits for the disk.
    pub(crate) fn save(&mut self, cursor: Cursor) -> Result<()> {
        let counter = self.counter + 1;
        self.write_slot(&cursor, counter)?;
        self.counter = counter;
        self.cursor = cursor;
        Ok(())
    }

    fn write_slot(&self, cursor: &Cursor, counter: u64) -> Result<()> {
        let at = self.slots_at + (counter + 1) % 2 * BLOCK_BYTES as u64;
        let slot = encode_slot(self.head.id, cursor, counter);
        self.file.write_at(&slot, at).context("write", &self.path)?;
        self.file.sync().context("sync", &self.path)
    }
}

impl PortHead {
    fn encode(&self) -> Vec<u8> {
        let (name, key) = (self.name.as_bytes(), self.key.as_str().as_bytes());
        let mut bytes = vec![0; TEXT];
        format::put_preamble(&mut bytes, PORT_MAGIC);
        put(&mut bytes, ID, self.id);
        put(&mut bytes, EPOCH, self.epoch.to_bytes());
        put(&mut bytes, CREATED, self.created.to_le_bytes());
        put(&mut bytes, NAME_BYTES, (name.len() as u32).to_le_bytes());
        put(&mut bytes, KEY_BYTES, (key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(key);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The head and its length.
    fn decode(bytes: &[u8], path: &Path) -> Result<(PortHead, usize)> {
        format::check_preamble(bytes, PORT_MAGIC, path)?;
        let damaged =
            |offset: usize, expected: &str| Error::damaged(path, offset as u64, expected, "other bytes");
        if bytes.len() < TEXT {
            return Err(damaged(bytes.len(), "a port's head"));
        }
        // Lengths are claims until the checksum has held; both are bounded by the file's own.
        let name_bytes = get_u32(bytes, NAME_BYTES) as usize;
        let key_bytes = get_u32(bytes, KEY_BYTES) as usize;
        let checksum_at = TEXT.saturating_add(name_bytes).saturating_add(key_bytes);
        let covered = bytes.get(..checksum_at);
        let stored = bytes.get(checksum_at..checksum_at.saturating_add(CHECKSUM_BYTES));
        let (Some(covered), Some(stored)) = (covered, stored) else {
            return Err(damaged(NAME_BYTES, "lengths within the file"));
        };
        let stored = get_u32(stored, 0);
        let at = checksum_at as u64;
        format::check_checksum(covered, stored, path, at, "the head's checksum")?;
        let (name, key) = covered[TEXT..].split_at(name_bytes);
        let text = |bytes: &[u8], offset| {
            let text = std::str::from_utf8(bytes).map_err(|_| damaged(offset, "UTF-8"))?;
            Ok::<_, Error>(text.to_owned())
        };
        let key = text(key, TEXT + name_bytes)?;
        let head = PortHead {
            id: get(bytes, ID),
            epoch: Epoch::from_bytes(get(bytes, EPOCH)),
            created: get_u64(bytes, CREATED).cast_signed(),
            name: text(name, TEXT)?,
            key: KeyPath::parse(&key).map_err(|_| damaged(TEXT + name_bytes, "a valid path"))?,
        };
        Ok((head, checksum_at + CHECKSUM_BYTES))
    }
}

fn encode_slot(port_id: [u8; 16], cursor: &Cursor, counter: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    put(&mut bytes, SLOT_COUNTER, counter.to_le_bytes());
    put(&mut bytes, SLOT_SEQUENCE, cursor.sequence.to_le_bytes());
    put(&mut bytes, SLOT_AS_OF, cursor.as_of.to_le_bytes());
    put(&mut bytes, SLOT_EPOCH, cursor.epoch.to_bytes());
    put(&mut bytes, SLOT_PORT_ID, port_id);
    put(
        &mut bytes,
        SLOT_FRAME_CHECKSUM,
        cursor.frame_checksum.to_le_bytes(),
    );
    let checksum = crc32fast::hash(&bytes[..SLOT_CHECKSUM]);
    put(&mut bytes, SLOT_CHECKSUM, checksum.to_le_bytes());
    bytes
}

/// The counter and the cursor of a slot of this port, if it is whole.
fn decode_slot(bytes: &[u8], port_id: [u8; 16]) -> Option<(u64, Cursor)> {
    let checksum = crc32fast::hash(bytes.get(..SLOT_CHECKSUM)?);
    let is_whole = get_u32(bytes, SLOT_CHECKSUM) == checksum;
    let is_own = get::<16>(bytes, SLOT_PORT_ID) == port_id;
    (is_whole && is_own).then(|| {
        let cursor = Cursor {
            epoch: Epoch::from_bytes(get(bytes, SLOT_EPOCH)),
            sequence: get_u64(bytes, SLOT_SEQUENCE),
            frame_checksum: get_u32(bytes, SLOT_FRAME_CHECKSUM),
            as_of: get_u64(bytes, SLOT_AS_OF),
        };
        (get_u64(bytes, SLOT_COUNTER), cursor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OsEnv;

    fn cursor(sequence: u64) -> Cursor {
        Cursor {
            epoch: Epoch::from_bytes([2; 16]),
            sequence,
            frame_checksum: 9,
            as_of: 0,
        }
    }

    fn create(folder: &Path, key: &str) -> PathBuf {
        let path = folder.join("p.port");
        let head = PortHead {
            id: [1; 16],
            epoch: Epoch::from_bytes([2; 16]),
            created: 3,
            name: "p".into(),
            key: KeyPath::parse(key).unwrap(),
        };
        PortFile::create(&OsEnv, &path, &head, cursor(4)).unwrap();
        path
    }

    /// Crash story 12: a key can take hundreds of kilobytes.
    #[test]
    fn a_port_on_the_longest_path_is_read_as_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let longest = vec!["鍵".repeat(255); 512].join("\\");
        let path = create(folder.path(), &longest);
        let mut port = PortFile::open(&OsEnv, &path).unwrap();
        assert_eq!(port.head.key.as_str(), longest);
        assert_eq!(port.cursor, cursor(4));
        port.save(cursor(5)).unwrap();
        assert_eq!(PortFile::open(&OsEnv, &path).unwrap().cursor, cursor(5));
    }

    /// Crash story 12: a save that is cut short leaves the cursor before it.
    #[test]
    fn a_torn_slot_leaves_the_cursor_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = create(folder.path(), "A\\B");
        let mut port = PortFile::open(&OsEnv, &path).unwrap();
        for sequence in 5..9 {
            let before = std::fs::read(&path).unwrap();
            port.save(cursor(sequence)).unwrap();
            let after = std::fs::read(&path).unwrap();
            for torn_at in BLOCK_BYTES..after.len() {
                if before[torn_at] != after[torn_at] {
                    let mut torn = after.clone();
                    torn[torn_at] ^= 0x55;
                    std::fs::write(&path, torn).unwrap();
                    let seen = PortFile::open(&OsEnv, &path).unwrap().cursor;
                    assert_eq!(seen, cursor(sequence - 1), "torn at {torn_at}");
                }
            }
            std::fs::write(&path, &after).unwrap();
            assert_eq!(PortFile::open(&OsEnv, &path).unwrap().cursor, cursor(sequence));
        }
    }

    #[test]
    fn a_damaged_head_or_two_damaged_slots_are_refused_with_file_and_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = create(folder.path(), "A\\B");
        let whole = std::fs::read(&path).unwrap();
        let head_bytes = TEXT + 1 + 3 + CHECKSUM_BYTES;
        for offset in 0..head_bytes {
            let mut flipped = whole.clone();
            flipped[offset] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            let error = PortFile::open(&OsEnv, &path).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{offset}: {error}");
        }
        let mut flipped = whole.clone();
        flipped[BLOCK_BYTES] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let error = PortFile::open(&OsEnv, &path).unwrap_err();
        assert!(matches!(error, Error::Damaged { offset: 4096, .. }), "{error}");
    }

    /// Crash story 13: a port made anew under the same name does not inherit the cursor of the old one.
    #[test]
    fn a_slot_of_another_port_is_not_taken() {
        let slot = encode_slot([1; 16], &cursor(4), 1);
        assert!(decode_slot(&slot, [1; 16]).is_some());
        assert!(decode_slot(&slot, [7; 16]).is_none());
    }
}
