//! A byte for each of a key's first values, so that a look-up goes to the right one, or to none, without a look at the others.

/// So many values have a tag each; of a key with more, none has.
const TAGGED: usize = 16;

/// The tags of a key's values, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tags([u8; TAGGED]);

/// Behind the last value.
const EMPTY: u8 = 0;
/// In place of the first tag: there are too many values.
const TOO_MANY: u8 = 0xff;

/// The tag of a value, by its name's hash: neither of the two that mean something else.
pub(super) fn tag(hash: u64) -> u8 {
    ((hash >> 56) as u8).clamp(1, 0xfe)
}

impl Tags {
    /// Of values that have none, because they are many.
    pub(super) const NONE: Tags = Tags([TOO_MANY; TAGGED]);

    pub(super) fn of(tags: impl ExactSizeIterator<Item = u8>) -> Tags {
        if tags.len() > TAGGED {
            return Tags::NONE;
        }
        let mut all = Tags::default();
        all.0.iter_mut().zip(tags).for_each(|(place, tag)| *place = tag);
        all
    }

    /// A value with this tag comes to stand at this index.
    pub(super) fn insert(&mut self, index: usize, tag: u8) {
        let Tags(tags) = self;
        // The same holds where there were too many before.
        if tags[TAGGED - 1] != EMPTY {
            *self = Tags::NONE;
            return;
        }
        tags.copy_within(index..TAGGED - 1, index + 1);
        tags[index] = tag;
    }

    /// Indices at which a value with this tag stands; none if the values have no tags.
    pub(super) fn find(&self, tag: u8) -> Option<impl Iterator<Item = usize>> {
        const LOW: u128 = u128::from_le_bytes([0x7f; TAGGED]);
        let Tags(tags) = self;
        // A byte is zero where the tag is this one, and only then its highest bit is left.
        let different = u128::from_le_bytes(*tags) ^ u128::from_le_bytes([tag; TAGGED]);
        let bits = !(((different & LOW) + LOW) | different | LOW);
        let lowest = |bits: u128| Some(bits).filter(|bits| *bits != 0);
        let found = std::iter::successors(lowest(bits), move |bits| lowest(bits & (bits - 1)));
        (tags[0] != TOO_MANY).then(|| found.map(|bits| bits.trailing_zeros() as usize / 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_in_the_order_of_the_values_until_there_are_too_many() {
        let mut tags = Tags::default();
        let mut expected = Vec::new();
        for number in 0..TAGGED {
            let (index, tag) = (number / 2, number as u8 % 5 + 1);
            tags.insert(index, tag);
            expected.insert(index, tag);
            assert_eq!(tags, Tags::of(expected.iter().copied()));
            for tag in 1..7 {
                let places = (0..expected.len()).filter(|index| expected[*index] == tag);
                assert!(tags.find(tag).unwrap().eq(places));
            }
        }
        tags.insert(3, 7);
        expected.insert(3, 7);
        assert!(tags.find(1).is_none());
        assert!(Tags::of(expected.iter().copied()).find(1).is_none());
        tags.insert(3, 7);
        assert!(tags.find(7).is_none());
    }

    #[test]
    fn no_hash_has_a_tag_that_means_something_else() {
        for byte in 0..=0xff {
            assert!(![EMPTY, TOO_MANY].contains(&tag(u64::from(byte as u8) << 56)));
        }
    }
}
