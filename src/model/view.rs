//! What a batch is evaluated against: keys and values, found by folded path and name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::keys::{KeyId, Keys};
use super::value::Value;
use super::values::Values;

/// The state, or the state under decisions that are not yet made. All paths and names are folded.
pub trait View {
    /// The key at this path, if it exists.
    fn find(&self, path: &str) -> Option<KeyView<'_>>;
    /// Whether `is_counted` says so of the folded path of any key right below this one.
    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// A key as a view shows it, found once: its values are looked up by name alone.
#[derive(Debug)]
pub struct KeyView<'a> {
    origin: Origin<'a>,
    /// What lies over that: the later, the further back.
    decided: Vec<&'a Decided>,
}

#[derive(Debug)]
enum Origin<'a> {
    /// The state has it.
    Stored {
        keys: &'a Keys,
        id: KeyId,
        values: &'a Values,
    },
    /// A decision has made it, spelled so, and perhaps given it values.
    Made { path: &'a str, decided: &'a Decided },
}

/// What was decided of a key.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// The stored path of a key made here; none if the view below has it.
    pub(super) made: Option<Box<str>>,
    /// By folded name; none = deleted.
    pub(super) values: HashMap<Arc<str>, Option<StoredValue>, RandomState>,
}

/// The name as it is stored, and the value.
pub(super) type StoredValue = (Arc<str>, Value);

impl<'a> KeyView<'a> {
    /// The key with this folded path, if there is one.
    pub(super) fn in_keys(keys: &'a Keys, path: &str) -> Option<KeyView<'a>> {
        let (id, values) = keys.find_with_values(path)?;
        Some(KeyView {
            origin: Origin::Stored { keys, id, values },
            decided: Vec::new(),
        })
    }

    /// A key that was made by a decision; none if it was not.
    pub(super) fn made(decided: &'a Decided) -> Option<KeyView<'a>> {
        Some(KeyView {
            origin: Origin::Made {
                path: decided.made.as_deref()?,
                decided,
            },
            decided: Vec::new(),
        })
    }

    /// The same key under a further decision.
    pub(super) fn under(mut self, decided: Option<&'a Decided>) -> KeyView<'a> {
        self.decided.extend(decided);
        self
    }

    /// Its path as it is stored.
    #[must_use]
    pub fn path(&self) -> Cow<'a, str> {
        match self.origin {
            Origin::Stored { keys, id, .. } => keys.path(id).into(),
            Origin::Made { path, .. } => path.into(),
        }
    }

    /// The stored name and the data of a value, if it exists.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<(&'a Arc<str>, &'a Value)> {
        let decided = self.decided.iter().rev();
        if let Some(value) = decided.copied().find_map(|decided| decided.value(name)) {
            return value;
        }
        match self.origin {
            Origin::Stored { keys, values, .. } => {
                let stored = keys.value_of(values, name)?;
                Some((&stored.name, &stored.value))
            }
            Origin::Made { decided, .. } => decided.value(name)?,
        }
    }
}

impl Decided {
    /// What was decided of a value, by folded name: nothing, that it is deleted, or what it is.
    pub(super) fn value(&self, name: &str) -> Option<Option<(&Arc<str>, &Value)>> {
        let value = self.values.get(name)?;
        Some(value.as_ref().map(|(name, value)| (name, value)))
    }
}
