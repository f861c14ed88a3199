//! Making snapshots while commits go on, and finding the newest one that an opening can start from.

use super::keeper::Keeper;
use super::refresh::Refresh;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::layout::{Layout, remove_if_there, sync_parent};
use crate::model::State;
use crate::snapshot::{self, Draft};
use crate::tree::Meta;

/// Names that are looked up at a time, under the state's lock.
const SLICE_NAMES: usize = 1000;
/// What was looked up is written once it is so much.
const SLICE_BYTES: usize = 4 << 20;
/// So many snapshots are kept. The journal reaches back to the older one: one that rots, and a lost tree, lose nothing.
pub(super) const KEPT: usize = 2;

/// Writes the state into a new snapshot, slice by slice, and gives what it is. Commits go on meanwhile: the state's lock is
/// held for a slice. None if no record was committed yet.
pub(super) fn take(keeper: &Keeper) -> Result<Option<Meta>> {
    let (journal, visible) = (&*keeper.journal, &*keeper.visible);
    let begin = visible.settled()?.position;
    if begin.sequence == 0 {
        return Ok(None);
    }
    let mut refresh = Refresh::everything(begin);
    let mut draft = Draft::begin(&*keeper.env, &keeper.layout)?;
    let meta = loop {
        keeper.check_running()?;
        let last = visible.settled()?.position.sequence;
        refresh.read(journal, last)?;
        if refresh.position().sequence == last
            && refresh.is_nearly_done(SLICE_NAMES)
            && let Some(meta) = finish(keeper, &mut refresh)?
        {
            break meta;
        }
        let entries = refresh.look_up(&visible.settled()?.state, SLICE_NAMES);
        for (name, stored) in entries {
            refresh.add(&name, stored.as_ref());
        }
        if refresh.bytes() >= SLICE_BYTES {
            draft.add(&refresh.take_changes())?;
        }
    };
    draft.add(&refresh.take_changes())?;
    let path = draft.finish(&meta)?;
    tracing::debug!(path = %path.display(), sequence = meta.sequence, "made a snapshot");
    Ok(Some(meta))
}

/// The last step: what is left and the digest, from one moment. None if too much has come meanwhile.
fn finish(keeper: &Keeper, refresh: &mut Refresh) -> Result<Option<Meta>> {
    let visible = keeper.visible.settled()?;
    let position = visible.position;
    refresh.read(&keeper.journal, position.sequence)?;
    if refresh.position().sequence != position.sequence {
        return Ok(None);
    }
    let entries = refresh.look_up(&visible.state, usize::MAX);
    let digest = visible.state.digest();
    drop(visible);
    for (name, stored) in entries {
        refresh.add(&name, stored.as_ref());
    }
    Ok(Some(Meta {
        epoch: keeper.identity.epoch_of(position.sequence),
        sequence: position.sequence,
        frame_checksum: position.checksum,
        digest,
    }))
}

/// What the snapshots say of themselves, the newest first. One that is damaged, or of another history, is passed over with an
/// event that says why.
pub(super) fn metas(env: &dyn Env, layout: &Layout, identity: &Identity) -> Result<Vec<Meta>> {
    let mut metas = Vec::new();
    for sequence in snapshot::list(env, layout)? {
        let path = layout.snapshot(sequence);
        match snapshot::read_meta(env, &path) {
            Ok(meta) if meta.sequence == sequence && identity.epoch_of(sequence) == meta.epoch => {
                metas.push(meta)
            }
            Ok(_) => tracing::warn!(path = %path.display(), "passed over a snapshot of another history"),
            Err(error) => tracing::warn!(%error, "passed over a snapshot"),
        }
    }
    Ok(metas)
}

/// The journal begins behind this record, and nothing has the state that it goes on from.
pub(super) fn no_base(layout: &Layout, record: u64) -> Error {
    let expected = format!("a snapshot of the record {record} or a later one");
    Error::damaged(&layout.snapshots(), 0, expected, "none that is whole")
}

/// The state of this snapshot; none if it is damaged, which is told.
pub(super) fn load(env: &dyn Env, layout: &Layout, meta: &Meta) -> Option<State> {
    match snapshot::load(env, &layout.snapshot(meta.sequence)) {
        Ok((state, found)) if found == *meta => Some(state),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "passed over a snapshot");
            None
        }
    }
}

/// Removes the snapshots before the newest ones that are kept. Those must be whole.
pub(super) fn remove_older(env: &dyn Env, layout: &Layout, kept: &[Meta]) -> Result<()> {
    let Some(oldest) = kept.iter().map(|meta| meta.sequence).min() else {
        return Ok(());
    };
    let mut is_changed = false;
    for sequence in snapshot::list(env, layout)? {
        if sequence < oldest {
            remove_if_there(env, &layout.snapshot(sequence))?;
            is_changed = true;
        }
    }
    match is_changed {
        true => sync_parent(env, &layout.snapshot(oldest)),
        false => Ok(()),
    }
}
