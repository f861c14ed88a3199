//! The name of a key, without the path above it.

use std::cmp::Ordering;
use std::fmt;

use super::case_table::{cmp_folded_bytes, eq_folded_bytes};

/// Names of so many bytes take no memory of their own.
const SHORT_BYTES: usize = 22;
const _: () = assert!(size_of::<Component>() == 24);

const SEPARATOR: &[u8] = b"\\";

/// The last component of a key's path, as it is stored.
#[derive(Clone)]
pub(super) struct Component(Repr);

#[derive(Clone)]
enum Repr {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<str>),
}

impl Component {
    pub(super) fn of(name: &str) -> Component {
        let mut bytes = [0; SHORT_BYTES];
        Component(match bytes.get_mut(..name.len()) {
            Some(short) => {
                short.copy_from_slice(name.as_bytes());
                let length = name.len() as u8;
                Repr::Short { length, bytes }
            }
            None => Repr::Long(name.into()),
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Repr::Long(name) => name.as_bytes(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Short { .. } => str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Repr::Long(name) => name,
        }
    }

    /// The path above, if this is the last component of a folded path, or all of it.
    pub(super) fn strip_from<'a>(&self, folded: &'a [u8]) -> Option<&'a [u8]> {
        let name = self.as_bytes();
        // What is folded is mostly as long as it was. No name has a separator.
        if let Some(start) = folded.len().checked_sub(name.len())
            && let Some((above, last)) = folded.split_at_checked(start)
            && eq_folded_bytes(name, last)
        {
            match above {
                [] => return Some(above),
                [above @ .., b'\\'] => return Some(above),
                _ => {}
            }
        }
        let start = folded.iter().rposition(|byte| [*byte] == *SEPARATOR);
        let (above, last) = match start {
            Some(start) => (folded.get(..start)?, folded.get(start + 1..)?),
            None => (&folded[..0], folded),
        };
        eq_folded_bytes(name, last).then_some(above)
    }

    /// How the name compares with a folded one.
    pub(super) fn cmp_folded(&self, folded: &str) -> Ordering {
        cmp_folded_bytes(self.as_bytes(), folded.as_bytes())
    }
}

impl PartialEq for Component {
    fn eq(&self, other: &Component) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::case_table::fold;

    #[test]
    fn a_name_of_any_length_is_kept_and_compared_as_it_is() {
        let names = [
            "x",
            "Aß",
            "ȿ",
            "ı",
            "é\u{10400}",
            "{4d36e967-e325-11ce-bfc1-08002be10318}",
        ];
        let names = names.map(|name| (0..9).map(move |times| name.repeat(times)));
        let mut names: Vec<_> = names
            .into_iter()
            .flatten()
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names.dedup();
        for name in &names {
            let component = Component::of(name);
            assert_eq!(component.as_str(), name);
            for other in &names {
                assert_eq!(component == Component::of(other), name == other);
                assert_eq!(component.cmp_folded(&fold(other)), fold(name).cmp(&fold(other)));
                for above in ["", "A", "ȿ\\É", "B\\A"] {
                    let path = crate::model::key::child(above, &fold(other));
                    let is_last = fold(name) == fold(other);
                    let expected = is_last.then_some(above.as_bytes());
                    assert_eq!(component.strip_from(path.as_bytes()), expected, "{name} {path}");
                }
            }
        }
    }
}
