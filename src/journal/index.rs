//! The subtree index of a segment: which of its frames a port may have to show.
//!
//! A list of frames for each key that a batch touched, at it or below it; one for each key that a batch deleted by name,
//! which the ports below it show; and one for each port that has acknowledged with a batch. Lists are found by a hash of what they
//! are of, so that one may name too much, but never too little: who reads the frames decides by the filter.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use twox_hash::XxHash3_64;

use super::frame::{ALIGNMENT, Frame, FrameKind};
use crate::model::case_table::fold;
use crate::model::{RecordView, SEPARATOR, ancestors};

const TOUCHED: u8 = b'T';
const DELETED: u8 = b'D';
const ACKNOWLEDGED: u8 = b'A';

/// What a list of frames is found by: XXH3-64 with seed 0 of a letter and what follows it (`docs/format.md`, "Sidecars").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct ListId(pub(super) u64);

impl ListId {
    /// Stands for the root, of which there is no list: all batches touch it.
    pub(crate) const ROOT: ListId = ListId(0);

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

    /// The lists that hold every frame that a port on this folded path shows.
    pub(crate) fn of_port(key: &str) -> Vec<ListId> {
        if key.is_empty() {
            return vec![ListId::ROOT];
        }
        let above = ancestors(key).filter(|above| !above.is_empty());
        let deleted = above.map(|above| ListId::of(DELETED, above.as_bytes()));
        std::iter::once(ListId::of(TOUCHED, key.as_bytes()))
            .chain(deleted)
            .collect()
    }
}

/// The place of a frame in its segment, in steps of the grid that frames stand on.
pub(super) fn step_of(offset: u64) -> u32 {
    // No segment is so long (`Options::segment_size_bytes`) that this is not enough.
    u32::try_from(offset / ALIGNMENT as u64).unwrap_or(u32::MAX)
}

pub(super) fn offset_of(step: u32) -> usize {
    step as usize * ALIGNMENT
}

/// Finds the lists that a record is in, key by key.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Runs of one key often follow each other: what was found for the last one.
    key: String,
    touched: Vec<ListId>,
    deleted: ListId,
}

impl Lists {
    /// Gives the lists of a batch: of what it touches, and of what it deletes; some of them more than once.
    pub(crate) fn visit(&mut self, batch: RecordView<'_>, visit: &mut dyn FnMut(ListId)) {
        for run in batch.runs() {
            self.look_at(run.key);
            self.touched.iter().copied().for_each(&mut *visit);
            if run.has_deletion() {
                visit(self.deleted);
            }
        }
    }

    fn look_at(&mut self, key: &str) {
        if self.key == key && !self.touched.is_empty() {
            return;
        }
        key.clone_into(&mut self.key);
        // The paths of all keys above it begin it.
        let mut bytes = [&[TOUCHED], fold(key).as_bytes()].concat();
        self.touched.clear();
        let mut length = bytes.len();
        while length > 1 {
            self.touched.push(ListId::of_bytes(&bytes[..length]));
            let above = bytes[1..length].iter().rposition(|byte| *byte == SEPARATOR as u8);
            length = above.map_or(1, |above| above + 1);
        }
        self.touched.push(ListId::ROOT);
        bytes[0] = DELETED;
        self.deleted = ListId::of_bytes(&bytes);
    }
}

/// An index that grows with its segment.
#[derive(Debug, Default)]
pub(crate) struct Index {
    frames: HashMap<ListId, Vec<u32>, RandomState>,
    lists: Lists,
}

impl Index {
    /// Adds a verified frame, which stands behind all that were added before.
    pub(super) fn add(&mut self, offset: usize, frame: &Frame<'_>) {
        let step = step_of(offset as u64);
        let record = RecordView::verified(frame.payload);
        if let Some(acknowledged) = record.acknowledgement() {
            push(
                &mut self.frames,
                ListId::acknowledgements(&acknowledged.port_id),
                step,
            );
        }
        if frame.meta.kind != FrameKind::Batch {
            return;
        }
        let Index { frames, lists } = self;
        lists.visit(record, &mut |list| {
            // A port on the root reads all there is.
            if list != ListId::ROOT {
                push(frames, list, step);
            }
        });
    }

    /// The lists, in the order of their hashes.
    pub(super) fn sorted(&self) -> Vec<(ListId, &[u32])> {
        let mut lists: Vec<_> = self.frames.iter().map(|(id, list)| (*id, &list[..])).collect();
        lists.sort_unstable_by_key(|(id, _)| *id);
        lists
    }

    pub(super) fn list(&self, id: ListId) -> &[u32] {
        self.frames.get(&id).map_or(&[], Vec::as_slice)
    }
}

fn push(frames: &mut HashMap<ListId, Vec<u32>, RandomState>, list: ListId, step: u32) {
    let list = frames.entry(list).or_default();
    if list.last() != Some(&step) {
        list.push(step);
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
