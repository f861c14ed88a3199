//! What the face needs of an open store, whether this process writes it or follows another one that does.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::waiters::{Subscription, Waiters};
use super::{Commit, Engine, Opened, Visible};
use crate::env::Env;
use crate::epoch::Epoch;
use crate::error::Result;
use crate::journal::{FollowedHead, Journal, Position};
use crate::layout::Layout;
use crate::model::{Batch, Limits};
use crate::sync::{Event, EventListener};

/// An open store, to read and to follow.
pub(crate) trait Source: Debug + Send + Sync {
    fn env(&self) -> &dyn Env;
    fn layout(&self) -> &Layout;
    fn journal(&self) -> &Journal;
    fn opened(&self) -> Opened;
    /// The epoch that commits are made under.
    fn epoch(&self) -> Epoch;
    /// The last sequence number of this epoch; 0 if it is not part of the store's history.
    fn end_of(&self, epoch: Epoch) -> u64;
    /// The limit that the writer keeps the journal below.
    fn journal_limit_bytes(&self) -> u64;
    /// The epoch that this sequence number was committed under.
    fn epoch_of(&self, sequence: u64) -> Epoch;
    fn limits(&self) -> &Limits;
    fn notification_limit_bytes(&self) -> u64;
    /// The state that the tree holds is that after this record; 0 if there is no tree.
    fn tree_sequence(&self) -> u64;
    /// Whether the last writer has closed the store.
    fn was_closed(&self) -> bool;
    fn check_open(&self) -> Result<()>;
    /// How far the journal may be shown. Never waits for the disk's writing.
    fn position(&self) -> Result<Position>;
    /// Looks at the visible state, which is that at its position.
    fn look(&self, look: &mut dyn FnMut(&Visible)) -> Result<()>;
    /// Looks at what is visible, which may not all be in the state yet. Waits for less.
    fn look_through(&self, look: &mut dyn FnMut(&Visible)) -> Result<()>;
    /// A place among those who wait, for a port on this folded path.
    fn subscribe(&self, key: &str) -> Subscription;
    /// Arms a waiter: a commit after this that has something for the port wakes it.
    fn listen(&self, subscription: &Subscription) -> Waiter;
    /// Told of every commit that has something for the port, and of the end.
    fn event<'a>(&'a self, subscription: &'a Subscription) -> &'a Event;
    /// Wakes who waits on this port in this process, to look again.
    fn wake(&self, subscription: &Subscription);
    fn commit(&self, batch: Batch) -> Result<Commit>;
    fn close(&self) -> Result<()>;
}

impl dyn Source + '_ {
    /// Looks at what is visible, which may not all be in the state yet, and gives what was found there.
    pub(crate) fn glance<R>(&self, look: impl FnOnce(&Visible) -> R) -> Result<R> {
        let (mut look, mut found) = (Some(look), None);
        self.look_through(&mut |visible| found = look.take().map(|look| look(visible)))?;
        Ok(found.expect("a source that can be read is looked at once"))
    }

    /// Looks at the visible state, and gives what was found there.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Visible) -> R) -> Result<R> {
        let (mut look, mut found) = (Some(look), None);
        self.look(&mut |visible| found = look.take().map(|look| look(visible)))?;
        Ok(found.expect("a source that can be read is looked at once"))
    }
}

/// Waits for something to change. Armed when it is made.
pub(crate) enum Waiter {
    /// For a commit of this process.
    Event(EventListener),
    /// For a commit of another process: until the head's number is no longer this one.
    Head(Arc<FollowedHead>, u32),
}

/// Who waits for another process looks by itself this often: at whether another writer has come, and at what was closed here.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

impl Waiter {
    /// Waits until something may have changed, or until the deadline. False at the deadline.
    pub(crate) fn wait(self, deadline: Option<Instant>) -> bool {
        match (self, deadline) {
            (Waiter::Event(listener), Some(deadline)) => listener.wait_deadline(deadline),
            (Waiter::Event(listener), None) => {
                listener.wait();
                true
            }
            (Waiter::Head(head, ticket), deadline) => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                head.wait(ticket, left.unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL));
                deadline.is_none_or(|deadline| Instant::now() < deadline)
            }
        }
    }
}

impl Source for Engine {
    fn env(&self) -> &dyn Env {
        &*self.env
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn journal(&self) -> &Journal {
        &self.journal
    }

    fn opened(&self) -> Opened {
        self.opened.clone()
    }

    fn epoch(&self) -> Epoch {
        self.identity.epoch()
    }

    fn end_of(&self, epoch: Epoch) -> u64 {
        self.identity.end_of(epoch)
    }

    fn journal_limit_bytes(&self) -> u64 {
        self.keeper.limits.bytes
    }

    fn epoch_of(&self, sequence: u64) -> Epoch {
        self.identity.epoch_of(sequence)
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn notification_limit_bytes(&self) -> u64 {
        self.notification_limit_bytes
    }

    fn tree_sequence(&self) -> u64 {
        self.checkpointer
            .as_ref()
            .map_or(0, super::checkpoint::Checkpointer::tree_sequence)
    }

    fn was_closed(&self) -> bool {
        Engine::check_open(self).is_err()
    }

    fn check_open(&self) -> Result<()> {
        Engine::check_open(self)
    }

    fn position(&self) -> Result<Position> {
        self.glance(|visible| visible.position)
    }

    fn look(&self, look: &mut dyn FnMut(&Visible)) -> Result<()> {
        self.read(look)
    }

    fn look_through(&self, look: &mut dyn FnMut(&Visible)) -> Result<()> {
        self.glance(look)
    }

    fn subscribe(&self, key: &str) -> Subscription {
        Waiters::subscribe(&self.waiters, key)
    }

    fn listen(&self, subscription: &Subscription) -> Waiter {
        Waiter::Event(self.event(subscription).listen())
    }

    fn event<'a>(&'a self, subscription: &'a Subscription) -> &'a Event {
        subscription.event().unwrap_or(&self.waiters.any)
    }

    fn wake(&self, subscription: &Subscription) {
        self.event(subscription).notify();
    }

    fn commit(&self, batch: Batch) -> Result<Commit> {
        Engine::commit(self, batch)
    }

    fn close(&self) -> Result<()> {
        Engine::close(self)
    }
}
