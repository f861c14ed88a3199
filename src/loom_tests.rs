//! Models of an open store: the real engine, journal and ports on files in memory, in all interleavings of two threads as far as
//! loom's bound on preemptions goes. Run with `RUSTFLAGS="--cfg clusdb_loom" cargo test --lib --release --no-default-features models`.
//!
//! Of the real code, all but the environment: bytes of segments are tracked, so that a read of bytes that are being
//! written ends the model.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::engine::{Engine, Source};
use crate::env::{Env, File, Map, PAGE_BYTES, Page, Tracked};
use crate::error::{Error, Result};
use crate::journal::{FollowedHead, HeadState, Segment, SegmentHeader};
use crate::model::{Batch, Entry, KeyPath, Value};
use crate::options::Options;
use crate::port::Port;
use crate::view::JournalView;

const SEGMENT_BYTES: usize = 4096;

/// Files in memory. Their own locks are no part of the models: none is held where threads change.
#[derive(Debug, Clone, Default)]
struct Memory {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<Inode>>>>,
    folders: Arc<Mutex<Vec<PathBuf>>>,
}

#[derive(Debug)]
enum Inode {
    /// Of a fixed length, as the map of it.
    Segment(Arc<Tracked>),
    Other(Mutex<Vec<u8>>, OnceLock<Page>),
}

#[derive(Debug)]
struct Handle {
    memory: Memory,
    inode: Arc<Inode>,
}

impl Memory {
    fn find(&self, path: &Path) -> io::Result<Arc<Inode>> {
        let files = self.files.lock().unwrap();
        files.get(path).cloned().ok_or(ErrorKind::NotFound.into())
    }

    fn handle(&self, inode: Arc<Inode>) -> Arc<dyn File> {
        let memory = self.clone();
        Arc::new(Handle { memory, inode })
    }
}

impl Env for Memory {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.folders.lock().unwrap().push(path.to_owned());
        Ok(())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let folders = self.folders.lock().unwrap();
        if !folders.iter().any(|folder| folder == path) {
            return Err(ErrorKind::NotFound.into());
        }
        let files = self.files.lock().unwrap();
        let in_it = files
            .keys()
            .chain(folders.iter())
            .filter(|name| name.parent() == Some(path));
        Ok(in_it
            .filter_map(|name| Some(name.file_name()?.to_owned()))
            .collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = match path.to_string_lossy().contains(".segment") {
            true => Inode::Segment(Arc::new(Tracked::zeroes(SEGMENT_BYTES))),
            false => Inode::Other(Mutex::default(), OnceLock::new()),
        };
        let inode = Arc::new(inode);
        self.files
            .lock()
            .unwrap()
            .insert(path.to_owned(), Arc::clone(&inode));
        Ok(self.handle(inode))
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.handle(self.find(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let mut files = self.files.lock().unwrap();
        files.remove(from);
        files.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.files.lock().unwrap().remove(path);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn now(&self) -> i64 {
        1
    }

    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(7);
        Ok(())
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset as usize..offset as usize + buffer.len();
        match &*self.inode {
            Inode::Segment(bytes) => buffer.copy_from_slice(bytes.slice(range)),
            Inode::Other(bytes, _) => {
                let bytes = bytes.lock().unwrap();
                buffer.copy_from_slice(bytes.get(range).ok_or(ErrorKind::UnexpectedEof)?);
            }
        }
        Ok(())
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let (start, end) = (offset as usize, offset as usize + buffer.len());
        match &*self.inode {
            Inode::Segment(bytes) if end > bytes.len() => return Err(ErrorKind::StorageFull.into()),
            Inode::Segment(bytes) => bytes.write(start, buffer),
            Inode::Other(bytes, _) => {
                let mut bytes = bytes.lock().unwrap();
                let length = bytes.len().max(end);
                bytes.resize(length, 0);
                bytes[start..end].copy_from_slice(buffer);
            }
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(match &*self.inode {
            Inode::Segment(bytes) => bytes.len() as u64,
            Inode::Other(bytes, _) => bytes.lock().unwrap().len() as u64,
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self
            .memory
            .find(path)
            .is_ok_and(|inode| Arc::ptr_eq(&inode, &self.inode)))
    }

    fn map(&self) -> io::Result<Map> {
        match &*self.inode {
            Inode::Segment(bytes) => Ok(Map::of_tracked(bytes)),
            Inode::Other(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn map_page(&self) -> io::Result<Page> {
        let Inode::Other(bytes, page) = &*self.inode else {
            return Err(ErrorKind::Unsupported.into());
        };
        let bytes = bytes.lock().unwrap();
        assert_eq!(bytes.len(), PAGE_BYTES);
        let (words, _) = bytes.as_chunks();
        Ok(page
            .get_or_init(|| Page::of_words(|index| u64::from_ne_bytes(words[index])))
            .clone())
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(check);
}

fn open(memory: &Memory) -> Arc<Engine> {
    let options = Options::new()
        .env(Arc::new(memory.clone()))
        .segment_size_bytes(SEGMENT_BYTES as u64);
    Engine::open(&options, Path::new("/store")).unwrap()
}

fn empty() -> (Memory, Arc<Engine>) {
    let memory = Memory::default();
    memory.folders.lock().unwrap().push("/".into());
    let engine = open(&memory);
    (memory, engine)
}

/// Sets the value `v` of the root to so many bytes, all of them this one.
fn sets(byte: u8, bytes: usize) -> Batch {
    let mut batch = Batch::at(&KeyPath::root());
    batch.set_value("v", Value::binary(vec![byte; bytes])).unwrap();
    batch
}

/// The sequence numbers and the new values of the records up to this one.
fn log(engine: &Engine, last: u64) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut position = engine.journal.position_after(0)?;
    Ok(shown(&JournalView::of_log(&engine.journal, &mut position, last)?))
}

fn shown(view: &JournalView) -> Vec<(u64, Vec<u8>)> {
    let batches = view.batches();
    let value = |change: crate::Change<'_>| change.value().map(|value| value.data.to_vec());
    batches
        .map(|batch| {
            (
                batch.sequence(),
                batch.changes().find_map(value).unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn who_sees_a_sequence_number_sees_its_state_and_its_bytes() {
    model(|| {
        let (_memory, engine) = empty();
        let writer = Arc::clone(&engine);
        let writer = loom::thread::spawn(move || {
            assert_eq!(writer.commit(sets(1, 8)).unwrap().sequence(), Some(1));
        });
        let seen = Source::position(&*engine).unwrap().sequence;
        let (position, value) = engine
            .read(|visible| (visible.position.sequence, visible.state.entry("", "V").is_some()))
            .unwrap();
        assert!(position >= seen && value == (position == 1));
        let expected = vec![(1, vec![1; 8])];
        assert_eq!(log(&engine, position).unwrap(), expected[..position as usize]);
        writer.join().unwrap();
        assert_eq!(log(&engine, 1).unwrap(), expected);
    });
}

/// Each is decided on the one before, also while that is made durable or applied.
#[test]
fn commits_are_decided_and_applied_in_the_order_of_their_records() {
    model(|| {
        let (_memory, engine) = empty();
        let other = Arc::clone(&engine);
        let other = loom::thread::spawn(move || other.commit(sets(1, 8)).unwrap().sequence());
        let own = engine.commit(sets(2, 8)).unwrap().sequence();
        let seen = engine.read(|visible| visible.position.sequence).unwrap();
        assert!(Some(seen) >= own, "it is visible when it is answered");
        let mut sequences = [own, other.join().unwrap()];
        sequences.sort();
        assert_eq!(sequences, [Some(1), Some(2)]);
        let mut position = engine.journal.position_after(0).unwrap();
        let log = JournalView::of_log(&engine.journal, &mut position, 2).unwrap();
        let changes: Vec<_> = log.batches().flat_map(|batch| batch.changes()).collect();
        assert_eq!(changes[0].previous(), None);
        assert_eq!(changes[1].previous(), changes[0].value());
        let state = engine.read(|visible| (visible.position.sequence, visible.state.entry("", "V")));
        let (sequence, entry) = state.unwrap();
        assert_eq!(sequence, 2);
        let is_last = |entry: &Entry| match entry {
            Entry::Value { value, .. } => Some(value.as_ref()) == changes[1].value(),
            Entry::Key { .. } => false,
        };
        assert!(entry.as_ref().is_some_and(is_last));
    });
}

/// Large enough to be applied in steps.
#[test]
fn a_large_commit_is_seen_whole_while_it_is_applied() {
    model(|| {
        let (_memory, engine) = empty();
        let writer = Arc::clone(&engine);
        let writer = loom::thread::spawn(move || {
            let mut batch = Batch::at(&KeyPath::root());
            for name in ["a", "b", "c", "d", "e"] {
                batch.set_value(name, Value::dword(1)).unwrap();
            }
            writer.commit(batch).unwrap();
        });
        let source: &dyn Source = &*engine;
        let has = |name| {
            source
                .glance(|visible| visible.value("", name).is_some())
                .unwrap()
        };
        let (first, last) = (has("A"), has("E"));
        assert!(!first || last, "half of the batch");
        let whole = |count| [0, 5].contains(&count);
        assert!(whole(source.read(|visible| visible.state.value_count()).unwrap()));
        writer.join().unwrap();
        assert!(has("A") && has("E"));
    });
}

/// Without any lock between the two, as where a map is made, or is there already and long enough.
#[test]
fn what_a_segments_map_gives_was_written_before() {
    for is_mapped_before in [false, true] {
        model(move || {
            let bytes = Arc::new(Tracked::zeroes(256));
            let file: Arc<dyn File> = Memory::default().handle(Arc::new(Inode::Segment(Arc::clone(&bytes))));
            let header = SegmentHeader {
                epoch: crate::Epoch::from_bytes([1; 16]),
                nonce: [2; 16],
                first_sequence: 1,
                created: 1,
                previous: 0,
            };
            let segment = Arc::new(Segment::new("segment".into(), header, file));
            if is_mapped_before {
                segment.map().unwrap();
            }
            let writer = Arc::clone(&segment);
            let writer = loom::thread::spawn(move || {
                bytes.write(128, &[9; 8]);
                writer.mark_stable(136);
            });
            let map = segment.map().unwrap();
            if let Some(stable) = map.get(128..136) {
                assert_eq!(stable, [9; 8]);
            }
            writer.join().unwrap();
            assert_eq!(segment.map().unwrap().get(128..136), Some(&[9; 8][..]));
        });
    }
}

/// Two who share one map: the one marks, the other reads.
#[test]
fn what_a_map_gives_was_written_before_it_was_marked() {
    model(|| {
        let bytes = Arc::new(Tracked::zeroes(16));
        let map = Arc::new(Map::of_tracked(&bytes));
        let writer = Arc::clone(&map);
        let writer = loom::thread::spawn(move || {
            bytes.write(8, &[9; 8]);
            writer.mark_stable(16);
        });
        if let Some(stable) = map.get(8..16) {
            assert_eq!(stable, [9; 8]);
        }
        writer.join().unwrap();
    });
}

fn port(engine: &Arc<Engine>) -> Port {
    let source: Arc<dyn Source> = Arc::<Engine>::clone(engine);
    Port::create_or_open(&source, "p", &KeyPath::root()).unwrap()
}

/// If nobody wakes it, it sleeps for ever, and loom says so.
#[test]
fn a_get_that_waits_is_woken_by_a_commit() {
    model(|| {
        let (_memory, engine) = empty();
        let port = port(&engine);
        let waiting = loom::thread::spawn(move || shown(&port.get().unwrap()));
        engine.commit(sets(1, 8)).unwrap();
        assert_eq!(waiting.join().unwrap(), [(1, vec![1; 8])]);
    });
}

#[test]
fn a_get_that_waits_is_woken_by_the_close_of_its_store() {
    model(|| {
        let (_memory, engine) = empty();
        let port = port(&engine);
        let waiting = loom::thread::spawn(move || port.get().unwrap_err());
        Source::close(&*engine).unwrap();
        assert!(matches!(waiting.join().unwrap(), Error::Closed));
    });
}

#[test]
fn a_get_that_waits_is_woken_by_the_close_of_its_port() {
    model(|| {
        let (_memory, engine) = empty();
        let port = port(&engine);
        let closing = port.clone();
        let waiting = loom::thread::spawn(move || port.get().unwrap_err());
        closing.close();
        assert!(matches!(waiting.join().unwrap(), Error::PortClosed { .. }));
    });
}

/// What was acknowledged is in the journal that the close has marked as whole; what was not, is not.
#[test]
fn a_commit_beside_a_close_is_committed_or_refused() {
    model(|| {
        let (memory, engine) = empty();
        let closing = Arc::clone(&engine);
        let closing = loom::thread::spawn(move || Source::close(&*closing).unwrap());
        let answer = engine.commit(sets(1, 8));
        closing.join().unwrap();
        let committed = match answer {
            Ok(commit) => commit.sequence().unwrap(),
            Err(error) => {
                assert!(matches!(error, Error::Closed));
                0
            }
        };
        let head = FollowedHead::open(&memory, Path::new("/store/head")).unwrap();
        let fields = head.read().unwrap();
        assert_eq!(
            (fields.state, fields.durable_sequence),
            (HeadState::Closed, committed)
        );
        drop(engine);
        assert_eq!(Source::position(&*open(&memory)).unwrap().sequence, committed);
    });
}

/// The step of trimming that a reader can meet: a segment leaves the list, and then its file is unlinked.
#[test]
fn a_view_keeps_its_bytes_when_their_segment_is_trimmed() {
    model(|| {
        let (memory, engine) = empty();
        engine.commit(sets(1, 3500)).unwrap();
        engine.commit(sets(2, 8)).unwrap();
        assert_eq!(engine.journal.size().unwrap().0, 2);
        let trimming = Arc::clone(&engine);
        let trimming = loom::thread::spawn(move || {
            for segment in trimming.journal.forget_before(2) {
                memory.remove_file(&segment.path).unwrap();
            }
        });
        let mut begin = engine.journal.position_after(0).unwrap();
        let view = JournalView::of_log(&engine.journal, &mut begin, 2);
        trimming.join().unwrap();
        let all = [(1, vec![1; 3500]), (2, vec![2; 8])];
        match view {
            Ok(view) => assert!(all.ends_with(&shown(&view)), "all, or what is left"),
            // It came too late; never other bytes.
            Err(error) => assert!(matches!(error, Error::Trimmed { asked: 1, oldest: 2 }), "{error}"),
        }
    });
}
