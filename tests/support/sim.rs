//! A hostile environment: counts every operation that changes something, and at the one that the plan names it loses
//! power or fails.
//!
//! The files are real ones in a folder of its own, since maps need such, and [`Disk`] keeps beside them what of
//! it would survive. Everything is decided by seeds.

#[path = "sim/disk.rs"]
mod disk;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use clusdb::env::{Env, File, Map, OsEnv, PAGE_BYTES, Page};
use tempfile::TempDir;

pub use disk::{Disk, Loss, SECTOR_BYTES};
use disk::{FileId, Node};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An I/O error, and nothing was done.
    Io,
    /// No space, and nothing was done.
    NoSpace,
    /// Half of a write is done, then an I/O error.
    ShortWrite,
    /// The sync of a file fails, and what it should have written counts as written from then on.
    LostSync,
}

impl Fault {
    fn is_of(self, op: &Op<'_>) -> bool {
        match self {
            Fault::Io => true,
            Fault::NoSpace => !matches!(op, Op::Rename(..) | Op::Remove(_) | Op::MapPage(_)),
            Fault::ShortWrite => matches!(op, Op::Write(..)),
            Fault::LostSync => matches!(op, Op::Sync(_)),
        }
    }
}

/// What happens, and at which operation.
#[derive(Debug, Clone, Copy, Default)]
pub enum Plan {
    #[default]
    Nothing,
    /// The process ends. The operation was done, or not begun; nobody was told.
    Crash { at: u64, is_done: bool },
    /// If the operation is one that can fail so.
    Fails { at: u64, fault: Fault },
    /// From this operation on, nothing can be made larger.
    Full { from: u64 },
}

/// An operation that changes something. Paths are relative to the root.
enum Op<'a> {
    CreateFolder(&'a Path),
    SyncFolder(&'a Path),
    CreateFile(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    Write(&'a SimFile, &'a [u8], u64),
    Sync(&'a SimFile),
    MapPage(&'a SimFile),
}

/// The environment. Clones are the same.
#[derive(Clone)]
pub struct Sim {
    folder: Arc<TempDir>,
    state: Arc<Mutex<State>>,
    gate: Arc<Mutex<()>>,
}

struct State {
    disk: Disk,
    /// Files that are written through a shared page.
    mapped: Vec<(FileId, Arc<dyn File>)>,
    plan: Plan,
    count: u64,
    is_crashed: bool,
    rng: Rng,
    now: i64,
    /// Whether the clock jumps, back too, instead of counting.
    jumps: bool,
    last: String,
}

impl Sim {
    /// A machine that starts with this disk. The clock jumps for odd seeds.
    pub fn boot(disk: &Disk, seed: u64, plan: Plan) -> Sim {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => TempDir::new_in(memory).unwrap(),
            false => TempDir::new().unwrap(),
        };
        for (path, content) in disk.list() {
            let path = folder.path().join(path);
            match content {
                None => std::fs::create_dir(path).unwrap(),
                Some(content) => std::fs::write(path, content).unwrap(),
            }
        }
        Sim {
            folder: Arc::new(folder),
            state: Arc::new(Mutex::new(State {
                disk: disk.clone(),
                mapped: Vec::new(),
                plan,
                count: 0,
                is_crashed: false,
                rng: Rng::new(seed),
                now: 1,
                jumps: seed % 2 == 1,
                last: String::new(),
            })),
            gate: Arc::default(),
        }
    }

    pub fn env(&self) -> Arc<dyn Env> {
        Arc::new(self.clone())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Operations so far.
    pub fn count(&self) -> u64 {
        self.state().count
    }

    pub fn is_crashed(&self) -> bool {
        self.state().is_crashed
    }

    /// The last operation that was met, to tell of it.
    pub fn last(&self) -> String {
        self.state().last.clone()
    }

    /// Nothing is changed as long as this is held: who wants to waits.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap()
    }

    /// From now on the plan is another one.
    pub fn plan(&self, plan: Plan) {
        self.state().plan = plan;
    }

    /// The disk as it is now, or as it was when the process ended: what the next process finds after a kill.
    pub fn disk(&self) -> Disk {
        let mut state = self.state();
        if !state.is_crashed {
            state.look_at_pages();
        }
        state.disk.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(self.folder.path())
            .expect("a path of this environment")
    }

    /// For what only looks: a process that has ended looks at nothing.
    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match state.is_crashed {
            true => Err(crashed()),
            false => Ok(state),
        }
    }

    fn perform(&self, op: &Op<'_>) -> io::Result<()> {
        drop(self.gate.lock().unwrap());
        let mut state = self.look()?;
        state.look_at_pages();
        state.count += 1;
        state.last = op.to_string();
        let count = state.count;
        match state.plan {
            Plan::Crash { at, is_done } if at == count => {
                if is_done {
                    // Its result is nobody's.
                    let _ = self.apply(&mut state, op);
                }
                state.is_crashed = true;
                Err(crashed())
            }
            Plan::Fails { at, fault } if at == count && fault.is_of(op) => {
                Err(self.fail(&mut state, op, fault))
            }
            Plan::Full { from } if from <= count && state.allocates(op) => Err(no_space()),
            _ => self.apply(&mut state, op),
        }
    }

    /// Does it to the real files, then to the model.
    fn apply(&self, state: &mut State, op: &Op<'_>) -> io::Result<()> {
        let real = |path: &Path| self.folder.path().join(path);
        match *op {
            Op::CreateFolder(path) => {
                OsEnv.create_dir(&real(path))?;
                state.disk.create_folder(path);
            }
            Op::SyncFolder(path) => state.disk.sync_folder(path),
            Op::CreateFile(path) => {
                OsEnv.create_file(&real(path))?;
                state.disk.create_file(path);
            }
            Op::Rename(from, to) => {
                OsEnv.rename(&real(from), &real(to))?;
                state.disk.rename(from, to);
            }
            Op::Remove(path) => {
                OsEnv.remove_file(&real(path))?;
                state.disk.remove(path);
            }
            Op::Write(file, bytes, offset) => {
                file.real.write_at(bytes, offset)?;
                state.disk.write(file.id, offset as usize, bytes);
            }
            Op::Sync(file) => state.disk.sync(file.id),
            Op::MapPage(file) => state.mapped.push((file.id, Arc::clone(&file.real))),
        }
        Ok(())
    }

    fn fail(&self, state: &mut State, op: &Op<'_>, fault: Fault) -> io::Error {
        match (fault, op) {
            (Fault::NoSpace, _) => return no_space(),
            (Fault::ShortWrite, Op::Write(file, bytes, offset)) => {
                let half = &bytes[..bytes.len() / 2];
                let _ = self.apply(state, &Op::Write(file, half, *offset));
            }
            (Fault::LostSync, Op::Sync(file)) => state.disk.fail_sync(file.id),
            _ => {}
        }
        io::Error::other("an I/O error on purpose")
    }
}

impl State {
    /// What was stored in mapped pages since the last look counts as written.
    fn look_at_pages(&mut self) {
        for (id, file) in &self.mapped {
            let mut page = [0; PAGE_BYTES];
            file.read_at(&mut page, 0).unwrap();
            for (index, sector) in page.chunks(SECTOR_BYTES).enumerate() {
                let offset = index * SECTOR_BYTES;
                if self.disk.content(*id)[offset..offset + SECTOR_BYTES] != *sector {
                    self.disk.write(*id, offset, sector);
                }
            }
        }
    }

    fn allocates(&self, op: &Op<'_>) -> bool {
        match op {
            Op::CreateFolder(_) | Op::CreateFile(_) => true,
            Op::Write(file, bytes, offset) => {
                *offset as usize + bytes.len() > self.disk.content(file.id).len()
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Op<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Op::CreateFolder(path) => write!(f, "create the folder {}", path.display()),
            Op::SyncFolder(path) => write!(f, "sync the folder {}", path.display()),
            Op::CreateFile(path) => write!(f, "create {}", path.display()),
            Op::Rename(from, to) => write!(f, "rename {} to {}", from.display(), to.display()),
            Op::Remove(path) => write!(f, "remove {}", path.display()),
            Op::Write(file, bytes, offset) => {
                write!(f, "write {} bytes at {offset} of {file:?}", bytes.len())
            }
            Op::Sync(file) => write!(f, "sync {file:?}"),
            Op::MapPage(file) => write!(f, "map the page of {file:?}"),
        }
    }
}

fn crashed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the process has ended")
}

fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space on purpose")
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sim")
    }
}

impl Env for Sim {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.perform(&Op::CreateFolder(self.relative(path)))
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let _state = self.look()?;
        let mut names = OsEnv.list_dir(path)?;
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.perform(&Op::SyncFolder(self.relative(path)))
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.perform(&Op::CreateFile(self.relative(path)))?;
        self.open_file(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = self.look()?;
        let real = OsEnv.open_file(path)?;
        let Some(Node::File(id)) = state.disk.node(self.relative(path)) else {
            panic!("{} is not known", path.display());
        };
        Ok(Arc::new(SimFile {
            sim: self.clone(),
            id,
            path: self.relative(path).to_owned(),
            real,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.perform(&Op::Rename(self.relative(from), self.relative(to)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.perform(&Op::Remove(self.relative(path)))
    }

    fn now(&self) -> i64 {
        let mut state = self.state();
        let step = match state.jumps {
            true => state.rng.below(1 << 40) as i64 - (1 << 39),
            false => 1,
        };
        state.now = state.now.saturating_add(step);
        state.now
    }

    fn fill_random(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.look()?;
        buffer.fill_with(|| state.rng.next() as u8);
        Ok(())
    }
}

struct SimFile {
    sim: Sim,
    id: FileId,
    /// As it was opened.
    path: PathBuf,
    real: Arc<dyn File>,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path.to_string_lossy())
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let _state = self.sim.look()?;
        self.real.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.sim.perform(&Op::Write(self, buffer, offset))
    }

    fn length(&self) -> io::Result<u64> {
        let _state = self.sim.look()?;
        self.real.length()
    }

    fn sync(&self) -> io::Result<()> {
        self.sim.perform(&Op::Sync(self))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let _state = self.sim.look()?;
        self.real.try_lock()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let _state = self.sim.look()?;
        self.real.is_at(path)
    }

    fn map(&self) -> io::Result<Map> {
        let _state = self.sim.look()?;
        self.real.map()
    }

    fn map_page(&self) -> io::Result<Page> {
        self.sim.perform(&Op::MapPage(self))?;
        self.real.map_page()
    }
}
