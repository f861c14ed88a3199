//! A folded name, which takes no memory of its own where it can be helped.

use std::ops::Deref;

use super::case_table::{fold, is_folded, upper};

/// Names that fold to no more bytes are folded without an allocation.
const SHORT_BYTES: usize = 126;

/// What [`fold`](super::case_table::fold) gives: the name itself where it is folded already, and on the stack where it is
/// short (126 bytes).
#[derive(Debug, Clone)]
pub struct Folded<'a>(Repr<'a>);

#[derive(Debug, Clone)]
enum Repr<'a> {
    Itself(&'a str),
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<str>),
}

impl<'a> Folded<'a> {
    /// A name that is known to be folded.
    pub(super) fn known(folded: &'a str) -> Folded<'a> {
        Folded(Repr::Itself(folded))
    }
}

impl Folded<'_> {
    /// Folds a name.
    #[must_use]
    pub fn of(name: &str) -> Folded<'_> {
        if is_folded(name) {
            return Folded(Repr::Itself(name));
        }
        Folded(short(name).unwrap_or_else(|| Repr::Long(fold(name).into())))
    }
}

fn short<'a>(name: &str) -> Option<Repr<'a>> {
    let mut bytes = [0; SHORT_BYTES];
    let mut length = 0;
    if name.is_ascii() {
        length = name.len();
        let folded = bytes.get_mut(..length)?;
        folded.copy_from_slice(name.as_bytes());
        folded.make_ascii_uppercase();
    } else {
        for c in name.chars().map(upper) {
            let room = bytes.get_mut(length..length + c.len_utf8())?;
            length += c.encode_utf8(room).len();
        }
    }
    let length = length as u8;
    Some(Repr::Short { length, bytes })
}

impl Deref for Folded<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Repr::Itself(name) => name,
            Repr::Short { length, bytes } => {
                let bytes = bytes.get(..usize::from(*length));
                str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
            }
            Repr::Long(folded) => folded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_fold_gives_and_only_long_names_are_on_the_heap() {
        for name in ["", "A", "a", "Straße", "ıſ", "É", "ȿ", "𐐨", "a b"] {
            for times in [1, 2, 31, 62, 63, 64, 125, 126, 127, 300] {
                let name = name.repeat(times);
                let mut folded = None;
                let allocated = allocation_counter::measure(|| folded = Some(Folded::of(&name)));
                assert_eq!(folded.as_deref(), Some(&*fold(&name)));
                let is_on_the_heap = allocated.count_total > 0;
                let is_long = fold(&name).len() > SHORT_BYTES && fold(&name) != name;
                assert_eq!(is_on_the_heap, is_long, "{name:?}");
            }
        }
    }
}
