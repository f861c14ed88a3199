//! Locks and atomics: those of the standard library, or loom's when a model is checked (`--cfg clusdb_loom`). And events, made of them.
//!
//! Panics never leave a lock useless: what a lock guards here is repaired or poisoned by a drop guard of its own,
//! so that a lock taken after a panic is just a lock.

mod event;

#[cfg(clusdb_loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::yield_now,
};
#[cfg(not(clusdb_loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::yield_now,
};

use std::sync::PoisonError;
use std::time::Instant;

pub(crate) use event::{Event, EventListener, Woken};

/// Locks, whether or not a thread has panicked with the lock before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on the condition, giving the lock back meanwhile.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The same, but no longer than until then. In models time stands still.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Instant,
) -> MutexGuard<'a, T> {
    let left = deadline.saturating_duration_since(Instant::now());
    let waited = condvar.wait_timeout(guard, left);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
