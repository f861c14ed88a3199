//! A tree for tests: in memory, surviving its folder's closing, and failing as it is told.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::{Backend, Changes, Meta, Tree, TreeFault, Visit};
use crate::sync::{Mutex, lock};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fails,
    Panics,
    Hangs,
}

/// During what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    Open,
    Visit,
    Apply,
    Checkpoint,
}

#[derive(Debug, Default)]
pub(crate) struct StandIn {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    folders: Mutex<HashMap<PathBuf, Arc<Mutex<Entries>>>>,
    fault: Mutex<Option<(During, Fault)>>,
    is_off: AtomicBool,
    applied: AtomicU64,
}

impl StandIn {
    /// From now on, until told otherwise.
    pub(crate) fn go_wrong(&self, fault: Option<(During, Fault)>) {
        *lock(&self.shared.fault) = fault;
    }

    /// How many times changes were applied.
    pub(crate) fn applied(&self) -> u64 {
        self.shared.applied.load(Ordering::Acquire)
    }

    /// A folder's entries, to be tampered with.
    pub(crate) fn with_entries<R>(&self, folder: &Path, look: impl FnOnce(&mut Entries) -> R) -> R {
        let folders = lock(&self.shared.folders);
        look(&mut lock(&folders[folder]))
    }
}

impl Shared {
    fn meet(&self, during: During) -> Result<(), TreeFault> {
        let fault = lock(&self.fault).filter(|(when, _)| *when == during);
        match fault {
            None => Ok(()),
            Some((_, Fault::Fails)) => Err(TreeFault::Failed("on purpose".to_owned())),
            Some((_, Fault::Panics)) => panic!("a tree's panic, on purpose"),
            Some((_, Fault::Hangs)) => loop {
                thread::park();
            },
        }
    }
}

struct OpenStandIn {
    shared: Arc<Shared>,
    entries: Arc<Mutex<Entries>>,
}

impl Backend for StandIn {
    fn open(&self, folder: &Path) -> Result<Box<dyn Tree>, TreeFault> {
        self.shared.meet(During::Open)?;
        let mut folders = lock(&self.shared.folders);
        let entries = folders.entry(folder.to_owned()).or_default();
        Ok(Box::new(OpenStandIn {
            shared: Arc::clone(&self.shared),
            entries: Arc::clone(entries),
        }))
    }

    fn is_off(&self) -> bool {
        self.shared.is_off.load(Ordering::Acquire)
    }

    fn turn_off(&self) {
        self.shared.is_off.store(true, Ordering::Release);
    }
}

impl Tree for OpenStandIn {
    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), TreeFault> {
        self.shared.meet(During::Visit)?;
        let entries = lock(&self.entries);
        entries.iter().try_for_each(|(name, bytes)| visit(name, bytes))
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), TreeFault> {
        self.shared.meet(During::Apply)?;
        self.shared.applied.fetch_add(1, Ordering::AcqRel);
        let mut entries = lock(&self.entries);
        for prefix in &changes.removed_prefixes {
            let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
            let below = entries.range(from).map(|(name, _)| name.clone());
            let below: Vec<_> = below.take_while(|name| name.starts_with(prefix)).collect();
            for name in below {
                entries.remove(&name);
            }
        }
        for (name, bytes) in &changes.entries {
            match bytes {
                Some(bytes) => entries.insert(name.clone(), bytes.clone()),
                None => entries.remove(name),
            };
        }
        match &changes.meta {
            Some(meta) => entries.insert(Meta::name().to_vec(), meta.encode().to_vec()),
            None => entries.remove(Meta::name()),
        };
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), TreeFault> {
        self.shared.meet(During::Checkpoint)
    }
}
