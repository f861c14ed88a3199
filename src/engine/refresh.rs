//! What the tree does not have yet: the names of the entries that newer records have touched, found by reading the
//! journal, and what the state holds under them.
//!
//! Names, not data, wait here, and not more of them than a bound: the journal remembers the rest.

use std::collections::{BTreeSet, HashSet};
use std::mem;

use crate::error::Result;
use crate::journal::{Journal, Position};
use crate::model::case_table::fold;
use crate::model::{CommandKind, EntryName, RecordView, State, Stored, parent};
use crate::tree::{Changes, encode_entry, encode_name, prefixes_below};

/// The journal is read no further while so many names wait.
const MAX_NAMES: usize = 128 << 10;

/// Entries on their way from the state to the tree.
#[derive(Debug)]
pub(super) struct Refresh {
    /// The records up to here have been read.
    cursor: Position,
    /// Touched by them, and not yet looked up.
    names: BTreeSet<EntryName>,
    /// The entry that a walk over the whole state has come to; none if there is no walk, or none any more.
    walk: Option<Option<EntryName>>,
    /// Looked up, and not yet in the tree.
    changes: Changes,
    changes_bytes: usize,
}

impl Refresh {
    /// For a tree that is the state at this position.
    pub(super) fn since(position: Position) -> Refresh {
        Refresh {
            cursor: position,
            names: BTreeSet::new(),
            walk: None,
            changes: Changes::default(),
            changes_bytes: 0,
        }
    }

    /// For a tree that is empty, when the state is at this position: all of it, and what changes meanwhile.
    pub(super) fn everything(position: Position) -> Refresh {
        Refresh {
            walk: Some(None),
            ..Refresh::since(position)
        }
    }

    /// Reads the journal up to this sequence number, or until enough names wait.
    pub(super) fn read(&mut self, journal: &Journal, last: u64) -> Result<()> {
        let Refresh {
            cursor,
            names,
            changes,
            ..
        } = self;
        let mut touched = HashSet::new();
        journal.scan(cursor, last, &mut |visited| {
            if names.len() >= MAX_NAMES {
                return Ok(false);
            }
            touch(visited.record, &mut touched, names, changes);
            Ok(true)
        })
    }

    /// How far the journal has been read.
    pub(super) fn position(&self) -> Position {
        self.cursor
    }

    /// Whether no more than so many names are left to look up.
    pub(super) fn is_nearly_done(&self, names: usize) -> bool {
        self.walk.is_none() && self.names.len() <= names
    }

    /// Bytes that wait to be applied.
    pub(super) fn bytes(&self) -> usize {
        self.changes_bytes
    }

    /// Entries that wait to be applied.
    pub(super) fn entries(&self) -> usize {
        self.changes.entries.len()
    }

    /// Takes up to so many names and what the state has under them. Copies no data, so that the state's lock is not
    /// held for long.
    pub(super) fn look_up(&mut self, state: &State, count: usize) -> Vec<(EntryName, Option<Stored>)> {
        if let Some(last) = &mut self.walk {
            let found = state.names_after(last.as_ref(), count);
            match found.last() {
                Some(name) => *last = Some(name.clone()),
                None => self.walk = None,
            }
            self.names.extend(found);
        }
        let names = (0..count).map_while(|_| self.names.pop_first());
        names
            .map(|name| {
                let stored = state.stored(&name);
                (name, stored)
            })
            .collect()
    }

    /// Adds what was looked up to the changes for the tree.
    pub(super) fn add(&mut self, name: &EntryName, stored: Option<&Stored>) {
        let (name, bytes) = (encode_name(name), stored.map(encode_entry));
        self.changes_bytes += name.len() + bytes.as_ref().map_or(0, Vec::len);
        self.changes.entries.insert(name, bytes);
    }

    /// The changes so far; the next begin anew.
    pub(super) fn take_changes(&mut self) -> Changes {
        self.changes_bytes = 0;
        mem::take(&mut self.changes)
    }
}

/// Notes all entries that this record may have changed. `touched`: keys that this was done for in the same reading.
fn touch(
    record: RecordView<'_>,
    touched: &mut HashSet<Box<str>>,
    names: &mut BTreeSet<EntryName>,
    changes: &mut Changes,
) {
    for run in record.runs() {
        let folded = fold(run.key);
        // A change may make the keys above, and touches the times of key and parent.
        let mut key = Some(&*folded);
        while let Some(path) = key.filter(|path| !touched.contains(*path)) {
            touched.insert(path.into());
            names.insert(EntryName::key(path));
            key = parent(path);
        }
        for change in run.changes() {
            match (change.kind(), change.name()) {
                (CommandKind::DeleteKey, _) => forget_below(&folded, changes),
                (_, Some(name)) => {
                    names.insert(EntryName::value(&folded, &fold(name)));
                }
                (_, None) => {}
            }
        }
    }
}

/// A key was deleted: what is below it in the tree goes, and what was looked up there before is no longer true. What
/// was made there since has been touched, or will be, by a record of its own.
fn forget_below(folded: &str, changes: &mut Changes) {
    for prefix in prefixes_below(folded) {
        let below = changes.entries.range(prefix.clone()..);
        let below: Vec<_> = below
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&prefix))
            .cloned()
            .collect();
        for name in below {
            changes.entries.remove(&name);
        }
        changes.removed_prefixes.insert(prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, KeyPath, Value};
    use crate::store::Store;
    use crate::tree::encode_name;

    fn commit(store: &Store, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::at(&KeyPath::root());
        change(&mut batch);
        store.commit(batch).unwrap();
    }

    fn read_and_look_up(refresh: &mut Refresh, store: &Store) {
        let engine = store.engine();
        let last = engine.read(|visible| visible.position.sequence).unwrap();
        refresh.read(&engine.journal, last).unwrap();
        let entries = engine
            .read(|visible| refresh.look_up(&visible.state, usize::MAX))
            .unwrap();
        for (name, stored) in entries {
            refresh.add(&name, stored.as_ref());
        }
    }

    /// What was looked up before the key above it was deleted is not copied.
    #[test]
    fn what_is_below_a_key_that_was_deleted_since_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::options()
            .tree(false)
            .open(folder.path().join("store"))
            .unwrap();
        let mut refresh = Refresh::since(store.engine().journal.position_after(0).unwrap());
        commit(&store, |batch| {
            batch
                .create_key("A\\B")
                .unwrap()
                .set_value("v", Value::dword(1))
                .unwrap();
            batch.create_key("AB").unwrap();
        });
        read_and_look_up(&mut refresh, &store);
        commit(&store, |batch| _ = batch.delete_key("a").unwrap());
        commit(&store, |batch| _ = batch.create_key("a\\C").unwrap());
        read_and_look_up(&mut refresh, &store);
        let changes = refresh.take_changes();
        let is_set = |name: EntryName| {
            changes
                .entries
                .get(&encode_name(&name))
                .is_some_and(Option::is_some)
        };
        for gone in [EntryName::key("A\\B"), EntryName::value("A\\B", "V")] {
            assert!(!is_set(gone.clone()), "{gone:?}");
        }
        for there in ["", "A", "A\\C", "AB"] {
            assert!(is_set(EntryName::key(there)), "{there}");
        }
        assert_eq!(changes.removed_prefixes, BTreeSet::from(prefixes_below("A")));
    }
}
