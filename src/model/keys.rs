//! The keys of a state, found by folded path, and by a number while they are there.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::component::Component;
use super::folded::Folded;
use super::key;
use super::sorted::{Place, Sorted};
use super::tags::tag;
use super::values::{StoredValue, Values};

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
    /// Commit time of the last change to the key itself, its values or its list of keys; microseconds since 1970.
    pub(super) last_write: i64,
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

/// What is looked up of a key, without the key itself: its values. Growing the index does not go through the keys either.
#[derive(Debug, Clone)]
struct Indexed {
    id: KeyId,
    values: Values,
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
}

impl Keys {
    fn hash(&self, folded: &str) -> u32 {
        let hash = self.hasher.hash_one(folded);
        (hash >> 32) as u32 ^ hash as u32
    }

    /// The key with this folded path.
    pub(super) fn find(&self, folded: &str) -> Option<KeyId> {
        self.find_with_values(folded).map(|(id, _)| id)
    }

    /// The key with this folded path, and its values.
    pub(super) fn find_with_values(&self, folded: &str) -> Option<(KeyId, &Values)> {
        let hash = self.hash(folded);
        let is_it = |at: &Indexed| at.id.hash == hash && self.is_at(at.id, folded);
        let at = self.index.find(spread(hash), is_it)?;
        Some((at.id, &at.values))
    }

    /// The value of this folded name among those of a key.
    pub(super) fn value_of<'a>(&self, values: &'a Values, name: &str) -> Option<&'a StoredValue> {
        values.find(name, self.tag(name))
    }

    /// Whether this is the path of the key.
    fn is_at(&self, id: KeyId, folded: &str) -> bool {
        let (mut number, mut rest) = (id.number, folded.as_bytes());
        while !rest.is_empty() && number != ROOT {
            let key = self.at(number);
            match key.name.strip_from(rest) {
                Some(above) => (number, rest) = (key.above, above),
                None => return false,
            }
        }
        rest.is_empty() && number == ROOT
    }

    /// The full path of a key as it is stored.
    pub(super) fn path(&self, id: KeyId) -> String {
        // Most paths are no longer.
        let mut path = String::with_capacity(64);
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
        self.index.iter_hash(spread(hash)).find_map(|at| {
            if at.id.hash != hash {
                return None;
            }
            // The name comes first: without a value of its tag, nothing else has to be looked at.
            let value = at.values.find(name, tag)?;
            self.is_at(at.id, folded).then_some((at.id, value))
        })
    }

    /// The values of a key.
    pub(super) fn values(&self, id: KeyId) -> &Values {
        let at = self.index.find(id.spread(), |at| at.id == id);
        &at.expect("a key that is there").values
    }

    /// The values of a key, to be changed in place.
    pub(super) fn values_mut(&mut self, id: KeyId) -> &mut Values {
        let at = self.index.find_mut(id.spread(), |at| at.id == id);
        &mut at.expect("a key that is there").values
    }

    /// Where the value of this folded name stands among those of a key, or would stand.
    pub(super) fn place_of_value(&self, id: KeyId, name: &str) -> Result<Place, Place> {
        self.values(id).place(name, self.tag(name))
    }

    fn tag(&self, name: &str) -> u8 {
        tag(self.hasher.hash_one(name))
    }

    /// Gives a key a value of this folded name, at the place that was found for it.
    pub(super) fn insert_value(&mut self, id: KeyId, at: Place, name: &str, value: StoredValue) {
        let tag = self.tag(name);
        self.values_mut(id).insert(at, tag, value);
    }

    /// Takes the value at this place away from its key.
    pub(super) fn remove_value(&mut self, id: KeyId, at: Place) -> StoredValue {
        let hasher = self.hasher.clone();
        let tag = |stored: &StoredValue| tag(hasher.hash_one(&*Folded::of(&stored.name)));
        self.values_mut(id).remove(at, tag)
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
            last_write,
        });
        let indexed = Indexed {
            id,
            values: Values::default(),
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

    /// Takes a key out, and gives it with its values. The keys below it, and the list that names it, are the caller's.
    pub(super) fn remove(&mut self, id: KeyId) -> Option<(Key, Values)> {
        let entry = self.index.find_entry(id.spread(), |at| at.id == id);
        let (indexed, _) = entry.ok()?.remove();
        self.free.push(id.number);
        let (block, slot) = place(id.number);
        let key = self.blocks[block][slot].take()?;
        Some((key, indexed.values))
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
