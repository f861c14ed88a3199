//! The folders of trees: `tree.<n>` each, never used again once a tree in it was given up.
//!
//! sled works on files of its own, past the environment that the rest of the store goes through; so do its folders.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::TreeFault;

const PREFIX: &str = "tree.";
/// Behind the name of a tree that was given up, and is kept to be looked at.
const ASIDE: &str = ".aside";

/// The folders of one store's trees.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    root: PathBuf,
}

impl From<io::Error> for TreeFault {
    fn from(error: io::Error) -> TreeFault {
        TreeFault::Failed(error.to_string())
    }
}

impl Folders {
    pub(crate) fn new(root: &Path) -> Folders {
        Folders {
            root: root.to_owned(),
        }
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.root.join(format!("{PREFIX}{number}"))
    }

    /// The numbers of the trees, the newest first. Those set aside are left out.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>, TreeFault> {
        let names = self.names()?;
        let mut numbers: Vec<_> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable_by(|a: &u64, b| b.cmp(a));
        Ok(numbers)
    }

    /// What stands behind the prefix in each folder's name.
    fn names(&self) -> Result<Vec<String>, TreeFault> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            names.extend(
                name.to_str()
                    .and_then(|name| name.strip_prefix(PREFIX))
                    .map(str::to_owned),
            );
        }
        Ok(names)
    }

    /// Makes the next folder, that only its owner can enter.
    pub(crate) fn create(&self) -> Result<u64, TreeFault> {
        let names = self.names()?;
        let number = |name: &String| name.strip_suffix(ASIDE).unwrap_or(name).parse().ok();
        let last: u64 = names.iter().filter_map(number).max().unwrap_or(0);
        fs::DirBuilder::new().mode(0o700).create(self.path(last + 1))?;
        Ok(last + 1)
    }

    /// Gives a tree up: renames its folder, and removes the one that was set aside before.
    pub(crate) fn set_aside(&self, number: u64) -> Result<PathBuf, TreeFault> {
        let before: Vec<_> = self
            .names()?
            .into_iter()
            .filter(|name| name.ends_with(ASIDE))
            .collect();
        let mut aside = self.path(number).into_os_string();
        aside.push(ASIDE);
        fs::rename(self.path(number), &aside)?;
        for name in before {
            fs::remove_dir_all(self.root.join(format!("{PREFIX}{name}")))?;
        }
        Ok(aside.into())
    }

    /// Removes a tree that nobody has open.
    pub(crate) fn remove(&self, number: u64) -> Result<(), TreeFault> {
        Ok(fs::remove_dir_all(self.path(number))?)
    }

    /// Removes the trees that are older than this one.
    pub(crate) fn remove_older(&self, number: u64) -> Result<(), TreeFault> {
        let mut older = self.numbers()?.into_iter().filter(|older| *older < number);
        older.try_for_each(|older| self.remove(older))
    }

    /// Bytes of all files of a tree.
    pub(crate) fn bytes(&self, number: u64) -> Result<u64, TreeFault> {
        let mut bytes = 0;
        visit_files(&self.path(number), &mut |file| {
            bytes += file.metadata()?.len();
            Ok(())
        })?;
        Ok(bytes)
    }
}

/// Makes all files below a folder durable, and their names.
pub(super) fn sync_all(folder: &Path) -> io::Result<()> {
    visit_files(folder, &mut |file| file.sync_all())?;
    match folder.parent() {
        Some(parent) if parent != OsStr::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Visits all files below a folder and the folders themselves, these last. A symbolic link is an error: sled would follow it.
fn visit_files(folder: &Path, visit: &mut dyn FnMut(&File) -> io::Result<()>) -> io::Result<()> {
    let whole = open_itself(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            visit_files(&entry.path(), visit)?;
            continue;
        }
        match open_itself(&entry.path()) {
            Ok(file) => visit(&file)?,
            // A file that sled has just replaced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    visit(&whole)
}

fn open_itself(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path).map_err(|error| match path.is_symlink() {
        true => io::Error::other(format!("{} is a symbolic link", path.display())),
        false => error,
    })
}
