//! The engine of an open store: commits on one side, the visible state and the journal on the other.

mod backup;
mod base;
#[cfg(test)]
mod byte_tests;
mod check;
mod checkpoint;
mod commit;
mod follower;
mod groups;
mod keeper;
mod open;
mod place;
mod refresh;
mod repair;
mod retention;
mod snapshots;
mod source;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tree_tests;
mod visible;
mod waiters;

use std::sync::Arc;

pub(crate) use backup::restore;
pub use backup::{Backup, Restored};
pub use check::CheckReport;
pub(crate) use check::check;
pub use commit::Commit;
pub(crate) use follower::Follower;
pub(crate) use keeper::Keeper;
pub use repair::Repair;
pub(crate) use repair::repair;
pub(crate) use retention::Limits as RetentionLimits;
pub use retention::Trimmed;
pub(crate) use source::Source;
pub(crate) use waiters::Subscription;

use crate::env::{Env, File};
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::identity::Identity;
use crate::journal::{Head, HeadState, Journal, TornTail, Writer};
use crate::layout::Layout;
use crate::model::Limits;
use crate::options::Options;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, lock};
use crate::tree::{Folders, Meta};
use checkpoint::{Checkpointer, OpenTree, Shared};
use commit::{Answer, Forming};
use groups::Groups;
use visible::Published;
pub(crate) use visible::Visible;
use waiters::Waiters;

/// What the state was read from when the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenedFrom {
    /// From the tree, and the records of the journal behind it.
    Tree,
    /// From a snapshot, and the records of the journal behind it.
    Snapshot,
    /// From the journal alone.
    Journal,
}

/// What opening the store found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) from: OpenedFrom,
    /// Records of the journal that were applied.
    pub(crate) replayed: u64,
    pub(crate) torn_tail: Option<TornTail>,
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Engine {
    env: Arc<dyn Env>,
    layout: Layout,
    identity: Identity,
    limits: Limits,
    pub(crate) notification_limit_bytes: u64,
    pub(crate) opened: Opened,
    pub(crate) journal: Arc<Journal>,
    groups: Groups<Forming, Answer>,
    /// The leader's alone.
    writer: Mutex<Writer>,
    visible: Arc<Published>,
    head: Arc<Head>,
    /// Why no commit is taken any more.
    poison: Mutex<Option<Error>>,
    is_closed: AtomicBool,
    waiters: Arc<Waiters>,
    /// Keeps the tree behind the journal; none if it is turned off.
    checkpointer: Option<Checkpointer>,
    pub(crate) keeper: Arc<Keeper>,
    /// Held as long as the store is open.
    lock: Mutex<Option<Arc<dyn File>>>,
}

impl Engine {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one struct, made in one place"
    )]
    fn new(
        options: &Options,
        layout: Layout,
        identity: Identity,
        lock: Arc<dyn File>,
        journal: Arc<Journal>,
        writer: Writer,
        head: Head,
        visible: Visible,
        opened: Opened,
        tree: Option<(OpenTree, Meta)>,
    ) -> Engine {
        let visible = Arc::new(Published::new(visible));
        let waiters = Arc::new(Waiters::new());
        let checkpointer = options.tree.is_on.then(|| {
            let shared = Shared::new(
                options.tree.clone(),
                Folders::new(layout.root()),
                identity.clone(),
                Arc::clone(&journal),
                Arc::clone(&visible),
                Arc::clone(&waiters.any),
            );
            Checkpointer::start(shared, tree)
        });
        let head = Arc::new(head);
        let keeper = Arc::new(Keeper::new(
            &options.env,
            &layout,
            &identity,
            &journal,
            &visible,
            &head,
            &waiters.any,
            options.retention,
        ));
        if options.is_kept {
            Keeper::start(&keeper);
        }
        Engine {
            env: Arc::clone(&options.env),
            layout,
            identity,
            limits: options.limits,
            notification_limit_bytes: options.notification_limit_bytes,
            opened,
            journal,
            groups: Groups::new(Forming::default()),
            writer: Mutex::new(writer),
            visible,
            head,
            poison: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            waiters,
            checkpointer,
            keeper,
            lock: Mutex::new(Some(lock)),
        }
    }

    fn epoch(&self) -> Epoch {
        self.identity.epoch()
    }

    /// Looks at the visible state. Waits for memory work at most, never for the disk.
    ///
    /// # Errors
    /// A store that was closed, or whose state a panic has left half changed.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Visible) -> R) -> Result<R> {
        self.check_open()?;
        match self.visible.settled() {
            Ok(visible) => Ok(look(&visible)),
            Err(error) => Err(self.poisoned().unwrap_or(error)),
        }
    }

    /// Looks at what is visible, which may not all be in the state yet. Waits for a step of a large commit at most.
    ///
    /// # Errors
    /// Those of [`Engine::read`].
    fn glance<R>(&self, look: impl FnOnce(&Visible) -> R) -> Result<R> {
        self.check_open()?;
        match self.visible.now() {
            Ok(visible) => Ok(look(&visible)),
            Err(error) => Err(self.poisoned().unwrap_or(error)),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    fn poisoned(&self) -> Option<Error> {
        lock(&self.poison).as_ref().map(|cause| Error::Poisoned {
            cause: Arc::new(cause.clone()),
        })
    }

    /// Takes no more commits, for good. The first cause stays.
    fn poison(&self, cause: Error) {
        tracing::error!(%cause, "poisoned: no more commits are taken until the store is opened again");
        lock(&self.poison).get_or_insert(cause);
        self.head.publish(|head| head.state = HeadState::Poisoned);
        self.waiters.tell_all();
    }

    /// Ends the store: waits for a commit that is under way, marks the journal as whole, wakes all who wait, lets the
    /// tree follow, and gives the lock back. Does nothing the second time.
    fn close(&self) -> Result<()> {
        // A second caller waits until the first is through.
        let mut store_lock = lock(&self.lock);
        let mut writer = lock(&self.writer);
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        writer.stop();
        let result = if lock(&self.poison).is_none() {
            let position = writer.position();
            self.head.publish(|head| {
                head.state = HeadState::Closed;
                head.durable_sequence = position.sequence;
                head.frame_checksum = position.checksum;
            });
            self.head.sync().context("sync", &self.layout.head())
        } else {
            Ok(())
        };
        drop(writer);
        self.waiters.tell_all();
        self.keeper.stop();
        // Behind the mark: a kill while the tree is brought up to date leaves a journal that is whole.
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.stop(lock(&self.poison).is_none());
        }
        *store_lock = None;
        result
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            // The next opening recovers; nothing is lost but the time that it takes.
            tracing::warn!(%error, "the store could not be marked as closed");
        }
    }
}
