//! What an opening starts from: the state that a tree or a snapshot holds, if one can be believed; else nothing, if the
//! journal reaches back to the beginning.

use std::path::PathBuf;

use super::checkpoint::OpenTree;
use super::{OpenedFrom, snapshots};
use crate::error::Result;
use crate::identity::Identity;
use crate::journal::{Found, Recovery, Voucher};
use crate::layout::Layout;
use crate::model::State;
use crate::options::{Options, TreeOptions};
use crate::tree::{Folders, Meta, TreeFault, Worker};

/// A state that the journal has led to, and what it was loaded from.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) state: State,
    pub(super) from: OpenedFrom,
    pub(super) tree: Option<(OpenTree, Meta)>,
}

impl Base {
    /// Finds the state to start from. Recovery starts behind it, and takes the word of all that it was found in for how far the
    /// journal was durable.
    ///
    /// # Errors
    /// `Damaged` if the journal was trimmed, and nothing has the state that it goes on from.
    pub(super) fn find(options: &Options, layout: &Layout, recovery: &mut Recovery<'_>) -> Result<Base> {
        let from_tree = from_tree(options, layout, recovery)?;
        // They vouch, whatever the state is read from.
        let candidates = candidates(options, layout, recovery)?;
        if let Some(TreeBase { state, tree, meta }) = from_tree {
            let (from, tree) = (OpenedFrom::Tree, Some((tree, meta)));
            return Ok(Base { state, from, tree });
        }
        let tree = None;
        if let Some(state) = from_snapshot(options, layout, recovery, &candidates) {
            let from = OpenedFrom::Snapshot;
            return Ok(Base { state, from, tree });
        }
        let trim_base = recovery.identity.trim_base;
        if trim_base > 1 {
            return Err(snapshots::no_base(layout, trim_base - 1));
        }
        let (state, from) = (State::new(), OpenedFrom::Journal);
        Ok(Base { state, from, tree })
    }
}

/// What a copy of the state says of how far the journal was durable.
fn voucher(by: PathBuf, meta: &Meta) -> Voucher {
    Voucher {
        by,
        epoch: meta.epoch,
        sequence: meta.sequence,
        checksum: meta.frame_checksum,
    }
}

fn from_tree(options: &Options, layout: &Layout, recovery: &mut Recovery<'_>) -> Result<Option<TreeBase>> {
    let folders = Folders::new(layout.root());
    while let Some(base) = TreeBase::load(&options.tree, &folders, recovery.identity) {
        let voucher = voucher(folders.path(base.tree.number), &base.meta);
        match recovery.find(voucher.sequence)? {
            Found::Checksum(checksum) if checksum == voucher.checksum => {
                recovery.start = voucher.sequence;
                recovery.vouchers.push(voucher);
                return Ok(Some(base));
            }
            // A copy of what another journal has become under the same epoch.
            Found::Checksum(_) => base.refuse(&folders, &TreeFault::OtherHistory),
            Found::Before => base.refuse(&folders, &TreeFault::Outdated),
            // Recovery says so.
            Found::Behind => {
                recovery.vouchers.push(voucher);
                return Ok(None);
            }
        }
    }
    Ok(None)
}

/// The snapshots that the journal leads to, the newest first. All that are of this history vouch.
fn candidates(options: &Options, layout: &Layout, recovery: &mut Recovery<'_>) -> Result<Vec<Meta>> {
    let mut candidates = Vec::new();
    for meta in snapshots::metas(&*options.env, layout, recovery.identity)? {
        let voucher = voucher(layout.snapshot(meta.sequence), &meta);
        match recovery.find(voucher.sequence)? {
            Found::Checksum(checksum) if checksum == voucher.checksum => candidates.push(meta),
            Found::Behind => {}
            _ => {
                tracing::warn!(by = %voucher.by.display(), "passed over a snapshot that the journal does not lead to");
                continue;
            }
        }
        recovery.vouchers.push(voucher);
    }
    Ok(candidates)
}

fn from_snapshot(
    options: &Options,
    layout: &Layout,
    recovery: &mut Recovery<'_>,
    candidates: &[Meta],
) -> Option<State> {
    candidates.iter().find_map(|meta| {
        let state = snapshots::load(&*options.env, layout, meta)?;
        recovery.start = meta.sequence;
        Some(state)
    })
}

/// A state, and the tree that it was loaded from.
#[derive(Debug)]
struct TreeBase {
    state: State,
    tree: OpenTree,
    meta: Meta,
}

impl TreeBase {
    /// The newest tree that can be believed. Those that cannot are set aside, with an event that says why.
    fn load(options: &TreeOptions, folders: &Folders, identity: &Identity) -> Option<TreeBase> {
        let numbers = folders.numbers().unwrap_or_else(|fault| {
            tracing::warn!(%fault, "the trees cannot be listed");
            Vec::new()
        });
        for number in numbers {
            if !options.is_on || options.backend.is_off() {
                return None;
            }
            match TreeBase::load_one(options, folders, identity, number) {
                Ok(base) => return Some(base),
                Err(TreeFault::Off) => return None,
                Err(fault) => set_aside(folders, number, &fault),
            }
        }
        None
    }

    fn load_one(
        options: &TreeOptions,
        folders: &Folders,
        identity: &Identity,
        number: u64,
    ) -> std::result::Result<TreeBase, TreeFault> {
        let bytes = folders.bytes(number)?;
        let worker = Worker::start(&options.backend, options.limit)?;
        worker.open(&folders.path(number), bytes)?;
        let loaded = worker.load(bytes).and_then(|(state, meta)| {
            match identity.epoch_of(meta.sequence) == meta.epoch {
                true => Ok((state, meta)),
                false => Err(TreeFault::OtherHistory),
            }
        });
        match loaded {
            Ok((state, meta)) => {
                let tree = OpenTree { worker, number };
                Ok(TreeBase { state, tree, meta })
            }
            Err(fault) => {
                // One that panicked or hung is let go.
                let _ = worker.close();
                Err(fault)
            }
        }
    }

    /// Gives the tree up: the journal does not go on from it.
    fn refuse(self, folders: &Folders, fault: &TreeFault) {
        let _ = self.tree.worker.close();
        set_aside(folders, self.tree.number, fault);
    }
}

fn set_aside(folders: &Folders, number: u64, fault: &TreeFault) {
    let aside = folders.set_aside(number);
    tracing::warn!(number, %fault, ?aside, "the tree was set aside");
}
