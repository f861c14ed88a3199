//! The environment: every touch of the disk, the clock and the source of randomness.
//!
//! No file of a store is read or written except through [`Env`]. The real implementation is [`OsEnv`]; a test brings
//! its own, to watch what is synced when, or to make an operation fail.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

mod file_system;
mod futex;
#[cfg(clusdb_loom)]
mod loom_page;
mod mmap;
mod os;

pub use file_system::FileSystem;
pub(crate) use futex::{wait_while, wake_all};
#[cfg(clusdb_loom)]
pub use loom_page::Page;
pub use mmap::Map;
#[cfg(not(clusdb_loom))]
pub use mmap::Page;
#[cfg(all(test, clusdb_loom))]
pub(crate) use mmap::Tracked;
pub use os::OsEnv;

/// Bytes of the page that [`File::map_page`] maps.
pub const PAGE_BYTES: usize = 4096;

/// In the place of a file or a folder there is a symbolic link. An environment says so by an [`io::Error`] that holds this.
#[derive(Debug, Clone, Copy, Error)]
#[error("it is a symbolic link")]
pub struct SymbolicLink;

impl SymbolicLink {
    pub(crate) fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<SymbolicLink>())
    }
}

/// Files, folders, time and randomness.
pub trait Env: Debug + Send + Sync {
    /// Makes a folder that only its owner can enter (0700). An existing one is an error.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in no order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Makes the folder's entries durable: what was created, renamed or removed in it.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes a file that only its owner can read and write (0600). An existing one is an error.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing. A symbolic link is not followed.
    ///
    /// # Errors
    /// Those of the file system; one that holds [`SymbolicLink`] for a symbolic link.
    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Renames a file, in place of what has that name.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Exchanges the names of two files, which are both there, at one moment.
    ///
    /// # Errors
    /// Those of the file system; `Unsupported` where it cannot be done.
    fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a file's name; maps of the file stay valid.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Whether the path names a symbolic link; false also where nothing is. An environment without links need not say.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_symbolic_link(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// The kind of file system that the path, which exists, is on.
    ///
    /// # Errors
    /// Those of the file system.
    fn file_system(&self, _path: &Path) -> io::Result<FileSystem> {
        Ok(FileSystem::Local)
    }

    /// Microseconds since the beginning of 1970, UTC. May jump.
    fn now(&self) -> i64;

    /// Fills the buffer with random bytes that nobody can predict.
    ///
    /// # Errors
    /// Those of the system's source.
    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// An open file. All methods may block on the disk.
pub trait File: Debug + Send + Sync {
    /// Fills the buffer from this offset.
    ///
    /// # Errors
    /// Those of the file system; `UnexpectedEof` if the file ends before the buffer is full.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of the buffer at this offset, making the file longer where needed.
    ///
    /// # Errors
    /// Those of the file system; a part may have been written.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn length(&self) -> io::Result<u64>;

    /// Makes the file's content and length durable (fdatasync).
    ///
    /// # Errors
    /// Those of the file system. After one, nobody knows what of the file is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Takes the exclusive lock of the file (flock), which is given back when the file is dropped or its process
    /// ends. False if another open file has it.
    ///
    /// # Errors
    /// Those of the file system.
    fn try_lock(&self) -> io::Result<bool>;

    /// Whether the path still names this very file.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_at(&self, path: &Path) -> io::Result<bool>;

    /// Maps the file as it is long now, to read.
    ///
    /// # Errors
    /// Those of the file system.
    fn map(&self) -> io::Result<Map>;

    /// Maps the first page of the file, to read and write, shared with other processes. The file is at least
    /// [`PAGE_BYTES`] long.
    ///
    /// # Errors
    /// Those of the file system.
    fn map_page(&self) -> io::Result<Page>;
}
