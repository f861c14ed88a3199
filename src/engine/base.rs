//! What an opening starts from: the state that a tree holds, if one can be believed.

use super::checkpoint::OpenTree;
use crate::identity::Identity;
use crate::model::State;
use crate::options::TreeOptions;
use crate::tree::{Folders, Meta, TreeFault, Worker};

/// A state, and the tree that it was loaded from.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) state: State,
    pub(super) tree: OpenTree,
    pub(super) meta: Meta,
}

impl Base {
    /// The newest tree that can be believed. Those that cannot are set aside, with an event that says why.
    pub(super) fn load(options: &TreeOptions, folders: &Folders, identity: &Identity) -> Option<Base> {
        let numbers = folders.numbers().unwrap_or_else(|fault| {
            tracing::warn!(%fault, "the trees cannot be listed");
            Vec::new()
        });
        for number in numbers {
            if !options.is_on || options.backend.is_off() {
                return None;
            }
            match Base::load_one(options, folders, identity, number) {
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
    ) -> Result<Base, TreeFault> {
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
                Ok(Base { state, tree, meta })
            }
            Err(fault) => {
                // One that panicked or hung is let go.
                let _ = worker.close();
                Err(fault)
            }
        }
    }

    /// Gives the tree up: it is the copy of another history.
    pub(super) fn refuse(self, folders: &Folders) {
        let _ = self.tree.worker.close();
        set_aside(folders, self.tree.number, &TreeFault::OtherHistory);
    }
}

fn set_aside(folders: &Folders, number: u64, fault: &TreeFault) {
    let aside = folders.set_aside(number);
    tracing::warn!(number, %fault, ?aside, "the tree was set aside, and the state is read from the journal");
}
