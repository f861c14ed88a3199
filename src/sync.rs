//! Locks, atomics and events: those of the standard library and of event-listener, or loom's when a model is checked
//! (`--cfg clusdb_loom`).
//!
//! Panics never leave a lock useless: what a lock guards here is repaired or poisoned by a drop guard of its own,
//! so that a lock taken after a panic is just a lock.

#[cfg(clusdb_loom)]
mod loom_event;

#[cfg(clusdb_loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
};
#[cfg(clusdb_loom)]
pub(crate) use loom_event::{Event, EventListener, Listener};

#[cfg(not(clusdb_loom))]
pub(crate) use event_listener::{Event, EventListener, Listener};
#[cfg(not(clusdb_loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
};

use std::sync::PoisonError;

/// Locks, whether or not a thread has panicked with the lock before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on the condition, giving the lock back meanwhile.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
