//! The values of one key.

use std::cmp::Ordering;
use std::sync::Arc;

use super::case_table::{cmp_folded, eq_folded};
use super::sorted::{Place, Sorted};
use super::tags::Tags;
use super::value::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredValue {
    /// As it is stored. Shared between values.
    pub(super) name: Arc<str>,
    pub(super) value: Value,
}

/// Values, by folded name.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    tags: Tags,
    list: Sorted<StoredValue>,
}

impl Values {
    /// The value of this folded name, which has this tag. Without a value of the tag, the list is not looked at.
    pub(super) fn find(&self, name: &str, tag: u8) -> Option<&StoredValue> {
        match (self.tags.find(tag), self.list.few()) {
            (Some(mut places), Some(few)) => places.find_map(|place| {
                let stored = few.get(place);
                stored.filter(|stored| eq_folded(&stored.name, name))
            }),
            _ => self.list.find(|stored| cmp_folded(&stored.name, name)),
        }
    }

    /// Where the value of this folded name, which has this tag, stands, or would stand.
    pub(super) fn place(&self, name: &str, tag: u8) -> Result<Place, Place> {
        if let (Some(mut places), Some(few)) = (self.tags.find(tag), self.list.few()) {
            let is_it = |place: &usize| {
                few.get(*place)
                    .is_some_and(|stored| eq_folded(&stored.name, name))
            };
            if let Some(place) = places.find(is_it) {
                return Ok(Place::in_few(place));
            }
        }
        self.list.place(|stored| cmp_folded(&stored.name, name))
    }

    /// The value that stands there. Its name may be spelled otherwise, and stays the same.
    pub(super) fn get_mut(&mut self, at: Place) -> Option<&mut StoredValue> {
        self.list.get_mut(at)
    }

    /// Adds a value, whose name has this tag, at the place that was found for it.
    pub(super) fn insert(&mut self, at: Place, tag: u8, value: StoredValue) {
        self.tags.insert(at.index_in_few(), tag);
        self.list.insert(at, value);
    }

    /// Takes the value at this place away. `tag` gives the tags of the others.
    pub(super) fn remove(&mut self, at: Place, tag: impl Fn(&StoredValue) -> u8) -> StoredValue {
        let removed = self.list.remove(at);
        self.tags = match self.list.few() {
            Some(few) => Tags::of(few.iter().map(tag)),
            None => Tags::NONE,
        };
        removed
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StoredValue> {
        self.list.iter()
    }

    /// The values behind this folded name, whether it is there or not; all without a name.
    pub(super) fn after(&self, name: Option<&str>) -> impl Iterator<Item = &StoredValue> {
        let order =
            move |stored: &StoredValue| name.map_or(Ordering::Greater, |name| cmp_folded(&stored.name, name));
        self.list.after(order)
    }
}
