//! A view under changes that have been decided and not yet made.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::key::{self, KeyPath, SEPARATOR};
use super::value::Value;
use super::view::{Decided, KeyView, View};

/// A view under changes that have been decided and not yet made.
///
/// A deleted key is a mark that hides the view at and below it, so that deleting costs nothing for what is below.
/// A key that is made after that hides the view by itself.
pub struct Overlay<'a> {
    pub(super) view: &'a dyn View,
    pub(super) decisions: Decisions,
}

/// What an overlay holds, without the view below it.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// By folded path.
    keys: HashMap<Arc<str>, Decided, RandomState>,
    /// Their paths in order, so that all below a key is one range; none as long as they are few.
    order: Option<BTreeSet<Arc<str>>>,
    /// Deleted before what `keys` says was made.
    deleted: BTreeSet<Arc<str>>,
}

/// A view under decisions.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    view: &'a dyn View,
    decisions: &'a Decisions,
}

/// So many keys are looked through one by one.
const FEW: usize = 32;

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

    /// What is to be seen.
    pub(super) fn layer(&self) -> Layer<'_> {
        self.decisions.over(self.view)
    }

    /// Makes a key, and what is missing above it. `stored` is spelled down to the last component.
    pub(super) fn create(&mut self, path: &KeyPath, stored: &str) {
        let (mut path, mut stored) = (Arc::clone(path.folded_arc()), stored);
        while self.layer().find(&path).is_none() {
            let above = key::parent(&path).map(Arc::from);
            *self.decisions.of_key(&path) = Decided {
                made: Some(stored.into()),
                ..Decided::default()
            };
            match (above, key::parent(stored)) {
                (Some(above), Some(stored_above)) => (path, stored) = (above, stored_above),
                _ => return,
            }
        }
    }

    pub(super) fn delete(&mut self, path: &str) {
        self.decisions.delete(path);
    }

    /// The stored path of a key that was made here.
    pub(super) fn made(&self, path: &str) -> Option<&str> {
        self.decisions.keys.get(path)?.made.as_deref()
    }

    /// The key as it was before anything was decided here, unless it was deleted here since.
    pub(super) fn before(&self, path: &str) -> Option<KeyView<'a>> {
        match self.decisions.is_hidden(path) {
            true => None,
            false => self.view.find(path),
        }
    }

    /// What was decided here of a value, the last of it.
    pub(super) fn decided(&self, path: &str, name: &str) -> Option<Option<(&Arc<str>, &Value)>> {
        self.decisions.keys.get(path)?.value(name)
    }
}

impl Decisions {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.deleted.is_empty()
    }

    /// The view under these decisions.
    pub(crate) fn over<'a>(&'a self, view: &'a dyn View) -> Layer<'a> {
        Layer {
            view,
            decisions: self,
        }
    }

    /// Adds what was decided on a view under these.
    pub(super) fn add(&mut self, above: Decisions) {
        if self.is_empty() {
            *self = above;
            return;
        }
        for path in &above.deleted {
            self.delete(path);
        }
        for (path, decided) in above.keys {
            let known = self.of_key(&path);
            match decided.made {
                None if !known.values.is_empty() => known.values.extend(decided.values),
                None => known.values = decided.values,
                // It was not here, or was deleted just now.
                Some(_) => *known = decided,
            }
        }
    }

    /// What is decided of this key, to add to it; nothing yet, if it is new here.
    pub(super) fn of_key(&mut self, path: &Arc<str>) -> &mut Decided {
        let Decisions { keys, order, .. } = self;
        if order.is_none() && keys.len() >= FEW {
            *order = Some(keys.keys().cloned().collect());
        }
        match keys.entry(Arc::clone(path)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                if let Some(order) = order {
                    order.insert(Arc::clone(path));
                }
                new.insert(Decided::default())
            }
        }
    }

    /// The paths that begin with this.
    fn paths_below<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = &'a Arc<str>> {
        let is_inside = move |path: &&Arc<str>| path.starts_with(begin);
        let from = (Bound::Included(begin), Bound::Unbounded);
        let ordered = self.order.iter();
        let ordered = ordered.flat_map(move |order| order.range::<str, _>(from).take_while(is_inside));
        let few = self.order.is_none().then(|| self.keys.keys().filter(is_inside));
        ordered.chain(few.into_iter().flatten())
    }

    fn delete(&mut self, path: &str) {
        let below = format!("{path}{SEPARATOR}");
        for key in self.paths_below(&below).cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
        self.remove(path);
        self.deleted.insert(path.into());
    }

    fn remove(&mut self, path: &str) {
        self.keys.remove(path);
        if let Some(order) = &mut self.order {
            order.remove(path);
        }
    }

    /// Whether the view's key at this path is hidden by a deletion at or above it.
    fn is_hidden(&self, path: &str) -> bool {
        let is_deleted = |path: &str| self.deleted.contains(path);
        !self.deleted.is_empty() && (is_deleted(path) || key::ancestors(path).any(is_deleted))
    }
}

impl<'a> Layer<'a> {
    pub(crate) fn find(self, path: &str) -> Option<KeyView<'a>> {
        let Layer { view, decisions } = self;
        let decided = decisions.keys.get(path);
        if let Some(made) = decided.and_then(KeyView::made) {
            return Some(made);
        }
        if decisions.is_hidden(path) {
            return None;
        }
        Some(view.find(path)?.under(decided))
    }

    /// What [`KeyView::value`] says of the key, without an allocation.
    pub(crate) fn value(self, path: &str, name: &str) -> Option<(&'a Arc<str>, &'a Value)> {
        let Layer { view, decisions } = self;
        let decided = decisions.keys.get(path);
        if let Some(value) = decided.and_then(|decided| decided.value(name)) {
            return value;
        }
        let is_made_here = decided.is_some_and(|decided| decided.made.is_some());
        match is_made_here || decisions.is_hidden(path) {
            true => None,
            false => view.find(path)?.value(name),
        }
    }

    pub(super) fn any_subkey(self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool {
        let Layer { view, decisions } = self;
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{path}{SEPARATOR}")
        };
        let is_made = |key: &&Arc<str>| {
            decisions
                .keys
                .get(&***key)
                .is_some_and(|decided| decided.made.is_some())
        };
        let mut made = decisions.paths_below(&below).filter(is_made).map(|key| &**key);
        if made.any(|key| key::parent(key) == Some(path) && is_counted(key)) {
            return true;
        }
        // What was made here is not in the view, or hidden there; or applied already, and asked for twice.
        !decisions.is_hidden(path)
            && view.any_subkey(path, &mut |key| !decisions.is_hidden(key) && is_counted(key))
    }
}

impl View for Layer<'_> {
    fn find(&self, path: &str) -> Option<KeyView<'_>> {
        Layer::find(*self, path)
    }

    fn any_subkey(&self, path: &str, is_counted: &mut dyn FnMut(&str) -> bool) -> bool {
        Layer::any_subkey(*self, path, is_counted)
    }
}

#[cfg(test)]
mod tests;
