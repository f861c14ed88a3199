//! The subtree index of a segment: which of its frames a port may have to show.
//!
//! A list of frames for each key that a batch touched, at it or below it; one for each key that a batch deleted by name,
//! which the ports below it show; and one for each port that has acknowledged with a batch. Lists are found by a hash of what they
//! are of, so that one may name too much, but never too little: who reads the frames decides by the filter.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use twox_hash::XxHash3_64;

use super::filter::is_deletion;
use super::frame::{ALIGNMENT, Frame, FrameKind};
use crate::model::case_table::fold;
use crate::model::{RecordView, ancestors};

const TOUCHED: u8 = b'T';
const DELETED: u8 = b'D';
const ACKNOWLEDGED: u8 = b'A';

/// What a list of frames is found by: XXH3-64 with seed 0 of a letter and what follows it (`docs/format.md`, "Sidecars").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct ListId(pub(super) u64);

impl ListId {
    fn of(letter: u8, name: &[u8]) -> ListId {
        ListId::of_bytes(&[&[letter], name].concat())
    }

    fn of_bytes(bytes: &[u8]) -> ListId {
        ListId(XxHash3_64::oneshot(bytes))
    }

    /// The frames with acknowledgements of this port.
    pub(crate) fn acknowledgements(port_id: &[u8; 16]) -> ListId {
        ListId::of(ACKNOWLEDGED, port_id)
    }

    /// The lists that hold every frame that a port on this folded path shows. Not of the root, which has no list: a port on it
    /// shows all batches.
    pub(crate) fn of_port(key: &str) -> Vec<ListId> {
        let deleted = keys_above(key).map(|above| ListId::of(DELETED, above.as_bytes()));
        std::iter::once(ListId::of(TOUCHED, key.as_bytes()))
            .chain(deleted)
            .collect()
    }
}

/// The root is not one of them: it is never deleted, and has no list.
fn keys_above(path: &str) -> impl Iterator<Item = &str> {
    ancestors(path).filter(|above| !above.is_empty())
}

/// The place of a frame in its segment, in steps of the grid that frames stand on.
pub(super) fn step_of(offset: u64) -> u32 {
    // No segment is so long (`Options::segment_size_bytes`) that this is not enough.
    u32::try_from(offset / ALIGNMENT as u64).unwrap_or(u32::MAX)
}

pub(super) fn offset_of(step: u32) -> usize {
    step as usize * ALIGNMENT
}

/// An index that grows with its segment.
#[derive(Debug, Default)]
pub(crate) struct Index {
    lists: HashMap<ListId, Vec<u32>, RandomState>,
    /// The lists of the key before: runs of one key often follow each other.
    last_key: String,
    last_lists: Vec<ListId>,
    last_deleted: ListId,
}

impl Index {
    /// Adds a verified frame, which stands behind all that were added before.
    pub(super) fn add(&mut self, offset: usize, frame: &Frame<'_>) {
        let step = step_of(offset as u64);
        let record = RecordView::verified(frame.payload);
        if let Some(acknowledged) = record.acknowledgement() {
            self.push(ListId::acknowledgements(&acknowledged.port_id), step);
        }
        if frame.meta.kind != FrameKind::Batch {
            return;
        }
        for run in record.runs() {
            self.look_at_key(run.key);
            for at in 0..self.last_lists.len() {
                self.push(self.last_lists[at], step);
            }
            if run.changes().any(|change| is_deletion(&change)) {
                self.push(self.last_deleted, step);
            }
        }
    }

    fn look_at_key(&mut self, key: &str) {
        if self.last_key == key {
            return;
        }
        key.clone_into(&mut self.last_key);
        let folded = fold(key);
        // The names of all keys above it begin it.
        let mut bytes = [&[TOUCHED], folded.as_bytes()].concat();
        let own = std::iter::once(folded.as_str()).filter(|path| !path.is_empty());
        let lengths = own.chain(keys_above(&folded)).map(str::len);
        self.last_lists.clear();
        self.last_lists
            .extend(lengths.map(|length| ListId::of_bytes(&bytes[..=length])));
        bytes[0] = DELETED;
        self.last_deleted = ListId::of_bytes(&bytes);
    }

    fn push(&mut self, list: ListId, step: u32) {
        let list = self.lists.entry(list).or_default();
        if list.last() != Some(&step) {
            list.push(step);
        }
    }

    /// The lists, in the order of their hashes.
    pub(super) fn sorted(&self) -> Vec<(ListId, &[u32])> {
        let mut lists: Vec<_> = self.lists.iter().map(|(id, list)| (*id, &list[..])).collect();
        lists.sort_unstable_by_key(|(id, _)| *id);
        lists
    }

    pub(super) fn list(&self, id: ListId) -> &[u32] {
        self.lists.get(&id).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::frame::{Chain, RecordMeta, Salt, append_frame};
    use crate::model::{Acknowledgement, CommandKind, Record, Value};

    fn add(index: &mut Index, offset: usize, kind: FrameKind, record: &Record) {
        let meta = RecordMeta {
            kind,
            sequence: 1,
            time: 0,
            request_id: [0; 16],
        };
        let chain = Chain {
            previous: 0,
            durable_before: 0,
        };
        let salt = Salt::new([0; 16]);
        let mut bytes = vec![0; offset];
        append_frame(&mut bytes, 0, &salt, &meta, chain, record.payload());
        // What stands before it does not matter.
        let frame = Frame::verified(&bytes[offset..]).unwrap();
        index.add(offset, &frame);
    }

    fn found(index: &Index, key: &str) -> Vec<usize> {
        let lists = ListId::of_port(key);
        let steps = lists.iter().flat_map(|list| index.list(*list));
        steps.map(|step| offset_of(*step)).collect()
    }

    #[test]
    fn a_port_finds_what_touches_its_key_and_below_in_any_case_and_deletions_above_it() {
        let value = Value::dword(1);
        let mut index = Index::default();
        let mut set = Record::new();
        set.push_set_value("a\\B\\c", "v", value.as_ref(), None);
        set.push_set_value("a\\B\\c", "w", value.as_ref(), None);
        set.push_set_value("x", "v", value.as_ref(), None);
        add(&mut index, 128, FrameKind::Batch, &set);
        let mut deleted = Record::new();
        deleted.push_key(CommandKind::DeleteKey, "A\\b", true);
        add(&mut index, 256, FrameKind::Batch, &deleted);
        add(&mut index, 384, FrameKind::Plain, &set);
        assert_eq!(found(&index, "A\\B\\C"), [128, 256]);
        assert_eq!(found(&index, "A\\B"), [128, 256]);
        assert_eq!(found(&index, "A\\B\\C\\D"), [256], "a deletion above it alone");
        assert_eq!(found(&index, "A\\BB"), [0usize; 0]);
        assert_eq!(found(&index, "X"), [128]);
        assert_eq!(found(&index, "A"), [128, 256], "each once, and no plain write");
    }

    #[test]
    fn acknowledgements_are_found_by_the_ports_id() {
        let mut index = Index::default();
        for (offset, port_id) in [(128, [1; 16]), (256, [2; 16]), (384, [1; 16])] {
            let acknowledgement = Acknowledgement { port_id, sequence: 1 };
            let record = Record::with_capacity(0, Some(acknowledgement));
            add(&mut index, offset, FrameKind::Batch, &record);
        }
        let steps = index.list(ListId::acknowledgements(&[1; 16]));
        assert_eq!(steps, [step_of(128), step_of(384)]);
    }

    /// Computed by another implementation of XXH3-64.
    #[test]
    fn a_list_has_the_documented_hash() {
        assert_eq!(ListId::of(TOUCHED, b"A\\B").0, 0xcd1f_4c8a_cd14_fdb8);
    }
}
