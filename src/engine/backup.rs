//! Backup and restore: a copy of the store as it was after one record, made while commits go on; and a store made from it, which
//! begins a branch of the history.
//!
//! A backup is a folder with the newest snapshot, the journal, and the ports. A later backup into the same folder copies what the
//! journal has got since.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::check::check;
use super::keeper::Keeper;
use super::snapshots;
use crate::backup_file::BackupFile;
use crate::env::{Env, File};
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::format;
use crate::identity::Identity;
use crate::journal::{Position, SEGMENT_BLOCK_BYTES, SEGMENT_HEADER_BYTES, Segment, new_segment_header};
use crate::layout::{Layout, create_dir_if_missing, random, remove_if_there, sync_parent, write_aside};
use crate::options::Options;
use crate::snapshot;
use crate::sync::lock;

const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Files are copied in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// A port's file is no longer: a head of a name and a path, and two slots.
const MAX_PORT_BYTES: u64 = 2 << 20;

/// What a backup holds, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// It is the store after this record.
    pub sequence: u64,
    /// The epoch of the store.
    pub epoch: Epoch,
    /// Bytes of the snapshot and of the journal that were copied this time.
    pub copied_bytes: u64,
}

/// A store that was made from a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// It is the store after this record.
    pub sequence: u64,
    /// The epoch that begins behind it.
    pub epoch: Epoch,
    /// The epoch that the record was committed under.
    pub parent: Epoch,
}

impl Keeper {
    /// Copies the store as it is now into this folder, which is missing, empty, or holds an earlier backup of it.
    pub(crate) fn backup(&self, folder: &Path) -> Result<Backup> {
        // Nothing is trimmed meanwhile.
        let _alone = lock(&self.alone);
        self.check_running()?;
        let env = &*self.env;
        let target = Layout::new(folder);
        let before = self.prepare(&target)?;
        // Before the end is looked up: no cursor is ahead of it.
        let ports = before.as_ref().map_or(0, |before| 1 - before.ports);
        copy_ports(env, &self.layout.ports(), &target.backup_ports(ports))?;
        let end = self.position()?;
        let mut copied_bytes = 0;
        let snapshot = self.newest_snapshot(end)?;
        if snapshot > 0 && before.as_ref().is_none_or(|before| before.snapshot != snapshot) {
            let (from, to) = (self.layout.snapshot(snapshot), target.snapshot(snapshot));
            copied_bytes += copy_file(env, &from, &to)?;
            snapshot::verify(env, &to)?;
        }
        // All that is left of the journal: ports may have to read it yet.
        let first = self.journal.first_sequence();
        for segment in self.journal.segments() {
            self.check_running()?;
            if segment.header.first_sequence > end.segment {
                break;
            }
            copied_bytes += copy_segment(env, &segment, &target, end, before.as_ref())?;
        }
        for written in [target.journal(), target.snapshots()] {
            env.sync_dir(&written).context("sync the folder", &written)?;
        }
        let backup = BackupFile {
            end,
            time: env.now(),
            snapshot,
            ports,
            identity: self.identity.trimmed(first),
        };
        backup.write(env, &target.backup())?;
        remove_older(env, &target, &backup)?;
        Ok(Backup {
            sequence: end.sequence,
            epoch: self.identity.epoch_of(end.sequence),
            copied_bytes,
        })
    }

    /// Makes the folders, and reads what an earlier backup says of itself.
    fn prepare(&self, target: &Layout) -> Result<Option<BackupFile>> {
        let (env, root) = (&*self.env, target.root());
        create_dir_if_missing(env, root)?;
        let names = env.list_dir(root).context("list", root)?;
        let before = match BackupFile::read(env, &target.backup()) {
            Ok(before) => Some(before),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(before) = &before {
            let (sequence, found) = (before.end.sequence, before.identity.epoch_of(before.end.sequence));
            let expected = self.identity.epoch_of(sequence);
            let at = self.journal.position_after(sequence)?;
            // A fork under the same epoch has another record of that number.
            let is_fork = at.sequence == sequence && at.checksum != before.end.checksum;
            let is_ahead = sequence > self.position()?.sequence;
            if is_fork || is_ahead || !self.identity.has(found, sequence) {
                let path = root.to_owned();
                return Err(Error::BackupOfAnother {
                    path,
                    expected,
                    found,
                });
            }
        } else if let Some(foreign) = names.iter().find(|name| !target.belongs_to_backup(name)) {
            return Err(Error::ForeignDirectory {
                path: root.to_owned(),
                found: foreign.to_string_lossy().into_owned(),
            });
        }
        let ports = [0, 1].map(|number| target.backup_ports(number));
        for folder in [target.journal(), target.snapshots()].iter().chain(&ports) {
            create_dir_if_missing(env, folder)?;
        }
        Ok(before)
    }

    /// The newest snapshot that is whole; 0 if there is none, and the journal has everything.
    fn newest_snapshot(&self, end: Position) -> Result<u64> {
        let (env, layout) = (&*self.env, &self.layout);
        for meta in self.snapshots()? {
            if meta.sequence <= end.sequence && snapshot::verify(env, &layout.snapshot(meta.sequence)).is_ok()
            {
                return Ok(meta.sequence);
            }
        }
        match self.journal.first_sequence() {
            1 => Ok(0),
            first => Err(snapshots::no_base(layout, first - 1)),
        }
    }
}

/// Copies what the backup does not have of this segment yet, up to its end. Gives the number of bytes.
fn copy_segment(
    env: &dyn Env,
    segment: &Segment,
    target: &Layout,
    end: Position,
    before: Option<&BackupFile>,
) -> Result<u64> {
    let begin = segment.header.first_sequence;
    let path = target.segment(begin);
    let is_last = begin == end.segment;
    let length = match is_last {
        true => end.offset,
        false => segment
            .file
            .length()
            .context("read the length of", &segment.path)?,
    };
    // What stands before the end of an earlier backup is not written again.
    let known = before.filter(|before| begin <= before.end.segment && is_copy(env, segment, &path));
    let from = match known {
        Some(before) if before.end.segment == begin => before.end.offset.min(length),
        Some(_) => return Ok(0),
        None => 0,
    };
    let file = match known {
        Some(_) => env.open_file(&path).context("open", &path)?,
        None => {
            remove_if_there(env, &path)?;
            env.create_file(&path).context("create", &path)?
        }
    };
    copy_bytes(&*segment.file, &segment.path, from..length, &*file, &path)?;
    file.sync().context("sync", &path)?;
    Ok(length - from)
}

/// Whether the file is a copy of this segment, as far as its header tells.
fn is_copy(env: &dyn Env, segment: &Segment, path: &Path) -> bool {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let read = env.open_file(path).and_then(|file| file.read_at(&mut header, 0));
    read.is_ok() && header == segment.header.encode()
}

fn copy_bytes(
    from: &dyn File,
    from_path: &Path,
    range: std::ops::Range<u64>,
    to: &dyn File,
    to_path: &Path,
) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = range.start;
    while offset < range.end {
        let count = (range.end - offset).min(PIECE_BYTES as u64) as usize;
        from.read_at(&mut piece[..count], offset)
            .context("read", from_path)?;
        to.write_at(&piece[..count], offset).context("write", to_path)?;
        offset += count as u64;
    }
    Ok(())
}

/// Copies a file that does not change, durably but for its name. Gives its length.
fn copy_file(env: &dyn Env, from: &Path, to: &Path) -> Result<u64> {
    let source = open_part(env, from)?;
    let length = source.length().context("read the length of", from)?;
    remove_if_there(env, to)?;
    let target = env.create_file(to).context("create", to)?;
    copy_bytes(&*source, from, 0..length, &*target, to)?;
    target.sync().context("sync", to)?;
    Ok(length)
}

/// Opens a file that a store or a backup cannot do without.
fn open_part(env: &dyn Env, path: &Path) -> Result<Arc<dyn File>> {
    match env.open_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::damaged(path, 0, "a file of the backup", "no such file"))
        }
        opened => opened.context("open", path),
    }
}

/// Copies the ports and what trimming knows of them, and removes those that are gone. Each file is whole whatever its owner does
/// meanwhile: of its two slots one is never being written.
fn copy_ports(env: &dyn Env, from: &Path, to: &Path) -> Result<()> {
    let list = |folder: &Path| -> Result<Vec<std::ffi::OsString>> {
        let names = match env.list_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::damaged(folder, 0, "a folder of ports", "none"));
            }
            names => names.context("list", folder)?,
        };
        let is_kept =
            |name: &std::ffi::OsString| Layout::parse_port(name).or(Layout::parse_note(name)).is_some();
        Ok(names.into_iter().filter(is_kept).collect())
    };
    let names = list(from)?;
    for name in &names {
        let source = from.join(name);
        let file = match env.open_file(&source).context("open", &source) {
            // It was removed meanwhile.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            // No port, and nothing of ours.
            Err(Error::SymbolicLink { .. }) => continue,
            opened => opened?,
        };
        let bytes = format::read_whole(&*file, &source, MAX_PORT_BYTES)?;
        write_aside(env, &to.join(name), &bytes)?;
    }
    for gone in list(to)?.iter().filter(|name| !names.contains(name)) {
        remove_if_there(env, &to.join(gone))?;
    }
    // A port that was removed does not come back.
    env.sync_dir(to).context("sync the folder", to)
}

/// Removes what a backup no longer needs: snapshots other than its own, and segments before its first.
fn remove_older(env: &dyn Env, target: &Layout, backup: &BackupFile) -> Result<()> {
    for sequence in snapshot::list(env, target)? {
        if sequence != backup.snapshot {
            remove_if_there(env, &target.snapshot(sequence))?;
        }
    }
    for first in segments(env, target)? {
        if first < backup.identity.trim_base {
            remove_if_there(env, &target.segment(first))?;
        }
    }
    Ok(())
}

/// The segments in a folder, by their first sequence numbers, in order.
fn segments(env: &dyn Env, layout: &Layout) -> Result<Vec<u64>> {
    let journal = layout.journal();
    let names = env.list_dir(&journal).context("list", &journal)?;
    let mut firsts: Vec<_> = names
        .iter()
        .filter_map(|name| Layout::parse_segment(name))
        .collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes a store in this directory from a backup. Its history goes on in an epoch of its own.
///
/// It is made beside, under a name that nobody opens, and read to its end before it takes its place.
pub(crate) fn restore(options: &Options, from: &Path, to: &Path) -> Result<Restored> {
    let env = &*options.env;
    // Without a separator at its end.
    let to: &Path = &to.components().collect::<PathBuf>();
    let source = Layout::new(from);
    let backup = match BackupFile::read(env, &source.backup()) {
        Err(Error::Io { source: error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            let path = from.to_owned();
            return Err(Error::BackupNotFound { path });
        }
        backup => backup?,
    };
    check_vacant(env, to)?;
    let epoch = match options.epoch {
        Some(epoch) => epoch,
        None => Epoch::from_bytes(random(env, &source)?),
    };
    let target = Layout::new(&Layout::unfinished(to));
    copy_store(env, &source, &target, &backup, epoch)?;
    // All of it, also what no opening looks at. Nobody else has it; but a process that is just being forked holds a lock for a moment.
    let options = options.clone().create(false).lock_timeout(LOCK_TIMEOUT);
    let report = check(&options, target.root(), false)?;
    if let Some(fault) = report.faults.into_iter().next() {
        return Err(fault);
    }
    let store = options.open(target.root())?;
    store.close()?;
    env.rename(target.root(), to).context("rename", target.root())?;
    sync_parent(env, to)?;
    let sequence = backup.end.sequence;
    let parent = backup.identity.epoch_of(sequence);
    tracing::info!(path = %to.display(), sequence, %epoch, %parent, "restored");
    Ok(Restored {
        sequence,
        epoch,
        parent,
    })
}

/// The directory is missing or empty.
fn check_vacant(env: &dyn Env, path: &Path) -> Result<()> {
    let names = match env.list_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        names => names.context("list", path)?,
    };
    let path = path.to_owned();
    match names.first() {
        None => Ok(()),
        Some(_)
            if names
                .iter()
                .any(|name| path.join(name) == Layout::new(&path).store()) =>
        {
            Err(Error::StoreExists { path })
        }
        Some(found) => Err(Error::ForeignDirectory {
            path,
            found: found.to_string_lossy().into_owned(),
        }),
    }
}

fn copy_store(
    env: &dyn Env,
    source: &Layout,
    target: &Layout,
    backup: &BackupFile,
    epoch: Epoch,
) -> Result<()> {
    let end = backup.end;
    create_dir_if_missing(env, target.root())?;
    remove_if_there(env, &target.head())?;
    for folder in [target.journal(), target.snapshots(), target.ports()] {
        create_dir_if_missing(env, &folder)?;
        // What a restore that was cut short has left.
        for name in env.list_dir(&folder).context("list", &folder)? {
            remove_if_there(env, &folder.join(name))?;
        }
    }
    if backup.snapshot > 0 {
        copy_file(
            env,
            &source.snapshot(backup.snapshot),
            &target.snapshot(backup.snapshot),
        )?;
        env.sync_dir(&target.snapshots())
            .context("sync the folder", &target.snapshots())?;
    }
    for first in segments(env, source)? {
        if (backup.identity.trim_base..=end.segment).contains(&first) {
            restore_segment(env, source, target, first, end)?;
        }
    }
    copy_ports(env, &source.backup_ports(backup.ports), &target.ports())?;
    // The branch begins with a segment of its own, which takes the place of a last one without a record.
    let header = new_segment_header(env, epoch, end.sequence + 1, end.checksum)?;
    Segment::create(env, target, header, SEGMENT_BLOCK_BYTES as u64)?;
    branch(backup, epoch).write(env, &target.store())
}

/// The identity of the branch that begins behind the backup's end.
fn branch(backup: &BackupFile, epoch: Epoch) -> Identity {
    let first = backup.end.sequence + 1;
    let identity = backup.identity.branched(epoch, first);
    // Of a journal that has no record any more, the branch's own segment is the first.
    let trim_base = identity.trim_base.min(first);
    identity.trimmed(trim_base)
}

/// Copies a segment as far as it counts. The last one is filled up with zeroes.
fn restore_segment(env: &dyn Env, source: &Layout, target: &Layout, first: u64, end: Position) -> Result<()> {
    let (from, to) = (source.segment(first), target.segment(first));
    if first < end.segment {
        copy_file(env, &from, &to)?;
        return Ok(());
    }
    let source_file = open_part(env, &from)?;
    let length = source_file.length().context("read the length of", &from)?;
    if length < end.offset {
        let expected = format!("{} bytes", end.offset);
        let found = format!("the end of the file at {length}");
        return Err(Error::damaged(&from, length, expected, found));
    }
    remove_if_there(env, &to)?;
    let file = env.create_file(&to).context("create", &to)?;
    let length = end.offset.next_multiple_of(SEGMENT_BLOCK_BYTES as u64);
    file.write_at(&vec![0; (length - end.offset) as usize], end.offset)
        .context("write", &to)?;
    copy_bytes(&*source_file, &from, 0..end.offset, &*file, &to)?;
    file.sync().context("sync", &to)?;
    sync_parent(env, &to)
}
