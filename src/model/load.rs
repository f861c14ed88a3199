//! Making a state from its entries, as a copy of it on the disk gives them.

use super::case_table::eq_folded;
use super::copy::{EntryName, Stored};
use super::key;
use super::keys::KeyId;
use super::state::State;
use super::value::ValueRef;

/// The name of an entry, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameRef<'a> {
    pub(crate) key: &'a str,
    /// None for the key itself.
    pub(crate) value: Option<&'a str>,
}

/// What stands under an entry's name, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredRef<'a> {
    Key { path: &'a str, last_write: i64 },
    Value { name: &'a str, value: ValueRef<'a> },
}

impl NameRef<'_> {
    pub(crate) fn to_owned(self) -> EntryName {
        EntryName {
            key: self.key.into(),
            value: self.value.map(Into::into),
        }
    }
}

impl StoredRef<'_> {
    pub(crate) fn to_owned(self) -> Stored {
        match self {
            StoredRef::Key { path, last_write } => Stored::Key {
                path: path.into(),
                last_write,
            },
            StoredRef::Value { name, value } => Stored::Value {
                name: name.into(),
                value: value.to_value(),
            },
        }
    }
}

/// A state on its way into memory.
#[derive(Debug, Default)]
pub(crate) struct Loader {
    state: State,
    /// The key of the last entry: most entries are a value of it.
    last: Option<(String, KeyId)>,
}

impl Loader {
    /// Puts an entry where no entry is yet. A key comes after the key above it and before its values; the root is
    /// there from the beginning and may come once more.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub(crate) fn insert(&mut self, name: NameRef<'_>, stored: StoredRef<'_>) -> Result<(), &'static str> {
        match (stored, name.value) {
            (StoredRef::Key { path, last_write }, None) => {
                if !eq_folded(path, name.key) {
                    return Err("a key whose path is spelled otherwise");
                }
                let id = self.key(name.key, path, last_write)?;
                self.note(name.key, id);
            }
            (
                StoredRef::Value {
                    name: spelling,
                    value,
                },
                Some(folded),
            ) => {
                if !eq_folded(spelling, folded) {
                    return Err("a value whose name is spelled otherwise");
                }
                let id = self.find(name.key).ok_or("a value without its key")?;
                let value = value.to_value();
                if !self.state.insert_value(id, name.key, folded, spelling, value) {
                    return Err("a value that is there twice");
                }
            }
            _ => return Err("a key in place of a value, or a value in place of a key"),
        }
        Ok(())
    }

    fn key(&mut self, folded: &str, path: &str, last_write: i64) -> Result<KeyId, &'static str> {
        let Some(folded_above) = key::parent(folded) else {
            let id = self.state.keys.find(folded).ok_or("no root")?;
            let keys = &self.state.keys;
            if !keys[id].children.is_empty() || !keys.values(id).is_empty() {
                return Err("the root behind its content");
            }
            self.state.touch(id, last_write);
            return Ok(id);
        };
        let above = self.state.keys.find(folded_above);
        let above = above.ok_or("a key without the key above it")?;
        if self.state.keys.find(folded).is_some() {
            return Err("a key that is there twice");
        }
        let id = self
            .state
            .insert_key(Some(above), folded, key::last_component(path), last_write);
        self.state.add_child(above, key::last_component(folded), id);
        Ok(id)
    }

    fn find(&mut self, folded: &str) -> Option<KeyId> {
        if let Some((last, id)) = &self.last
            && *last == *folded
        {
            return Some(*id);
        }
        let id = self.state.keys.find(folded)?;
        self.note(folded, id);
        Some(id)
    }

    fn note(&mut self, folded: &str, id: KeyId) {
        let (last, last_id) = self.last.get_or_insert_with(|| (String::new(), id));
        last.clear();
        last.push_str(folded);
        *last_id = id;
    }

    /// The state of all that was put.
    pub(crate) fn finish(self) -> State {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    impl EntryName {
        pub(in crate::model) fn borrow(&self) -> NameRef<'_> {
            NameRef {
                key: &self.key,
                value: self.value.as_deref(),
            }
        }
    }

    impl Stored {
        pub(in crate::model) fn borrow(&self) -> StoredRef<'_> {
            match self {
                Stored::Key { path, last_write } => StoredRef::Key {
                    path,
                    last_write: *last_write,
                },
                Stored::Value { name, value } => StoredRef::Value {
                    name,
                    value: value.as_ref(),
                },
            }
        }
    }

    #[test]
    fn an_entry_out_of_place_is_refused() {
        let mut loader = Loader::default();
        let mut insert = |name: EntryName, stored: Stored| loader.insert(name.borrow(), stored.borrow());
        let key = |path: &str| Stored::Key {
            path: path.into(),
            last_write: 1,
        };
        let value = |name: &str| Stored::Value {
            name: name.into(),
            value: Value::dword(1),
        };
        let (key_name, value_name) = (EntryName::key, EntryName::value);
        for (name, stored, expected) in [
            (
                key_name("A\\B"),
                key("a\\b"),
                Err("a key without the key above it"),
            ),
            (value_name("A", "X"), value("x"), Err("a value without its key")),
            (
                key_name("A"),
                key("b"),
                Err("a key whose path is spelled otherwise"),
            ),
            (
                key_name("A"),
                value("a"),
                Err("a key in place of a value, or a value in place of a key"),
            ),
            (
                value_name("A", "X"),
                key("a"),
                Err("a key in place of a value, or a value in place of a key"),
            ),
            (key_name(""), key(""), Ok(())),
            (key_name("A"), key("a"), Ok(())),
            (key_name("A"), key("a"), Err("a key that is there twice")),
            (key_name(""), key(""), Err("the root behind its content")),
            (
                value_name("A", "X"),
                value("y"),
                Err("a value whose name is spelled otherwise"),
            ),
            (value_name("A", "X"), value("x"), Ok(())),
            (
                value_name("A", "X"),
                value("X"),
                Err("a value that is there twice"),
            ),
            (value_name("B", "X"), value("X"), Err("a value without its key")),
        ] {
            assert_eq!(insert(name.clone(), stored), expected, "{name:?}");
        }
    }
}
