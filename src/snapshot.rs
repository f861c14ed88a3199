//! Snapshots: the whole state after some record, in a file that is never changed. `docs/format.md` has the bytes.
//!
//! A snapshot is written while the state changes: what was written before is put again, or removed, further behind. What
//! it is in the end has to add up to the digest that was taken with the last of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Env, File};
use crate::error::{Error, IoContext, Result};
use crate::format::{self, PREAMBLE_BYTES, SNAPSHOT_MAGIC, get_u32, put};
use crate::layout::{Layout, create_dir_if_missing, remove_if_there, sync_parent};
use crate::model::{EntryName, State};
use crate::tree::{Changes, META_BYTES, Meta, decode_entry, decode_name, subtree_of_prefix};

/// Items of about so many bytes stand in one block, under one checksum.
const BLOCK_BYTES: usize = 256 << 10;
const BLOCK_HEADER_BYTES: usize = 16;
const KIND: usize = 0;
const LENGTH: usize = 4;
const CHECKSUM: usize = 8;

/// Of the block that ends a snapshot.
const END_BLOCK_BYTES: u64 = (BLOCK_HEADER_BYTES + META_BYTES) as u64;

/// The kinds of a block.
const ITEMS: u32 = 1;
const END: u32 = 2;

/// The kinds of an item.
const SUBTREE_REMOVED: u8 = 0;
const REMOVED: u8 = 1;
const PUT: u8 = 2;

/// A snapshot that is being written, under a name that nobody reads.
pub(crate) struct Draft<'a> {
    env: &'a dyn Env,
    layout: &'a Layout,
    file: Arc<dyn File>,
    path: PathBuf,
    offset: u64,
    items: Vec<u8>,
}

impl<'a> Draft<'a> {
    pub(crate) fn begin(env: &'a dyn Env, layout: &'a Layout) -> Result<Draft<'a>> {
        create_dir_if_missing(env, &layout.snapshots())?;
        let path = layout.snapshot_draft();
        remove_if_there(env, &path)?;
        let file = env.create_file(&path).context("create", &path)?;
        let mut preamble = [0; PREAMBLE_BYTES];
        format::put_preamble(&mut preamble, SNAPSHOT_MAGIC);
        file.write_at(&preamble, 0).context("write", &path)?;
        Ok(Draft {
            env,
            layout,
            file,
            path,
            offset: PREAMBLE_BYTES as u64,
            items: Vec::new(),
        })
    }

    /// Adds a slice of the state, or what has changed in it since.
    pub(crate) fn add(&mut self, changes: &Changes) -> Result<()> {
        for prefix in &changes.removed_prefixes {
            if let Some(path) = subtree_of_prefix(prefix) {
                self.item(SUBTREE_REMOVED, path, None)?;
            }
        }
        for (name, bytes) in &changes.entries {
            match bytes {
                Some(bytes) => self.item(PUT, name, Some(bytes))?,
                None => self.item(REMOVED, name, None)?,
            }
        }
        Ok(())
    }

    fn item(&mut self, kind: u8, name: &[u8], bytes: Option<&[u8]>) -> Result<()> {
        self.items.push(kind);
        for part in [Some(name), bytes].into_iter().flatten() {
            self.items.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.items.extend_from_slice(part);
        }
        match self.items.len() < BLOCK_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(&mut self.items);
        self.block(ITEMS, &items)
    }

    fn block(&mut self, kind: u32, payload: &[u8]) -> Result<()> {
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        put(&mut block, KIND, kind.to_le_bytes());
        put(&mut block, LENGTH, (payload.len() as u32).to_le_bytes());
        block.extend_from_slice(payload);
        let checksum = checksum(self.offset, &block);
        put(&mut block, CHECKSUM, checksum.to_le_bytes());
        let written = self.file.write_at(&block, self.offset);
        written.context("write", &self.path)?;
        self.offset += block.len() as u64;
        Ok(())
    }

    /// Ends the snapshot, and makes it durable under its name. It is read back first: one that is not the state counts for
    /// nothing.
    pub(crate) fn finish(mut self, meta: &Meta) -> Result<PathBuf> {
        self.flush()?;
        self.block(END, &meta.encode())?;
        self.file.sync().context("sync", &self.path)?;
        load(self.env, &self.path)?;
        let path = self.layout.snapshot(meta.sequence);
        self.env.rename(&self.path, &path).context("rename", &self.path)?;
        sync_parent(self.env, &path)?;
        Ok(path)
    }
}

/// The checksum of a block at this offset of its file, whose own field counts as zeroes.
fn checksum(offset: u64, block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&block[..CHECKSUM]);
    hasher.update(&block[CHECKSUM + 4..]);
    hasher.finalize()
}

/// Reads and verifies a snapshot: what it holds, and of which record it is the state.
///
/// # Errors
/// `Damaged`, with file and offset, for anything that this version would not write.
pub(crate) fn load(env: &dyn Env, path: &Path) -> Result<(State, Meta)> {
    let mut reader = BlockReader::open(env, path)?;
    let mut state = State::new();
    loop {
        let at = reader.offset;
        let (kind, block) = reader.block()?;
        let payload = &block[BLOCK_HEADER_BYTES..];
        let damaged = |offset: usize, expected: &str| {
            let offset = at + (BLOCK_HEADER_BYTES + offset) as u64;
            Error::damaged(path, offset, expected, "other bytes")
        };
        match kind {
            ITEMS => {
                let put = put_items(&mut state, payload);
                put.map_err(|(offset, expected)| damaged(offset, expected))?;
            }
            END => {
                let meta = Meta::decode(payload).map_err(|_| damaged(0, "a valid description"))?;
                if reader.offset != reader.end {
                    return Err(damaged(payload.len(), "the end of the file"));
                }
                if state.digest() != meta.digest {
                    return Err(damaged(0, "the digest of what stands before"));
                }
                return Ok((state, meta));
            }
            _ => return Err(Error::damaged(path, at, "a kind of block", kind.to_string())),
        }
    }
}

/// Reads a snapshot to its end without making the state of it: whether every byte is as it was written.
///
/// # Errors
/// Those of [`load`].
pub(crate) fn verify(env: &dyn Env, path: &Path) -> Result<Meta> {
    let mut reader = BlockReader::open(env, path)?;
    while reader.block()?.0 != END {}
    read_meta(env, path)
}

/// What a snapshot says of itself at its end. The rest is not looked at.
pub(crate) fn read_meta(env: &dyn Env, path: &Path) -> Result<Meta> {
    let mut reader = BlockReader::open(env, path)?;
    let at = reader
        .end
        .saturating_sub(END_BLOCK_BYTES)
        .max(PREAMBLE_BYTES as u64);
    reader.offset = at;
    let (kind, block) = reader.block()?;
    let meta = Meta::decode(&block[BLOCK_HEADER_BYTES..]);
    match meta {
        Ok(meta) if kind == END => Ok(meta),
        _ => Err(Error::damaged(path, at, "a valid description", "other bytes")),
    }
}

struct BlockReader<'a> {
    file: Arc<dyn File>,
    path: &'a Path,
    offset: u64,
    end: u64,
}

impl<'a> BlockReader<'a> {
    /// Opens the file, and reads its preamble.
    fn open(env: &dyn Env, path: &'a Path) -> Result<BlockReader<'a>> {
        let file = env.open_file(path).context("open", path)?;
        let end = file.length().context("read the length of", path)?;
        let mut reader = BlockReader {
            file,
            path,
            offset: 0,
            end,
        };
        let mut preamble = [0; PREAMBLE_BYTES];
        reader.fill(&mut preamble)?;
        format::check_preamble(&preamble, SNAPSHOT_MAGIC, path)?;
        Ok(reader)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        if bytes.len() as u64 > self.end - self.offset {
            let expected = format!("{} more bytes", bytes.len());
            let found = format!("{}", self.end - self.offset);
            return Err(Error::damaged(self.path, self.offset, expected, found));
        }
        let read = self.file.read_at(bytes, self.offset);
        read.context("read", self.path)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// The next block, header and all, its checksum verified.
    fn block(&mut self) -> Result<(u32, Vec<u8>)> {
        let at = self.offset;
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        self.fill(&mut block)?;
        let length = u64::from(get_u32(&block, LENGTH));
        if length > self.end - self.offset {
            let expected = "a length within the file";
            return Err(Error::damaged(self.path, at, expected, length.to_string()));
        }
        block.resize(BLOCK_HEADER_BYTES + length as usize, 0);
        self.fill(&mut block[BLOCK_HEADER_BYTES..])?;
        let stored = get_u32(&block, CHECKSUM);
        if stored != checksum(at, &block) {
            let expected = format!("the block's checksum {:#010x}", checksum(at, &block));
            return Err(Error::damaged(self.path, at, expected, format!("{stored:#010x}")));
        }
        Ok((get_u32(&block, KIND), block))
    }
}

/// Puts what the items say into the state; where one is malformed, its offset and what was expected there.
fn put_items(state: &mut State, payload: &[u8]) -> std::result::Result<(), (usize, &'static str)> {
    let mut rest = payload;
    while let Some((kind, after)) = rest.split_first() {
        let at = payload.len() - rest.len();
        let malformed = |expected| move || (at, expected);
        rest = after;
        let name = take(&mut rest).ok_or_else(malformed("a name"))?;
        let put = match *kind {
            SUBTREE_REMOVED => {
                let path = str::from_utf8(name).map_err(|_| (at, "UTF-8"))?;
                state.put(&EntryName::key(path), None)
            }
            REMOVED => {
                let name = decode_name(name).ok_or_else(malformed("the name of an entry"))?;
                state.put(&name.to_owned(), None)
            }
            PUT => {
                let bytes = take(&mut rest).ok_or_else(malformed("an entry"))?;
                let (name, stored) = decode_entry(name, bytes).map_err(|_| (at, "a whole entry"))?;
                state.put(&name.to_owned(), Some(stored.to_owned()))
            }
            _ => return Err((at, "a kind of item")),
        };
        put.map_err(|_| (at, "an entry that can be"))?;
    }
    Ok(())
}

/// A length and so many bytes.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(bytes)
}

/// The sequence numbers of all snapshots, the newest first.
pub(crate) fn list(env: &dyn Env, layout: &Layout) -> Result<Vec<u64>> {
    let folder = layout.snapshots();
    let names = match env.list_dir(&folder) {
        // Made with the first snapshot.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.context("list", &folder)?,
    };
    let mut sequences: Vec<_> = names
        .iter()
        .filter_map(|name| Layout::parse_snapshot(name))
        .collect();
    sequences.sort_unstable_by(|a, b| b.cmp(a));
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OsEnv;
    use crate::epoch::Epoch;
    use crate::model::{Batch, KeyPath, Limits, Value, evaluate};
    use crate::tree::{encode_entry, encode_name};

    fn layout(folder: &Path) -> Layout {
        Layout::new(folder)
    }

    fn sample() -> State {
        let mut batch = Batch::at(&KeyPath::root());
        batch.set_value("", Value::sz("root")).unwrap();
        batch.create_key("A\\B").unwrap();
        batch.set_value("n", Value::dword(7)).unwrap();
        let mut state = State::new();
        let record = evaluate(&state, &batch, &Limits::default()).unwrap();
        state.apply(record.view(), 5);
        state
    }

    fn changes(state: &State) -> Changes {
        let mut changes = Changes::default();
        for name in state.names_after(None, 100) {
            let stored = state.stored(&name).unwrap();
            changes
                .entries
                .insert(encode_name(&name), Some(encode_entry(&stored)));
        }
        changes
    }

    fn meta(state: &State) -> Meta {
        Meta {
            epoch: Epoch::from_bytes([7; 16]),
            sequence: 42,
            frame_checksum: 9,
            digest: state.digest(),
        }
    }

    fn write(layout: &Layout, parts: &[Changes], meta: &Meta) -> Result<PathBuf> {
        let mut draft = Draft::begin(&OsEnv, layout)?;
        for part in parts {
            draft.add(part)?;
        }
        draft.finish(meta)
    }

    #[test]
    fn a_snapshot_is_read_as_the_state_that_it_was_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let state = sample();
        // What is gone in the end was there when it was begun.
        let mut before = changes(&state);
        for (path, name) in [("B", None), ("B\\C", None), ("B\\C", Some("X")), ("A", Some("Y"))] {
            let name = EntryName {
                key: path.into(),
                value: name.map(Into::into),
            };
            let stored = match &name.value {
                None => crate::model::Stored::Key {
                    path: path.into(),
                    last_write: 1,
                },
                Some(value) => crate::model::Stored::Value {
                    name: (**value).into(),
                    value: Value::dword(1),
                },
            };
            before
                .entries
                .insert(encode_name(&name), Some(encode_entry(&stored)));
        }
        let mut after = changes(&state);
        after.removed_prefixes.extend(crate::tree::prefixes_below("B"));
        after
            .entries
            .insert(encode_name(&EntryName::value("A", "Y")), None);
        let meta = meta(&state);
        let path = write(&layout, &[before, after], &meta).unwrap();
        assert_eq!(path, layout.snapshot(42));
        assert_eq!(list(&OsEnv, &layout).unwrap(), [42]);
        assert_eq!(read_meta(&OsEnv, &path).unwrap(), meta);
        assert_eq!(load(&OsEnv, &path).unwrap(), (state, meta));
    }

    #[test]
    fn no_flipped_byte_of_a_snapshot_and_no_cut_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let state = sample();
        let path = write(&layout, &[changes(&state)], &meta(&state)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = load(&OsEnv, &path).unwrap_err();
            matches!(error, Error::Damaged { .. })
        };
        for offset in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[offset] ^= 8;
            assert!(refused(&flipped), "{offset}");
            assert!(refused(&whole[..offset]), "cut at {offset}");
        }
        assert!(refused(&[&whole[..], &[0]].concat()));
    }

    #[test]
    fn a_snapshot_that_is_not_the_state_does_not_come_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let state = sample();
        let mut lacking = changes(&state);
        lacking.entries.pop_last();
        let error = write(&layout, &[lacking], &meta(&state)).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(list(&OsEnv, &layout).unwrap().is_empty());
    }
}
