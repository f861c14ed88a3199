//! A state, entry by entry: how it is copied to the disk in slices while it changes, and read back.

use std::ops::Bound;
use std::sync::Arc;

use super::case_table::fold;
use super::key;
use super::state::{State, StoredValue};
use super::value::Value;

/// The name of an entry: a key, or a value of it. Paths and names are folded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryName {
    pub(crate) key: Box<str>,
    /// None for the key itself.
    pub(crate) value: Option<Box<str>>,
}

/// What stands under an entry's name. Cloning copies no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The path as it is stored, and the commit time of the last change.
    Key { path: Arc<str>, last_write: i64 },
    /// The name as it is stored, type and data.
    Value { name: Arc<str>, value: Value },
}

impl EntryName {
    pub(crate) fn key(path: &str) -> EntryName {
        EntryName {
            key: path.into(),
            value: None,
        }
    }

    pub(crate) fn value(path: &str, name: &str) -> EntryName {
        EntryName {
            key: path.into(),
            value: Some(name.into()),
        }
    }
}

impl State {
    /// The entry of this name, if there is one.
    pub(crate) fn stored(&self, name: &EntryName) -> Option<Stored> {
        let key = self.keys.get(&name.key)?;
        Some(match &name.value {
            None => Stored::Key {
                path: Arc::clone(&key.path),
                last_write: key.last_write,
            },
            Some(value) => {
                let StoredValue { name, value } = key.values.get(value)?;
                Stored::Value {
                    name: Arc::clone(name),
                    value: value.clone(),
                }
            }
        })
    }

    /// Names of entries behind `last`, at most `count`; from the root on if there is no last. Each key comes before
    /// its values, and these before the keys below. An entry that is there all the while is given exactly once, also
    /// when the state changes between the calls.
    pub(crate) fn names_after(&self, last: Option<&EntryName>, count: usize) -> Vec<EntryName> {
        let mut names = Vec::with_capacity(count);
        let (mut path, mut after) = match last {
            None => {
                names.push(EntryName::key(""));
                (String::new(), Bound::Unbounded)
            }
            Some(last) => {
                let after = last.value.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                (last.key.to_string(), after)
            }
        };
        loop {
            if let Some(key) = self.keys.get(path.as_str()) {
                for name in key.values.range::<str, _>((after, Bound::Unbounded)) {
                    if names.len() >= count {
                        return names;
                    }
                    names.push(EntryName::value(&path, name.0));
                }
            }
            match self.key_after(&path) {
                Some(next) if names.len() < count => path = next,
                _ => return names,
            }
            names.push(EntryName::key(&path));
            after = Bound::Unbounded;
        }
    }

    /// The key behind this one, depth first; the key itself need not be there any more.
    fn key_after(&self, path: &str) -> Option<String> {
        if let Some(first) = self.keys.get(path).and_then(|key| key.children.first()) {
            return Some(key::child(path, first));
        }
        let mut path = path;
        loop {
            let above = key::parent(path)?;
            let behind = (Bound::Excluded(key::last_component(path)), Bound::Unbounded);
            let parent = self.keys.get(above);
            if let Some(next) = parent.and_then(|key| key.children.range::<str, _>(behind).next()) {
                return Some(key::child(above, next));
            }
            path = above;
        }
    }

    /// Puts an entry where no entry is yet. A key comes after the key above it and before its values; the root is
    /// there from the beginning and may come once more.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub(crate) fn insert(&mut self, name: &EntryName, stored: Stored) -> Result<(), &'static str> {
        match (stored, &name.value) {
            (Stored::Key { path, last_write }, None) => self.insert_stored_key(&name.key, &path, last_write),
            (
                Stored::Value {
                    name: spelling,
                    value,
                },
                Some(folded),
            ) => {
                if fold(&spelling) != **folded {
                    return Err("a value whose name is spelled otherwise");
                }
                let key = self.keys.get_mut(&name.key).ok_or("a value without its key")?;
                self.digester.add_value(&name.key, &spelling, value.as_ref());
                let stored = StoredValue {
                    name: spelling,
                    value,
                };
                match key.values.insert(folded.clone(), stored) {
                    None => Ok(()),
                    Some(_) => Err("a value that is there twice"),
                }
            }
            _ => Err("a key in place of a value, or a value in place of a key"),
        }
    }

    /// Puts an entry in place of what stands under its name, or removes that, with all below it if it is a key. Keys that are
    /// missing above it are made: they are put later, by who copies a state while it changes.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub(crate) fn put(&mut self, name: &EntryName, stored: Option<Stored>) -> Result<(), &'static str> {
        match (stored, &name.value) {
            (None, None) if name.key.is_empty() => return Err("no root"),
            (None, None) => _ = self.remove_key(&name.key),
            (None, Some(value)) => self.remove_value(&name.key, value),
            (Some(Stored::Key { path, last_write }), None) => {
                if fold(&path) != *name.key {
                    return Err("a key whose path is spelled otherwise");
                }
                self.place_key(&name.key, &path);
                if let Some(key) = self.keys.get_mut(&name.key) {
                    self.digester.remove_key(&key.path, key.last_write);
                    self.digester.add_key(&path, last_write);
                    (key.path, key.last_write) = (path, last_write);
                }
            }
            (
                Some(Stored::Value {
                    name: spelling,
                    value,
                }),
                Some(folded),
            ) => {
                if fold(&spelling) != **folded {
                    return Err("a value whose name is spelled otherwise");
                }
                self.remove_value(&name.key, folded);
                self.place_key(&name.key, &name.key);
                self.digester.add_value(&name.key, &spelling, value.as_ref());
                let stored = StoredValue {
                    name: spelling,
                    value,
                };
                let key = self.keys.get_mut(&name.key);
                key.map(|key| key.values.insert(folded.clone(), stored));
            }
            _ => return Err("a key in place of a value, or a value in place of a key"),
        }
        Ok(())
    }

    /// Makes the key if it is not there, and what is missing above it, at no time.
    fn place_key(&mut self, folded: &str, path: &str) {
        if self.keys.contains_key(folded) {
            return;
        }
        self.insert_key(folded, path, 0);
        if let (Some(above), Some(path_above)) = (key::parent(folded), key::parent(path)) {
            self.place_key(above, path_above);
            let parent = self.keys.get_mut(above);
            parent.map(|parent| parent.children.insert(key::last_component(folded).into()));
        }
    }

    fn remove_value(&mut self, key: &str, name: &str) {
        let removed = self.keys.get_mut(key).and_then(|key| key.values.remove(name));
        if let Some(StoredValue { name, value }) = removed {
            self.digester.remove_value(key, &name, value.as_ref());
        }
    }

    fn insert_stored_key(&mut self, folded: &str, path: &str, last_write: i64) -> Result<(), &'static str> {
        if fold(path) != folded {
            return Err("a key whose path is spelled otherwise");
        }
        match key::parent(folded) {
            None => {
                let root = self.keys.remove(folded).ok_or("the root twice")?;
                self.digester.remove_key("", root.last_write);
                if !root.children.is_empty() || !root.values.is_empty() {
                    return Err("the root behind its content");
                }
            }
            Some(above) => {
                let parent = self.keys.get_mut(above).ok_or("a key without the key above it")?;
                if !parent.children.insert(key::last_component(folded).into()) {
                    return Err("a key that is there twice");
                }
            }
        }
        self.insert_key(folded, path, last_write);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, KeyPath, Limits, ValueType, evaluate};

    /// A walk over states, the same each time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % sides
        }

        fn path(&mut self) -> KeyPath {
            let names: Vec<_> = (0..=self.roll(3))
                .map(|_| ["a", "A", "b", "C0", "c", "ß"][self.roll(6) as usize])
                .collect();
            KeyPath::parse(&names.join("\\")).unwrap()
        }

        fn change(&mut self, state: &mut State, time: i64) {
            let mut batch = Batch::at(&self.path());
            let name = ["", "x", "X", "yy"][self.roll(4) as usize];
            match self.roll(8) {
                0 => batch.delete_key("").map(|_| ()).unwrap(),
                1 => batch.delete_value(name).map(|_| ()).unwrap(),
                _ => {
                    let value = Value::new(ValueType(self.roll(5) as u32), [self.roll(3) as u8; 3]);
                    batch
                        .create_key("")
                        .unwrap()
                        .set_value(name, value)
                        .map(|_| ())
                        .unwrap();
                }
            }
            if let Ok(record) = evaluate(state, &batch, &Limits::default()) {
                state.apply(record.view(), time);
            }
        }
    }

    fn copy(state: &State, slice: usize) -> State {
        let mut copy = State::new();
        let mut last = None;
        loop {
            let names = state.names_after(last.as_ref(), slice);
            for name in &names {
                let stored = state.stored(name).unwrap();
                copy.insert(name, stored).unwrap();
            }
            match names.last() {
                Some(name) => last = Some(name.clone()),
                None => return copy,
            }
        }
    }

    #[test]
    fn a_copy_in_slices_of_any_size_is_the_state_with_the_same_digest() {
        let mut dice = Dice(7);
        let mut state = State::new();
        for step in 0..600 {
            dice.change(&mut state, step / 3);
            let copy = copy(&state, 2 + step as usize % 7);
            assert_eq!(copy, state, "step {step}");
            assert_eq!(copy.digest(), state.digest(), "step {step}");
        }
        assert!(state.key_count() > 5 && state.value_count() > 5);
    }

    #[test]
    fn what_is_there_all_the_while_is_given_exactly_once_while_the_state_changes() {
        let mut dice = Dice(11);
        for round in 0..60 {
            let mut state = State::new();
            for step in 0..80 {
                dice.change(&mut state, step);
            }
            let everything = |state: &State| state.names_after(None, usize::from(u16::MAX));
            let mut always = everything(&state);
            let mut given = Vec::new();
            let mut last = None;
            loop {
                let names = state.names_after(last.as_ref(), 2);
                let Some(name) = names.last() else { break };
                last = Some(name.clone());
                given.extend(names);
                dice.change(&mut state, round);
                let now = everything(&state);
                always.retain(|name| now.contains(name));
            }
            for name in always {
                let times = given.iter().filter(|given| **given == name).count();
                assert_eq!(times, 1, "{name:?}");
            }
        }
    }

    /// A child may be put before the key above it, and what was put may be put again.
    #[test]
    fn entries_put_in_any_order_and_more_than_once_are_the_state_with_the_same_digest() {
        let mut dice = Dice(5);
        let mut state = State::new();
        for step in 0..300 {
            dice.change(&mut state, step);
        }
        let mut other = state.clone();
        for step in 300..360 {
            dice.change(&mut other, step);
        }
        let names = |state: &State| state.names_after(None, usize::from(u16::MAX));
        let mut copy = State::new();
        for name in names(&other) {
            copy.put(&name, other.stored(&name)).unwrap();
        }
        assert_eq!((&copy, copy.digest()), (&other, other.digest()));
        for name in names(&other).iter().rev().chain(names(&state).iter().rev()) {
            if !name.key.is_empty() || name.value.is_some() || state.stored(name).is_some() {
                copy.put(name, state.stored(name)).unwrap();
            }
        }
        assert_eq!((&copy, copy.digest()), (&state, state.digest()));
        assert!(copy.put(&EntryName::key(""), None).is_err());
    }

    #[test]
    fn an_entry_out_of_place_is_refused() {
        let mut state = State::new();
        let key = |path: &str| Stored::Key {
            path: path.into(),
            last_write: 1,
        };
        let value = |name: &str| Stored::Value {
            name: name.into(),
            value: Value::dword(1),
        };
        assert!(
            state.insert(&EntryName::key("A\\B"), key("a\\b")).is_err(),
            "no parent"
        );
        assert!(
            state.insert(&EntryName::value("A", "X"), value("x")).is_err(),
            "no key"
        );
        assert!(
            state.insert(&EntryName::key("A"), key("b")).is_err(),
            "spelled otherwise"
        );
        assert!(
            state.insert(&EntryName::key("A"), value("a")).is_err(),
            "a value for a key"
        );
        assert_eq!(state.insert(&EntryName::key("A"), key("a")), Ok(()));
        assert!(state.insert(&EntryName::key("A"), key("a")).is_err(), "twice");
        assert!(
            state.insert(&EntryName::key(""), key("")).is_err(),
            "the root, too late"
        );
        assert!(
            state.insert(&EntryName::value("A", "X"), value("y")).is_err(),
            "spelled otherwise"
        );
        assert_eq!(state.insert(&EntryName::value("A", "X"), value("x")), Ok(()));
        assert!(
            state.insert(&EntryName::value("A", "X"), value("X")).is_err(),
            "twice"
        );
    }
}
