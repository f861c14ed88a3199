//! Looking at a whole store for faults, without changing anything. All of them are told, not only the first.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::{head_voucher, take_lock, vouchers};
use super::snapshots;
use crate::env::{Env, File};
use crate::error::{Error, IoContext, Result};
use crate::identity::Identity;
use crate::journal::{HeadFields, HeadState, Recovery, Survey, TornTail, Voucher, read_head};
use crate::layout::Layout;
use crate::model::{RecordView, State};
use crate::options::Options;
use crate::port_file::PortFile;
use crate::snapshot;
use crate::tree::{Folders, Meta, Worker};
use crate::trim_note::TrimNote;

/// What a check has found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// All faults: each names its file, and where and what it is.
    pub faults: Vec<Error>,
    /// Records that should be there and cannot be read.
    pub missing: Vec<RangeInclusive<u64>>,
    /// The records that were read.
    pub records: u64,
    /// The snapshots that are whole.
    pub snapshots: u64,
    /// The ports whose files are whole.
    pub ports: u64,
    /// What belongs to commits that were never acknowledged, at the end of the journal; no fault.
    pub torn_tail: Option<TornTail>,
}

impl CheckReport {
    /// Whether there is no fault.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }
}

/// What is known of a store after a look at all of it.
pub(super) struct Checked {
    pub(super) report: CheckReport,
    /// None if the store file cannot be read.
    pub(super) identity: Option<Identity>,
    pub(super) survey: Option<Survey>,
    /// The snapshots that are whole, the newest first.
    pub(super) snapshots: Vec<Meta>,
    /// Whether something has the state that the journal goes on from.
    pub(super) has_base: bool,
    /// Files that are at fault, and that the store can do without.
    pub(super) spoilt: Vec<PathBuf>,
    /// Held as long as this lives.
    pub(super) _lock: Arc<dyn File>,
}

/// Checks the store in this directory. `deep` also folds all records, and compares snapshots and tree with the result.
pub(crate) fn check(options: &Options, path: &Path, deep: bool) -> Result<CheckReport> {
    Ok(examine(options, path, deep)?.report)
}

pub(super) fn examine(options: &Options, path: &Path, deep: bool) -> Result<Checked> {
    let env = &*options.env;
    let layout = Layout::new(path);
    find_store(env, &layout)?;
    let lock = take_lock(env, &layout, options.lock_timeout)?;
    let mut checked = Checked {
        report: CheckReport::default(),
        identity: None,
        survey: None,
        snapshots: Vec::new(),
        has_base: true,
        spoilt: Vec::new(),
        _lock: lock,
    };
    match Identity::read(env, &layout.store()) {
        Ok(identity) => checked.look(options, &layout, identity, deep)?,
        Err(error) => checked.report.faults.push(error),
    }
    Ok(checked)
}

/// A store is here, if its own file or its journal is.
fn find_store(env: &dyn Env, layout: &Layout) -> Result<()> {
    let root = layout.root();
    let names = match env.list_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.context("list", root)?,
    };
    let is_part = |name| [layout.store(), layout.journal()].contains(&root.join(name));
    match names.iter().any(is_part) {
        true => Ok(()),
        false => Err(Error::StoreNotFound {
            path: root.to_owned(),
        }),
    }
}

impl Checked {
    fn look(&mut self, options: &Options, layout: &Layout, identity: Identity, deep: bool) -> Result<()> {
        let env = &*options.env;
        let head = self.look_at_head(env, layout)?;
        let mut vouchers = vouchers(env, layout, head)?;
        self.look_at_snapshots(env, layout, &identity, &mut vouchers)?;
        self.look_at_ports(env, layout)?;
        let mut recovery = Recovery {
            env,
            layout,
            identity: &identity,
            vouchers,
            clean_close: head
                .filter(|head| head.state == HeadState::Closed)
                .map(|head| head_voucher(layout, &head)),
            start: 0,
        };
        let tree = match deep {
            true => read_tree(options, layout, &identity),
            false => None,
        };
        let mut copies: Vec<_> = self
            .snapshots
            .iter()
            .map(|meta| (layout.snapshot(meta.sequence), *meta))
            .collect();
        if let Some((path, meta)) = tree {
            match meta {
                Ok(meta) => copies.push((path, meta)),
                Err(found) => {
                    let error = Error::damaged(&path, 0, "a copy of the state", found);
                    self.report.faults.push(error);
                }
            }
        }
        let mut fold = Fold::new(env, layout, &identity, &self.snapshots);
        let survey = recovery.survey(&mut |sequence, record, time| {
            if deep {
                fold.apply(sequence, record, time);
                fold.compare(sequence, &copies);
            }
        })?;
        self.report.faults.extend(survey.faults.iter().cloned());
        for (path, error) in &survey.sidecars {
            self.spoils(error.clone(), path.clone());
        }
        self.report.missing.extend(survey.missing.iter().cloned());
        self.report.records = survey.records;
        self.report.torn_tail = survey.torn_tail.clone();
        self.report.faults.append(&mut fold.faults);
        self.survey = Some(survey);
        self.identity = Some(identity);
        Ok(())
    }

    /// What the head says; none if it cannot be believed, which is a fault if it is there.
    fn look_at_head(&mut self, env: &dyn Env, layout: &Layout) -> Result<Option<HeadFields>> {
        let path = layout.head();
        match read_head(env, &path) {
            Ok(None) if env.open_file(&path).is_ok() => {
                let error = Error::damaged(&path, 0, "a head that can be believed", "other bytes");
                self.spoils(error, path);
                Ok(None)
            }
            Err(error @ Error::UnsupportedVersion { .. }) => {
                self.report.faults.push(error);
                Ok(None)
            }
            head => head,
        }
    }

    /// Notes a fault of a file that the store can do without.
    fn spoils(&mut self, error: Error, path: PathBuf) {
        self.report.faults.push(error);
        self.spoilt.push(path);
    }

    fn look_at_snapshots(
        &mut self,
        env: &dyn Env,
        layout: &Layout,
        identity: &Identity,
        vouchers: &mut Vec<Voucher>,
    ) -> Result<()> {
        for sequence in snapshot::list(env, layout)? {
            let path = layout.snapshot(sequence);
            match snapshot::load(env, &path) {
                Ok((_, meta)) if meta.sequence != sequence || identity.epoch_of(sequence) != meta.epoch => {
                    let expected = format!("the record {sequence} of epoch {}", identity.epoch_of(sequence));
                    let found = format!("{} of {}", meta.sequence, meta.epoch);
                    self.spoils(Error::damaged(&path, 0, expected, found), path);
                }
                Ok((_, meta)) => {
                    self.snapshots.push(meta);
                    vouchers.push(Voucher {
                        by: path,
                        epoch: meta.epoch,
                        sequence,
                        checksum: meta.frame_checksum,
                    });
                }
                Err(error) => self.spoils(error, path),
            }
        }
        self.report.snapshots = self.snapshots.len() as u64;
        let base = identity.trim_base - 1;
        self.has_base = base == 0 || self.snapshots.iter().any(|meta| meta.sequence >= base);
        if !self.has_base {
            self.report.faults.push(snapshots::no_base(layout, base));
        }
        Ok(())
    }

    fn look_at_ports(&mut self, env: &dyn Env, layout: &Layout) -> Result<()> {
        let folder = layout.ports();
        let names = match env.list_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let error = Error::damaged(&folder, 0, "the folder of ports", "none");
                self.report.faults.push(error);
                return Ok(());
            }
            names => names.context("list", &folder)?,
        };
        for file in &names {
            if let Some(name) = Layout::parse_port(file) {
                let path = layout.port(name);
                match PortFile::open(env, &path) {
                    Ok(port) if port.head.name == name => self.report.ports += 1,
                    Ok(port) => {
                        let found = format!("{:?}", port.head.name);
                        self.spoils(
                            Error::damaged(&path, 72, format!("the name {name:?}"), found),
                            path,
                        );
                    }
                    Err(error) => self.spoils(error, path),
                }
            }
            if let Some(name) = Layout::parse_note(file) {
                let path = layout.trim_note(name);
                if let Err(error) = TrimNote::read(env, &path, [0; 16]) {
                    self.spoils(error, path);
                }
            }
        }
        Ok(())
    }
}

/// The state as the records make it, and what it added up to after those of snapshots.
struct Fold {
    state: State,
    /// The last record that was applied; none if nothing is there to begin with.
    sequence: Option<u64>,
    /// Copies of it that are another.
    faults: Vec<Error>,
}

impl Fold {
    /// Begins with nothing, or with the oldest snapshot if the journal was trimmed.
    fn new(env: &dyn Env, layout: &Layout, identity: &Identity, whole: &[Meta]) -> Fold {
        let mut fold = Fold {
            state: State::new(),
            sequence: Some(0),
            faults: Vec::new(),
        };
        if identity.trim_base > 1 {
            fold.sequence = None;
            let oldest = whole.last();
            if let Some((meta, state)) =
                oldest.and_then(|meta| Some((meta, snapshots::load(env, layout, meta)?)))
            {
                fold.state = state;
                fold.sequence = Some(meta.sequence);
            }
        }
        fold
    }

    fn apply(&mut self, sequence: u64, record: RecordView<'_>, time: i64) {
        // Behind a gap it says nothing any more.
        if self.sequence.is_some_and(|last| last + 1 == sequence) {
            self.state.apply(record, time);
            self.sequence = Some(sequence);
        }
    }

    /// Compares the state after this record with the copies that were made of it.
    fn compare(&mut self, sequence: u64, copies: &[(PathBuf, Meta)]) {
        for (path, meta) in copies {
            let is_of_it = meta.sequence == sequence && self.sequence == Some(sequence);
            if is_of_it && meta.digest != self.state.digest() {
                let expected = "the state that the records make";
                self.faults.push(Error::damaged(path, 0, expected, "another"));
            }
        }
    }
}

/// What the newest tree says of itself, read as an opening reads it; none if there is none, or trees are off. It is never
/// trusted, so that one that cannot be read is told, and loses nothing.
fn read_tree(
    options: &Options,
    layout: &Layout,
    identity: &Identity,
) -> Option<(PathBuf, std::result::Result<Meta, String>)> {
    let folders = Folders::new(layout.root());
    let number = *folders.numbers().ok()?.first()?;
    if !options.tree.is_on || options.tree.backend.is_off() {
        return None;
    }
    let path = folders.path(number);
    let loaded = folders.bytes(number).and_then(|bytes| {
        let worker = Worker::start(&options.tree.backend, options.tree.limit)?;
        worker.open(&path, bytes)?;
        let loaded = worker.load(bytes);
        worker.close()?;
        loaded
    });
    let meta = match loaded {
        Ok((_, meta)) if identity.epoch_of(meta.sequence) == meta.epoch => Ok(meta),
        Ok(_) => Err("one of another history".to_owned()),
        Err(fault) => Err(fault.to_string()),
    };
    Some((path, meta))
}
