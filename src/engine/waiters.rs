//! Those who wait: ports for what touches their key, and the threads behind the commits for every commit.
//!
//! A commit wakes the ports that have something, and looks at no other: they stand under the same lists as in the index of the
//! journal, the deletions of the keys above them included.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::journal::{ListId, Lists};
use crate::model::RecordView;
use crate::sync::{Event, Mutex, Woken, lock};

/// Who waits for commits.
#[derive(Debug)]
pub(crate) struct Waiters {
    /// Told of every commit, and of the end.
    pub(super) any: Arc<Event>,
    ports: Mutex<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    /// The events of the ports that a list is of; of each port there are several.
    by_list: HashMap<ListId, Vec<Arc<Event>>, RandomState>,
    lists: Lists,
}

/// A port's place among those who wait, as long as it lives. None where all wait for the same.
pub(crate) struct Subscription(Option<Subscribed>);

struct Subscribed {
    waiters: Arc<Waiters>,
    lists: Vec<ListId>,
    event: Arc<Event>,
}

impl Waiters {
    pub(super) fn new() -> Waiters {
        Waiters {
            any: Arc::new(Event::new()),
            ports: Mutex::new(Ports::default()),
        }
    }

    /// Makes a place for a port on this folded path.
    pub(super) fn subscribe(this: &Arc<Waiters>, key: &str) -> Subscription {
        let (event, lists) = (Arc::new(Event::new()), ListId::of_port(key));
        let mut ports = lock(&this.ports);
        for list in &lists {
            ports.by_list.entry(*list).or_default().push(Arc::clone(&event));
        }
        drop(ports);
        Subscription(Some(Subscribed {
            waiters: Arc::clone(this),
            lists,
            event,
        }))
    }

    /// Tells the ports that show one of these batches, which are visible: threads at once, tasks when what it gives is dropped.
    #[must_use]
    pub(super) fn tell_of<'a>(&self, batches: impl Iterator<Item = RecordView<'a>>) -> Vec<Woken> {
        let mut told = Vec::new();
        let mut ports = lock(&self.ports);
        let Ports { by_list, lists } = &mut *ports;
        if !by_list.is_empty() {
            for batch in batches {
                lists.visit(batch, &mut |list| {
                    told.extend(by_list.get(&list).into_iter().flatten().cloned());
                });
            }
        }
        drop(ports);
        let told = told.iter().chain([&self.any]);
        let woken = told.map(|event| event.notify_threads());
        woken.filter(|woken| !woken.is_empty()).collect()
    }

    /// Tells all, of something that is no commit.
    pub(super) fn tell_all(&self) {
        // Without the lock: what is woken may drop a port, and subscribe another.
        let told: Vec<_> = lock(&self.ports).by_list.values().flatten().cloned().collect();
        told.iter().for_each(|event| event.notify());
        self.any.notify();
    }
}

impl Subscription {
    /// Of a port in a process that follows another: all there wait for the head.
    pub(super) fn to_all() -> Subscription {
        Subscription(None)
    }

    /// The port's own event.
    pub(super) fn event(&self) -> Option<&Event> {
        self.0.as_ref().map(|subscribed| &*subscribed.event)
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let mut ports = lock(&self.waiters.ports);
        for list in &self.lists {
            if let Some(events) = ports.by_list.get_mut(list) {
                events.retain(|event| !Arc::ptr_eq(event, &self.event));
                if events.is_empty() {
                    ports.by_list.remove(list);
                }
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

#[cfg(all(test, not(clusdb_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_dropped_is_forgotten_and_no_other() {
        let waiters = Arc::new(Waiters::new());
        let [first, second] = ["A\\B", "A\\B"].map(|key| Waiters::subscribe(&waiters, key));
        let places = || lock(&waiters.ports).by_list.values().map(Vec::len).sum::<usize>();
        assert_eq!(
            places(),
            4,
            "each under its key, and under the deletion of the key above"
        );
        drop(first);
        assert_eq!(places(), 2);
        drop(second);
        assert!(lock(&waiters.ports).by_list.is_empty());
    }
}
