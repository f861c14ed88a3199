//! The state: every key and value that the records so far have left, in memory.

use std::sync::Arc;

use super::change::{Change, CommandKind};
use super::digest::{Digest, Digester};
use super::folded::Folded;
use super::key;
use super::keys::{KeyId, Keys};
use super::names::Names;
use super::record::{Changes, RecordView, Runs};
use super::sorted::Place;
use super::value::Value;
use super::values::StoredValue;
use super::view::{KeyView, View};

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
        state.insert_key(None, "", "", 0);
        state
    }

    /// Does what the record says, blindly: what is already so stays so, and missing parents are made, so that a
    /// record can be applied to a state that has seen some of it. `time` is the record's commit time.
    pub fn apply(&mut self, record: RecordView<'_>, time: i64) {
        RecordApplied::new(record, time).step(self, usize::MAX);
    }

    /// Adds a key that is not there yet below another one, which does not know of it yet. The path is spelled as it is stored
    /// above, and as the key is from now on.
    pub(super) fn insert_key(
        &mut self,
        above: Option<KeyId>,
        folded: &str,
        name: &str,
        last_write: i64,
    ) -> KeyId {
        let id = self.keys.insert(above, folded, name, last_write);
        self.digester.add_key(&self.keys.path(id), last_write);
        id
    }

    /// The key, a value of it or its list of keys was changed at this time.
    pub(super) fn touch(&mut self, id: KeyId, time: i64) {
        let last_write = self.keys[id].last_write;
        if last_write != time {
            let path = self.keys.path(id);
            self.digester.remove_key(&path, last_write);
            self.digester.add_key(&path, time);
            self.keys[id].last_write = time;
        }
    }

    /// Makes the key and what is missing above it.
    fn create(&mut self, folded: &str, path: &str, time: i64) -> KeyId {
        if let Some(id) = self.keys.find(folded) {
            return id;
        }
        let parents = (key::parent(folded), key::parent(path));
        let (Some(folded_above), Some(path_above)) = parents else {
            // The root is always there.
            return self.insert_key(None, "", "", time);
        };
        let above = self.create(folded_above, path_above, time);
        let id = self.insert_key(Some(above), folded, key::last_component(path), time);
        self.add_child(above, key::last_component(folded), id);
        self.touch(above, time);
        id
    }

    fn delete(&mut self, folded: &str, time: i64) {
        if self.remove_key(folded)
            && let Some(parent) = key::parent(folded).and_then(|above| self.keys.find(above))
        {
            self.touch(parent, time);
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
        // The path is known as long as the keys above are there: those below go first.
        let mut doomed = vec![id];
        let mut next = 0;
        while let Some(id) = doomed.get(next).copied() {
            doomed.extend(self.keys[id].children.iter());
            next += 1;
        }
        for id in doomed.into_iter().rev() {
            let path = self.keys.path(id);
            if let Some((key, values)) = self.keys.remove(id) {
                self.digester.remove_key(&path, key.last_write);
                let folded = Folded::of(&path);
                for StoredValue { name, value } in values.iter() {
                    self.digester.remove_value(&folded, name, value.as_ref());
                }
            }
        }
        true
    }

    /// Where the key of this folded name stands among those right below another one, or would stand.
    pub(super) fn place_of_child(&self, parent: KeyId, name: &str) -> Result<Place, Place> {
        let order = |id: &KeyId| self.keys[*id].cmp_name(name);
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

    fn set_value(&mut self, id: KeyId, folded: &str, change: &Change<'_>, time: i64) {
        let (Some(name), Some(value)) = (change.name(), change.value()) else {
            return;
        };
        let folded_name = Folded::of(name);
        let place = self.keys.place_of_value(id, &folded_name);
        // A value that the record takes for an old one is new all the same, when the record does not fit the state.
        if change.changed() || place.is_err() {
            self.touch(id, time);
        }
        match place {
            Ok(place) => {
                if let Some(stored) = self.keys.values_mut(id).get_mut(place) {
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

    fn delete_value(&mut self, id: KeyId, folded: &str, change: &Change<'_>, time: i64) {
        let Some(name) = change.name() else {
            return;
        };
        if let Ok(place) = self.keys.place_of_value(id, &Folded::of(name)) {
            self.touch(id, time);
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
    pub fn value(&self, path: &str, name: &str) -> Option<&Value> {
        let (_, stored) = self.keys.value(path, name)?;
        Some(&stored.value)
    }

    /// The value with its key and name as they are stored, by folded path and name.
    #[must_use]
    pub fn entry(&self, path: &str, name: &str) -> Option<Entry> {
        let (id, stored) = self.keys.value(path, name)?;
        Some(Entry::value(&self.path(id), stored))
    }

    /// Whether there is a key with this folded path.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.keys.find(path).is_some()
    }

    /// The full path of a key as it is stored, to be given away.
    pub(super) fn path(&self, id: KeyId) -> Arc<str> {
        self.keys.path(id).into()
    }

    /// What is below the key with this folded path, depth first: the key's values, then its keys, both by folded
    /// name; each key followed by what is below it if `recursive`. The key itself is not given. None if it does not
    /// exist.
    #[must_use]
    pub fn walk(&self, path: &str, recursive: bool) -> Option<Vec<Entry>> {
        let id = self.keys.find(path)?;
        let mut walked = Walked::default();
        self.walk_below(id, &self.path(id), recursive, &mut walked);
        Some(walked.entries)
    }

    /// Recursion is bounded by the depth of a path, 512.
    fn walk_below(&self, id: KeyId, path: &Arc<str>, recursive: bool, walked: &mut Walked) {
        let (values, children) = (self.keys.values(id), &self.keys[id].children);
        walked.entries.reserve(values.len() + children.len());
        let values = values.iter().map(|stored| Entry::value(path, stored));
        walked.entries.extend(values);
        for child in children.iter() {
            key::set_child(&mut walked.path, path, self.keys[*child].name());
            let path: Arc<str> = (&*walked.path).into();
            walked.entries.push(Entry::Key {
                path: Arc::clone(&path),
            });
            if recursive {
                self.walk_below(*child, &path, true, walked);
            }
        }
    }
}

/// What a walk has met so far.
#[derive(Default)]
struct Walked {
    entries: Vec<Entry>,
    /// Where paths are put together.
    path: String,
}

/// A record on its way into the state, as [`State::apply`] does it, in steps. Nothing else changes the state in between.
pub(crate) struct RecordApplied<'a> {
    runs: Runs<'a>,
    run: Option<RunApplied<'a>>,
    time: i64,
}

/// All changes of a run are of one key: it is folded and found once.
struct RunApplied<'a> {
    key: &'a str,
    folded: Folded<'a>,
    id: Option<KeyId>,
    changes: Changes<'a>,
}

impl<'a> RecordApplied<'a> {
    pub(crate) fn new(record: RecordView<'a>, time: i64) -> RecordApplied<'a> {
        RecordApplied {
            runs: record.runs(),
            run: None,
            time,
        }
    }

    /// Applies more changes, until they have cost as much. False once there are none left.
    pub(crate) fn step(&mut self, state: &mut State, cost: usize) -> bool {
        let mut left = cost;
        loop {
            if self.run.is_none() {
                let Some(run) = self.runs.next() else {
                    return false;
                };
                self.run = Some(RunApplied {
                    key: run.key,
                    folded: Folded::of(run.key),
                    id: None,
                    changes: run.changes(),
                });
            }
            if let Some(run) = &mut self.run {
                while left > 0
                    && let Some(change) = run.changes.next()
                {
                    run.apply(state, &change, self.time);
                    left = left.saturating_sub(change.cost());
                }
            }
            if left == 0 {
                return true;
            }
            self.run = None;
        }
    }
}

impl RunApplied<'_> {
    fn apply(&mut self, state: &mut State, change: &Change<'_>, time: i64) {
        let RunApplied { key, folded, id, .. } = self;
        match change.kind() {
            CommandKind::CreateKey => *id = Some(state.create(folded, key, time)),
            CommandKind::DeleteKey => {
                state.delete(folded, time);
                *id = None;
            }
            CommandKind::SetValue => {
                let id = *id.get_or_insert_with(|| state.create(folded, key, time));
                state.set_value(id, folded, change, time);
            }
            CommandKind::DeleteValue => {
                *id = id.or_else(|| state.keys.find(folded));
                if let Some(id) = *id {
                    state.delete_value(id, folded, change, time);
                }
            }
            CommandKind::ValueDeleted => {}
        }
    }
}

impl Entry {
    pub(super) fn value(path: &Arc<str>, stored: &StoredValue) -> Entry {
        Entry::Value {
            key: Arc::clone(path),
            name: Arc::clone(&stored.name),
            value: stored.value.clone(),
        }
    }
}

impl View for State {
    fn find(&self, path: &str) -> Option<KeyView<'_>> {
        KeyView::in_keys(&self.keys, path)
    }

    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool {
        let key = self.keys.get(path);
        let mut children = key.into_iter().flat_map(|key| key.children.iter());
        children.any(|child| {
            let name = Folded::of(self.keys[*child].name());
            is_counted(&key::child(path, &name))
        })
    }
}

/// Two states are equal when they hold the same keys and values under the same spelling, with the same times.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let is_there = |id: KeyId| {
            let path = self.keys.path(id);
            other.keys.find(&Folded::of(&path)).is_some_and(|other_id| {
                path == other.keys.path(other_id)
                    && self.keys[id].last_write == other.keys[other_id].last_write
                    && self.keys.values(id).iter().eq(other.keys.values(other_id).iter())
            })
        };
        // The same paths have the same keys right below.
        self.keys.len() == other.keys.len() && self.keys.iter().all(is_there)
    }
}

impl Eq for State {}
