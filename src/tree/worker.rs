//! A thread of its own for a tree, so that one that panics or hangs does so alone.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Backend, Changes, Meta, Tree, TreeFault, decode_entry};
use crate::model::{Loader, State};

/// The name of the thread, in traces and in messages of panics.
const THREAD_NAME: &str = "clusdb-tree";
/// A tree has one more second for each of so many bytes that it has to do with: a hundred times what it needs.
const LIMIT_BYTES_PER_SECOND: u64 = 1 << 20;

/// Entries go from one thread to the other in chunks of so many bytes, and so many chunks wait at most.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 4;

type Job = Box<dyn FnOnce(&mut Slot) + Send>;

/// What the thread has: the tree, unless it has panicked.
type Slot = Option<Box<dyn Tree>>;

/// Runs what is asked of a tree, one after the other, each under a time limit.
#[derive(Debug)]
pub(crate) struct Worker {
    backend: Arc<dyn Backend>,
    jobs: mpsc::Sender<Job>,
    /// Set when a job took too long: what the thread has is never dropped.
    is_abandoned: Arc<AtomicBool>,
    limit: Duration,
}

impl Worker {
    /// Starts a thread without a tree, which has this time for next to nothing.
    pub(crate) fn start(backend: &Arc<dyn Backend>, limit: Duration) -> Result<Worker, TreeFault> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let was_abandoned = Arc::clone(&is_abandoned);
        thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || {
                let mut slot = None;
                for job in queue {
                    job(&mut slot);
                    if was_abandoned.load(Ordering::Acquire) {
                        // Dropping it would write to a folder that was given up, or hang once more.
                        mem::forget(slot.take());
                    }
                }
            })?;
        Ok(Worker {
            backend: Arc::clone(backend),
            jobs,
            is_abandoned,
            limit,
        })
    }

    /// Opens the tree in this folder, which holds so many bytes.
    pub(crate) fn open(&self, folder: &Path, bytes: u64) -> Result<(), TreeFault> {
        let backend = Arc::clone(&self.backend);
        let folder = folder.to_owned();
        self.run(bytes, move |slot| {
            *slot = Some(backend.open(&folder)?);
            Ok(())
        })
    }

    /// The state that the tree holds, every entry checked into the digest. The tree is read in its thread, and the state is
    /// made in the caller's.
    pub(crate) fn load(&self, bytes: u64) -> Result<(State, Meta), TreeFault> {
        let (chunks, read) = mpsc::sync_channel(CHUNKS);
        let running = self.begin(bytes, move |slot| read_chunks(&mut **with_tree(slot)?, &chunks))?;
        let mut loading = Loading::default();
        let loaded = loop {
            match read.recv_timeout(running.left()) {
                Ok(chunk) => match loading.add(&chunk) {
                    Ok(()) => {}
                    malformed => break malformed,
                },
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
                // What it was waited for is told below.
                Err(RecvTimeoutError::Timeout) => break Ok(()),
            }
        };
        // Where this thread has given up, the other one does too.
        drop(read);
        let read = self.wait(running);
        loaded?;
        read?;
        loading.finish()
    }

    /// `tree_bytes`: what the tree holds, in case that a part of it is to be looked for and removed.
    pub(crate) fn apply(&self, changes: Changes, tree_bytes: u64) -> Result<(), TreeFault> {
        let entries = changes.entries.iter();
        let bytes: usize = entries
            .map(|(name, bytes)| 64 + name.len() + bytes.as_ref().map_or(0, Vec::len))
            .sum();
        let searched = if changes.removed_prefixes.is_empty() {
            0
        } else {
            tree_bytes
        };
        self.run(bytes as u64 + searched, move |slot| {
            with_tree(slot)?.apply(&changes)
        })
    }

    pub(crate) fn checkpoint(&self, bytes: u64) -> Result<(), TreeFault> {
        self.run(bytes, |slot| with_tree(slot)?.checkpoint())
    }

    /// Closes the tree, so that its folder can be opened or removed.
    pub(crate) fn close(&self) -> Result<(), TreeFault> {
        self.run(0, |slot| {
            *slot = None;
            Ok(())
        })
    }

    fn run<R: Send + 'static>(
        &self,
        bytes: u64,
        job: impl FnOnce(&mut Slot) -> Result<R, TreeFault> + Send + 'static,
    ) -> Result<R, TreeFault> {
        self.wait(self.begin(bytes, job)?)
    }

    fn begin<R: Send + 'static>(
        &self,
        bytes: u64,
        job: impl FnOnce(&mut Slot) -> Result<R, TreeFault> + Send + 'static,
    ) -> Result<Running<R>, TreeFault> {
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |slot| {
            let result = catch_unwind(AssertUnwindSafe(|| job(slot))).unwrap_or_else(|panic| {
                mem::forget(slot.take());
                Err(TreeFault::Panicked(panic_message(&*panic)))
            });
            // Nobody may be waiting any more.
            let _ = answer.send(result);
        });
        if self.backend.is_off() {
            // It would hang too, and so would dropping it.
            self.is_abandoned.store(true, Ordering::Release);
            return Err(TreeFault::Off);
        }
        self.jobs.send(job).map_err(|_| ended())?;
        let limit = self.limit + Duration::from_secs(bytes / LIMIT_BYTES_PER_SECOND);
        Ok(Running {
            answered,
            began: Instant::now(),
            limit,
        })
    }

    fn wait<R>(&self, running: Running<R>) -> Result<R, TreeFault> {
        let answer = running.answered.recv_timeout(running.left());
        answer.unwrap_or_else(|error| match error {
            RecvTimeoutError::Disconnected => Err(ended()),
            RecvTimeoutError::Timeout => {
                self.is_abandoned.store(true, Ordering::Release);
                self.backend.turn_off();
                Err(TreeFault::Hung(running.limit))
            }
        })
    }
}

/// A job under way.
struct Running<R> {
    answered: mpsc::Receiver<Result<R, TreeFault>>,
    began: Instant,
    limit: Duration,
}

impl<R> Running<R> {
    /// Until its time is over.
    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }
}

fn ended() -> TreeFault {
    TreeFault::Failed("its thread has ended".to_owned())
}

fn with_tree(slot: &mut Slot) -> Result<&mut Box<dyn Tree>, TreeFault> {
    slot.as_mut()
        .ok_or_else(|| TreeFault::Failed("it is not open".to_owned()))
}

/// Entries of a tree, one behind the other.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Of each name and of what stands under it.
    lengths: Vec<(usize, usize)>,
}

impl Chunk {
    fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.bytes[..];
        self.lengths.iter().map_while(move |(name_bytes, entry_bytes)| {
            let (name, behind) = rest.split_at_checked(*name_bytes)?;
            let (entry, behind) = behind.split_at_checked(*entry_bytes)?;
            rest = behind;
            Some((name, entry))
        })
    }
}

/// Sends all entries of a tree, until nobody takes them any more.
fn read_chunks(tree: &mut dyn Tree, chunks: &mpsc::SyncSender<Chunk>) -> Result<(), TreeFault> {
    let mut chunk = Chunk::default();
    let send = |chunk| {
        let refused = |_| TreeFault::Failed("nobody takes its entries".to_owned());
        chunks.send(chunk).map_err(refused)
    };
    tree.visit(&mut |name, bytes| {
        if chunk.bytes.len() + name.len() + bytes.len() > CHUNK_BYTES && !chunk.bytes.is_empty() {
            send(mem::take(&mut chunk))?;
            chunk.bytes.reserve(CHUNK_BYTES);
        }
        chunk.bytes.extend_from_slice(name);
        chunk.bytes.extend_from_slice(bytes);
        chunk.lengths.push((name.len(), bytes.len()));
        Ok(())
    })?;
    send(chunk)
}

/// A state that is made from a tree's entries.
#[derive(Default)]
struct Loading {
    loader: Loader,
    meta: Option<Meta>,
}

impl Loading {
    fn add(&mut self, chunk: &Chunk) -> Result<(), TreeFault> {
        for (name, bytes) in chunk.entries() {
            if name == Meta::name() {
                self.meta = Some(Meta::decode(bytes)?);
                continue;
            }
            let (name, stored) = decode_entry(name, bytes)?;
            self.loader.insert(name, stored).map_err(TreeFault::Malformed)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(State, Meta), TreeFault> {
        let meta = self.meta.ok_or(TreeFault::Unfinished)?;
        let state = self.loader.finish();
        if state.digest() != meta.digest {
            return Err(TreeFault::Digest);
        }
        Ok((state, meta))
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    text.or(owned).unwrap_or("no message").to_owned()
}
