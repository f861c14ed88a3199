//! An event for models, in the place of event-listener's: what is armed before a notification is woken by it. Time stands still.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{Arc, Condvar, Mutex, lock, wait};

#[derive(Debug, Default)]
struct Shared {
    notifications: Mutex<u64>,
    changed: Condvar,
}

#[derive(Debug)]
pub(crate) struct Event(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct EventListener {
    shared: Arc<Shared>,
    armed_at: u64,
}

impl Event {
    pub(crate) fn new() -> Event {
        Event(Arc::new(Shared::default()))
    }

    pub(crate) fn listen(&self) -> EventListener {
        EventListener {
            shared: Arc::clone(&self.0),
            armed_at: *lock(&self.0.notifications),
        }
    }

    /// Wakes all, whatever the number says: nothing here notifies fewer.
    pub(crate) fn notify(&self, _: usize) {
        *lock(&self.0.notifications) += 1;
        self.0.changed.notify_all();
    }
}

pub(crate) trait Listener: Sized {
    fn wait(self);

    fn wait_deadline(self, _: Instant) -> Option<()> {
        self.wait();
        Some(())
    }

    fn wait_timeout(self, _: Duration) -> Option<()> {
        self.wait();
        Some(())
    }
}

impl Listener for EventListener {
    fn wait(self) {
        let mut notifications = lock(&self.shared.notifications);
        while *notifications == self.armed_at {
            notifications = wait(&self.shared.changed, notifications);
        }
    }
}

impl Future for EventListener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
