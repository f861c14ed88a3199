//! The digest of a state: what tells, in a few bytes, whether a copy of the state is the state.
//!
//! An order-independent sum of one hash for each entry, kept up as changes come. The hash is XXH3-128 with seed 0 over
//! the bytes that `docs/format.md` names; it is not meant to withstand somebody who makes collisions on purpose.

use twox_hash::xxhash3_128;

use super::value::ValueRef;

/// What a state adds up to: equal for two states only if they hold the same keys and values, with the same spelling,
/// types, data and times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// The sum of all entries' hashes, modulo 2^128.
    pub sum: u128,
    /// Keys; the root is one of them.
    pub keys: u64,
    /// Values.
    pub values: u64,
    /// Bytes of all paths, names and data.
    pub bytes: u64,
}

/// Keeps a digest up to date.
#[derive(Debug, Clone, Default)]
pub(super) struct Digester {
    digest: Digest,
    /// Where an entry's bytes are put together.
    entry: Vec<u8>,
}

impl Digester {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn add_key(&mut self, path: &str, last_write: i64) {
        let hash = self.hash_key(path, last_write);
        self.digest.sum = self.digest.sum.wrapping_add(hash);
        self.digest.keys += 1;
        self.digest.bytes += path.len() as u64;
    }

    pub(super) fn remove_key(&mut self, path: &str, last_write: i64) {
        let hash = self.hash_key(path, last_write);
        self.digest.sum = self.digest.sum.wrapping_sub(hash);
        self.digest.keys -= 1;
        self.digest.bytes -= path.len() as u64;
    }

    pub(super) fn add_value(&mut self, folded_key: &str, name: &str, value: ValueRef<'_>) {
        let hash = self.hash_value(folded_key, name, value);
        self.digest.sum = self.digest.sum.wrapping_add(hash);
        self.digest.values += 1;
        self.digest.bytes += (name.len() + value.data.len()) as u64;
    }

    pub(super) fn remove_value(&mut self, folded_key: &str, name: &str, value: ValueRef<'_>) {
        let hash = self.hash_value(folded_key, name, value);
        self.digest.sum = self.digest.sum.wrapping_sub(hash);
        self.digest.values -= 1;
        self.digest.bytes -= (name.len() + value.data.len()) as u64;
    }

    fn hash_key(&mut self, path: &str, last_write: i64) -> u128 {
        self.entry.clear();
        self.entry.push(b'K');
        self.put_text(path);
        self.entry.extend_from_slice(&last_write.to_le_bytes());
        xxhash3_128::Hasher::oneshot(&self.entry)
    }

    fn hash_value(&mut self, folded_key: &str, name: &str, value: ValueRef<'_>) -> u128 {
        self.entry.clear();
        self.entry.push(b'V');
        self.put_text(folded_key);
        self.put_text(name);
        self.entry.extend_from_slice(&value.value_type.0.to_le_bytes());
        self.entry.extend_from_slice(value.data);
        xxhash3_128::Hasher::oneshot(&self.entry)
    }

    fn put_text(&mut self, text: &str) {
        self.entry.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.entry.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    /// Computed by another implementation of XXH3-128 over the bytes that `docs/format.md` names.
    #[test]
    fn an_entry_has_the_documented_hash() {
        let mut digester = Digester::default();
        assert_eq!(
            digester.hash_key("A", 1),
            0xb4ab_c249_53d4_bc71_9999_6ed2_075a_ec51
        );
        let value = Value::dword(7);
        assert_eq!(
            digester.hash_value("A", "n", value.as_ref()),
            0x92e4_4e96_7398_845d_7639_d991_0150_7a57
        );
    }

    #[test]
    fn the_order_does_not_matter_and_what_was_added_is_taken_away_again() {
        let (first, second) = (Value::dword(1), Value::sz("second"));
        let mut one = Digester::default();
        one.add_key("A", 5);
        one.add_value("A", "x", first.as_ref());
        one.add_value("A", "y", second.as_ref());
        let mut other = Digester::default();
        other.add_value("A", "y", second.as_ref());
        other.add_value("A", "gone", second.as_ref());
        other.add_key("A", 5);
        other.remove_value("A", "gone", second.as_ref());
        other.add_value("A", "x", first.as_ref());
        assert_eq!(one.digest(), other.digest());
        assert_eq!(one.digest().bytes, 1 + 1 + 4 + 1 + 14);
    }

    #[test]
    fn every_part_of_an_entry_counts() {
        let mut digester = Digester::default();
        let value = Value::dword(7);
        let typed = ValueRef {
            value_type: crate::model::ValueType::BINARY,
            data: value.data(),
        };
        let hashes = [
            digester.hash_key("A", 1),
            digester.hash_key("a", 1),
            digester.hash_key("A", 2),
            digester.hash_value("A", "n", value.as_ref()),
            digester.hash_value("A", "N", value.as_ref()),
            digester.hash_value("AN", "", value.as_ref()),
            digester.hash_value("A", "n", typed),
            digester.hash_value("A", "n", Value::dword(8).as_ref()),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
    }
}
