//! Ends the program when a side hangs, and says which: sled 0.34.7 can wait for itself for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Far more than the slowest side takes for one turn, or to be filled.
const LIMIT: Duration = Duration::from_secs(30 * 60);

type Guarded = Option<(String, Instant)>;

pub struct Watchdog {
    guarded: Arc<Mutex<Guarded>>,
}

/// What is watched as long as this lives.
pub struct Guard {
    guarded: Arc<Mutex<Guarded>>,
    before: Guarded,
}

impl Watchdog {
    pub fn start() -> Watchdog {
        let guarded = Arc::new(Mutex::new(None));
        let watched = Arc::downgrade(&guarded);
        thread::spawn(move || {
            while let Some(guarded) = watched.upgrade() {
                let state: Guarded = lock(&guarded).clone();
                if let Some((what, since)) = state
                    && since.elapsed() > LIMIT
                {
                    eprintln!("{what} has not come back in {LIMIT:?}: it hangs. Leave it out with --peers.");
                    std::process::exit(3);
                }
                drop(guarded);
                thread::sleep(Duration::from_secs(1));
            }
        });
        Watchdog { guarded }
    }

    pub fn guard(&self, what: &str) -> Guard {
        Guard {
            before: lock(&self.guarded).replace((what.to_owned(), Instant::now())),
            guarded: Arc::clone(&self.guarded),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *lock(&self.guarded) = self.before.take();
    }
}

fn lock(guarded: &Mutex<Guarded>) -> std::sync::MutexGuard<'_, Guarded> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}
