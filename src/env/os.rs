//! The real environment: the operating system's files.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Env, File, FileSystem, Map, Page, SymbolicLink};

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEnv;

impl Env for OsEnv {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(OsFile::new(options.open(path)?)))
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        match options.open(path) {
            Ok(file) => Ok(Arc::new(OsFile::new(file))),
            // Also what a loop of links on the way to the store gives.
            Err(error)
                if error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
                    && self.is_symbolic_link(path)? =>
            {
                Err(io::Error::other(SymbolicLink))
            }
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    #[cfg(target_os = "linux")]
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn is_symbolic_link(&self, path: &Path) -> io::Result<bool> {
        match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(found.is_symlink()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        FileSystem::of(path)
    }

    fn now(&self) -> i64 {
        let microseconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()),
            Err(before) => i64::try_from(before.duration().as_micros()).map(|before| -before),
        };
        microseconds.unwrap_or_default()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::from)
    }
}

#[derive(Debug)]
struct OsFile {
    file: std::fs::File,
    is_locked: AtomicBool,
}

impl OsFile {
    fn new(file: std::fs::File) -> OsFile {
        OsFile {
            file,
            is_locked: AtomicBool::new(false),
        }
    }
}

/// A process that is just being started has the file open too, until it becomes another program: closing the file does not give
/// the lock back before that.
impl Drop for OsFile {
    fn drop(&mut self) {
        if self.is_locked.load(Ordering::Relaxed)
            && let Err(error) = self.file.unlock()
        {
            tracing::warn!(%error, "a lock is given back when its file is closed");
        }
    }
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => {
                self.is_locked.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let mine = self.file.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) => Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn map(&self) -> io::Result<Map> {
        Map::of_file(&self.file, self.length()?)
    }

    fn map_page(&self) -> io::Result<Page> {
        if self.length()? < super::PAGE_BYTES as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Page::of_file(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a process that was forked a moment ago has it: the same open file, which nobody has closed there yet.
    #[test]
    fn a_lock_is_given_back_although_a_process_that_is_being_started_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let file = OsFile::new(
            std::fs::File::options()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap(),
        );
        let inherited = file.file.try_clone().unwrap();
        assert!(file.try_lock().unwrap());
        let next = OsEnv.open_file(&path).unwrap();
        assert!(!next.try_lock().unwrap());
        drop(file);
        assert!(next.try_lock().unwrap());
        drop(inherited);
    }

    /// Lock, then check that the file is still the one: a lock on a file that was removed is worth nothing.
    #[test]
    fn a_file_that_was_replaced_under_its_path_is_told_from_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = OsEnv.create_file(&path).unwrap();
        assert!(file.try_lock().unwrap() && file.is_at(&path).unwrap());
        assert!(
            !OsEnv.open_file(&path).unwrap().try_lock().unwrap(),
            "two open files, one lock"
        );
        OsEnv.remove_file(&path).unwrap();
        assert!(!file.is_at(&path).unwrap());
        let new = OsEnv.create_file(&path).unwrap();
        assert!(new.try_lock().unwrap() && new.is_at(&path).unwrap());
        assert!(!file.is_at(&path).unwrap());
    }

    #[test]
    fn files_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (dir, file) = (folder.path().join("dir"), folder.path().join("dir/file"));
        OsEnv.create_dir(&dir).unwrap();
        OsEnv.create_file(&file).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
    }
}
