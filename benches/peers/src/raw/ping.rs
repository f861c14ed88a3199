//! Waking another thread, and nothing else.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

use rustix::thread::futex::{self, Flags};

/// One thread sends, another waits.
pub trait Ping: Send + Sync {
    fn send(&self);
    /// Waits until more than `seen` have been sent, and gives how many have.
    fn wait(&self, seen: u32) -> u32;
}

#[derive(Default)]
pub struct FutexPing {
    sent: AtomicU32,
}

impl Ping for FutexPing {
    fn send(&self) {
        self.sent.fetch_add(1, Ordering::Release);
        // It fails where there is no futex; then the waiter spins.
        let _ = futex::wake(&self.sent, Flags::PRIVATE, 1);
    }

    fn wait(&self, seen: u32) -> u32 {
        loop {
            let sent = self.sent.load(Ordering::Acquire);
            if sent != seen {
                return sent;
            }
            let _ = futex::wait(&self.sent, Flags::PRIVATE, seen, None);
        }
    }
}

#[derive(Default)]
pub struct CondvarPing {
    sent: Mutex<u32>,
    changed: Condvar,
}

impl Ping for CondvarPing {
    fn send(&self) {
        *self.sent.lock().expect("a lock") += 1;
        self.changed.notify_one();
    }

    fn wait(&self, seen: u32) -> u32 {
        let sent = self.sent.lock().expect("a lock");
        let sent = self.changed.wait_while(sent, |sent| *sent == seen);
        *sent.expect("a lock")
    }
}
