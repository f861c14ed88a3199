//! The keys of a state, found by folded path, and by a number while they are there.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::case_table::{cmp_folded, eq_folded};
use super::component::Component;
use super::folded::Folded;
use super::key;
use super::sorted::{Place, Sorted};
use super::tags::{Tags, tag};
use super::value::Value;

/// Keys are kept in blocks of so many, which never move: no long list is ever copied to grow.
const BLOCK: usize = 256;
/// The number of the root, which is the first key and stays.
const ROOT: u32 = 0;

#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The key above; the root's is itself.
    above: u32,
    /// Its name as it is stored; empty for the root.
    name: Component,
    /// The keys right below, by folded name.
    pub(super) children: Sorted<KeyId>,
    /// By folded name. What is put there and taken away has its tags in the index.
    values: Sorted<StoredValue>,
    /// Commit time of the last change to the key itself, its values or its list of keys; microseconds since 1970.
    pub(super) last_write: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredValue {
    /// As it is stored. Shared between values.
    pub(super) name: Arc<str>,
    pub(super) value: Value,
}

/// A key, as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId {
    /// That of a key that was removed is given to another one.
    number: u32,
    /// A part of the hash of its path.
    hash: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    blocks: Vec<Vec<Option<Key>>>,
    /// Numbers that no key has.
    free: Vec<u32>,
    index: HashTable<Indexed>,
    hasher: RandomState,
}

/// What is known of a key without a look at it. So growing the index does not go through all keys, and a look-up that finds
/// nothing mostly ends here.
#[derive(Debug, Clone, Copy)]
struct Indexed {
    id: KeyId,
    /// Of its values.
    tags: Tags,
}

impl KeyId {
    /// What the index goes by: its places by the lower bits, and a few of the highest.
    fn spread(self) -> u64 {
        spread(self.hash)
    }
}

fn place(number: u32) -> (usize, usize) {
    let number = number as usize;
    (number / BLOCK, number % BLOCK)
}

fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl Key {
    /// The last component of the path, as it is stored; empty for the root.
    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// How the name compares with a folded one.
    pub(super) fn cmp_name(&self, folded: &str) -> Ordering {
        self.name.cmp_folded(folded)
    }

    /// The values, by folded name.
    pub(super) fn values(&self) -> &Sorted<StoredValue> {
        &self.values
    }

    /// Where the value of this folded name stands, or would stand.
    pub(super) fn place_of_value(&self, name: &str) -> Result<Place, Place> {
        self.values.place(|stored| cmp_folded(&stored.name, name))
    }

    /// The value that stands there. Its name may be spelled otherwise, and stays the same.
    pub(super) fn value_mut(&mut self, at: Place) -> Option<&mut StoredValue> {
        self.values.get_mut(at)
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
        let is_it = |at: &Indexed| at.id.hash == hash && self.is_at(at.id, folded);
        let at = self.index.find(spread(hash), is_it)?;
        Some(at.id)
    }

    /// Whether this is the path of the key.
    fn is_at(&self, id: KeyId, folded: &str) -> bool {
        let (mut number, mut rest) = (id.number, folded);
        while let Some(above) = key::parent(rest) {
            let key = self.at(number);
            let is_named = key.name.cmp_folded(key::last_component(rest)).is_eq();
            if !is_named || number == ROOT {
                return false;
            }
            (number, rest) = (key.above, above);
        }
        number == ROOT
    }

    /// The full path of a key as it is stored.
    pub(super) fn path(&self, id: KeyId) -> String {
        let mut path = String::new();
        self.write_path(id.number, &mut path);
        path
    }

    /// Recursion is bounded by the depth of a path, 512.
    fn write_path(&self, number: u32, path: &mut String) {
        if number == ROOT {
            return;
        }
        let key = self.at(number);
        self.write_path(key.above, path);
        if !path.is_empty() {
            path.push(key::SEPARATOR);
        }
        path.push_str(key.name());
    }

    /// Spells the key's name otherwise.
    pub(super) fn respell(&mut self, id: KeyId, name: &str) {
        self[id].name = Component::of(name);
    }

    pub(super) fn get(&self, folded: &str) -> Option<&Key> {
        self.find(folded).map(|id| &self[id])
    }

    /// The value of this folded name, and its key, by the folded path.
    pub(super) fn value(&self, folded: &str, name: &str) -> Option<(KeyId, &StoredValue)> {
        let (hash, tag) = (self.hash(folded), self.tag(name));
        let mut found = None;
        self.index.find(spread(hash), |at| {
            if at.id.hash != hash {
                return false;
            }
            // The name comes first: without a value of its tag, no key has to be looked at.
            let named = |stored: &&StoredValue| eq_folded(&stored.name, name);
            let value = match at.tags.find(tag) {
                Some(mut places) => places.find_map(|place| {
                    let stored = self[at.id].values.few()?.get(place);
                    stored.filter(named)
                }),
                None => self[at.id].values.find(|stored| cmp_folded(&stored.name, name)),
            };
            found = value
                .filter(|_| self.is_at(at.id, folded))
                .map(|value| (at.id, value));
            found.is_some()
        });
        found
    }

    fn tag(&self, name: &str) -> u8 {
        tag(self.hasher.hash_one(name))
    }

    fn indexed(&mut self, id: KeyId) -> Option<&mut Indexed> {
        self.index.find_mut(id.spread(), |at| at.id == id)
    }

    /// Gives a key a value of this folded name, at the place that was found for it.
    pub(super) fn insert_value(&mut self, id: KeyId, at: Place, name: &str, value: StoredValue) {
        let tag = self.tag(name);
        if let Some(indexed) = self.indexed(id) {
            indexed.tags.insert(at.index_in_few(), tag);
        }
        self[id].values.insert(at, value);
    }

    /// Takes the value at this place away from its key.
    pub(super) fn remove_value(&mut self, id: KeyId, at: Place) -> StoredValue {
        let removed = self[id].values.remove(at);
        let tag = |stored: &StoredValue| self.tag(&Folded::of(&stored.name));
        let tags = match self[id].values.few() {
            Some(few) => Tags::of(few.iter().map(tag)),
            None => Tags::NONE,
        };
        if let Some(indexed) = self.indexed(id) {
            indexed.tags = tags;
        }
        removed
    }

    /// Adds a key that is not there yet, without anything below it; the first one is the root.
    pub(super) fn insert(
        &mut self,
        above: Option<KeyId>,
        folded: &str,
        name: &str,
        last_write: i64,
    ) -> KeyId {
        let number = self.free.pop().unwrap_or_else(|| self.new_number());
        let hash = self.hash(folded);
        let id = KeyId { number, hash };
        let (block, slot) = place(id.number);
        self.blocks[block][slot] = Some(Key {
            above: above.map_or(ROOT, |above| above.number),
            name: Component::of(name),
            children: Sorted::default(),
            values: Sorted::default(),
            last_write,
        });
        let indexed = Indexed {
            id,
            tags: Tags::default(),
        };
        self.index
            .insert_unique(id.spread(), indexed, |at| at.id.spread());
        id
    }

    fn new_number(&mut self) -> u32 {
        let is_full = self.blocks.last().is_none_or(|block| block.len() == BLOCK);
        if is_full {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let block = self.blocks.len() - 1;
        self.blocks[block].push(None);
        let number = block * BLOCK + self.blocks[block].len() - 1;
        u32::try_from(number).expect("memory for four billion keys")
    }

    /// Takes a key out. The keys below it, and the list that names it, are the caller's.
    pub(super) fn remove(&mut self, id: KeyId) -> Option<Key> {
        let entry = self.index.find_entry(id.spread(), |at| at.id == id);
        entry.ok()?.remove();
        self.free.push(id.number);
        let (block, slot) = place(id.number);
        self.blocks[block][slot].take()
    }

    /// All keys, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = KeyId> {
        self.index.iter().map(|at| at.id)
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn at(&self, number: u32) -> &Key {
        let (block, slot) = place(number);
        self.blocks[block][slot].as_ref().expect("a key that is there")
    }
}

impl Index<KeyId> for Keys {
    type Output = Key;

    fn index(&self, id: KeyId) -> &Key {
        self.at(id.number)
    }
}

impl IndexMut<KeyId> for Keys {
    fn index_mut(&mut self, id: KeyId) -> &mut Key {
        let (block, slot) = place(id.number);
        self.blocks[block][slot].as_mut().expect("a key that is there")
    }
}
