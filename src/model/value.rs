//! Typed values (specification, section 6): a type number and bytes, never mended.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The type of a value: a number of the registry. Any number is kept as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueType(pub u32);

impl ValueType {
    /// No type.
    pub const NONE: ValueType = ValueType(0);
    /// UTF-16 text, NUL at the end.
    pub const SZ: ValueType = ValueType(1);
    /// UTF-16 text with references to environment variables.
    pub const EXPAND_SZ: ValueType = ValueType(2);
    /// Bytes.
    pub const BINARY: ValueType = ValueType(3);
    /// 32-bit integer, little-endian.
    pub const DWORD: ValueType = ValueType(4);
    /// 32-bit integer, big-endian.
    pub const DWORD_BIG_ENDIAN: ValueType = ValueType(5);
    /// A symbolic link, as UTF-16 text.
    pub const LINK: ValueType = ValueType(6);
    /// Several UTF-16 strings.
    pub const MULTI_SZ: ValueType = ValueType(7);
    /// 64-bit integer, little-endian.
    pub const QWORD: ValueType = ValueType(11);

    const NAMES: [(ValueType, &'static str); 9] = [
        (ValueType::NONE, "none"),
        (ValueType::SZ, "sz"),
        (ValueType::EXPAND_SZ, "expand_sz"),
        (ValueType::BINARY, "binary"),
        (ValueType::DWORD, "dword"),
        (ValueType::DWORD_BIG_ENDIAN, "dword_big_endian"),
        (ValueType::LINK, "link"),
        (ValueType::MULTI_SZ, "multi_sz"),
        (ValueType::QWORD, "qword"),
    ];

    /// The type's name in lower case (`"expand_sz"`), if the number has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let named = Self::NAMES.iter().find(|(number, _)| *number == self);
        named.map(|(_, name)| *name)
    }

    /// The type with this name in lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ValueType> {
        let named = Self::NAMES.iter().find(|(_, known)| *known == name);
        named.map(|(number, _)| *number)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

/// A value: its type and its data. Cloning allocates nothing: long data is shared, and short data (of 18 bytes at most: a
/// number, a text of 8 characters) is kept in the value itself.
#[derive(Clone)]
pub struct Value(Repr);

#[derive(Clone)]
enum Repr {
    Short {
        value_type: ValueType,
        length: u8,
        bytes: [u8; SHORT_BYTES],
    },
    Long {
        value_type: ValueType,
        data: Arc<[u8]>,
    },
}

/// What fits beside the type and the length where a pointer with its length would stand.
const SHORT_BYTES: usize = 18;
const _: () = assert!(
    size_of::<Value>() == 24,
    "no larger than a type and a pointer with its length"
);

impl Value {
    /// Any type with any bytes, which are kept as they are.
    pub fn new(value_type: ValueType, data: impl Into<Arc<[u8]>>) -> Value {
        let data = data.into();
        Value::short(value_type, &data).unwrap_or(Value(Repr::Long { value_type, data }))
    }

    fn copy(value_type: ValueType, data: &[u8]) -> Value {
        Value::short(value_type, data).unwrap_or_else(|| {
            let data = data.into();
            Value(Repr::Long { value_type, data })
        })
    }

    /// None if the data is too long.
    fn short(value_type: ValueType, data: &[u8]) -> Option<Value> {
        let mut bytes = [0; SHORT_BYTES];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        let length = data.len() as u8;
        Some(Value(Repr::Short {
            value_type,
            length,
            bytes,
        }))
    }

    /// SZ: the text in UTF-16 and one NUL.
    #[must_use]
    pub fn sz(text: &str) -> Value {
        Value::new(ValueType::SZ, utf16_with_nul(text))
    }

    /// EXPAND_SZ: the text in UTF-16 and one NUL.
    #[must_use]
    pub fn expand_sz(text: &str) -> Value {
        Value::new(ValueType::EXPAND_SZ, utf16_with_nul(text))
    }

    /// MULTI_SZ: each string with its NUL, and a NUL at the end. An empty string inside would end the list for
    /// the registry's own readers; it is kept as given.
    #[must_use]
    pub fn multi_sz<S: AsRef<str>>(strings: &[S]) -> Value {
        let mut data = Vec::new();
        for text in strings {
            data.extend(utf16_with_nul(text.as_ref()));
        }
        data.extend([0, 0]);
        Value::new(ValueType::MULTI_SZ, data)
    }

    /// BINARY.
    pub fn binary(data: impl Into<Arc<[u8]>>) -> Value {
        Value::new(ValueType::BINARY, data)
    }

    /// DWORD, little-endian.
    #[must_use]
    pub fn dword(number: u32) -> Value {
        Value::copy(ValueType::DWORD, &number.to_le_bytes())
    }

    /// DWORD_BIG_ENDIAN.
    #[must_use]
    pub fn dword_big_endian(number: u32) -> Value {
        Value::copy(ValueType::DWORD_BIG_ENDIAN, &number.to_be_bytes())
    }

    /// QWORD, little-endian.
    #[must_use]
    pub fn qword(number: u64) -> Value {
        Value::copy(ValueType::QWORD, &number.to_le_bytes())
    }

    /// The number in this type, if it is an integer's and the number fits.
    #[must_use]
    pub fn integer(value_type: ValueType, number: u64) -> Option<Value> {
        match value_type {
            ValueType::DWORD => number.try_into().ok().map(Value::dword),
            ValueType::DWORD_BIG_ENDIAN => number.try_into().ok().map(Value::dword_big_endian),
            ValueType::QWORD => Some(Value::qword(number)),
            _ => None,
        }
    }

    /// The type.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self.0 {
            Repr::Short { value_type, .. } | Repr::Long { value_type, .. } => value_type,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { length, bytes, .. } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Repr::Long { data, .. } => data,
        }
    }

    /// The same value, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        ValueRef {
            value_type: self.value_type(),
            data: self.data(),
        }
    }

    /// The data read by its type; see [`ValueRef::content`].
    #[must_use]
    pub fn content(&self) -> Content<'_> {
        self.as_ref().content()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.as_ref())
    }
}

/// A value whose bytes stand elsewhere: in the state, or in the mapped journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueRef<'a> {
    /// The type.
    pub value_type: ValueType,
    /// The bytes.
    pub data: &'a [u8],
}

/// The data of a value, read by its type where it is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// SZ or EXPAND_SZ: valid UTF-16 with exactly one NUL, at the end (left out here).
    Text(String),
    /// MULTI_SZ: strings that are not empty, each with its NUL, and a NUL at the end.
    Strings(Vec<String>),
    /// DWORD, DWORD_BIG_ENDIAN or QWORD of the right length.
    Integer(u64),
    /// Everything else.
    Bytes(&'a [u8]),
}

impl<'a> ValueRef<'a> {
    /// The data read by its type. What is not well-formed for its type comes as bytes; writing the content back
    /// with the same type gives the same bytes.
    #[must_use]
    pub fn content(&self) -> Content<'a> {
        let read = match self.value_type {
            ValueType::SZ | ValueType::EXPAND_SZ => terminated_text(self.data).map(Content::Text),
            ValueType::MULTI_SZ => terminated_strings(self.data).map(Content::Strings),
            _ => self.integer().map(Content::Integer),
        };
        read.unwrap_or(Content::Bytes(self.data))
    }

    /// The number, if the type is an integer's and the data has its length.
    #[must_use]
    pub fn integer(&self) -> Option<u64> {
        match self.value_type {
            ValueType::DWORD => self
                .data
                .try_into()
                .ok()
                .map(|bytes| u32::from_le_bytes(bytes).into()),
            ValueType::DWORD_BIG_ENDIAN => self
                .data
                .try_into()
                .ok()
                .map(|bytes| u32::from_be_bytes(bytes).into()),
            ValueType::QWORD => self.data.try_into().ok().map(u64::from_le_bytes),
            _ => None,
        }
    }

    /// A value of its own, with a copy of the bytes.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::copy(self.value_type, self.data)
    }
}

/// The type and the data, for people: text quoted, bytes in hex, long data cut.
impl fmt::Display for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES: usize = 32;
        write!(f, "{} ", self.value_type)?;
        match self.content() {
            Content::Text(text) => Quoted(&text).fmt(f),
            Content::Strings(strings) => {
                f.write_str("[")?;
                for (index, text) in strings.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    Quoted(text).fmt(f)?;
                }
                f.write_str("]")
            }
            Content::Integer(number) => write!(f, "{number}"),
            Content::Bytes(data) => {
                for byte in data.iter().take(SHOWN_BYTES) {
                    write!(f, "{byte:02x}")?;
                }
                if data.len() > SHOWN_BYTES {
                    write!(f, "… ({} bytes)", data.len())?;
                }
                Ok(())
            }
        }
    }
}

/// A text for people: in quotes, backslashes as they are, control characters escaped.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueRef({self})")
    }
}

fn utf16_with_nul(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

fn utf16(data: &[u8]) -> Option<String> {
    let (units, []) = data.as_chunks::<2>() else {
        return None;
    };
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    char::decode_utf16(units).collect::<Result<_, _>>().ok()
}

fn terminated_text(data: &[u8]) -> Option<String> {
    let mut text = utf16(data)?;
    (text.pop()? == '\0' && !text.contains('\0')).then_some(text)
}

fn terminated_strings(data: &[u8]) -> Option<Vec<String>> {
    let text = utf16(data)?;
    let body = text.strip_suffix('\0')?;
    if body.is_empty() {
        return Some(Vec::new());
    }
    let strings: Vec<_> = body.strip_suffix('\0')?.split('\0').collect();
    let well_formed = strings.iter().all(|text| !text.is_empty());
    well_formed.then(|| strings.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_only_with_exactly_one_nul_at_its_end() {
        let content = |data: &[u8]| Value::new(ValueType::SZ, data).content().clone_owned();
        assert_eq!(content(b"a\0\0\0"), Ok("a".to_owned()));
        assert_eq!(content(b"\0\0"), Ok(String::new()));
        for raw in [
            &b""[..],
            b"a\0",
            b"a\0\0",
            b"a\0\0\0\0\0",
            b"\0\xd8\0\0",
            b"\0\0a\0\0\0",
        ] {
            assert_eq!(content(raw), Err(raw.to_vec()));
        }
    }

    impl Content<'_> {
        fn clone_owned(self) -> Result<String, Vec<u8>> {
            match self {
                Content::Text(text) => Ok(text),
                Content::Bytes(bytes) => Err(bytes.to_vec()),
                other => panic!("neither text nor bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn strings_are_read_only_when_writing_them_back_gives_the_same_bytes() {
        for strings in [&[][..], &["a"], &["a", "bc"]] {
            let value = Value::multi_sz(strings);
            assert_eq!(
                value.content(),
                Content::Strings(strings.iter().map(|&text| text.to_owned()).collect())
            );
        }
        for raw in [&b""[..], b"a\0", b"a\0\0\0", b"\0\0\0\0", b"a\0\0\0\0\0\0\0"] {
            let value = Value::new(ValueType::MULTI_SZ, raw);
            assert_eq!(value.content(), Content::Bytes(raw));
        }
    }

    #[test]
    fn integers_are_read_by_their_byte_order_and_only_at_their_length() {
        assert_eq!(Value::dword(1).data(), [1, 0, 0, 0]);
        assert_eq!(Value::dword_big_endian(1).data(), [0, 0, 0, 1]);
        assert_eq!(Value::dword(7).content(), Content::Integer(7));
        assert_eq!(Value::dword_big_endian(7).content(), Content::Integer(7));
        assert_eq!(Value::qword(u64::MAX).content(), Content::Integer(u64::MAX));
        let short = Value::new(ValueType::QWORD, [1, 2, 3, 4]);
        assert_eq!(short.content(), Content::Bytes(&[1, 2, 3, 4]));
    }

    #[test]
    fn data_of_any_length_is_kept_and_compared_as_it_is() {
        let bytes: Vec<_> = (0..40).collect();
        for length in 0..bytes.len() {
            let value = Value::binary(&bytes[..length]);
            assert_eq!(value.data(), &bytes[..length]);
            assert_eq!((&value.clone(), &value.as_ref().to_value()), (&value, &value));
            for other in 0..bytes.len() {
                assert_eq!(value == Value::binary(&bytes[..other]), length == other);
            }
            let typed = Value::new(ValueType::SZ, &bytes[..length]);
            assert!(typed != value && typed.value_type() == ValueType::SZ);
        }
    }

    #[test]
    fn every_type_name_leads_back_to_its_number() {
        for number in 0..20 {
            if let Some(name) = ValueType(number).name() {
                assert_eq!(ValueType::from_name(name), Some(ValueType(number)));
            }
        }
        assert_eq!(ValueType(11).name(), Some("qword"));
        assert_eq!(ValueType(8).name(), None);
    }
}
