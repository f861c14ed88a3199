//! A list in an order that its owner knows: compact while it is short, and quick to change when it is long.

use std::cmp::Ordering;
use std::mem;

/// Items of a list that is one slice, at most: an insertion copies it.
const FEW: usize = 32;
/// Items of one chunk of a longer list, at most.
const CHUNK: usize = 128;

/// Items in ascending order, each once. What the order is, each call is told by a function that compares an item with what
/// is looked for.
#[derive(Debug, Clone)]
pub(super) enum Sorted<T> {
    /// Without room to spare.
    Few(Box<[T]>),
    /// In chunks, none of them empty.
    #[expect(
        clippy::box_collection,
        reason = "keeps the usual, short list two words large"
    )]
    Many(Box<Vec<Vec<T>>>),
}

/// Where an item stands, or would stand, until the list changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    chunk: usize,
    index: usize,
}

impl Place {
    /// That of this index in a list that is one slice.
    pub(super) fn in_few(index: usize) -> Place {
        Place { chunk: 0, index }
    }

    /// The index in the list, as long as that is one slice.
    pub(super) fn index_in_few(self) -> usize {
        self.index
    }
}

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted::Few(Box::default())
    }
}

impl<T> Sorted<T> {
    /// Where the item is; if there is none, where it would be.
    pub(super) fn place(&self, order: impl Fn(&T) -> Ordering) -> Result<Place, Place> {
        let chunk = match self {
            Sorted::Few(_) => 0,
            Sorted::Many(chunks) => chunks
                .partition_point(|chunk| chunk.first().is_some_and(|first| order(first).is_le()))
                .saturating_sub(1),
        };
        match self.chunk(chunk).binary_search_by(order) {
            Ok(index) => Ok(Place { chunk, index }),
            Err(index) => Err(Place { chunk, index }),
        }
    }

    pub(super) fn find(&self, order: impl Fn(&T) -> Ordering) -> Option<&T> {
        let Place { chunk, index } = self.place(order).ok()?;
        self.chunk(chunk).get(index)
    }

    /// All items, as long as they are one slice.
    pub(super) fn few(&self) -> Option<&[T]> {
        match self {
            Sorted::Few(items) => Some(items),
            Sorted::Many(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, at: Place) -> Option<&mut T> {
        match self {
            Sorted::Few(items) => items.get_mut(at.index),
            Sorted::Many(chunks) => chunks.get_mut(at.chunk)?.get_mut(at.index),
        }
    }

    /// Inserts the item at the place that [`place`](Sorted::place) gave for it.
    pub(super) fn insert(&mut self, at: Place, item: T) {
        match self {
            Sorted::Few(few) => {
                let mut items = mem::take(few).into_vec();
                items.reserve_exact(1);
                items.insert(at.index, item);
                match items.len() > FEW {
                    true => *self = Sorted::Many(Box::new(vec![items])),
                    false => *few = items.into_boxed_slice(),
                }
            }
            Sorted::Many(chunks) => {
                let is_last = at.chunk + 1 == chunks.len();
                let chunk = &mut chunks[at.chunk];
                if chunk.len() < CHUNK {
                    chunk.insert(at.index, item);
                } else if is_last && at.index == CHUNK {
                    // What comes in order fills its chunks.
                    chunks.push(vec![item]);
                } else {
                    let mut behind = chunk.split_off(CHUNK / 2);
                    match at.index.checked_sub(CHUNK / 2) {
                        None => chunk.insert(at.index, item),
                        Some(index) => behind.insert(index, item),
                    }
                    chunks.insert(at.chunk + 1, behind);
                }
            }
        }
    }

    /// Removes the item at the place that [`place`](Sorted::place) gave for it.
    pub(super) fn remove(&mut self, at: Place) -> T {
        match self {
            Sorted::Few(few) => {
                let mut items = mem::take(few).into_vec();
                let item = items.remove(at.index);
                *few = items.into_boxed_slice();
                item
            }
            Sorted::Many(chunks) => {
                let chunk = &mut chunks[at.chunk];
                let item = chunk.remove(at.index);
                if chunk.is_empty() {
                    chunks.remove(at.chunk);
                } else if chunk.len() < chunk.capacity() / 4 {
                    chunk.shrink_to(2 * chunk.len());
                }
                if let [chunk] = &mut chunks[..]
                    && chunk.len() <= FEW / 2
                {
                    *self = Sorted::Few(mem::take(chunk).into_boxed_slice());
                }
                item
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        let (few, many) = self.parts();
        few.len() + many.iter().map(Vec::len).sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All items in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let (few, many) = self.parts();
        few.iter().chain(many.iter().flatten())
    }

    /// The items behind what is looked for, whether that is there or not.
    pub(super) fn after(&self, order: impl Fn(&T) -> Ordering) -> impl Iterator<Item = &T> {
        let (chunk, index) = match self.place(order) {
            Ok(Place { chunk, index }) => (chunk, index + 1),
            Err(Place { chunk, index }) => (chunk, index),
        };
        let rest = self.chunk(chunk).get(index..).unwrap_or_default();
        let (_, many) = self.parts();
        let behind = many.get(chunk + 1..).unwrap_or_default();
        rest.iter().chain(behind.iter().flatten())
    }

    /// One of them is empty.
    fn parts(&self) -> (&[T], &[Vec<T>]) {
        match self {
            Sorted::Few(items) => (items, &[]),
            Sorted::Many(chunks) => (&[], chunks),
        }
    }

    fn chunk(&self, chunk: usize) -> &[T] {
        match self {
            Sorted::Few(items) => items,
            Sorted::Many(chunks) => chunks.get(chunk).map_or(&[], Vec::as_slice),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn check(sorted: &Sorted<u32>, expected: &BTreeSet<u32>) {
        assert!(sorted.iter().eq(expected));
        assert_eq!(
            (sorted.len(), sorted.is_empty()),
            (expected.len(), expected.is_empty())
        );
        if let Sorted::Many(chunks) = sorted {
            assert!(chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
        }
    }

    /// Grows to many chunks and shrinks to nothing: in order, against it, and scattered.
    #[test]
    fn it_is_a_set_whatever_the_order_of_changes() {
        for factor in [1, 2999, 1201] {
            let (mut sorted, mut expected) = (Sorted::default(), BTreeSet::new());
            let numbers = || (0..3000u32).map(|number| number * factor % 3000 * 2);
            for (step, number) in numbers().enumerate() {
                let place = sorted.place(|item: &u32| item.cmp(&number)).unwrap_err();
                sorted.insert(place, number);
                expected.insert(number);
                assert!(sorted.place(|item| item.cmp(&number)).is_ok());
                if step % 97 == 0 || step < 100 {
                    check(&sorted, &expected);
                }
            }
            for looked_for in 0..6001 {
                let behind = expected.range(looked_for + 1..).take(3);
                assert!(sorted.after(|item| item.cmp(&looked_for)).take(3).eq(behind));
                let found = sorted.find(|item| item.cmp(&looked_for));
                assert_eq!(found, expected.get(&looked_for));
            }
            for (step, number) in numbers().map(|number| (number + 1400) % 6000).enumerate() {
                let place = sorted.place(|item| item.cmp(&number)).unwrap();
                assert_eq!(sorted.get_mut(place), Some(&mut { number }));
                assert_eq!(sorted.remove(place), number);
                expected.remove(&number);
                if step % 97 == 0 || step > 2900 {
                    check(&sorted, &expected);
                }
            }
            assert!(sorted.is_empty() && matches!(sorted, Sorted::Few(_)));
        }
    }

    #[test]
    fn what_comes_in_order_fills_its_chunks() {
        let mut sorted = Sorted::default();
        for number in 0..10_000u32 {
            let place = sorted.place(|item: &u32| item.cmp(&number)).unwrap_err();
            sorted.insert(place, number);
        }
        let Sorted::Many(chunks) = sorted else {
            panic!("a long list in one slice")
        };
        assert_eq!(chunks.len(), 10_000usize.div_ceil(CHUNK));
    }
}
