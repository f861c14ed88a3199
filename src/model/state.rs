//! The state: every key and value that the records so far have left, in memory.

use std::sync::Arc;

use super::case_table::cmp_folded;
use super::change::{Change, CommandKind};
use super::digest::{Digest, Digester};
use super::folded::Folded;
use super::key;
use super::keys::{Key, KeyId, Keys, StoredValue};
use super::names::Names;
use super::record::RecordView;
use super::sorted::Place;
use super::value::Value;

/// What a batch is evaluated against: the state, or the state under records that are decided but not yet durable.
/// All paths and names are folded.
pub trait View {
    /// The stored path of the key, if it exists.
    fn key(&self, path: &str) -> Option<&str>;
    /// The stored name and the data of a value, if it exists.
    fn value(&self, path: &str, name: &str) -> Option<(&str, &Value)>;
    /// Whether `is_counted` says so of the folded path of any key right below this one.
    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// Keys and values, found by folded path and name, and what they add up to.
#[derive(Debug, Clone)]
pub struct State {
    pub(super) keys: Keys,
    pub(super) names: Names,
    pub(super) digester: Digester,
}

/// A key or a value, as [`State::walk`] meets it. Cloning copies no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A key.
    Key {
        /// Its full path as it is stored.
        path: Arc<str>,
    },
    /// A value.
    Value {
        /// Full path of its key as it is stored.
        key: Arc<str>,
        /// Its name as it is stored; empty for the default value.
        name: Arc<str>,
        /// Its type and data.
        value: Value,
    },
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// The state of a new store: the root alone.
    #[must_use]
    pub fn new() -> State {
        let mut state = State {
            keys: Keys::default(),
            names: Names::default(),
            digester: Digester::default(),
        };
        state.insert_key("", "".into(), 0);
        state
    }

    /// Does what the record says, blindly: what is already so stays so, and missing parents are made, so that a
    /// record can be applied to a state that has seen some of it. `time` is the record's commit time.
    pub fn apply(&mut self, record: RecordView<'_>, time: i64) {
        for run in record.runs() {
            // The runs of a record are many and their keys are few: fold each once.
            let folded = Folded::of(run.key);
            for change in run.changes() {
                self.apply_change(&folded, &change, time);
            }
        }
    }

    fn apply_change(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        match change.kind() {
            CommandKind::CreateKey => {
                self.create(folded, change.key(), time);
            }
            CommandKind::DeleteKey => self.delete(folded, time),
            CommandKind::SetValue => self.set_value(folded, change, time),
            CommandKind::DeleteValue => self.delete_value(folded, change, time),
            CommandKind::ValueDeleted => {}
        }
    }

    /// A key that is not there yet, without anything below it, and not yet known to the key above it.
    pub(super) fn insert_key(&mut self, folded: &str, path: Arc<str>, last_write: i64) -> KeyId {
        self.digester.add_key(&path, last_write);
        self.keys.insert(folded, Key::new(path, last_write))
    }

    /// Makes the key and what is missing above it.
    fn create(&mut self, folded: &str, path: &str, time: i64) -> KeyId {
        if let Some(id) = self.keys.find(folded) {
            return id;
        }
        let id = self.insert_key(folded, path.into(), time);
        if let (Some(above), Some(path_above)) = (key::parent(folded), key::parent(path)) {
            let parent = self.create(above, path_above, time);
            self.add_child(parent, key::last_component(folded), id);
            self.keys[parent].touch(time, &mut self.digester);
        }
        id
    }

    fn delete(&mut self, folded: &str, time: i64) {
        if self.remove_key(folded)
            && let Some(parent) = key::parent(folded).and_then(|above| self.keys.find(above))
        {
            self.keys[parent].touch(time, &mut self.digester);
        }
    }

    /// Removes the key with all below it; false if it is not there. The key above keeps its time.
    pub(super) fn remove_key(&mut self, folded: &str) -> bool {
        let Some(id) = self.keys.find(folded) else {
            return false;
        };
        if let Some(parent) = key::parent(folded).and_then(|above| self.keys.find(above)) {
            let place = self.place_of_child(parent, key::last_component(folded));
            place.map_or_else(drop, |place| _ = self.keys[parent].children.remove(place));
        }
        let mut removed = vec![id];
        while let Some(id) = removed.pop() {
            let Some(key) = self.keys.remove(id) else {
                continue;
            };
            let folded = Folded::of(&key.path);
            self.digester.remove_key(&key.path, key.last_write);
            for StoredValue { name, value } in key.values().iter() {
                self.digester.remove_value(&folded, name, value.as_ref());
            }
            removed.extend(key.children.iter());
        }
        true
    }

    /// Where the key of this folded name stands among those right below another one, or would stand.
    pub(super) fn place_of_child(&self, parent: KeyId, name: &str) -> Result<Place, Place> {
        let order = |id: &KeyId| cmp_folded(key::last_component(&self.keys[*id].path), name);
        self.keys[parent].children.place(order)
    }

    /// Makes a key known to the key above it, by its folded name; false if one of this name is known there already.
    pub(super) fn add_child(&mut self, parent: KeyId, name: &str, id: KeyId) -> bool {
        match self.place_of_child(parent, name) {
            Ok(_) => false,
            Err(place) => {
                self.keys[parent].children.insert(place, id);
                true
            }
        }
    }

    fn set_value(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(name), Some(value)) = (change.name(), change.value()) else {
            return;
        };
        let id = self.create(folded, change.key(), time);
        let key = &mut self.keys[id];
        let folded_name = Folded::of(name);
        let place = key.place_of_value(&folded_name);
        // A value that the record takes for an old one is new all the same, when the record does not fit the state.
        if change.changed() || place.is_err() {
            key.touch(time, &mut self.digester);
        }
        match place {
            Ok(place) => {
                if let Some(stored) = key.value_mut(place) {
                    let (old_name, old) = (&stored.name, stored.value.as_ref());
                    self.digester.remove_value(folded, old_name, old);
                    stored.value = value.to_value();
                    // The common case: the name is spelled as it was.
                    if *stored.name != *name {
                        stored.name = self.names.share(name);
                    }
                }
            }
            Err(place) => {
                let stored = StoredValue {
                    name: self.names.share(name),
                    value: value.to_value(),
                };
                self.keys.insert_value(id, place, &folded_name, stored);
            }
        }
        self.digester.add_value(folded, name, value);
    }

    fn delete_value(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(id), Some(name)) = (self.keys.find(folded), change.name()) else {
            return;
        };
        let key = &mut self.keys[id];
        if let Ok(place) = key.place_of_value(&Folded::of(name)) {
            key.touch(time, &mut self.digester);
            let StoredValue { name, value } = self.keys.remove_value(id, place);
            self.digester.remove_value(folded, &name, value.as_ref());
        }
    }

    /// What the state adds up to. Costs nothing.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digester.digest()
    }

    /// The number of keys; the root is not counted.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.digest().keys - 1
    }

    /// The number of values.
    #[must_use]
    pub fn value_count(&self) -> u64 {
        self.digest().values
    }

    /// The value, by folded path and name.
    #[must_use]
    pub fn entry(&self, path: &str, name: &str) -> Option<Entry> {
        let (key, stored) = self.keys.value(path, name)?;
        Some(Entry::value(key, stored))
    }

    /// What is below the key with this folded path, depth first: the key's values, then its keys, both by folded
    /// name; each key followed by what is below it if `recursive`. The key itself is not given. None if it does not
    /// exist.
    #[must_use]
    pub fn walk(&self, path: &str, recursive: bool) -> Option<Vec<Entry>> {
        let key = self.keys.get(path)?;
        let mut entries = Vec::new();
        self.walk_below(key, recursive, &mut entries);
        Some(entries)
    }

    /// Recursion is bounded by the depth of a path, 512.
    fn walk_below(&self, key: &Key, recursive: bool, entries: &mut Vec<Entry>) {
        entries.extend(key.values().iter().map(|stored| Entry::value(key, stored)));
        for child in self.children(key) {
            let path = Arc::clone(&child.path);
            entries.push(Entry::Key { path });
            if recursive {
                self.walk_below(child, true, entries);
            }
        }
    }

    /// The keys right below a key, by folded name.
    pub(super) fn children(&self, key: &Key) -> impl Iterator<Item = &Key> {
        key.children.iter().map(|id| &self.keys[*id])
    }
}

impl Key {
    /// The key, a value of it or its list of keys was changed at this time.
    fn touch(&mut self, time: i64, digester: &mut Digester) {
        if self.last_write != time {
            digester.remove_key(&self.path, self.last_write);
            self.last_write = time;
            digester.add_key(&self.path, time);
        }
    }
}

impl Entry {
    pub(super) fn value(key: &Key, stored: &StoredValue) -> Entry {
        Entry::Value {
            key: Arc::clone(&key.path),
            name: Arc::clone(&stored.name),
            value: stored.value.clone(),
        }
    }
}

impl View for State {
    fn key(&self, path: &str) -> Option<&str> {
        self.keys.get(path).map(|key| &*key.path)
    }

    fn value(&self, path: &str, name: &str) -> Option<(&str, &Value)> {
        let (_, stored) = self.keys.value(path, name)?;
        Some((&stored.name, &stored.value))
    }

    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool {
        let key = self.keys.get(path);
        let mut children = key.into_iter().flat_map(|key| self.children(key));
        children.any(|child| is_counted(&Folded::of(&child.path)))
    }
}

/// Two states are equal when they hold the same keys and values under the same spelling, with the same times.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let is_there = |key: &Key| {
            let other = other.keys.get(&Folded::of(&key.path));
            other.is_some_and(|other| {
                (&key.path, key.last_write) == (&other.path, other.last_write)
                    && key.values().iter().eq(other.values().iter())
            })
        };
        // The same paths have the same keys right below.
        self.keys.len() == other.keys.len() && self.keys.iter().all(is_there)
    }
}

impl Eq for State {}
