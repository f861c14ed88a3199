//! How the entries of a state are encoded in a tree, and what stands beside them. `docs/format.md` has the bytes.

use super::TreeFault;
use crate::epoch::Epoch;
use crate::format::{FORMAT_VERSION, get, get_u32, get_u64, put};
use crate::model::case_table::CASE_TABLE_ID;
use crate::model::{Digest, EntryName, NameRef, Stored, StoredRef, ValueRef, ValueType};

/// Between a key's path and the kind of the entry. No path has a NUL, and it sorts before all that a path has, so that
/// a key comes before its values, and these before the keys below it.
const END_OF_PATH: u8 = 0;
const KEY: u8 = b'k';
const VALUE: u8 = b'v';
/// Not the beginning of any UTF-8 text, and behind all of it.
const META_NAME: &[u8] = b"\xffmeta";

pub(crate) fn encode_name(name: &EntryName) -> Vec<u8> {
    let value = name.value.as_deref().unwrap_or_default();
    let mut bytes = Vec::with_capacity(name.key.len() + 2 + value.len());
    bytes.extend_from_slice(name.key.as_bytes());
    bytes.extend_from_slice(&[END_OF_PATH, if name.value.is_some() { VALUE } else { KEY }]);
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// What the names of all entries at or below a key begin with.
pub(crate) fn prefixes_below(folded_path: &str) -> [Vec<u8>; 2] {
    [&[END_OF_PATH][..], b"\\"].map(|end| [folded_path.as_bytes(), end].concat())
}

/// The folded path whose subtree goes, if this is the prefix of the key's own entries.
pub(crate) fn subtree_of_prefix(prefix: &[u8]) -> Option<&[u8]> {
    prefix.strip_suffix(&[END_OF_PATH])
}

pub(crate) fn encode_entry(stored: &Stored) -> Vec<u8> {
    match stored {
        Stored::Key { path, last_write } => [&last_write.to_le_bytes(), path.as_bytes()].concat(),
        Stored::Value { name, value } => [
            &value.value_type().0.to_le_bytes(),
            &(name.len() as u32).to_le_bytes(),
            name.as_bytes(),
            value.data(),
        ]
        .concat(),
    }
}

/// An entry, borrowed from its encoded name and its bytes.
pub(crate) fn decode_entry<'a>(
    name: &'a [u8],
    bytes: &'a [u8],
) -> Result<(NameRef<'a>, StoredRef<'a>), TreeFault> {
    let malformed = TreeFault::Malformed("a malformed entry");
    decode(name, bytes).ok_or(malformed)
}

pub(crate) fn decode_name(name: &[u8]) -> Option<NameRef<'_>> {
    let end = name.iter().position(|byte| *byte == END_OF_PATH)?;
    let key = str::from_utf8(&name[..end]).ok()?;
    let (kind, value_name) = name.get(end + 1..)?.split_first()?;
    let value = match *kind {
        KEY if value_name.is_empty() => None,
        VALUE => Some(str::from_utf8(value_name).ok()?),
        _ => return None,
    };
    Some(NameRef { key, value })
}

fn decode<'a>(name: &'a [u8], bytes: &'a [u8]) -> Option<(NameRef<'a>, StoredRef<'a>)> {
    let name = decode_name(name)?;
    let stored = match name.value {
        None => {
            let (last_write, path_as_stored) = bytes.split_first_chunk()?;
            StoredRef::Key {
                path: str::from_utf8(path_as_stored).ok()?,
                last_write: i64::from_le_bytes(*last_write),
            }
        }
        Some(_) => {
            let (value_type, rest) = bytes.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (spelling, data) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            let value_type = ValueType(u32::from_le_bytes(*value_type));
            StoredRef::Value {
                name: str::from_utf8(spelling).ok()?,
                value: ValueRef { value_type, data },
            }
        }
    };
    Some((name, stored))
}

/// What a tree is a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) epoch: Epoch,
    /// The state is that after the record of this sequence number.
    pub(crate) sequence: u64,
    /// The checksum of that record's frame.
    pub(crate) frame_checksum: u32,
    pub(crate) digest: Digest,
}

const CASE_TABLE: usize = 4;
const EPOCH: usize = 8;
const SEQUENCE: usize = 24;
const SUM: usize = 32;
const KEYS: usize = 48;
const VALUES: usize = 56;
const BYTES: usize = 64;
const FRAME_CHECKSUM: usize = 72;
const CHECKSUM: usize = 76;
pub(crate) const META_BYTES: usize = 80;

impl Meta {
    /// The name of the entry that holds it.
    pub(crate) fn name() -> &'static [u8] {
        META_NAME
    }

    pub(crate) fn encode(&self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        put(&mut bytes, 0, FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, CASE_TABLE, CASE_TABLE_ID.to_le_bytes());
        put(&mut bytes, EPOCH, self.epoch.to_bytes());
        put(&mut bytes, SEQUENCE, self.sequence.to_le_bytes());
        put(&mut bytes, SUM, self.digest.sum.to_le_bytes());
        put(&mut bytes, KEYS, self.digest.keys.to_le_bytes());
        put(&mut bytes, VALUES, self.digest.values.to_le_bytes());
        put(&mut bytes, BYTES, self.digest.bytes.to_le_bytes());
        put(&mut bytes, FRAME_CHECKSUM, self.frame_checksum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKSUM]);
        put(&mut bytes, CHECKSUM, checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Meta, TreeFault> {
        if bytes.len() != META_BYTES || get_u32(bytes, CHECKSUM) != crc32fast::hash(&bytes[..CHECKSUM]) {
            return Err(TreeFault::Malformed("a damaged description of itself"));
        }
        if get_u32(bytes, 0) != FORMAT_VERSION || get_u32(bytes, CASE_TABLE) != CASE_TABLE_ID {
            return Err(TreeFault::Malformed("the format of another version"));
        }
        Ok(Meta {
            epoch: Epoch::from_bytes(get(bytes, EPOCH)),
            sequence: get_u64(bytes, SEQUENCE),
            frame_checksum: get_u32(bytes, FRAME_CHECKSUM),
            digest: Digest {
                sum: u128::from_le_bytes(get(bytes, SUM)),
                keys: get_u64(bytes, KEYS),
                values: get_u64(bytes, VALUES),
                bytes: get_u64(bytes, BYTES),
            },
        })
    }
}
