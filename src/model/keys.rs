//! The keys of a state, found by folded path, and by a number while they are there.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::case_table::eq_folded;
use super::sorted::Sorted;
use super::value::Value;

/// Keys are kept in blocks of so many, which never move: no long list is ever copied to grow.
const BLOCK: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The full path as it is stored.
    pub(super) path: Arc<str>,
    /// The keys right below, by folded name.
    pub(super) children: Sorted<KeyId>,
    /// By folded name.
    pub(super) values: Sorted<StoredValue>,
    /// Commit time of the last change to the key itself, its values or its list of keys; microseconds since 1970.
    pub(super) last_write: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredValue {
    /// As it is stored. Shared between values.
    pub(super) name: Arc<str>,
    pub(super) value: Value,
}

/// The number of a key. That of a key that was removed is given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId(u32);

#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    blocks: Vec<Vec<Option<Key>>>,
    free: Vec<KeyId>,
    index: HashTable<Indexed>,
    hasher: RandomState,
}

/// A part of the path's hash stands beside the number, so that growing the index and passing over another key's
/// entry do not have to look at the keys themselves.
#[derive(Debug, Clone, Copy)]
struct Indexed {
    hash: u32,
    id: KeyId,
}

impl Indexed {
    /// What the index looks at: its place by the lower bits, and a few of the highest.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

impl KeyId {
    fn place(self) -> (usize, usize) {
        (self.0 as usize / BLOCK, self.0 as usize % BLOCK)
    }
}

impl Keys {
    fn hash(&self, folded: &str) -> u32 {
        let hash = self.hasher.hash_one(folded);
        (hash >> 32) as u32 ^ hash as u32
    }

    /// The key with this folded path.
    pub(super) fn find(&self, folded: &str) -> Option<KeyId> {
        let hash = self.hash(folded);
        let is_it = |at: &Indexed| at.hash == hash && eq_folded(&self[at.id].path, folded);
        let at = self.index.find(Indexed::spread(hash), is_it)?;
        Some(at.id)
    }

    pub(super) fn get(&self, folded: &str) -> Option<&Key> {
        self.find(folded).map(|id| &self[id])
    }

    pub(super) fn get_mut(&mut self, folded: &str) -> Option<&mut Key> {
        let id = self.find(folded)?;
        Some(&mut self[id])
    }

    /// Adds a key that is not there yet.
    pub(super) fn insert(&mut self, folded: &str, key: Key) -> KeyId {
        let id = self.free.pop().unwrap_or_else(|| self.new_id());
        let (block, slot) = id.place();
        self.blocks[block][slot] = Some(key);
        let hash = self.hash(folded);
        let indexed = Indexed { hash, id };
        self.index
            .insert_unique(Indexed::spread(hash), indexed, |at| Indexed::spread(at.hash));
        id
    }

    fn new_id(&mut self) -> KeyId {
        let is_full = self.blocks.last().is_none_or(|block| block.len() == BLOCK);
        if is_full {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let block = self.blocks.len() - 1;
        self.blocks[block].push(None);
        let number = block * BLOCK + self.blocks[block].len() - 1;
        KeyId(u32::try_from(number).expect("memory for four billion keys"))
    }

    /// Takes a key out. The keys below it, and the list that names it, are the caller's.
    pub(super) fn remove(&mut self, id: KeyId, folded: &str) -> Option<Key> {
        let hash = self.hash(folded);
        let entry = self.index.find_entry(Indexed::spread(hash), |at| at.id == id);
        entry.ok()?.remove();
        self.free.push(id);
        let (block, slot) = id.place();
        self.blocks[block][slot].take()
    }

    /// All keys, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.blocks.iter().flatten().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

impl Index<KeyId> for Keys {
    type Output = Key;

    fn index(&self, id: KeyId) -> &Key {
        let (block, slot) = id.place();
        self.blocks[block][slot].as_ref().expect("a key that is there")
    }
}

impl IndexMut<KeyId> for Keys {
    fn index_mut(&mut self, id: KeyId) -> &mut Key {
        let (block, slot) = id.place();
        self.blocks[block][slot].as_mut().expect("a key that is there")
    }
}
