//! The name of a value: what is valid, how it compares, and what a value can be looked up by.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::case_table;
use super::error::{Limit, NameError};
use super::folded::Folded;
use super::key::{MAX_VALUE_NAME_UNITS, check_name};

/// The name of a value, valid and ready to compare: what a value is looked up by, many times. The empty name is the key's
/// default value.
///
/// Kept as written, compared ignoring case by the pinned [case table](super::case_table).
#[derive(Clone, Debug)]
pub struct ValueName {
    pub(crate) text: Arc<str>,
    pub(crate) folded: Arc<str>,
}

impl ValueName {
    /// Reads a name.
    ///
    /// # Errors
    /// A NUL, more than 16,383 UTF-16 units.
    pub fn parse(name: &str) -> Result<ValueName, NameError> {
        check_name(name, Limit::ValueNameUnits, MAX_VALUE_NAME_UNITS)?;
        let text: Arc<str> = name.into();
        let folded = match case_table::is_folded(name) {
            true => Arc::clone(&text),
            false => Arc::from(&*Folded::of(name)),
        };
        Ok(ValueName { text, folded })
    }

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name as it compares: upper-cased by the case table.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

impl PartialEq for ValueName {
    fn eq(&self, other: &ValueName) -> bool {
        self.folded == other.folded
    }
}

impl Eq for ValueName {}

impl Hash for ValueName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

impl fmt::Display for ValueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for ValueName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<ValueName, NameError> {
        ValueName::parse(name)
    }
}

/// What a value is looked up by: its name as text, or a [`ValueName`], which was parsed and folded once.
///
/// Text is folded at each call: without an allocation where it has no lower case, or is short (126 bytes).
pub trait AsValueName {
    /// The name as it was written.
    fn as_written(&self) -> &str;

    /// The name as it compares.
    fn to_folded(&self) -> Folded<'_>;
}

impl AsValueName for ValueName {
    fn as_written(&self) -> &str {
        &self.text
    }

    fn to_folded(&self) -> Folded<'_> {
        Folded::known(&self.folded)
    }
}

impl AsValueName for str {
    fn as_written(&self) -> &str {
        self
    }

    fn to_folded(&self) -> Folded<'_> {
        Folded::of(self)
    }
}

/// What gives a name away does not have to be taken apart by the caller.
macro_rules! as_value_name {
    ($([$($generic:ident)?] $type:ty),*) => {$(
        impl<$($generic: AsValueName + ?Sized)?> AsValueName for $type {
            fn as_written(&self) -> &str {
                (**self).as_written()
            }

            fn to_folded(&self) -> Folded<'_> {
                (**self).to_folded()
            }
        }
    )*};
}

as_value_name!([] String, [T] &T, [T] Box<T>, [T] Arc<T>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_name_compares_ignoring_case_and_keeps_its_spelling() {
        let written = ValueName::parse("Straße").unwrap();
        let other: ValueName = "STRAßE".parse().unwrap();
        assert_eq!(written, other);
        assert_eq!((written.as_str(), written.folded()), ("Straße", "STRAßE"));
        assert_ne!(written, ValueName::parse("Strasse").unwrap());
    }

    /// As any text that can be given, and as a name that was parsed.
    #[test]
    fn what_a_value_is_looked_up_by_is_the_name_it_holds() {
        fn look_up(name: &(impl AsValueName + ?Sized)) -> (String, String) {
            (name.as_written().to_owned(), name.to_folded().to_string())
        }
        let expected = ("aß".to_owned(), "Aß".to_owned());
        let (owned, boxed, shared) = ("aß".to_owned(), Box::from("aß"), Arc::from("aß"));
        let (boxed, shared): (Box<str>, Arc<str>) = (boxed, shared);
        assert_eq!(look_up("aß"), expected);
        assert_eq!(look_up(&"aß"), expected);
        assert_eq!(look_up(&owned), expected);
        assert_eq!(
            (look_up(&boxed), look_up(&shared)),
            (expected.clone(), expected.clone())
        );
        assert_eq!(look_up(&ValueName::parse("aß").unwrap()), expected);
    }
}
