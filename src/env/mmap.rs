//! Memory maps: the one file of the crate with `unsafe` code.
//!
//! The whole argument for the maps of the journal is one sentence, kept by the journal: **bytes below the durable
//! watermark never change, and files are unlinked, never truncated, while a view can exist.** So a [`Map`] gives
//! slices only of bytes that it was told are stable, and the journal tells so only of what it has made durable.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Range;

use memmap2::{MmapOptions, MmapRaw};

#[cfg(not(clusdb_loom))]
use super::PAGE_BYTES;
#[cfg(not(clusdb_loom))]
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::sync::atomic::{AtomicUsize, Ordering};

/// A read-only map of a file, of which a growing part is stable and can be read.
pub struct Map {
    bytes: Bytes,
    stable: AtomicUsize,
}

enum Bytes {
    Mapped(MmapRaw),
    Owned(Box<[u8]>),
    #[cfg(clusdb_loom)]
    Tracked(std::sync::Arc<Tracked>),
}

impl Map {
    /// Maps the first `length` bytes of the file, which is at least that long.
    pub(super) fn of_file(file: &std::fs::File, length: u64) -> std::io::Result<Map> {
        let length = usize::try_from(length).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let bytes = if length == 0 {
            Bytes::Owned(Box::default())
        } else {
            Bytes::Mapped(MmapOptions::new().len(length).map_raw_read_only(file)?)
        };
        Ok(Map {
            bytes,
            stable: AtomicUsize::new(0),
        })
    }

    /// A map of bytes in memory, for an environment without files.
    #[must_use]
    pub fn of_bytes(bytes: Box<[u8]>) -> Map {
        Map {
            bytes: Bytes::Owned(bytes),
            stable: AtomicUsize::new(0),
        }
    }

    /// A map of bytes that are written while they are mapped, as those of a file are.
    #[cfg(clusdb_loom)]
    pub(crate) fn of_tracked(bytes: &std::sync::Arc<Tracked>) -> Map {
        Map {
            bytes: Bytes::Tracked(std::sync::Arc::clone(bytes)),
            stable: AtomicUsize::new(0),
        }
    }

    /// The number of bytes mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Mapped(raw) => raw.len(),
            Bytes::Owned(bytes) => bytes.len(),
            #[cfg(clusdb_loom)]
            Bytes::Tracked(bytes) => bytes.len(),
        }
    }

    /// The number of bytes from the start that are stable.
    #[must_use]
    pub fn stable_bytes(&self) -> usize {
        self.stable.load(Ordering::Acquire)
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that the first `length` bytes are durable: that no process writes them again, and that the file is not
    /// made shorter, as long as this map exists. The caller answers for it.
    pub(crate) fn mark_stable(&self, length: usize) {
        self.stable.fetch_max(length.min(self.len()), Ordering::Release);
    }

    /// The bytes of the range, if all of them are stable.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let stable = self.stable_bytes();
        if range.start > range.end || range.end > stable {
            return None;
        }
        match &self.bytes {
            Bytes::Owned(bytes) => bytes.get(range),
            #[cfg(clusdb_loom)]
            Bytes::Tracked(bytes) => Some(bytes.slice(range)),
            Bytes::Mapped(raw) => {
                let length = range.end - range.start;
                // SAFETY: `from_raw_parts` asks for four things.
                // * Valid for reads of `length` bytes within one allocation: the map is `raw.len()` bytes long, was
                //   made no longer than the file was by fstat, `stable` never exceeds it, and the range was checked
                //   against `stable` just above. The file is never truncated while a map can exist (the journal's
                //   duty), so that no page of it goes away. The map lives as long as `self`, and the slice borrows
                //   `self`.
                // * Aligned and initialised: the elements are bytes, and every byte of a file has a value.
                // * Not written through any other pointer while the slice lives: this map is read-only, and of the
                //   file only bytes above the stable length are written, by the journal's duty (`mark_stable`).
                // * At most `isize::MAX` bytes: the kernel maps no more.
                Some(unsafe { std::slice::from_raw_parts(raw.as_ptr().add(range.start), length) })
            }
        }
    }

    /// Where the map begins in memory, to show that a view is mapped.
    #[must_use]
    pub fn address(&self) -> usize {
        match &self.bytes {
            Bytes::Mapped(raw) => raw.as_ptr() as usize,
            Bytes::Owned(bytes) => bytes.as_ptr() as usize,
            #[cfg(clusdb_loom)]
            Bytes::Tracked(bytes) => bytes.slice(0..0).as_ptr() as usize,
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stable = self.stable.load(Ordering::Relaxed);
        write!(f, "Map({stable} of {} bytes stable)", self.len())
    }
}

/// Bytes that are written while slices of them are out, for models: loom is told of each access to a piece of eight bytes, the grid
/// of the journal's frames, and ends the model where a write and a read of one piece are not in order.
#[cfg(clusdb_loom)]
#[derive(Debug)]
pub(crate) struct Tracked {
    bytes: Box<[std::cell::UnsafeCell<u8>]>,
    pieces: Box<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: loom runs one thread at a time, and ends the model before one accesses bytes that another does not leave it.
#[cfg(clusdb_loom)]
unsafe impl Send for Tracked {}
#[cfg(clusdb_loom)]
unsafe impl Sync for Tracked {}

#[cfg(clusdb_loom)]
impl Tracked {
    const PIECE_BYTES: usize = 8;

    /// So many zeroes.
    pub(crate) fn zeroes(length: usize) -> Tracked {
        let pieces = length.div_ceil(Tracked::PIECE_BYTES);
        Tracked {
            bytes: (0..length).map(|_| std::cell::UnsafeCell::new(0)).collect(),
            pieces: (0..pieces).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn pieces(&self, range: &Range<usize>) -> &[loom::cell::UnsafeCell<()>] {
        let first = range.start / Tracked::PIECE_BYTES;
        &self.pieces[first..range.end.div_ceil(Tracked::PIECE_BYTES).max(first)]
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.pieces(&(at..at + bytes.len()))
            .iter()
            .for_each(|piece| piece.with_mut(|_| ()));
        for (cell, byte) in self.bytes[at..].iter().zip(bytes) {
            // SAFETY: loom has just said that nobody else accesses the piece.
            unsafe { *cell.get() = *byte };
        }
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        self.pieces(&range).iter().for_each(|piece| piece.with(|_| ()));
        let cells = &self.bytes[range];
        // SAFETY: an `UnsafeCell<u8>` is as a `u8`; loom has just said that nobody writes the pieces now, and the journal does not
        // do it later, which the model checks by what the bytes are then.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }
}

/// One page, shared with other processes, of which only atomic words are read and written.
#[cfg(not(clusdb_loom))]
pub struct Page {
    words: Words,
}

#[cfg(not(clusdb_loom))]
enum Words {
    Mapped(MmapRaw),
    Owned(Box<[AtomicU64; PAGE_BYTES / 8]>),
}

#[cfg(not(clusdb_loom))]
impl Page {
    /// Maps the first page of the file, which is at least that long and whose blocks are on the disk.
    pub(super) fn of_file(file: &std::fs::File) -> std::io::Result<Page> {
        let raw = MmapOptions::new().len(PAGE_BYTES).map_raw(file)?;
        Ok(Page {
            words: Words::Mapped(raw),
        })
    }

    /// A page in memory, for an environment without files.
    #[must_use]
    pub fn of_words(words: Box<[AtomicU64; PAGE_BYTES / 8]>) -> Page {
        Page {
            words: Words::Owned(words),
        }
    }

    /// The 8-byte word number `index`, counted from the page's start.
    ///
    /// # Panics
    /// If there is no such word; the callers use constants.
    #[must_use]
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < PAGE_BYTES / 8, "a page has {} words", PAGE_BYTES / 8);
        match &self.words {
            Words::Owned(words) => &words[index],
            Words::Mapped(raw) => {
                // SAFETY: `AtomicU64::from_ptr` asks for three things.
                // * Valid for reads and writes as long as the reference lives: the map is PAGE_BYTES long, writable,
                //   the index was checked just above, the reference borrows `self`, and the file is never truncated.
                // * Aligned to 8: a map begins at a page's boundary, and whole words are added.
                // * No access that is not atomic at the same time: this process reads and writes the page through
                //   this method and `half` only, and other processes likewise.
                unsafe { AtomicU64::from_ptr(raw.as_mut_ptr().cast::<u64>().add(index)) }
            }
        }
    }

    /// The futex word: the first four bytes of the 8-byte word number `index`, which is used for nothing else.
    ///
    /// # Panics
    /// If there is no such word; the callers use constants.
    #[must_use]
    pub fn half(&self, index: usize) -> &AtomicU32 {
        let word: *const AtomicU64 = self.word(index);
        // SAFETY: the word lives as long as `self`, is aligned to 8, so also to 4, and its first half is accessed
        // by 4-byte atomic operations only.
        unsafe { AtomicU32::from_ptr(word.cast::<u32>().cast_mut()) }
    }
}

#[cfg(not(clusdb_loom))]
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_gives_only_what_is_stable() {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, b"abcdef").unwrap();
        for map in [
            Map::of_file(&file, 6).unwrap(),
            Map::of_bytes(Box::from(*b"abcdef")),
        ] {
            assert_eq!(map.get(0..1), None);
            map.mark_stable(4);
            assert_eq!(map.get(1..4), Some(&b"bcd"[..]));
            assert_eq!(map.get(1..5), None);
            map.mark_stable(2);
            assert_eq!(map.get(1..4), Some(&b"bcd"[..]));
            map.mark_stable(1000);
            assert_eq!(map.get(0..6), Some(&b"abcdef"[..]));
            assert_eq!(map.get(0..7), None);
        }
    }

    #[test]
    #[cfg(not(clusdb_loom))]
    fn what_is_stored_in_a_page_is_in_its_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE_BYTES as u64).unwrap();
        let page = Page::of_file(&file).unwrap();
        page.word(1)
            .store(u64::from_le_bytes(*b"clusdb!!"), Ordering::Relaxed);
        page.half(2).store(7, Ordering::Relaxed);
        let mut bytes = [0; 20];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes[8..16], b"clusdb!!");
        assert_eq!(bytes[16..], [7, 0, 0, 0]);
    }
}
