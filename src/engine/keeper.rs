//! The keeper: makes snapshots and trims the journal behind the commits, by itself when enough has come, or when asked.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::visible::Published;
use super::{retention, snapshots};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::journal::{Head, Journal, Position};
use crate::layout::Layout;
use crate::snapshot;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Event, Mutex, lock};
use crate::tree::Meta;

/// A snapshot is due once the journal behind the last one is larger than this, and than so many times the state.
const DUE_BYTES: u64 = 64 << 20;
const DUE_TIMES: u64 = 2;
/// Where the journal is over its limit, one is due after this part of the limit.
const LIMIT_PARTS: u64 = 4;
/// Whether one is due is looked at no more often than this.
const PAUSE: Duration = Duration::from_millis(500);

/// What keeping needs of an open store.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(super) env: Arc<dyn Env>,
    pub(super) layout: Layout,
    pub(super) identity: Identity,
    pub(super) journal: Arc<Journal>,
    pub(super) visible: Arc<Published>,
    pub(super) head: Arc<Head>,
    pub(super) limits: retention::Limits,
    /// One thing at a time.
    pub(super) alone: Mutex<()>,
    is_stopped: AtomicBool,
    /// Of the newest snapshot.
    last: AtomicU64,
    changed: Arc<Event>,
    stopped: Event,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one struct, made in one place"
    )]
    pub(super) fn new(
        env: &Arc<dyn Env>,
        layout: &Layout,
        identity: &Identity,
        journal: &Arc<Journal>,
        visible: &Arc<Published>,
        head: &Arc<Head>,
        changed: &Arc<Event>,
        limits: retention::Limits,
    ) -> Keeper {
        Keeper {
            env: Arc::clone(env),
            layout: layout.clone(),
            identity: identity.clone(),
            journal: Arc::clone(journal),
            visible: Arc::clone(visible),
            head: Arc::clone(head),
            limits,
            alone: Mutex::new(()),
            is_stopped: AtomicBool::new(false),
            last: AtomicU64::new(0),
            changed: Arc::clone(changed),
            stopped: Event::new(),
            thread: Mutex::new(None),
        }
    }

    /// Starts the thread that keeps the store by itself.
    pub(super) fn start(this: &Arc<Keeper>) {
        let keeper = Arc::clone(this);
        let thread = thread::Builder::new().name("clusdb-keeper".to_owned());
        match thread.spawn(move || keeper.run()) {
            Ok(thread) => *lock(&this.thread) = Some(thread),
            Err(error) => tracing::warn!(%error, "no thread to make snapshots and to trim the journal"),
        }
    }

    /// Ends what is under way, and all that comes later.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.stopped.notify();
        self.changed.notify();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps the store has panicked; nothing is lost");
        }
        drop(lock(&self.alone));
    }

    /// # Errors
    /// `Closed` once the store is being closed: what is under way ends there.
    pub(super) fn check_running(&self) -> Result<()> {
        match self.is_stopped.load(Ordering::Acquire) {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    /// Makes a snapshot of the state as it is when it ends; none if there is a snapshot of it already, or nothing to make one of.
    pub(crate) fn snapshot(&self) -> Result<Option<Meta>> {
        let _alone = lock(&self.alone);
        self.take_snapshot()
    }

    fn take_snapshot(&self) -> Result<Option<Meta>> {
        let (env, layout) = (&*self.env, &self.layout);
        let sequence = self.position()?.sequence;
        let newest = self.snapshots()?.into_iter().next();
        if let Some(newest) = newest
            && newest.sequence == sequence
            && snapshot::verify(env, &layout.snapshot(sequence)).is_ok()
        {
            return Ok(Some(newest));
        }
        let taken = snapshots::take(self)?;
        if let Some(meta) = taken {
            self.last.store(meta.sequence, Ordering::Release);
        }
        Ok(taken)
    }

    /// The snapshots of this journal's own records, the newest first.
    pub(super) fn snapshots(&self) -> Result<Vec<Meta>> {
        let mut metas = snapshots::metas(&*self.env, &self.layout, &self.identity)?;
        let mut failed = Ok(());
        metas.retain(|meta| match self.journal.position_after(meta.sequence) {
            Ok(at) => (at.sequence, at.checksum) == (meta.sequence, meta.frame_checksum),
            Err(error) => {
                failed = Err(error);
                false
            }
        });
        failed.map(|()| metas)
    }

    pub(super) fn position(&self) -> Result<Position> {
        Ok(self.visible.settled()?.position)
    }

    fn run(&self) {
        let newest = snapshots::metas(&*self.env, &self.layout, &self.identity);
        let newest = newest
            .ok()
            .and_then(|metas| metas.first().map(|meta| meta.sequence));
        self.last.store(newest.unwrap_or(0), Ordering::Release);
        while self.check_running().is_ok() {
            let changed = self.changed.listen();
            let kept = self.is_due().and_then(|is_due| match is_due {
                true => self.keep(),
                false => Ok(()),
            });
            let kept = kept.and_then(|()| self.journal.make_sidecars());
            if let Err(error) = kept
                && self.check_running().is_ok()
            {
                tracing::warn!(%error, "the store could not be kept: tried again later");
                self.pause(PAUSE * 20);
            }
            if self.check_running().is_ok() {
                changed.wait();
                // Not woken by each commit of many.
                self.pause(PAUSE);
            }
        }
    }

    fn pause(&self, time: Duration) {
        let stopped = self.stopped.listen();
        if self.check_running().is_ok() {
            stopped.wait_timeout(time);
        }
    }

    /// Whether much of the journal stands behind the last snapshot.
    fn is_due(&self) -> Result<bool> {
        let (end, live_bytes) = {
            let visible = self.visible.settled()?;
            (visible.position, visible.state.digest().bytes)
        };
        let last = self.last.load(Ordering::Acquire);
        if end.sequence <= last {
            return Ok(false);
        }
        let begin = self.journal.position_after(last)?;
        let behind = self.journal.bytes_between(begin, end)?;
        // Over its limit, the journal is trimmed behind snapshots that come more often.
        let is_over = self.journal.size()?.1 > self.limits.bytes;
        let often = is_over && behind > self.limits.bytes / LIMIT_PARTS;
        Ok(often || self.is_old() || behind > DUE_BYTES.max(DUE_TIMES * live_bytes))
    }

    fn keep(&self) -> Result<()> {
        {
            let _alone = lock(&self.alone);
            self.take_snapshot()?;
        }
        self.trim()?;
        Ok(())
    }
}
