//! A state, entry by entry: how it is copied to the disk in slices while it changes, and read back.

use std::sync::Arc;

use super::case_table::{eq_folded, fold};
use super::folded::Folded;
use super::key;
use super::keys::KeyId;
use super::state::State;
use super::value::Value;
use super::values::StoredValue;

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
        Some(match &name.value {
            None => {
                let id = self.keys.find(&name.key)?;
                Stored::Key {
                    path: self.path(id),
                    last_write: self.keys[id].last_write,
                }
            }
            Some(value) => {
                let (_, StoredValue { name, value }) = self.keys.value(&name.key, value)?;
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
                (String::new(), None)
            }
            Some(last) => (last.key.to_string(), last.value.as_deref()),
        };
        loop {
            if let Some(id) = self.keys.find(&path) {
                for stored in self.keys.values(id).after(after) {
                    if names.len() >= count {
                        return names;
                    }
                    names.push(EntryName::value(&path, &fold(&stored.name)));
                }
            }
            match self.key_after(&path) {
                Some(next) if names.len() < count => path = next,
                _ => return names,
            }
            names.push(EntryName::key(&path));
            after = None;
        }
    }

    /// The key behind this one, depth first; the key itself need not be there any more.
    fn key_after(&self, path: &str) -> Option<String> {
        let below = |path: &str, id: &KeyId| key::child(path, &Folded::of(self.keys[*id].name()));
        if let Some(first) = self.keys.get(path).and_then(|key| key.children.iter().next()) {
            return Some(below(path, first));
        }
        let mut path = path;
        loop {
            let above = key::parent(path)?;
            if let Some(parent) = self.keys.get(above) {
                let name = key::last_component(path);
                let order = |id: &KeyId| self.keys[*id].cmp_name(name);
                if let Some(next) = parent.children.after(order).next() {
                    return Some(below(above, next));
                }
            }
            path = above;
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
                if !eq_folded(&path, &name.key) {
                    return Err("a key whose path is spelled otherwise");
                }
                let id = self.place_key(&name.key, &path);
                self.respell(id, key::last_component(&path));
                self.touch(id, last_write);
            }
            (
                Some(Stored::Value {
                    name: spelling,
                    value,
                }),
                Some(folded),
            ) => {
                if !eq_folded(&spelling, folded) {
                    return Err("a value whose name is spelled otherwise");
                }
                self.remove_value(&name.key, folded);
                let id = self.place_key(&name.key, &name.key);
                self.insert_value(id, &name.key, folded, &spelling, value);
            }
            _ => return Err("a key in place of a value, or a value in place of a key"),
        }
        Ok(())
    }

    /// Makes the key if it is not there, and what is missing above it, at no time.
    fn place_key(&mut self, folded: &str, path: &str) -> KeyId {
        if let Some(id) = self.keys.find(folded) {
            return id;
        }
        let parents = (key::parent(folded), key::parent(path));
        let (Some(folded_above), Some(path_above)) = parents else {
            return self.insert_key(None, "", "", 0);
        };
        let above = self.place_key(folded_above, path_above);
        let id = self.insert_key(Some(above), folded, key::last_component(path), 0);
        self.add_child(above, key::last_component(folded), id);
        id
    }

    /// Spells the name of a key otherwise, and so the paths of all keys below it.
    fn respell(&mut self, id: KeyId, name: &str) {
        if self.keys[id].name() == name {
            return;
        }
        let mut keys = vec![id];
        let mut next = 0;
        while let Some(id) = keys.get(next).copied() {
            self.digester
                .remove_key(&self.keys.path(id), self.keys[id].last_write);
            keys.extend(self.keys[id].children.iter());
            next += 1;
        }
        self.keys.respell(id, name);
        for id in keys {
            self.digester
                .add_key(&self.keys.path(id), self.keys[id].last_write);
        }
    }

    /// Gives a key a value; false if it has one of this name already.
    pub(super) fn insert_value(
        &mut self,
        id: KeyId,
        folded_key: &str,
        folded: &str,
        spelling: &str,
        value: Value,
    ) -> bool {
        let Err(place) = self.keys.place_of_value(id, folded) else {
            return false;
        };
        self.digester.add_value(folded_key, spelling, value.as_ref());
        let name = self.names.share(spelling);
        self.keys
            .insert_value(id, place, folded, StoredValue { name, value });
        true
    }

    fn remove_value(&mut self, path: &str, name: &str) {
        let Some(id) = self.keys.find(path) else { return };
        if let Ok(place) = self.keys.place_of_value(id, name) {
            let StoredValue { name, value } = self.keys.remove_value(id, place);
            self.digester.remove_value(path, &name, value.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, KeyPath, Limits, Loader, ValueType, evaluate};

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
        let mut copy = Loader::default();
        let mut last = None;
        loop {
            let names = state.names_after(last.as_ref(), slice);
            for name in &names {
                let stored = state.stored(name).unwrap();
                copy.insert(name.borrow(), stored.borrow()).unwrap();
            }
            match names.last() {
                Some(name) => last = Some(name.clone()),
                None => return copy.finish(),
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

    /// A copy is put together while the state changes: the key above may come later, and spelled otherwise than when the
    /// key below was looked up.
    #[test]
    fn a_key_that_is_spelled_otherwise_respells_the_paths_below_it() {
        let key = |path: &str, last_write| {
            let path = path.into();
            Some(Stored::Key { path, last_write })
        };
        let value = Some(Stored::Value {
            name: "v".into(),
            value: Value::dword(1),
        });
        let names = ["A", "A\\B", "A\\B\\C"].map(EntryName::key);
        let value_name = EntryName::value("A\\B\\C", "V");
        let [a, b, c] = &names;
        let mut expected = State::new();
        for (name, stored) in [
            (a, key("a", 1)),
            (b, key("a\\b", 2)),
            (c, key("a\\b\\c", 3)),
            (&value_name, value.clone()),
        ] {
            expected.put(name, stored).unwrap();
        }
        let mut state = State::new();
        let empty = state.digest();
        for (name, stored) in [
            (c, key("A\\b\\c", 3)),
            (&value_name, value),
            (b, key("A\\b", 2)),
            (a, key("a", 1)),
        ] {
            state.put(name, stored).unwrap();
        }
        assert_eq!((&state, state.digest()), (&expected, expected.digest()));
        assert_eq!(state.stored(c), key("a\\b\\c", 3));
        state.put(a, None).unwrap();
        assert_eq!((&state, state.digest()), (&State::new(), empty));
    }

    /// So many that their lists are in chunks, and back.
    #[test]
    fn each_of_many_values_and_keys_is_found_and_all_are_walked_in_order() {
        let numbers = || (0..700u32).map(|number| number * 263 % 700);
        let key = |number| EntryName::key(&format!("K{number:03}"));
        let value = |number| EntryName::value("", &format!("N{number:03}"));
        let stored_key = |number: u32| Stored::Key {
            path: format!("k{number:03}").into(),
            last_write: 1,
        };
        let stored_value = |number: u32| Stored::Value {
            name: format!("n{number:03}").into(),
            value: Value::dword(number),
        };
        let check = |state: &State, is_there: &dyn Fn(u32) -> bool| {
            for number in 0..700 {
                let expected = is_there(number).then(|| stored_value(number));
                assert_eq!(state.stored(&value(number)), expected, "{number}");
                let expected = is_there(number).then(|| stored_key(number));
                assert_eq!(state.stored(&key(number)), expected, "{number}");
            }
            let there = || (0..700).filter(|number| is_there(*number));
            let expected = there().map(value).chain(there().map(key));
            let names = state.names_after(None, usize::from(u16::MAX));
            assert!(names.into_iter().skip(1).eq(expected));
        };
        let mut state = State::new();
        for number in numbers() {
            state.put(&key(number), Some(stored_key(number))).unwrap();
            state.put(&value(number), Some(stored_value(number))).unwrap();
        }
        check(&state, &|_| true);
        for left in [300, 40, 17, 16, 3, 0] {
            for number in numbers().filter(|number| *number >= left) {
                state.put(&key(number), None).unwrap();
                state.put(&value(number), None).unwrap();
            }
            check(&state, &|number| number < left);
        }
        assert_eq!(state.digest(), State::new().digest());
    }
}
