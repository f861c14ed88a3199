//! Keeps the tree behind the journal: a thread that copies what has changed, at leisure, and never in a commit's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::refresh::Refresh;
use super::visible::{Published, Visible};
use crate::error::Error;
use crate::identity::Identity;
use crate::journal::{Journal, Position};
use crate::model::{EntryName, Stored};
use crate::options::TreeOptions;
use crate::sync::{Event, Mutex, RwLockReadGuard, lock};
use crate::tree::{Folders, Meta, TreeFault, Worker};

/// Few large records are worth a tree once they are larger than this, and than so many times what the state holds.
const BEHIND_BYTES: u64 = 1 << 20;
const BEHIND_TIMES: u64 = 2;
/// After each round there is a pause, of at least this, and of so many times what the round took; a long round has pauses in between. So the tree
/// has a fifth of one processor and of the disk at most, however much is committed.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_TIMES: u32 = 4;
/// A round works so long without a pause, and may come to its end in that time although all of it is touched again and again.
const WORK: Duration = Duration::from_millis(250);
/// Names that are looked up at a time, under the state's lock.
const SLICE_NAMES: usize = 1000;
/// A copy of more than this is made in several steps, and counts only when it is finished: sled needs some kilobytes of
/// memory for each entry of a step.
const SLICE_BYTES: usize = 16 << 20;
const SLICE_ENTRIES: usize = 8 << 10;
/// While the store is open, the tree's files are synced about this often.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// Closing waits for the tree so long; what it has not copied then is replayed at the next opening.
const CLOSING_LIMIT: Duration = Duration::from_secs(30);
/// A tree that fails is made anew so many times, each time after a longer pause; then not until the store is opened
/// again.
const MAX_FAULTS: u32 = 3;
/// Files of so many times the live data are made anew, if they are large at all.
const GROWN_TIMES: u64 = 4;

/// The thread, and how to tell it to stop.
#[derive(Debug)]
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread shares with the engine.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: TreeOptions,
    pub(super) folders: Folders,
    pub(super) identity: Identity,
    pub(super) journal: Arc<Journal>,
    pub(super) visible: Arc<Published>,
    /// Told of every commit.
    pub(super) changed: Arc<Event>,
    order: Mutex<Order>,
    ordered: Event,
    /// What the tree holds, as far as the next opening can rely on it.
    tree_sequence: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    /// Copy the rest, and stop by this time.
    Finish(Instant),
    /// Stop where you are.
    Stop,
}

/// A tree in use.
#[derive(Debug)]
pub(super) struct OpenTree {
    pub(super) worker: Worker,
    /// Of its folder.
    pub(super) number: u64,
}

impl Checkpointer {
    /// Starts the thread, with the tree that the store was opened from if there is one.
    pub(super) fn start(shared: Shared, tree: Option<(OpenTree, Meta)>) -> Checkpointer {
        let shared = Arc::new(shared);
        shared.tree_sequence.store(
            tree.as_ref().map_or(0, |(_, meta)| meta.sequence),
            Ordering::Release,
        );
        let copier = Arc::clone(&shared);
        let thread = thread::Builder::new().name("clusdb-checkpoint".to_owned());
        let thread = thread.spawn(move || copier.run(tree));
        let thread =
            thread.inspect_err(|error| tracing::warn!(%error, "no tree: its thread could not be started"));
        Checkpointer {
            shared,
            thread: Mutex::new(thread.ok()),
        }
    }

    /// The state that the tree holds is that after this record; 0 if there is none.
    pub(super) fn tree_sequence(&self) -> u64 {
        self.shared.tree_sequence.load(Ordering::Acquire)
    }

    /// Ends the thread. With `finish` it first copies what is missing, if that is much, and syncs the tree.
    pub(super) fn stop(&self, finish: bool) {
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        *lock(&self.shared.order) = if finish {
            Order::Finish(Instant::now() + CLOSING_LIMIT)
        } else {
            Order::Stop
        };
        self.shared.ordered.notify();
        self.shared.changed.notify();
        if thread.join().is_err() {
            tracing::error!("the thread that keeps the tree has panicked; nothing is lost");
        }
    }
}

/// The copying of one tree.
struct Copy<'a> {
    shared: &'a Shared,
    tree: OpenTree,
    refresh: Refresh,
    /// What the tree is a copy of; none as long as it is unfinished.
    applied: Option<Meta>,
    /// When its files were last synced, and whether something was applied since.
    synced: Option<Instant>,
    is_dirty: bool,
    /// Since when there was no pause.
    began: Instant,
}

/// Why the copying has ended.
enum End {
    Stopped,
    /// The files hold much that is no longer needed.
    Grown,
    /// The journal was trimmed beyond what was copied: commits are faster than the copying.
    Overtaken,
    Fault(TreeFault),
}

impl From<TreeFault> for End {
    fn from(fault: TreeFault) -> End {
        End::Fault(fault)
    }
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        match error {
            Error::Trimmed { .. } => End::Overtaken,
            error => End::Fault(error.into()),
        }
    }
}

impl Shared {
    pub(super) fn new(
        options: TreeOptions,
        folders: Folders,
        identity: Identity,
        journal: Arc<Journal>,
        visible: Arc<Published>,
        changed: Arc<Event>,
    ) -> Shared {
        Shared {
            options,
            folders,
            identity,
            journal,
            visible,
            changed,
            order: Mutex::new(Order::Run),
            ordered: Event::new(),
            tree_sequence: AtomicU64::new(0),
        }
    }

    fn order(&self) -> Order {
        *lock(&self.order)
    }

    /// The state, unless a panic has left it half changed: no copy of that is made.
    fn visible(&self) -> Result<RwLockReadGuard<'_, Visible>, TreeFault> {
        Ok(self.visible.settled()?)
    }

    fn run(&self, mut loaded: Option<(OpenTree, Meta)>) {
        let mut faults = 0;
        loop {
            let copy = match loaded.take() {
                Some((tree, meta)) => Copy::since(self, tree, meta).map(Some),
                None => Copy::everything(self),
            };
            let (number, end) = match copy {
                Ok(None) => return,
                Ok(Some(mut copy)) => (Some(copy.tree.number), copy.run()),
                Err(fault) => (None, End::Fault(fault)),
            };
            let fault = match end {
                End::Stopped => return,
                End::Grown => {
                    tracing::info!(
                        tree = number,
                        "the tree has grown to several times what it holds: made anew"
                    );
                    continue;
                }
                End::Overtaken => {
                    tracing::info!(
                        tree = number,
                        "the journal was trimmed before the tree had followed: made anew"
                    );
                    self.tree_sequence.store(0, Ordering::Release);
                    if let Some(Err(fault)) = number.map(|number| self.folders.remove(number)) {
                        tracing::warn!(%fault, "its folder could not be removed");
                    }
                    if self.pause(PAUSE * PAUSE_TIMES) {
                        return;
                    }
                    continue;
                }
                End::Fault(TreeFault::Off) => return tracing::warn!(number, "{}", TreeFault::Off),
                End::Fault(fault) => fault,
            };
            faults += 1;
            self.tree_sequence.store(0, Ordering::Release);
            let aside = number.map(|number| self.folders.set_aside(number));
            tracing::warn!(%fault, ?aside, "the tree was set aside");
            if faults > MAX_FAULTS || self.pause(PAUSE * 40 * faults) {
                return;
            }
        }
    }

    /// Waits until much stands behind this position, or for an order.
    fn wait_until_behind(&self, position: Position) -> Result<Order, TreeFault> {
        loop {
            let changed = self.changed.listen();
            let order = self.order();
            if order != Order::Run || self.is_behind(position)? {
                return Ok(order);
            }
            changed.wait();
            // Not woken by each commit of many.
            if self.pause(PAUSE) {
                return Ok(self.order());
            }
        }
    }

    /// Whether replaying what stands behind this position costs more than a tree.
    fn is_behind(&self, position: Position) -> Result<bool, TreeFault> {
        let (visible, live_bytes) = {
            let visible = self.visible()?;
            (visible.position, visible.state.digest().bytes)
        };
        let records = visible.sequence - position.sequence;
        let bytes = self.journal.bytes_between(position, visible)?;
        Ok(records >= self.options.behind_records || bytes > BEHIND_BYTES + BEHIND_TIMES * live_bytes)
    }

    /// Sleeps; true if there is an order.
    fn pause(&self, time: Duration) -> bool {
        let ordered = self.ordered.listen();
        self.order() != Order::Run || ordered.wait_timeout(time)
    }
}

impl<'a> Copy<'a> {
    /// Goes on with a tree that is the state after some record.
    fn since(shared: &'a Shared, tree: OpenTree, meta: Meta) -> Result<Copy<'a>, TreeFault> {
        let position = shared.journal.position_after(meta.sequence)?;
        let refresh = Refresh::since(position);
        Ok(Copy::new(shared, tree, refresh, Some(meta)))
    }

    /// Begins a new tree, once there is enough to copy.
    fn everything(shared: &'a Shared) -> Result<Option<Copy<'a>>, TreeFault> {
        let nothing = shared.journal.position_after(0)?;
        let order = shared.wait_until_behind(nothing)?;
        if order == Order::Stop || !shared.is_behind(nothing)? {
            return Ok(None);
        }
        if shared.options.backend.is_off() {
            return Err(TreeFault::Off);
        }
        let number = shared.folders.create()?;
        let worker = Worker::start(&shared.options.backend, shared.options.limit)?;
        worker.open(&shared.folders.path(number), 0)?;
        let refresh = Refresh::everything(shared.visible()?.position);
        Ok(Some(Copy::new(
            shared,
            OpenTree { worker, number },
            refresh,
            None,
        )))
    }

    fn new(shared: &'a Shared, tree: OpenTree, refresh: Refresh, applied: Option<Meta>) -> Copy<'a> {
        Copy {
            shared,
            tree,
            refresh,
            applied,
            synced: None,
            is_dirty: false,
            began: Instant::now(),
        }
    }

    fn run(&mut self) -> End {
        match self.follow() {
            Err(End::Overtaken) => match self.tree.worker.close() {
                Ok(()) => End::Overtaken,
                Err(fault) => End::Fault(fault),
            },
            Ok(end) | Err(end) => end,
        }
    }

    /// Copies until there is an order to stop, or it fails.
    fn follow(&mut self) -> Result<End, End> {
        let shared = self.shared;
        loop {
            self.check_size()?;
            let order = match self.applied {
                Some(_) => shared.wait_until_behind(self.refresh.position())?,
                None => shared.order(),
            };
            self.began = Instant::now();
            let is_due = self.applied.is_none() || shared.is_behind(self.refresh.position())?;
            if order != Order::Stop && is_due {
                self.catch_up()?;
            }
            let is_recent = |synced: Instant| synced.elapsed() < CHECKPOINT_INTERVAL;
            let is_recent = order == Order::Run && self.synced.is_some_and(is_recent);
            if order != Order::Stop && self.is_dirty && !is_recent {
                self.checkpoint()?;
            }
            if order != Order::Run {
                self.tree.worker.close()?;
                return Ok(End::Stopped);
            }
            self.rest(PAUSE);
        }
    }

    /// Pauses as long as the work before it deserves.
    fn rest(&mut self, least: Duration) {
        self.shared.pause(least.max(self.began.elapsed() * PAUSE_TIMES));
        self.began = Instant::now();
    }

    /// Brings the tree to what is visible. Does not hold the state's lock for more than a slice.
    fn catch_up(&mut self) -> Result<(), End> {
        let shared = self.shared;
        loop {
            let last = shared.visible()?.position.sequence;
            self.refresh.read(&shared.journal, last)?;
            let is_read = self.refresh.position().sequence == last;
            if is_read && self.refresh.is_nearly_done(SLICE_NAMES) && self.finish()? {
                return Ok(());
            }
            let entries = self.refresh.look_up(&shared.visible()?.state, SLICE_NAMES);
            self.copy(entries)?;
            let is_late = match shared.order() {
                Order::Run => false,
                Order::Finish(until) => Instant::now() > until,
                Order::Stop => true,
            };
            if is_late {
                tracing::warn!("the store was closed before the tree had followed");
                self.tree.worker.close()?;
                return Err(End::Stopped);
            }
            if self.began.elapsed() > WORK {
                self.rest(Duration::ZERO);
            }
        }
    }

    /// The last step: what is left and the digest, from one moment. False if too much has come meanwhile.
    fn finish(&mut self) -> Result<bool, End> {
        let shared = self.shared;
        let visible = shared.visible()?;
        let Position {
            sequence, checksum, ..
        } = visible.position;
        self.refresh.read(&shared.journal, sequence)?;
        if self.refresh.position().sequence != sequence {
            return Ok(false);
        }
        let entries = self.refresh.look_up(&visible.state, usize::MAX);
        let digest = visible.state.digest();
        drop(visible);
        self.copy(entries)?;
        self.apply(Some(Meta {
            epoch: shared.identity.epoch_of(sequence),
            sequence,
            frame_checksum: checksum,
            digest,
        }))?;
        shared.tree_sequence.store(sequence, Ordering::Release);
        Ok(true)
    }

    /// Applies what has been looked up as far as it fills slices; the rest waits for more.
    fn copy(&mut self, entries: Vec<(EntryName, Option<Stored>)>) -> Result<(), End> {
        for (name, stored) in entries {
            self.refresh.add(&name, stored.as_ref());
            if self.refresh.bytes() >= SLICE_BYTES || self.refresh.entries() >= SLICE_ENTRIES {
                self.apply(None)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, meta: Option<Meta>) -> Result<(), End> {
        let mut changes = self.refresh.take_changes();
        changes.meta = meta;
        self.applied = meta;
        self.is_dirty = true;
        let tree_bytes = self.shared.folders.bytes(self.tree.number)?;
        self.tree.worker.apply(changes, tree_bytes)?;
        Ok(())
    }

    /// Makes what was applied durable, and removes what came before it.
    fn checkpoint(&mut self) -> Result<(), End> {
        let (shared, number) = (self.shared, self.tree.number);
        let bytes = shared.folders.bytes(number)?;
        self.tree.worker.checkpoint(bytes)?;
        shared.folders.remove_older(number)?;
        (self.synced, self.is_dirty) = (Some(Instant::now()), false);
        Ok(())
    }

    /// A tree whose files hold much that is no longer needed is left for a new one, unless the store is closing.
    fn check_size(&self) -> Result<(), End> {
        let shared = self.shared;
        let live = self.applied.map_or(u64::MAX, |meta| meta.digest.bytes);
        let limit = live
            .saturating_mul(GROWN_TIMES)
            .saturating_add(shared.options.grown_bytes);
        if shared.order() == Order::Run && shared.folders.bytes(self.tree.number)? > limit {
            self.tree.worker.close()?;
            return Err(End::Grown);
        }
        Ok(())
    }
}
