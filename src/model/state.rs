//! The state: every key and value that the records so far have left, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::case_table;
use super::change::{Change, CommandKind};
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
}

/// Keys and values, found by folded path and name.
#[derive(Debug, Clone)]
pub struct State {
    keys: HashMap<Box<str>, Key, RandomState>,
    values: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Key {
    /// The full path as it is stored.
    path: Arc<str>,
    /// Folded names of the keys right below.
    children: BTreeSet<Box<str>>,
    /// By folded name.
    values: BTreeMap<Box<str>, StoredValue>,
    /// Commit time of the last change to the key itself, its values or its list of keys; microseconds since 1970.
    last_write: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredValue {
    name: Arc<str>,
    value: Value,
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
        let mut keys = HashMap::default();
        keys.insert(Box::from(""), Key::default());
        State { keys, values: 0 }
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

    /// Makes the key and what is missing above it.
    fn create(&mut self, folded: &str, path: &str, time: i64) -> &mut Key {
        if !self.keys.contains_key(folded) {
            let key = Key {
                path: path.into(),
                last_write: time,
                ..Key::default()
            };
            self.keys.insert(folded.into(), key);
            if let (Some(above), Some(path_above)) = (key::parent(folded), key::parent(path)) {
                let parent = self.create(above, path_above, time);
                parent.children.insert(key::last_component(folded).into());
                parent.last_write = time;
            }
        }
        self.keys
            .get_mut(folded)
            .expect("the key is there or was made above")
    }

    fn delete(&mut self, folded: &str, time: i64) {
        let Some(key) = self.keys.remove(folded) else {
            return;
        };
        if let Some(parent) = key::parent(folded).and_then(|above| self.keys.get_mut(above)) {
            parent.children.remove(key::last_component(folded));
            parent.last_write = time;
        }
        let mut removed = vec![(folded.to_owned(), key)];
        while let Some((path, key)) = removed.pop() {
            self.values -= key.values.len() as u64;
            for name in &key.children {
                let below = key::child(&path, name);
                if let Some(key) = self.keys.remove(below.as_str()) {
                    removed.push((below, key));
                }
            }
        }
    }

    fn set_value(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(name), Some(value)) = (change.name(), change.value()) else {
            return;
        };
        let folded_name = case_table::fold(name);
        let key = self.create(folded, change.key(), time);
        if change.changed() {
            key.last_write = time;
        }
        let value = value.to_value();
        match key.values.get_mut(folded_name.as_str()) {
            // The common case: the name is there, and is spelled so.
            Some(stored) if *stored.name == *name => stored.value = value,
            _ => {
                let stored = StoredValue {
                    name: name.into(),
                    value,
                };
                let replaced = key.values.insert(folded_name.into(), stored);
                self.values += u64::from(replaced.is_none());
            }
        }
    }

    fn delete_value(&mut self, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(key), Some(name)) = (self.keys.get_mut(folded), change.name()) else {
            return;
        };
        if key.values.remove(case_table::fold(name).as_str()).is_some() {
            key.last_write = time;
            self.values -= 1;
        }
    }

    /// The number of keys; the root is not counted.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.keys.len() as u64 - 1
    }

    /// The number of values.
    #[must_use]
    pub fn value_count(&self) -> u64 {
        self.values
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

impl Entry {
    fn value(key: &Key, stored: &StoredValue) -> Entry {
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
}

/// Two states are equal when they hold the same keys and values under the same spelling, with the same times.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.keys == other.keys
    }
}

impl Eq for State {}
