//! Opening a store: the lock, the identity, recovery, and the state that the journal gives; and making a new one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::base::Base;
use super::place::check_file_system;
use super::{Engine, Opened, Visible};
use crate::env::{Env, File};
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::identity::Identity;
use crate::journal::{
    Head, HeadFields, HeadState, Journal, Recovered, Recovery, Voucher, Writer, create_first_segment,
    read_head,
};
use crate::layout::{
    Layout, check_folders, parent_of, random, remove_if_there, remove_unfinished, sync_parent,
};
use crate::options::{Options, Progress};
use crate::port_file::PortFile;

/// A lock that is in use is tried again this often.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Progress is told about this often.
const PROGRESS_INTERVAL_BYTES: u64 = 1 << 20;

impl Engine {
    /// Opens the store in this directory, and makes one there if the options say so.
    pub(crate) fn open(options: &Options, path: &Path) -> Result<Arc<Engine>> {
        let env = &options.env;
        let layout = Layout::new(path);
        check_file_system(options, path)?;
        let names = match env.list_dir(path) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && options.create => {
                check_file_system(options, parent_of(path))?;
                env.create_dir(path).context("create", path)?;
                Vec::new()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = path.to_owned();
                return Err(Error::StoreNotFound { path });
            }
            Err(error) => return Err(error).context("list", path),
        };
        let store = layout.store();
        let is_store = |name| path.join(name) == store;
        if !names.iter().any(is_store) {
            if let Some(foreign) = names.iter().find(|name| !layout.belongs_to_creation(name)) {
                return Err(Error::ForeignDirectory {
                    path: path.to_owned(),
                    found: foreign.to_string_lossy().into_owned(),
                });
            }
            if !options.create {
                let path = path.to_owned();
                return Err(Error::StoreNotFound { path });
            }
        }
        let lock = take_lock(&**env, &layout, options.lock_timeout)?;
        check_folders(&**env, &layout)?;
        // Looked at again under the lock: another process may have made it meanwhile.
        let names = env.list_dir(path).context("list", path)?;
        if !names.iter().any(is_store) {
            create(options, &layout)?;
        }
        Engine::recover(options, layout, lock)
    }

    fn recover(options: &Options, layout: Layout, lock: Arc<dyn File>) -> Result<Arc<Engine>> {
        let env = &options.env;
        let identity = Identity::read(&**env, &layout.store())?;
        remove_unfinished(&**env, &layout)?;
        remove_trimmed(&**env, &layout, &identity)?;
        let head = read_head(&**env, &layout.head())?;
        let mut recovery = Recovery {
            env: &**env,
            layout: &layout,
            identity: &identity,
            vouchers: vouchers(&**env, &layout, head)?,
            clean_close: head
                .filter(|head| head.state == HeadState::Closed)
                .map(|head| head_voucher(&layout, &head)),
            start: 0,
        };
        let Base {
            mut state,
            from,
            tree,
        } = Base::find(options, &layout, &mut recovery)?;
        let mut replayed = 0;
        let mut progress = ProgressReport::new(options, &layout)?;
        let recovered: Recovered = recovery.run(&mut |frame, record, bytes| {
            state.apply(record, frame.meta.time);
            replayed += 1;
            progress.at(bytes);
        })?;
        progress.end();
        let opened = Opened {
            from,
            replayed,
            torn_tail: recovered.torn_tail.clone(),
        };
        let (journal, writer) = Journal::open(env, &layout, recovered, options.segment_size_bytes);
        let head = new_head(options, &layout, &identity, &journal, &writer)?;
        tracing::debug!(path = %layout.root().display(), replayed, "opened");
        let visible = Visible::new(state, writer.position());
        Ok(Arc::new(Engine::new(
            options, layout, identity, lock, journal, writer, head, visible, opened, tree,
        )))
    }
}

/// Tells the watcher how far the replay has come, now and then.
struct ProgressReport<'a> {
    options: &'a Options,
    total_bytes: u64,
    told_bytes: u64,
}

impl<'a> ProgressReport<'a> {
    fn new(options: &'a Options, layout: &Layout) -> Result<ProgressReport<'a>> {
        let mut total_bytes = 0;
        if options.progress.is_some() {
            let journal = layout.journal();
            for name in options.env.list_dir(&journal).context("list", &journal)? {
                let path = journal.join(name);
                let file = options.env.open_file(&path).context("open", &path)?;
                total_bytes += file.length().context("read the length of", &path)?;
            }
        }
        Ok(ProgressReport {
            options,
            total_bytes,
            told_bytes: 0,
        })
    }

    fn at(&mut self, bytes: u64) {
        if bytes >= self.told_bytes + PROGRESS_INTERVAL_BYTES {
            self.tell(bytes);
        }
    }

    fn end(&mut self) {
        self.tell(self.total_bytes);
    }

    fn tell(&mut self, bytes: u64) {
        self.told_bytes = bytes;
        if let Some(watcher) = &self.options.progress {
            watcher(Progress {
                done_bytes: bytes,
                total_bytes: self.total_bytes,
            });
        }
    }
}

/// Takes the lock of the store, for as long as the file is held.
pub(super) fn take_lock(env: &dyn Env, layout: &Layout, timeout: Duration) -> Result<Arc<dyn File>> {
    let path = layout.lock();
    let deadline = Instant::now() + timeout;
    loop {
        let file = match env.open_file(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match env.create_file(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).context("create", &path),
            },
            Err(error) => return Err(error).context("open", &path),
        };
        // Locked, but perhaps a file that was removed after it was opened: then the lock is worth nothing.
        if file.try_lock().context("lock", &path)? && file.is_at(&path).context("look at", &path)? {
            return Ok(file);
        }
        if Instant::now() >= deadline {
            let path = layout.root().to_owned();
            return Err(Error::InUse { path });
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

/// Makes the files of a new store. The store file comes last: crash before it, and there is no store yet, so that
/// the next opening begins anew.
fn create(options: &Options, layout: &Layout) -> Result<()> {
    let env = &*options.env;
    clear_unfinished_creation(env, layout)?;
    // Also where the folder was there: killed before this, who made it has left a name that nobody has synced.
    sync_parent(env, layout.root())?;
    let epoch = match options.epoch {
        Some(epoch) => epoch,
        None => Epoch::from_bytes(random(env, layout)?),
    };
    for folder in layout.folders() {
        match env.create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            created => created.context("create", &folder)?,
        }
    }
    create_first_segment(env, layout, epoch, options.segment_size_bytes)?;
    env.sync_dir(layout.root())
        .context("sync the folder", layout.root())?;
    Identity::new(epoch, env.now()).write(env, &layout.store())
}

/// Removes what a creation that was cut short has left. A journal with a record in it is no such thing.
fn clear_unfinished_creation(env: &dyn Env, layout: &Layout) -> Result<()> {
    let journal = layout.journal();
    let names = match env.list_dir(&journal) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context("list", &journal),
    };
    let first = layout.segment(1);
    for name in names {
        let path = journal.join(&name);
        let is_unused = Layout::unfinished(&first) == path || path == first && is_empty(env, &path)?;
        if !is_unused {
            let expected = "the store file of this journal";
            return Err(Error::damaged(&layout.store(), 0, expected, "no file"));
        }
        remove_if_there(env, &path)?;
    }
    remove_if_there(env, &layout.head())
}

/// Whether a segment has no frame: nothing but zeroes behind its header.
fn is_empty(env: &dyn Env, path: &Path) -> Result<bool> {
    let file = env.open_file(path).context("open", path)?;
    let bytes = crate::format::read_whole(&*file, path, u64::MAX)?;
    let frames = bytes.get(crate::journal::SEGMENT_HEADER_BYTES..);
    Ok(frames.is_none_or(|frames| frames.iter().all(|byte| *byte == 0)))
}

/// Removes segments that were trimmed, and came back in part after a crash; and sidecars of segments that are not there.
fn remove_trimmed(env: &dyn Env, layout: &Layout, identity: &Identity) -> Result<()> {
    let journal = layout.journal();
    let names = env.list_dir(&journal).context("list", &journal)?;
    let firsts: Vec<_> = names
        .iter()
        .filter_map(|name| Layout::parse_segment(name))
        .collect();
    let (gone, kept): (Vec<_>, Vec<_>) = firsts.into_iter().partition(|first| *first < identity.trim_base);
    if !gone.is_empty() {
        // The store file that says so may have its name in the page cache only.
        env.sync_dir(layout.root())
            .context("sync the folder", layout.root())?;
    }
    for first in gone {
        remove_if_there(env, &layout.segment(first))?;
    }
    let sidecars = names.iter().filter_map(|name| Layout::parse_sidecar(name));
    for orphan in sidecars.filter(|first| !kept.contains(first)) {
        remove_if_there(env, &layout.sidecar(orphan))?;
    }
    Ok(())
}

/// All that says how far the journal was durable.
pub(super) fn vouchers(env: &dyn Env, layout: &Layout, head: Option<HeadFields>) -> Result<Vec<Voucher>> {
    let mut vouchers: Vec<_> = head.iter().map(|head| head_voucher(layout, head)).collect();
    let ports = layout.ports();
    for name in env.list_dir(&ports).context("list", &ports)? {
        let Some(name) = Layout::parse_port(&name) else {
            continue;
        };
        let path = layout.port(name);
        match PortFile::open(env, &path) {
            Ok(port) => vouchers.push(Voucher {
                by: path,
                epoch: port.cursor.epoch,
                sequence: port.cursor.sequence,
                checksum: port.cursor.frame_checksum,
            }),
            // It vouches for nothing, and says so when it is opened.
            Err(
                error @ (Error::Damaged { .. }
                | Error::UnsupportedVersion { .. }
                | Error::SymbolicLink { .. }),
            ) => {
                tracing::warn!(%error, "a port's file cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(vouchers)
}

pub(super) fn head_voucher(layout: &Layout, head: &HeadFields) -> Voucher {
    Voucher {
        by: layout.head(),
        epoch: head.epoch,
        sequence: head.durable_sequence,
        checksum: head.frame_checksum,
    }
}

fn new_head(
    options: &Options,
    layout: &Layout,
    identity: &Identity,
    journal: &Journal,
    writer: &Writer,
) -> Result<Head> {
    let env = &*options.env;
    let position = writer.position();
    let fields = HeadFields {
        state: HeadState::Live,
        incarnation: u64::from_le_bytes(random(env, layout)?),
        epoch: identity.epoch_of(position.sequence),
        durable_sequence: position.sequence,
        frame_checksum: position.checksum,
        segment: position.segment,
        offset: position.offset,
        oldest_sequence: journal.first_sequence(),
        limit_bytes: options.retention.bytes,
    };
    Head::create(env, layout, fields)
}
