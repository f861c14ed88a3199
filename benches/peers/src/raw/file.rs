//! Append and fdatasync, and nothing else.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex};

use anyhow::{Result, anyhow};

/// Zeroes that are written and synced ahead: overwriting them costs the least of a sync.
const FILLED_BYTES: u64 = 16 << 20;

/// A zero-filled file that is appended to. Of several writers, whoever finds no leader writes and syncs for all who wait.
pub struct RawFile {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Number of the group that is filling, and of the last one that is durable.
    filling: u64,
    durable: u64,
    has_leader: bool,
    has_failed: bool,
    offset: u64,
}

impl RawFile {
    pub fn create(path: &Path) -> Result<RawFile> {
        let file = File::create_new(path)?;
        let zeroes = vec![0; 1 << 20];
        for offset in (0..FILLED_BYTES).step_by(zeroes.len()) {
            file.write_all_at(&zeroes, offset)?;
        }
        file.sync_all()?;
        let state = State {
            filling: 1,
            ..State::default()
        };
        Ok(RawFile {
            file,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// The record is durable when this returns.
    pub fn append(&self, record: &[u8]) -> Result<()> {
        let mut state = self.state.lock().expect("a lock");
        state.waiting.extend_from_slice(record);
        let own = state.filling;
        while state.durable < own {
            if state.has_failed {
                return Err(anyhow!("a write failed"));
            }
            if state.has_leader {
                state = self.changed.wait(state).expect("a lock");
                continue;
            }
            state.has_leader = true;
            let group = std::mem::take(&mut state.waiting);
            // Begins again where the zero-filled part would end.
            if state.offset + group.len() as u64 > FILLED_BYTES {
                state.offset = 0;
            }
            let (led, offset) = (state.filling, state.offset);
            state.filling += 1;
            state.offset += group.len() as u64;
            drop(state);
            let written = self.file.write_all_at(&group, offset);
            let outcome = written.and_then(|()| self.file.sync_data());
            state = self.state.lock().expect("a lock");
            state.has_leader = false;
            match outcome {
                Ok(()) => state.durable = led,
                Err(_) => state.has_failed = true,
            }
            self.changed.notify_all();
        }
        Ok(())
    }
}
