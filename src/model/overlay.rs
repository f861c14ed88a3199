//! A view under changes that have been decided and not yet made.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::key::{self, SEPARATOR};
use super::state::View;
use super::value::Value;

/// A view under changes that have been decided and not yet made.
///
/// A deleted key is a mark that hides the view at and below it, so that deleting costs nothing for what is below.
/// A key that is made after that hides the view by itself.
pub struct Overlay<'a> {
    view: &'a dyn View,
    decisions: Decisions,
}

/// What an overlay holds, without the view below it.
#[derive(Default)]
pub(super) struct Decisions {
    /// By folded path, in order, so that all below a key is one range.
    keys: BTreeMap<Box<str>, Decided>,
    /// Deleted before what `keys` says was made.
    deleted: BTreeSet<Box<str>>,
}

#[derive(Default)]
struct Decided {
    /// The stored path of a key made here; none if the view has it.
    made: Option<Box<str>>,
    /// By folded name; none = deleted.
    values: BTreeMap<Box<str>, Option<StoredValue>>,
}

/// The name as it is stored, and the value.
type StoredValue = (Box<str>, Value);

impl<'a> Overlay<'a> {
    /// Nothing decided yet.
    #[must_use]
    pub fn new(view: &'a dyn View) -> Overlay<'a> {
        Overlay {
            view,
            decisions: Decisions::default(),
        }
    }

    pub(super) fn into_decisions(self) -> Decisions {
        self.decisions
    }

    /// Adds what was decided on an overlay above this one.
    pub(super) fn add(&mut self, above: Decisions) {
        for path in &above.deleted {
            self.decisions.delete(path);
        }
        for (path, decided) in above.keys {
            match self.decisions.keys.get_mut(&path) {
                // A key that was made above was not here, or was deleted just now.
                Some(known) if decided.made.is_none() => known.values.extend(decided.values),
                _ => {
                    self.decisions.keys.insert(path, decided);
                }
            }
        }
    }

    /// Makes a key, and what is missing above it. `stored` is spelled down to the last component.
    pub(super) fn create(&mut self, path: &str, stored: &str) {
        let (mut path, mut stored) = (path, stored);
        while self.key(path).is_none() {
            let made = Decided {
                made: Some(stored.into()),
                ..Decided::default()
            };
            self.decisions.keys.insert(path.into(), made);
            match (key::parent(path), key::parent(stored)) {
                (Some(above), Some(stored_above)) => (path, stored) = (above, stored_above),
                _ => return,
            }
        }
    }

    pub(super) fn delete(&mut self, path: &str) {
        self.decisions.delete(path);
    }

    /// Sets a value of a key that exists, or deletes it.
    pub(super) fn put_value(&mut self, path: &str, name: &str, value: Option<StoredValue>) {
        let keys = &mut self.decisions.keys;
        if !keys.contains_key(path) {
            keys.insert(path.into(), Decided::default());
        }
        if let Some(decided) = keys.get_mut(path) {
            decided.values.insert(name.into(), value);
        }
    }
}

impl Decisions {
    fn delete(&mut self, path: &str) {
        let below = format!("{path}{SEPARATOR}");
        let from_below = self
            .keys
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
        let inside = from_below
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(&below));
        for key in inside.cloned().collect::<Vec<_>>() {
            self.keys.remove(&key);
        }
        self.keys.remove(path);
        self.deleted.insert(path.into());
    }

    /// Whether the view's key at this path is hidden by a deletion at or above it.
    fn is_hidden(&self, path: &str) -> bool {
        let is_deleted = |path: &str| self.deleted.contains(path);
        !self.deleted.is_empty() && (is_deleted(path) || key::ancestors(path).any(is_deleted))
    }
}

impl View for Overlay<'_> {
    fn key(&self, path: &str) -> Option<Cow<'_, str>> {
        match self.decisions.keys.get(path) {
            Some(Decided {
                made: Some(stored), ..
            }) => Some(Cow::Borrowed(stored)),
            _ if self.decisions.is_hidden(path) => None,
            _ => self.view.key(path),
        }
    }

    fn value(&self, path: &str, name: &str) -> Option<(&str, &Value)> {
        let decided = self.decisions.keys.get(path);
        if let Some(value) = decided.and_then(|decided| decided.values.get(name)) {
            return value.as_ref().map(|(name, value)| (&**name, value));
        }
        let is_made_here = decided.is_some_and(|decided| decided.made.is_some());
        if is_made_here || self.decisions.is_hidden(path) {
            return None;
        }
        self.view.value(path, name)
    }

    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool {
        let keys = &self.decisions.keys;
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{path}{SEPARATOR}")
        };
        let from_below = (Bound::Included(below.as_str()), Bound::Unbounded);
        let inside = keys
            .range::<str, _>(from_below)
            .take_while(|(key, _)| key.starts_with(&below));
        let made = inside.filter(|(_, decided)| decided.made.is_some());
        let mut made = made.map(|(key, _)| &**key);
        if made.any(|key| key::parent(key) == Some(path) && is_counted(key)) {
            return true;
        }
        // What was made here is not in the view, or hidden there.
        !self.decisions.is_hidden(path)
            && self
                .view
                .any_subkey(path, &mut |key| !self.decisions.is_hidden(key) && is_counted(key))
    }
}
