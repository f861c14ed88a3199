//! The state: every key and value that the records so far have left, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::case_table;
use super::change::{Change, CommandKind};
use super::digest::{Digest, Digester};
use super::key;
use super::record::RecordView;
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
    pub(super) keys: HashMap<Box<str>, Key, RandomState>,
    pub(super) digester: Digester,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Key {
    /// The full path as it is stored.
    pub(super) path: Arc<str>,
    /// Folded names of the keys right below.
    pub(super) children: BTreeSet<Box<str>>,
    /// By folded name.
    pub(super) values: BTreeMap<Box<str>, StoredValue>,
    /// Commit time of the last change to the key itself, its values or its list of keys; microseconds since 1970.
    pub(super) last_write: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredValue {
    pub(super) name: Arc<str>,
    pub(super) value: Value,
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
            keys: HashMap::default(),
            digester: Digester::default(),
        };
        state.insert_key("", "", 0);
        state
    }

    /// Does what the record says, blindly: what is already so stays so, and missing parents are made, so that a
    /// record can be applied to a state that has seen some of it. `time` is the record's commit time.
    pub fn apply(&mut self, record: RecordView<'_>, time: i64) {
        for run in record.runs() {
            // The runs of a record are many and their keys are few: fold each once.
            let folded = case_table::fold(run.key);
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

    /// A key without anything below it, and not yet known to the key above it.
    pub(super) fn insert_key(&mut self, folded: &str, path: &str, last_write: i64) {
        let key = Key {
            path: path.into(),
            last_write,
            ..Key::default()
        };
        self.keys.insert(folded.into(), key);
        self.digester.add_key(path, last_write);
    }

    /// Makes the key and what is missing above it.
    fn create(&mut self, folded: &str, path: &str, time: i64) {
        if self.keys.contains_key(folded) {
            return;
        }
        self.insert_key(folded, path, time);
        if let (Some(above), Some(path_above)) = (key::parent(folded), key::parent(path)) {
            self.create(above, path_above, time);
            if let Some(parent) = self.keys.get_mut(above) {
                parent.children.insert(key::last_component(folded).into());
                parent.touch(time, &mut self.digester);
            }
        }
    }

    fn delete(&mut self, folded: &str, time: i64) {
        if self.remove_key(folded)
            && let Some(parent) = key::parent(folded).and_then(|above| self.keys.get_mut(above))
        {
            parent.touch(time, &mut self.digester);
        }
    }

    /// Removes the key with all below it; false if it is not there. The key above keeps its time.
    pub(super) fn remove_key(&mut self, folded: &str) -> bool {
        let Some(key) = self.keys.remove(folded) else {
            return false;
        };
        if let Some(parent) = key::parent(folded).and_then(|above| self.keys.get_mut(above)) {
            parent.children.remove(key::last_component(folded));
        }
        let mut removed = vec![(folded.to_owned(), key)];
        while let Some((path, key)) = removed.pop() {
            self.digester.remove_key(&key.path, key.last_write);
            for stored in key.values.values() {
                let StoredValue { name, value } = stored;
                self.digester.remove_value(&path, name, value.as_ref());
            }
            for name in &key.children {
                let below = key::child(&path, name);
                if let Some(key) = self.keys.remove(below.as_str()) {
                    removed.push((below, key));
                }
            }
        }
        true
    }

    fn set_value(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(name), Some(value)) = (change.name(), change.value()) else {
            return;
        };
        self.create(folded, change.key(), time);
        let Some(key) = self.keys.get_mut(folded) else {
            return;
        };
        let folded_name = case_table::fold(name);
        // A value that the record takes for an old one is new all the same, when the record does not fit the state.
        if change.changed() || !key.values.contains_key(folded_name.as_str()) {
            key.touch(time, &mut self.digester);
        }
        match key.values.get_mut(folded_name.as_str()) {
            Some(stored) => {
                let StoredValue {
                    name: old_name,
                    value: old,
                } = &*stored;
                self.digester.remove_value(folded, old_name, old.as_ref());
                stored.value = value.to_value();
                // The common case: the name is spelled as it was.
                if *stored.name != *name {
                    stored.name = name.into();
                }
            }
            None => {
                let stored = StoredValue {
                    name: name.into(),
                    value: value.to_value(),
                };
                key.values.insert(folded_name.into(), stored);
            }
        }
        self.digester.add_value(folded, name, value);
    }

    fn delete_value(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(key), Some(name)) = (self.keys.get_mut(folded), change.name()) else {
            return;
        };
        if let Some(stored) = key.values.remove(case_table::fold(name).as_str()) {
            key.touch(time, &mut self.digester);
            let StoredValue { name, value } = &stored;
            self.digester.remove_value(folded, name, value.as_ref());
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
        let key = self.keys.get(path)?;
        let stored = key.values.get(name)?;
        Some(Entry::value(key, stored))
    }

    /// What is below the key with this folded path, depth first: the key's values, then its keys, both by folded
    /// name; each key followed by what is below it if `recursive`. The key itself is not given. None if it does not
    /// exist.
    #[must_use]
    pub fn walk(&self, path: &str, recursive: bool) -> Option<Vec<Entry>> {
        let key = self.keys.get(path)?;
        let mut entries = Vec::new();
        self.walk_below(path, key, recursive, &mut entries);
        Some(entries)
    }

    /// Recursion is bounded by the depth of a path, 512.
    fn walk_below(&self, path: &str, key: &Key, recursive: bool, entries: &mut Vec<Entry>) {
        entries.extend(key.values.values().map(|stored| Entry::value(key, stored)));
        for name in &key.children {
            let below = key::child(path, name);
            if let Some(child) = self.keys.get(below.as_str()) {
                entries.push(Entry::Key {
                    path: Arc::clone(&child.path),
                });
                if recursive {
                    self.walk_below(&below, child, true, entries);
                }
            }
        }
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
        let stored = self.keys.get(path)?.values.get(name)?;
        Some((&stored.name, &stored.value))
    }

    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool {
        let children = self.keys.get(path).into_iter().flat_map(|key| &key.children);
        children
            .into_iter()
            .any(|name| is_counted(&key::child(path, name)))
    }
}

/// Two states are equal when they hold the same keys and values under the same spelling, with the same times.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.keys == other.keys
    }
}

impl Eq for State {}
