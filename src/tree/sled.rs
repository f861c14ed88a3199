//! The tree in sled 0.34.7. This module is the only one that knows of sled.
//!
//! What it is known to do, and what is done about it: its flush does not reach the disk (a checkpoint syncs its
//! files), it can hang for ever with many writers and small segments (one writer, few merged batches, its largest
//! segments, and a watchdog), and damaged files make it panic or show other data (a worker that catches panics, and a
//! digest).

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sled::{Batch, Config, Db};

use super::folder::sync_all;
use super::{Backend, Changes, Meta, Tree, TreeFault, Visit};

/// The largest that sled takes.
const SEGMENT_BYTES: usize = 16 << 20;
/// The state is in memory already.
const CACHE_BYTES: u64 = 8 << 20;
/// Entries that are removed at a time, at most.
const STEP_ENTRIES: usize = 8 << 10;
/// One collection frees what about so many changed entries have left.
const ENTRIES_PER_COLLECTION: usize = 64;
/// The lock of a tree that was closed just now may be held for a moment.
const LOCK_TRIES: u32 = 50;
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Its lock and its pool of threads are statics: one tree that hangs, hangs all of the process.
static IS_OFF: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
pub(crate) struct SledBackend;

struct SledTree {
    db: Db,
    folder: PathBuf,
}

impl From<sled::Error> for TreeFault {
    fn from(error: sled::Error) -> TreeFault {
        TreeFault::Failed(error.to_string())
    }
}

impl Backend for SledBackend {
    fn open(&self, folder: &Path) -> Result<Box<dyn Tree>, TreeFault> {
        let config = Config::new()
            .path(folder)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(error)) if is_locked(&error) && tries < LOCK_TRIES => {
                    tries += 1;
                    thread::sleep(LOCK_RETRY);
                }
                opened => break opened?,
            }
        };
        Ok(Box::new(SledTree {
            db,
            folder: folder.to_owned(),
        }))
    }

    fn is_off(&self) -> bool {
        IS_OFF.load(Ordering::Acquire)
    }

    fn turn_off(&self) {
        IS_OFF.store(true, Ordering::Release);
    }
}

fn is_locked(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

impl SledTree {
    fn apply_step(&self, batch: Batch, entries: usize) -> Result<(), TreeFault> {
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        free_garbage(entries);
        Ok(())
    }
}

/// sled leaves what it has replaced to be freed as its threads come and go, a little each time: with few, large batches
/// it would keep some kilobytes for each entry for ever.
fn free_garbage(entries: usize) {
    for _ in 0..=entries / ENTRIES_PER_COLLECTION {
        crossbeam_epoch::pin().flush();
    }
}

impl Tree for SledTree {
    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), TreeFault> {
        for entry in self.db.iter() {
            let (name, bytes) = entry?;
            visit(&name, &bytes)?;
        }
        Ok(())
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), TreeFault> {
        let mut removed = 0;
        let mut batch = Batch::default();
        for prefix in &changes.removed_prefixes {
            for name in self.db.scan_prefix(prefix).keys() {
                let name = name?;
                if changes.entries.contains_key(&*name) {
                    continue;
                }
                batch.remove(name);
                removed += 1;
                if removed % STEP_ENTRIES == 0 {
                    // A whole subtree may be more than sled should do at a time.
                    batch.remove(Meta::name());
                    self.apply_step(mem::take(&mut batch), STEP_ENTRIES)?;
                }
            }
        }
        for (name, bytes) in &changes.entries {
            match bytes {
                Some(bytes) => batch.insert(&**name, &**bytes),
                None => batch.remove(&**name),
            }
        }
        match &changes.meta {
            Some(meta) => batch.insert(Meta::name(), &meta.encode()[..]),
            None => batch.remove(Meta::name()),
        }
        self.apply_step(batch, changes.entries.len() + STEP_ENTRIES)
    }

    fn checkpoint(&mut self) -> Result<(), TreeFault> {
        self.db.flush()?;
        Ok(sync_all(&self.folder)?)
    }
}
