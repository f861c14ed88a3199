//! Conditions of a batch: what has to hold, when its command's turn comes, for the batch to be committed (specification,
//! section 2).

use std::cmp::Ordering;
use std::fmt;

use super::case_table::upper;
use super::value::{Quoted, Value, ValueRef, ValueType};

/// Which condition; the numbers are the registry's own (specification, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ConditionKind {
    /// The value exists.
    Exists = 11,
    /// The value does not exist.
    NotExists = 12,
    /// The value exists, with the same type and data.
    IsEqual = 13,
    /// The value does not exist, or has another type or other data.
    IsNotEqual = 14,
    /// The stored value is greater than the supplied one, and of the same type.
    IsGreaterThan = 15,
    /// The stored value is less than the supplied one, and of the same type.
    IsLessThan = 16,
    /// The key exists.
    KeyExists = 17,
    /// The key does not exist.
    KeyNotExists = 18,
}

impl ConditionKind {
    /// The name in lower case: `"condition_is_equal"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConditionKind::Exists => "condition_exists",
            ConditionKind::NotExists => "condition_not_exists",
            ConditionKind::IsEqual => "condition_is_equal",
            ConditionKind::IsNotEqual => "condition_is_not_equal",
            ConditionKind::IsGreaterThan => "condition_is_greater_than",
            ConditionKind::IsLessThan => "condition_is_less_than",
            ConditionKind::KeyExists => "condition_key_exists",
            ConditionKind::KeyNotExists => "condition_key_not_exists",
        }
    }
}

/// A condition that did not hold, with what it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCondition {
    /// Which.
    pub kind: ConditionKind,
    /// Full path of the key.
    pub key: String,
    /// The value's name; none for a condition on a key.
    pub name: Option<String>,
    /// What the batch compared with; none for a condition that compares nothing.
    pub expected: Option<Value>,
    /// What stood there; none if there was nothing.
    pub found: Option<Value>,
}

impl fmt::Display for FailedCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not hold for {}", self.kind.name(), Quoted(&self.key))?;
        if let Some(name) = &self.name {
            write!(f, " {}", Quoted(name))?;
        }
        if let Some(expected) = &self.expected {
            write!(f, ": expected {}", shortened(expected))?;
        }
        match (&self.found, &self.name) {
            (Some(found), _) => write!(f, ", found {}", shortened(found)),
            (None, Some(_)) => f.write_str(", found no value"),
            (None, None) => Ok(()),
        }
    }
}

/// A value as a message has room for it.
fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 120;
    let mut text = value.as_ref().to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// How a stored value compares with a supplied one; none if they have different types.
///
/// Integers of the same type, and of their type's length, compare as unsigned integers; SZ, EXPAND_SZ and MULTI_SZ by UTF-16
/// units, ignoring case as names do; all else, and text of an odd number of bytes, byte by byte.
pub(super) fn compare(stored: ValueRef<'_>, supplied: ValueRef<'_>) -> Option<Ordering> {
    if stored.value_type != supplied.value_type {
        return None;
    }
    let by_bytes = || stored.data.cmp(supplied.data);
    Some(match stored.value_type {
        ValueType::DWORD | ValueType::DWORD_BIG_ENDIAN | ValueType::QWORD => {
            let integers = stored.integer().zip(supplied.integer());
            integers.map_or_else(by_bytes, |(stored, supplied)| stored.cmp(&supplied))
        }
        ValueType::SZ | ValueType::EXPAND_SZ | ValueType::MULTI_SZ => {
            let units = folded_units(stored.data).zip(folded_units(supplied.data));
            units.map_or_else(by_bytes, |(stored, supplied)| stored.cmp(&supplied))
        }
        _ => by_bytes(),
    })
}

/// The UTF-16 units of a text, upper-cased one character to one character; half a surrogate pair stays as it is. None if
/// the bytes are no whole units.
fn folded_units(data: &[u8]) -> Option<Vec<u16>> {
    let (units, []) = data.as_chunks::<2>() else {
        return None;
    };
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let mut folded = Vec::with_capacity(data.len() / 2);
    for decoded in char::decode_utf16(units) {
        match decoded {
            Ok(c) => folded.extend_from_slice(upper(c).encode_utf16(&mut [0; 2])),
            Err(lone) => folded.push(lone.unpaired_surrogate()),
        }
    }
    Some(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(stored: &Value, supplied: &Value) -> Option<Ordering> {
        compare(stored.as_ref(), supplied.as_ref())
    }

    fn text(units: &[u16]) -> Value {
        let bytes: Vec<_> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        Value::new(ValueType::SZ, bytes)
    }

    #[test]
    fn a_message_shows_only_the_beginning_of_a_long_value() {
        let long = Value::sz(&"é".repeat(1 << 20));
        let failed = FailedCondition {
            kind: ConditionKind::IsEqual,
            key: "K".to_owned(),
            name: Some("v".to_owned()),
            expected: Some(Value::dword(1)),
            found: Some(long),
        };
        let text = failed.to_string();
        assert!(
            text.contains("expected dword 1, found sz \"éé") && text.ends_with("é…"),
            "{text}"
        );
        assert!(text.len() < 500);
    }

    /// Section 2: the same integer type compares as unsigned integers, whatever the byte order.
    #[test]
    fn integers_compare_as_unsigned_integers() {
        assert_eq!(
            order(&Value::dword(256), &Value::dword(2)),
            Some(Ordering::Greater)
        );
        assert_eq!(
            order(&Value::dword(u32::MAX), &Value::dword(1)),
            Some(Ordering::Greater)
        );
        let big_endian = Value::dword_big_endian;
        assert_eq!(order(&big_endian(2), &big_endian(256)), Some(Ordering::Less));
        assert_eq!(
            order(&Value::qword(1 << 40), &Value::qword(7)),
            Some(Ordering::Greater)
        );
        let short = Value::new(ValueType::DWORD, [9]);
        assert_eq!(
            order(&short, &Value::dword(1)),
            Some(Ordering::Greater),
            "byte by byte"
        );
    }

    /// Section 2: text by UTF-16 units ignoring case, as names do.
    #[test]
    fn text_compares_by_units_ignoring_case() {
        assert_eq!(order(&Value::sz("ABC"), &Value::sz("abc")), Some(Ordering::Equal));
        assert_eq!(order(&Value::sz("b"), &Value::sz("A")), Some(Ordering::Greater));
        assert_eq!(order(&Value::sz("ab"), &Value::sz("abc")), Some(Ordering::Less));
        assert_eq!(order(&Value::sz("ß"), &Value::sz("SS")), Some(Ordering::Greater));
        let (astral, high) = (Value::sz("\u{10428}"), Value::sz("\u{ffff}"));
        assert_eq!(
            order(&astral, &high),
            Some(Ordering::Less),
            "by units, not by characters"
        );
        assert_eq!(
            order(&astral, &Value::sz("\u{10400}")),
            Some(Ordering::Equal),
            "Deseret has case"
        );
        assert_eq!(order(&text(&[0xd801]), &text(&[0xd800])), Some(Ordering::Greater));
        let list = |items: &[&str]| Value::multi_sz(items);
        assert_eq!(
            order(&list(&["a", "B"]), &list(&["A", "b"])),
            Some(Ordering::Equal)
        );
        let odd = Value::new(ValueType::SZ, *b"a\0b");
        assert_eq!(
            order(&odd, &Value::sz("A")),
            Some(Ordering::Greater),
            "byte by byte"
        );
    }

    #[test]
    fn everything_else_compares_byte_by_byte_and_types_must_be_the_same() {
        assert_eq!(
            order(&Value::binary([1, 2]), &Value::binary([1, 2, 0])),
            Some(Ordering::Less)
        );
        assert_eq!(order(&Value::sz("a"), &Value::expand_sz("a")), None);
        assert_eq!(order(&Value::dword(1), &Value::dword_big_endian(1)), None);
    }
}
