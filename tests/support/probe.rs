//! An environment that watches: the real files, with a list of every operation, and a rule that may make one fail.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use clusdb::env::{Env, File, FileSystem, Map, OsEnv, Page};

/// An operation on a file, which is named by the last component of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Create(String),
    Write {
        file: String,
        offset: u64,
        bytes: Vec<u8>,
    },
    Sync(String),
    SyncDir(String),
    Rename {
        from: String,
        to: String,
    },
    Exchange(String, String),
    MapPage(String),
}

/// What becomes of an operation.
pub enum Fate {
    Done,
    Fails(io::ErrorKind),
    Panics,
}

type Rule = Box<dyn FnMut(&Op) -> Fate + Send>;

#[derive(Clone)]
pub struct Probe {
    shared: Arc<Shared>,
}

struct Shared {
    ops: Mutex<Vec<Op>>,
    rule: Mutex<Rule>,
    now: AtomicI64,
}

impl Probe {
    pub fn new() -> Probe {
        let shared = Shared {
            ops: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Fate::Done)),
            now: AtomicI64::new(1),
        };
        Probe {
            shared: Arc::new(shared),
        }
    }

    pub fn env(&self) -> Arc<dyn Env> {
        Arc::new(self.clone())
    }

    /// From now on, this decides the fate of each operation.
    pub fn rule(&self, rule: impl FnMut(&Op) -> Fate + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// The operations since the last call.
    pub fn take(&self) -> Vec<Op> {
        std::mem::take(&mut self.shared.ops.lock().unwrap())
    }

    fn meet(&self, op: Op) -> io::Result<()> {
        let fate = (self.shared.rule.lock().unwrap())(&op);
        self.shared.ops.lock().unwrap().push(op);
        match fate {
            Fate::Done => Ok(()),
            Fate::Fails(kind) => Err(io::Error::new(kind, "a failure on purpose")),
            Fate::Panics => panic!("a panic on purpose"),
        }
    }

    fn watch(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(Watched {
            probe: self.clone(),
            name: name_of(path),
            file,
        })
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe")
    }
}

impl Env for Probe {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsEnv.create_dir(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        OsEnv.list_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.meet(Op::SyncDir(name_of(path)))?;
        OsEnv.sync_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.meet(Op::Create(name_of(path)))?;
        Ok(self.watch(path, OsEnv.create_file(path)?))
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.watch(path, OsEnv.open_file(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.meet(Op::Rename {
            from: name_of(from),
            to: name_of(to),
        })?;
        OsEnv.rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.meet(Op::Exchange(name_of(one), name_of(other)))?;
        OsEnv.exchange(one, other)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsEnv.remove_file(path)
    }

    fn is_symbolic_link(&self, path: &Path) -> io::Result<bool> {
        OsEnv.is_symbolic_link(path)
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        OsEnv.file_system(path)
    }

    /// A clock that counts: 1, 2, 3, …
    fn now(&self) -> i64 {
        self.shared.now.fetch_add(1, Ordering::Relaxed)
    }

    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()> {
        OsEnv.fill_random(buffer)
    }
}

#[derive(Debug)]
struct Watched {
    probe: Probe,
    name: String,
    file: Arc<dyn File>,
}

impl File for Watched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.probe.meet(Op::Write {
            file: self.name.clone(),
            offset,
            bytes: buffer.to_vec(),
        })?;
        self.file.write_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn sync(&self) -> io::Result<()> {
        self.probe.meet(Op::Sync(self.name.clone()))?;
        self.file.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }

    fn map(&self) -> io::Result<Map> {
        self.file.map()
    }

    fn map_page(&self) -> io::Result<Page> {
        self.probe.meet(Op::MapPage(self.name.clone()))?;
        self.file.map_page()
    }
}
