//! Key paths and value names: what is valid, and how they compare (specification, section 6).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::case_table;
use super::error::{Limit, LimitExceeded, NameError};
use super::folded::Folded;

/// Separates the components of a path.
pub const SEPARATOR: char = '\\';
/// UTF-16 units in one component of a path, at most.
pub const MAX_KEY_NAME_UNITS: u64 = 255;
/// UTF-16 units in the name of a value, at most.
pub const MAX_VALUE_NAME_UNITS: u64 = 16_383;
/// Components of a path, at most.
pub const MAX_KEY_DEPTH: u64 = 512;

/// The path of a key, from the root or relative to another key.
///
/// Kept as written, compared ignoring case by the pinned [case table](super::case_table). The empty path is the
/// root (or, relative to a key, that key). Cloning is cheap.
#[derive(Clone)]
pub struct KeyPath {
    text: Arc<str>,
    folded: Arc<str>,
}

impl KeyPath {
    /// The root: the empty path.
    #[must_use]
    pub fn root() -> KeyPath {
        let empty: Arc<str> = Arc::from("");
        KeyPath {
            text: Arc::clone(&empty),
            folded: empty,
        }
    }

    /// Reads a path of components separated by `\`.
    ///
    /// # Errors
    /// An empty component (so also a `\` at either end), a NUL, a component of more than 255 UTF-16 units, more
    /// than 512 components.
    pub fn parse(path: &str) -> Result<KeyPath, NameError> {
        if path.is_empty() {
            return Ok(KeyPath::root());
        }
        let mut offset = 0;
        let mut depth = 0;
        for component in path.split(SEPARATOR) {
            if component.is_empty() {
                return Err(NameError::EmptyComponent {
                    path: path.to_owned(),
                    offset,
                });
            }
            check_name(component, Limit::KeyNameUnits, MAX_KEY_NAME_UNITS)?;
            offset += component.len() + SEPARATOR.len_utf8();
            depth += 1;
        }
        LimitExceeded::check(Limit::KeyDepth, MAX_KEY_DEPTH, depth)?;
        Ok(KeyPath::from_valid(path))
    }

    /// A path that is known to be valid, because a store held it.
    pub(crate) fn from_valid(path: &str) -> KeyPath {
        let text: Arc<str> = Arc::from(path);
        let folded = if case_table::is_folded(path) {
            Arc::clone(&text)
        } else {
            Arc::from(&*Folded::of(path))
        };
        KeyPath { text, folded }
    }

    /// This path followed by `relative`.
    ///
    /// # Errors
    /// More than 512 components together.
    pub fn join(&self, relative: &KeyPath) -> Result<KeyPath, NameError> {
        if relative.is_root() {
            return Ok(self.clone());
        }
        if self.is_root() {
            return Ok(relative.clone());
        }
        let depth = self.depth() + relative.depth();
        LimitExceeded::check(Limit::KeyDepth, MAX_KEY_DEPTH, depth as u64)?;
        let concatenate = |above: &str, below: &str| Arc::from(format!("{above}{SEPARATOR}{below}"));
        Ok(KeyPath {
            text: concatenate(&self.text, &relative.text),
            folded: concatenate(&self.folded, &relative.folded),
        })
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path as it compares: upper-cased by the case table.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// The same, to be kept.
    pub(super) fn folded_arc(&self) -> &Arc<str> {
        &self.folded
    }

    /// Whether this is the empty path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// The number of components.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The components, from the top down.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.text.split(SEPARATOR).filter(|name| !name.is_empty())
    }

    /// The path without its last component; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<KeyPath> {
        parent(&self.text).map(KeyPath::from_valid)
    }

    /// Whether this path is `ancestor` itself or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &KeyPath) -> bool {
        is_at_or_below(&self.folded, &ancestor.folded)
    }
}

impl PartialEq for KeyPath {
    fn eq(&self, other: &KeyPath) -> bool {
        self.folded == other.folded
    }
}

impl Eq for KeyPath {}

impl Hash for KeyPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPath({:?})", self.text)
    }
}

impl std::str::FromStr for KeyPath {
    type Err = NameError;

    fn from_str(path: &str) -> Result<KeyPath, NameError> {
        KeyPath::parse(path)
    }
}

pub(super) fn check_name(name: &str, limit: Limit, maximum: u64) -> Result<(), NameError> {
    if let Some(offset) = name.find('\0') {
        return Err(NameError::Nul {
            name: name.to_owned(),
            offset,
        });
    }
    // A UTF-8 string never has more UTF-16 units than bytes, so that most names need no counting.
    if name.len() as u64 > maximum {
        LimitExceeded::check(limit, maximum, name.encode_utf16().count() as u64)?;
    }
    Ok(())
}

/// Whether a full path of a record is one that a key can have: separators between names, no NUL, and no deeper than keys are.
/// For each record that is read, and so one pass over the bytes without a branch; how long a name is does not matter there.
pub(crate) fn is_path(path: &str) -> bool {
    let (mut is_bad, mut after_separator, mut depth) = (false, true, 1);
    for byte in path.bytes() {
        let is_separator = byte == SEPARATOR as u8;
        is_bad |= (byte == 0) | (is_separator & after_separator);
        depth += u64::from(is_separator);
        after_separator = is_separator;
    }
    path.is_empty() || !is_bad && !after_separator && depth <= MAX_KEY_DEPTH
}

/// The path above `path`; none for the root. Works on stored and folded paths alike.
pub(crate) fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once(SEPARATOR) {
        Some((above, _)) => Some(above),
        None if path.is_empty() => None,
        None => Some(""),
    }
}

/// The last component of `path`; empty for the root.
pub(crate) fn last_component(path: &str) -> &str {
    path.rsplit_once(SEPARATOR).map_or(path, |(_, name)| name)
}

/// `parent` + `\` + `name`, without a separator below the root.
pub(crate) fn child(parent: &str, name: &str) -> String {
    let mut path = String::with_capacity(parent.len() + 1 + name.len());
    set_child(&mut path, parent, name);
    path
}

/// The same, in place of what is there.
pub(super) fn set_child(path: &mut String, parent: &str, name: &str) {
    path.clear();
    path.push_str(parent);
    if !parent.is_empty() {
        path.push(SEPARATOR);
    }
    path.push_str(name);
}

/// Every proper ancestor of `path`, the nearest first, the root last.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |above| parent(above))
}

/// Whether the folded `path` is the folded `ancestor` or below it.
pub(crate) fn is_at_or_below(path: &str, ancestor: &str) -> bool {
    match path.strip_prefix(ancestor) {
        Some(rest) => rest.is_empty() || ancestor.is_empty() || rest.starts_with(SEPARATOR),
        None => false,
    }
}

/// How a record's path lies to a port's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The same key, or one below it.
    AtOrBelow,
    /// A key above it.
    Above,
    /// Neither.
    Apart,
}

/// Compares `path`, in any case, with the folded path `key`, without allocating.
pub(crate) fn relation(path: &str, key: &str) -> Relation {
    // Bytes that are equal but for the case of ASCII letters are equal as names.
    if let Some(begin) = path.as_bytes().get(..key.len())
        && begin.eq_ignore_ascii_case(key.as_bytes())
        && (key.is_empty() || matches!(path.as_bytes().get(key.len()), None | Some(b'\\')))
    {
        return Relation::AtOrBelow;
    }
    let mut path_chars = path.chars();
    let mut key_chars = key.chars();
    loop {
        let before = path_chars.as_str();
        match (path_chars.next(), key_chars.next()) {
            (None, None) => return Relation::AtOrBelow,
            (Some(next), None) if next == SEPARATOR || key.is_empty() => {
                return Relation::AtOrBelow;
            }
            (None, Some(next)) if next == SEPARATOR || before.len() == path.len() => {
                return Relation::Above;
            }
            (Some(a), Some(b)) if a == b || case_table::upper(a) == b => {}
            _ => return Relation::Apart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ValueName;

    #[test]
    fn an_empty_component_is_refused_with_its_place() {
        for (path, offset) in [("\\", 0), ("A\\", 2), ("\\A", 0), ("A\\\\B", 2)] {
            let error = KeyPath::parse(path).unwrap_err();
            let path = path.to_owned();
            assert_eq!(error, NameError::EmptyComponent { path, offset });
        }
    }

    #[test]
    fn a_path_of_a_record_is_one_that_can_be_parsed() {
        let deepest = vec!["k"; 512].join("\\");
        let too_deep = format!("{deepest}\\k");
        let paths = [
            "",
            "A",
            "A\\b",
            "é\\\u{10400}",
            "\\",
            "A\\",
            "\\A",
            "A\\\\B",
            "A\0",
            &deepest,
            &too_deep,
        ];
        for path in paths {
            assert_eq!(is_path(path), KeyPath::parse(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_component_may_have_255_utf16_units_and_no_more() {
        assert!(KeyPath::parse(&"é".repeat(255)).is_ok());
        let error = KeyPath::parse(&"𝄞".repeat(128)).unwrap_err();
        let expected = LimitExceeded {
            limit: Limit::KeyNameUnits,
            maximum: 255,
            found: 256,
        };
        assert_eq!(error, NameError::Limit(expected));
    }

    #[test]
    fn a_path_may_have_512_levels_and_no_more() {
        let deepest = vec!["k"; 512].join("\\");
        let path = KeyPath::parse(&deepest).unwrap();
        assert_eq!(path.depth(), 512);
        assert!(KeyPath::parse(&format!("{deepest}\\k")).is_err());
        assert!(path.join(&KeyPath::parse("k").unwrap()).is_err());
    }

    #[test]
    fn a_nul_is_refused_in_paths_and_value_names() {
        assert!(matches!(
            KeyPath::parse("A\0B"),
            Err(NameError::Nul { offset: 1, .. })
        ));
        assert!(matches!(
            ValueName::parse("A\0"),
            Err(NameError::Nul { offset: 1, .. })
        ));
    }

    #[test]
    fn a_value_name_may_hold_backslashes_and_16383_units() {
        assert!(ValueName::parse("C:\\Windows\\").is_ok());
        assert!(ValueName::parse(&"n".repeat(16_383)).is_ok());
        assert!(ValueName::parse(&"n".repeat(16_384)).is_err());
    }

    #[test]
    fn paths_compare_ignoring_case_and_keep_their_spelling() {
        let written = KeyPath::parse("Straße\\Σίσυφος").unwrap();
        let other = KeyPath::parse("STRAßE\\ΣΊΣΥΦΟΣ").unwrap();
        assert_eq!(written, other);
        assert_eq!(written.as_str(), "Straße\\Σίσυφος");
    }

    #[test]
    fn relation_agrees_with_the_comparison_of_folded_paths() {
        let paths = ["", "A", "a\\b", "A\\Bc", "a\\B\\c", "ab", "É\\x", "é"];
        for path in paths {
            for key in paths {
                let folded = |path: &str| KeyPath::parse(path).unwrap().folded().to_owned();
                let expected = if is_at_or_below(&folded(path), &folded(key)) {
                    Relation::AtOrBelow
                } else if is_at_or_below(&folded(key), &folded(path)) {
                    Relation::Above
                } else {
                    Relation::Apart
                };
                assert_eq!(relation(path, &folded(key)), expected, "{path:?} {key:?}");
            }
        }
    }

    #[test]
    fn ancestors_run_from_the_parent_to_the_root() {
        let all: Vec<_> = ancestors("A\\B\\C").collect();
        assert_eq!(all, ["A\\B", "A", ""]);
        assert_eq!(ancestors("").count(), 0);
    }
}
