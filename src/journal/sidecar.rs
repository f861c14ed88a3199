//! A sidecar: the index of a sealed segment in a file beside it (`docs/format.md`, "Sidecars").
//!
//! It is derived, and never needed: one that is missing, damaged or of another segment is made again from the frames. So it is not
//! synced either; what a crash leaves of it is found out by its checksums.

use std::path::{Path, PathBuf};

use super::index::{Index, ListId};
use crate::env::{Env, Map};
use crate::error::{Error, IoContext, Result};
use crate::format::{self, PREAMBLE_BYTES, SIDECAR_MAGIC, get, get_u32, get_u64, put};
use crate::layout::{Layout, remove_if_there};
use crate::model::case_table::CASE_TABLE_ID;

const NONCE: usize = PREAMBLE_BYTES;
const FIRST_SEQUENCE: usize = NONCE + 16;
const LAST_SEQUENCE: usize = FIRST_SEQUENCE + 8;
const LAST_CHECKSUM: usize = LAST_SEQUENCE + 8;
const HASH: usize = LAST_CHECKSUM + 4;
const CASE_TABLE: usize = HASH + 4;
const LISTS: usize = CASE_TABLE + 4;
const ENTRIES_CHECKSUM: usize = LISTS + 4;
const HEADER_CHECKSUM: usize = ENTRIES_CHECKSUM + 4;
const HEADER_BYTES: usize = HEADER_CHECKSUM + 4;

/// XXH3-64 with seed 0.
const HASH_ID: u32 = 1;

const ENTRY_ID: usize = 0;
const ENTRY_OFFSET: usize = ENTRY_ID + 8;
const ENTRY_FRAMES: usize = ENTRY_OFFSET + 8;
const ENTRY_CHECKSUM: usize = ENTRY_FRAMES + 4;
const ENTRY_BYTES: usize = ENTRY_CHECKSUM + 4;
const FRAME_BYTES: usize = 4;

/// What ties a sidecar to its segment: a repair may make another one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) nonce: [u8; 16],
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    /// Of the last frame.
    pub(crate) last_checksum: u32,
}

/// An open sidecar, whose header and table of lists have been verified.
#[derive(Debug)]
pub(crate) struct Sidecar {
    path: PathBuf,
    map: Map,
    lists: usize,
}

impl Sidecar {
    /// Writes the index of a segment, in place of what has the name.
    pub(super) fn write(env: &dyn Env, path: &Path, binding: &Binding, index: &Index) -> Result<()> {
        let bytes = encode(binding, index);
        let aside = Layout::unfinished(path);
        remove_if_there(env, &aside)?;
        let written = env
            .create_file(&aside)
            .and_then(|file| file.write_at(&bytes, 0))
            .and_then(|()| env.rename(&aside, path));
        if written.is_err() {
            // Best effort: on a full disk it takes room that others need.
            let _ = env.remove_file(&aside);
        }
        written.context("write", path)
    }

    /// Opens the sidecar of the segment that is bound so; none if there is none.
    ///
    /// # Errors
    /// `Damaged`, also for one of another segment; `UnsupportedVersion`; and the system's.
    pub(super) fn open(env: &dyn Env, path: &Path, binding: &Binding) -> Result<Option<Sidecar>> {
        let file = match env.open_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context("open", path)?,
        };
        let map = file.map().context("map", path)?;
        // It has its name since it is whole, and is never written again.
        map.mark_stable(map.len());
        let bytes = map.get(0..map.len()).unwrap_or_default();
        let lists = check_header(bytes, path, binding)?;
        let path = path.to_owned();
        Ok(Some(Sidecar { path, map, lists }))
    }

    /// The frames of a list, verified, in order; nothing if there is no such list.
    pub(super) fn list(&self, id: ListId) -> Result<impl ExactSizeIterator<Item = u32> + '_> {
        let bytes = self.map.get(0..self.map.len()).unwrap_or_default();
        let frames = match self.find(bytes, id) {
            Some(entry) => self.frames(bytes, entry)?,
            None => &[],
        };
        Ok(frames.chunks_exact(FRAME_BYTES).map(|step| get_u32(step, 0)))
    }

    fn entries<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[HEADER_BYTES..HEADER_BYTES + self.lists * ENTRY_BYTES]
    }

    fn find<'a>(&self, bytes: &'a [u8], id: ListId) -> Option<&'a [u8]> {
        let entries = self.entries(bytes);
        let entry = |at: usize| &entries[at * ENTRY_BYTES..(at + 1) * ENTRY_BYTES];
        let (mut low, mut high) = (0, self.lists);
        while low < high {
            let middle = low + (high - low) / 2;
            match get_u64(entry(middle), ENTRY_ID).cmp(&id.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(entry(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn frames<'a>(&self, bytes: &'a [u8], entry: &[u8]) -> Result<&'a [u8]> {
        let offset = get_u64(entry, ENTRY_OFFSET);
        let length = get_u32(entry, ENTRY_FRAMES) as usize * FRAME_BYTES;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let frames = begin.checked_add(length).and_then(|end| bytes.get(begin..end));
        let Some(frames) = frames else {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::damaged(&self.path, offset, "a list of frames", found));
        };
        let id: [u8; 8] = get(entry, ENTRY_ID);
        let (stored, computed) = (get_u32(entry, ENTRY_CHECKSUM), checksum(id, frames));
        if stored != computed {
            let expected = format!("a list with the checksum {stored:#010x}");
            let found = format!("{computed:#010x}");
            return Err(Error::damaged(&self.path, offset, expected, found));
        }
        Ok(frames)
    }

    /// Whether it says what this index does.
    ///
    /// # Errors
    /// `Damaged`, with the first list that is another.
    pub(super) fn compare(&self, index: &Index) -> Result<()> {
        let lists = index.sorted();
        if self.lists != lists.len() {
            let expected = format!("{} lists", lists.len());
            let found = self.lists.to_string();
            return Err(Error::damaged(&self.path, LISTS as u64, expected, found));
        }
        for (id, list) in lists {
            if !self.list(id)?.eq(list.iter().copied()) {
                let expected = format!("the list {:#018x} of {} frames", id.0, list.len());
                return Err(Error::damaged(
                    &self.path,
                    HEADER_BYTES as u64,
                    expected,
                    "another",
                ));
            }
        }
        Ok(())
    }
}

/// Checks the header and the table of lists, and gives the number of lists.
fn check_header(bytes: &[u8], path: &Path, binding: &Binding) -> Result<usize> {
    format::check_preamble(bytes, SIDECAR_MAGIC, path)?;
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        let found = format!("{} bytes", bytes.len());
        return Err(Error::damaged(path, 0, "a sidecar's header", found));
    };
    let (covered, stored) = (&header[..HEADER_CHECKSUM], get_u32(header, HEADER_CHECKSUM));
    format::check_checksum(
        covered,
        stored,
        path,
        HEADER_CHECKSUM as u64,
        "the header's checksum",
    )?;
    if header[NONCE..LISTS] != encode_binding(binding)[NONCE..LISTS] {
        let found = "of other frames, or under another table";
        return Err(Error::damaged(
            path,
            NONCE as u64,
            "a sidecar of its segment",
            found,
        ));
    }
    let lists = get_u32(header, LISTS) as usize;
    let entries = lists
        .checked_mul(ENTRY_BYTES)
        .and_then(|length| bytes[HEADER_BYTES..].get(..length));
    let Some(entries) = entries else {
        let found = format!("{} bytes", bytes.len());
        return Err(Error::damaged(
            path,
            LISTS as u64,
            format!("{lists} lists"),
            found,
        ));
    };
    let stored = get_u32(header, ENTRIES_CHECKSUM);
    format::check_checksum(
        entries,
        stored,
        path,
        ENTRIES_CHECKSUM as u64,
        "the table's checksum",
    )?;
    Ok(lists)
}

/// A header without what stands behind the binding.
fn encode_binding(binding: &Binding) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    format::put_preamble(&mut header, SIDECAR_MAGIC);
    put(&mut header, NONCE, binding.nonce);
    put(&mut header, FIRST_SEQUENCE, binding.first_sequence.to_le_bytes());
    put(&mut header, LAST_SEQUENCE, binding.last_sequence.to_le_bytes());
    put(&mut header, LAST_CHECKSUM, binding.last_checksum.to_le_bytes());
    put(&mut header, HASH, HASH_ID.to_le_bytes());
    put(&mut header, CASE_TABLE, CASE_TABLE_ID.to_le_bytes());
    header
}

fn encode(binding: &Binding, index: &Index) -> Vec<u8> {
    let lists = index.sorted();
    let mut entries = Vec::with_capacity(lists.len() * ENTRY_BYTES);
    let mut frames = Vec::new();
    let begin = HEADER_BYTES + lists.len() * ENTRY_BYTES;
    for (id, list) in &lists {
        let at = frames.len();
        frames.extend(list.iter().flat_map(|step| step.to_le_bytes()));
        let mut entry = [0; ENTRY_BYTES];
        put(&mut entry, ENTRY_ID, id.0.to_le_bytes());
        put(&mut entry, ENTRY_OFFSET, ((begin + at) as u64).to_le_bytes());
        put(&mut entry, ENTRY_FRAMES, (list.len() as u32).to_le_bytes());
        let checksum = checksum(id.0.to_le_bytes(), &frames[at..]);
        put(&mut entry, ENTRY_CHECKSUM, checksum.to_le_bytes());
        entries.extend(entry);
    }
    let mut header = encode_binding(binding);
    put(&mut header, LISTS, (lists.len() as u32).to_le_bytes());
    put(
        &mut header,
        ENTRIES_CHECKSUM,
        crc32fast::hash(&entries).to_le_bytes(),
    );
    let checksum = crc32fast::hash(&header[..HEADER_CHECKSUM]);
    put(&mut header, HEADER_CHECKSUM, checksum.to_le_bytes());
    [&header[..], &entries, &frames].concat()
}

/// Of a list and what it is found by, so that none can stand for another.
fn checksum(id: [u8; 8], frames: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id);
    hasher.update(frames);
    hasher.finalize()
}
