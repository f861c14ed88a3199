//! Where the files of a store are: the one place that builds and parses their names.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::env::{Env, File};
use crate::error::{Error, IoContext, Result};
use crate::model::{Limit, LimitExceeded, NameError};

const STORE: &str = "store";
const LOCK: &str = "lock";
const HEAD: &str = "head";
const SPARE_HEAD: &str = "head.spare";
const JOURNAL: &str = "journal";
const PORTS: &str = "ports";
const BACKUP: &str = "backup";
const SNAPSHOTS: &str = "snapshots";
const SEGMENT_EXTENSION: &str = "segment";
const PORT_EXTENSION: &str = "port";
const NOTE_EXTENSION: &str = "trimmed";
const SIDECAR_EXTENSION: &str = "index";
const SNAPSHOT_EXTENSION: &str = "snapshot";
/// A file that is being written, to be renamed when it is whole. What a crash leaves of it is removed.
const UNFINISHED_EXTENSION: &str = "unfinished";
/// Of a segment that is made ahead of need.
const NEXT_SEGMENT: &str = "next.segment";
const PORT_LOCK: &str = ".lock";
/// A lock that another process holds is tried again this often.
const CREATION_RETRY: Duration = Duration::from_millis(1);
/// Characters in a port's name, at most.
const MAX_PORT_NAME_CHARS: u64 = 64;

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Layout {
        Layout {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The identity of the store; where it is, a store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(LOCK)
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.root.join(HEAD)
    }

    /// What becomes the next head where there is no room to make one.
    pub(crate) fn spare_head(&self) -> PathBuf {
        self.root.join(SPARE_HEAD)
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// Named by the first sequence number, in 20 digits, so that names sort as numbers do.
    pub(crate) fn segment(&self, first_sequence: u64) -> PathBuf {
        self.journal()
            .join(format!("{first_sequence:020}.{SEGMENT_EXTENSION}"))
    }

    /// A segment that is made ahead of need, when nobody knows yet what it begins with.
    pub(crate) fn next_segment(&self) -> PathBuf {
        Layout::unfinished(&self.journal().join(NEXT_SEGMENT))
    }

    pub(crate) fn parse_segment(name: &OsStr) -> Option<u64> {
        sequence_of(name, SEGMENT_EXTENSION)
    }

    /// The index of a sealed segment, beside it.
    pub(crate) fn sidecar(&self, first_sequence: u64) -> PathBuf {
        self.journal()
            .join(format!("{first_sequence:020}.{SIDECAR_EXTENSION}"))
    }

    pub(crate) fn parse_sidecar(name: &OsStr) -> Option<u64> {
        sequence_of(name, SIDECAR_EXTENSION)
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join(SNAPSHOTS)
    }

    /// Named by the record whose state it is.
    pub(crate) fn snapshot(&self, sequence: u64) -> PathBuf {
        self.snapshots()
            .join(format!("{sequence:020}.{SNAPSHOT_EXTENSION}"))
    }

    /// A snapshot that is being written.
    pub(crate) fn snapshot_draft(&self) -> PathBuf {
        Layout::unfinished(&self.snapshots().join(SNAPSHOT_EXTENSION))
    }

    pub(crate) fn parse_snapshot(name: &OsStr) -> Option<u64> {
        sequence_of(name, SNAPSHOT_EXTENSION)
    }

    /// What a backup says of itself; where it is, a backup is.
    pub(crate) fn backup(&self) -> PathBuf {
        self.root.join(BACKUP)
    }

    /// The ports of a backup.
    pub(crate) fn backup_ports(&self, number: u64) -> PathBuf {
        self.root.join(format!("{PORTS}.{number}"))
    }

    pub(crate) fn ports(&self) -> PathBuf {
        self.root.join(PORTS)
    }

    /// The folders that are made with the store.
    pub(crate) fn folders(&self) -> [PathBuf; 2] {
        [self.journal(), self.ports()]
    }

    /// The file of a port whose name has been checked.
    pub(crate) fn port(&self, name: &str) -> PathBuf {
        self.ports().join(format!("{name}.{PORT_EXTENSION}"))
    }

    /// What trimming knows of a port.
    pub(crate) fn trim_note(&self, name: &str) -> PathBuf {
        self.ports().join(format!("{name}.{NOTE_EXTENSION}"))
    }

    /// Locked while a port is made; never a port, whose name has no dot at its start.
    pub(crate) fn port_lock(&self) -> PathBuf {
        self.ports().join(PORT_LOCK)
    }

    pub(crate) fn parse_port(name: &OsStr) -> Option<&str> {
        stem_of(name, PORT_EXTENSION).filter(|name| check_port_name(name).is_ok())
    }

    /// The name of the port that this file is a note on.
    pub(crate) fn parse_note(name: &OsStr) -> Option<&str> {
        stem_of(name, NOTE_EXTENSION).filter(|name| check_port_name(name).is_ok())
    }

    pub(crate) fn unfinished(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(UNFINISHED_EXTENSION);
        PathBuf::from(name)
    }

    /// Whether a directory without a store file may hold this: what a creation that was cut short leaves.
    pub(crate) fn belongs_to_creation(&self, name: &OsStr) -> bool {
        let path = self.root.join(name);
        let files = [self.store(), self.head(), self.spare_head()];
        [
            self.lock(),
            self.head(),
            self.spare_head(),
            self.journal(),
            self.ports(),
        ]
        .contains(&path)
            || files.iter().any(|file| path == Layout::unfinished(file))
    }

    /// Whether a folder without a backup's file may hold this: what a backup that was cut short leaves.
    pub(crate) fn belongs_to_backup(&self, name: &OsStr) -> bool {
        let path = self.root.join(name);
        [
            self.journal(),
            self.snapshots(),
            self.backup_ports(0),
            self.backup_ports(1),
            Layout::unfinished(&self.backup()),
        ]
        .contains(&path)
    }
}

/// The number that a file is named by, in 20 digits.
fn sequence_of(name: &OsStr, extension: &str) -> Option<u64> {
    let digits = stem_of(name, extension)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let sequence = is_number.then(|| digits.parse().ok()).flatten();
    sequence.filter(|sequence| *sequence > 0)
}

fn stem_of<'a>(name: &'a OsStr, extension: &str) -> Option<&'a str> {
    name.to_str()?.strip_suffix(extension)?.strip_suffix('.')
}

/// 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot: so that no name leaves the folder of ports.
pub(crate) fn check_port_name(name: &str) -> Result<(), NameError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_allowed) {
        let name = name.to_owned();
        return Err(NameError::PortName { name });
    }
    LimitExceeded::check(Limit::PortNameChars, MAX_PORT_NAME_CHARS, name.len() as u64)?;
    Ok(())
}

/// Puts a whole file in place, durably: written aside, synced, renamed, and the folder synced. A crash leaves the
/// old file or the new one.
pub(crate) fn write_aside(env: &dyn Env, path: &Path, bytes: &[u8]) -> Result<()> {
    let aside = Layout::unfinished(path);
    remove_if_there(env, &aside)?;
    let written = write_new(env, &aside, bytes).and_then(|()| put_in_place(env, &aside, path));
    if written.is_err() {
        // Best effort: on a full disk it takes room that others need. What stays is removed when the store is opened.
        let _ = env.remove_file(&aside);
    }
    written
}

fn write_new(env: &dyn Env, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = env.create_file(path).context("create", path)?;
    file.write_at(bytes, 0).context("write", path)?;
    file.sync().context("sync", path)
}

/// Gives a file that is whole and synced its name, durably.
pub(crate) fn put_in_place(env: &dyn Env, from: &Path, path: &Path) -> Result<()> {
    env.rename(from, path).context("rename", from)?;
    sync_parent(env, path)
}

/// Makes the folder if it is not there, and its name durable: whoever made it may have been killed before that.
pub(crate) fn create_dir_if_missing(env: &dyn Env, path: &Path) -> Result<()> {
    match env.create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created.context("create", path)?,
    }
    sync_parent(env, path)
}

pub(crate) fn remove_if_there(env: &dyn Env, path: &Path) -> Result<()> {
    match env.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Removes what writers that were cut short left in the store's folders.
pub(crate) fn remove_unfinished(env: &dyn Env, layout: &Layout) -> Result<()> {
    let unfinished = |folder: PathBuf| -> Result<Vec<PathBuf>> {
        let names = match env.list_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.context("list", &folder)?,
        };
        let is_unfinished = |name: &&std::ffi::OsString| stem_of(name, UNFINISHED_EXTENSION).is_some();
        Ok(names
            .iter()
            .filter(is_unfinished)
            .map(|name| folder.join(name))
            .collect())
    };
    // Another process may be making a port: what is there under the lock is nobody's.
    let mut found = unfinished(layout.ports())?;
    let _creation = match found.is_empty() {
        true => None,
        false => Some(lock_creation(env, layout)?),
    };
    if !found.is_empty() {
        found = unfinished(layout.ports())?;
    }
    found.extend(unfinished(layout.root().to_owned())?);
    found.extend(unfinished(layout.journal())?);
    found.extend(unfinished(layout.snapshots())?);
    for path in found {
        remove_if_there(env, &path)?;
        tracing::info!(path = %path.display(), "removed an unfinished file");
    }
    Ok(())
}

/// Takes the lock under which ports are made, for as long as it is held. Waits for another process that makes one, which
/// takes some syncs.
pub(crate) fn lock_creation(env: &dyn Env, layout: &Layout) -> Result<Arc<dyn File>> {
    let path = layout.port_lock();
    loop {
        let file = match env.open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match env.create_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.context("create", &path)?,
            },
            opened => opened.context("open", &path)?,
        };
        if file.try_lock().context("lock", &path)? {
            return Ok(file);
        }
        std::thread::sleep(CREATION_RETRY);
    }
}

pub(crate) fn random<const N: usize>(env: &dyn Env, layout: &Layout) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    env.fill_random(&mut bytes)
        .context("get random bytes for", layout.root())?;
    Ok(bytes)
}

/// No folder of the store may be a symbolic link: what is written in it would be written elsewhere. A file is looked at when
/// it is opened.
pub(crate) fn check_folders(env: &dyn Env, layout: &Layout) -> Result<()> {
    for path in layout.folders().into_iter().chain([layout.snapshots()]) {
        if env.is_symbolic_link(&path).context("look at", &path)? {
            return Err(Error::SymbolicLink { path });
        }
    }
    Ok(())
}

/// The folder that the path is in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(crate) fn sync_parent(env: &dyn Env, path: &Path) -> Result<()> {
    let parent = parent_of(path);
    env.sync_dir(parent).context("sync the folder", parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_leads_back_to_its_sequence_number() {
        let layout = Layout::new(Path::new("s"));
        for first in [1, 42, u64::MAX] {
            let path = layout.segment(first);
            assert_eq!(Layout::parse_segment(path.file_name().unwrap()), Some(first));
        }
        for other in [
            "00000000000000000000.segment",
            "1.segment",
            "00000000000000000001.segment.unfinished",
            "+0000000000000000001.segment",
        ] {
            assert_eq!(Layout::parse_segment(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_port_name_cannot_leave_its_folder() {
        for name in ["a", "A.b_c-9", &"n".repeat(64)] {
            assert_eq!(check_port_name(name), Ok(()));
        }
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a\\b",
            "é",
            "a b",
            &"n".repeat(65),
        ] {
            assert!(check_port_name(name).is_err(), "{name}");
        }
    }
}
