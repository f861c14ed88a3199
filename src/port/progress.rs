//! How far an open port has come: what it has given out, and what of that is acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use super::cursor::{self, cursor_at};
use crate::engine::{Commit, Source, Subscription};
use crate::error::{AcknowledgementRefusal, Error, Result};
use crate::journal::Filter;
use crate::journal::Position;
use crate::model::{Acknowledgement, Batch, KeyPath};
use crate::port_file::PortFile;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, lock};

/// The cursor is saved after this many acknowledgements that were committed with batches, so that opening the port finds a
/// bounded number of them in the journal.
const FOLD_INTERVAL: u32 = 1024;

/// What all handles of a port share.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) key: KeyPath,
    pub(super) filter: Filter,
    /// Made by the first who waits: a port that nobody waits on costs a commit nothing.
    subscription: OnceLock<Subscription>,
    is_closed: AtomicBool,
    /// Taken before any lock of the engine. Dropped before the store is let go: whoever opens that next finds the port free.
    pub(super) progress: Mutex<Progress>,
    pub(super) source: Arc<dyn Source>,
}

/// How far the port has come.
pub(super) struct Progress {
    /// Its cursor is ahead of what is saved by the acknowledgements that were committed with batches.
    pub(super) file: PortFile,
    unsaved: u32,
    /// Behind the last record that `get` has looked at.
    pub(super) position: Position,
    /// Counts the rewinds: an older notification cannot be acknowledged any more.
    generation: u64,
    /// Number of the next notification.
    next_number: u64,
    /// Notifications that were given out, in order, from the first that is not acknowledged.
    outstanding: VecDeque<Outstanding>,
}

struct Outstanding {
    number: u64,
    end: Position,
    is_acknowledged: bool,
}

/// What one of the things that a port gave out is acknowledged by.
#[derive(Clone)]
pub(super) struct Receipt {
    port: Weak<Shared>,
    pub(super) name: String,
    generation: u64,
    number: u64,
}

impl Receipt {
    fn port(&self) -> Result<Arc<Shared>> {
        self.port.upgrade().ok_or_else(|| {
            let name = self.name.clone();
            Error::PortClosed { name }
        })
    }

    pub(super) fn acknowledge(&self) -> Result<()> {
        self.port()?.acknowledge(self)
    }

    pub(super) fn acknowledge_with(&self, batch: Batch) -> Result<Commit> {
        self.port()?.acknowledge_with(self, batch)
    }
}

impl Shared {
    pub(super) fn new(source: &Arc<dyn Source>, name: &str, file: PortFile) -> Result<Shared> {
        Ok(Shared {
            source: Arc::clone(source),
            name: name.to_owned(),
            key: file.head.key.clone(),
            filter: Filter::Port(file.head.key.folded().into()),
            subscription: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                position: cursor::place(&**source, &file)?,
                file,
                unsaved: 0,
                generation: 0,
                next_number: 0,
                outstanding: VecDeque::new(),
            }),
        })
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            let name = self.name.clone();
            return Err(Error::PortClosed { name });
        }
        self.source.check_open()
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.source.wake(self.subscription());
    }

    /// The port's place among those who wait for commits.
    pub(super) fn subscription(&self) -> &Subscription {
        self.subscription
            .get_or_init(|| self.source.subscribe(self.key.folded()))
    }

    /// Notes that everything up to `end` is given out, to be acknowledged.
    pub(super) fn receipt(&self, progress: &mut Progress, end: Position, port: Weak<Shared>) -> Receipt {
        let number = progress.next_number;
        progress.next_number += 1;
        progress.outstanding.push_back(Outstanding {
            number,
            end,
            is_acknowledged: false,
        });
        Receipt {
            port,
            name: self.name.clone(),
            generation: progress.generation,
            number,
        }
    }

    pub(super) fn acknowledge(&self, receipt: &Receipt) -> Result<()> {
        self.check_open()?;
        let mut progress = lock(&self.progress);
        let Some(index) = self.find(&progress, receipt)? else {
            // Acknowledged before, together with all before it.
            return Ok(());
        };
        progress.outstanding[index].is_acknowledged = true;
        self.settle(&mut progress)
    }

    /// Commits the batch and the acknowledgement together.
    ///
    /// The port is locked all the while: nothing else may move its cursor between looking at it and the commit.
    pub(super) fn acknowledge_with(&self, receipt: &Receipt, mut batch: Batch) -> Result<Commit> {
        self.check_open()?;
        let mut progress = lock(&self.progress);
        let refuse = |reason| Err(self.refused(reason));
        let Some(index) = self.find(&progress, receipt)? else {
            return refuse(AcknowledgementRefusal::Repeated);
        };
        let mut before = progress.outstanding.range(..index);
        if before.any(|given| !given.is_acknowledged) {
            return refuse(AcknowledgementRefusal::OpenBefore);
        }
        if progress.outstanding[index].is_acknowledged {
            return refuse(AcknowledgementRefusal::Repeated);
        }
        let end = progress.outstanding[index].end;
        batch.set_acknowledgement(Acknowledgement {
            port_id: progress.file.head.id,
            sequence: end.sequence,
        });
        let commit = self.source.commit(batch)?;
        let as_of = commit.sequence().unwrap_or(progress.file.cursor.as_of);
        progress.file.cursor = cursor_at(&*self.source, end, as_of);
        progress.unsaved += 1;
        progress.outstanding.drain(..=index);
        // Those behind it may have waited for it.
        let settled = self.settle(&mut progress);
        let saved = settled.and_then(|()| match progress.unsaved < FOLD_INTERVAL {
            true => Ok(()),
            false => progress.save(),
        });
        if let Err(error) = saved {
            // It is durable in the journal; the port's file follows later.
            tracing::warn!(%error, port = self.name, "a cursor could not be saved");
        }
        Ok(commit)
    }

    /// Which of those that are out it is; none if it is acknowledged together with all before it.
    fn find(&self, progress: &Progress, receipt: &Receipt) -> Result<Option<usize>> {
        if receipt.generation != progress.generation {
            return Err(self.refused(AcknowledgementRefusal::Superseded));
        }
        let mut outstanding = progress.outstanding.iter();
        Ok(outstanding.position(|given| given.number == receipt.number))
    }

    fn refused(&self, reason: AcknowledgementRefusal) -> Error {
        let name = self.name.clone();
        Error::AcknowledgementRefused { name, reason }
    }

    /// Saves what is acknowledged together with all before it: crash between, and the rest comes again.
    fn settle(&self, progress: &mut Progress) -> Result<()> {
        let prefix = progress
            .outstanding
            .iter()
            .take_while(|given| given.is_acknowledged);
        let (count, end) = prefix.fold((0, None), |(count, _), given| (count + 1, Some(given.end)));
        let Some(end) = end else {
            return Ok(());
        };
        // Acknowledgements of this port are committed under its lock: those so far are visible.
        let as_of = self.source.position()?.sequence;
        let before = progress.file.cursor;
        progress.file.cursor = cursor_at(&*self.source, end, as_of);
        if let Err(error) = progress.save() {
            progress.file.cursor = before;
            return Err(error);
        }
        progress.outstanding.drain(..count);
        Ok(())
    }
}

impl Progress {
    /// Goes on from here; what was given out before cannot be acknowledged any more.
    pub(super) fn begin_anew(&mut self, position: Position) {
        self.position = position;
        self.generation += 1;
        self.outstanding.clear();
    }

    fn save(&mut self) -> Result<()> {
        self.file.save(self.file.cursor)?;
        self.unsaved = 0;
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let name = &self.name;
        let mut progress = lock(&self.progress);
        if progress.unsaved > 0
            && let Err(error) = progress.save()
        {
            // The next opening finds the acknowledgements in the journal.
            tracing::warn!(%error, port = name, "the cursor could not be saved");
        }
    }
}
