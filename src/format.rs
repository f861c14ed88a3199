//! What all files of a store have in common: little-endian fields, and the preamble that names kind and version.

use std::path::Path;

use crate::env::File;
use crate::error::{Error, IoContext, Result};

/// The version of the format. Before 1.0 every change of any file bumps it, and other versions are refused.
pub(crate) const FORMAT_VERSION: u32 = 3;

/// Magic, version, and a checksum of both that no version will ever move: so a newer file is told from a damaged one.
pub(crate) const PREAMBLE_BYTES: usize = VERSION_CHECKSUM + 4;
const VERSION: usize = 8;
const VERSION_CHECKSUM: usize = VERSION + 4;

/// The first eight bytes of each kind of file.
pub(crate) type Magic = [u8; 8];
pub(crate) const STORE_MAGIC: Magic = *b"CLUSDBst";
pub(crate) const SEGMENT_MAGIC: Magic = *b"CLUSDBsg";
pub(crate) const HEAD_MAGIC: Magic = *b"CLUSDBhd";
pub(crate) const PORT_MAGIC: Magic = *b"CLUSDBpt";
pub(crate) const BACKUP_MAGIC: Magic = *b"CLUSDBbk";
pub(crate) const NOTE_MAGIC: Magic = *b"CLUSDBtn";
pub(crate) const SNAPSHOT_MAGIC: Magic = *b"CLUSDBsn";
pub(crate) const SIDECAR_MAGIC: Magic = *b"CLUSDBix";

pub(crate) fn put<const N: usize>(bytes: &mut [u8], offset: usize, field: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&field);
}

/// The field of `N` bytes at a constant offset of a header whose length has been checked.
pub(crate) fn get<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

pub(crate) fn get_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(get(bytes, offset))
}

pub(crate) fn get_u64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(get(bytes, offset))
}

pub(crate) fn put_preamble(bytes: &mut [u8], magic: Magic) {
    put(bytes, 0, magic);
    put(bytes, VERSION, FORMAT_VERSION.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..VERSION_CHECKSUM]);
    put(bytes, VERSION_CHECKSUM, checksum.to_le_bytes());
}

/// Checks the first [`PREAMBLE_BYTES`] of a file.
pub(crate) fn check_preamble(bytes: &[u8], magic: Magic, file: &Path) -> Result<()> {
    let Some(preamble) = bytes.get(..PREAMBLE_BYTES) else {
        let found = format!("{} bytes", bytes.len());
        return Err(Error::damaged(file, 0, "a preamble of 16 bytes", found));
    };
    let found: Magic = get(preamble, 0);
    if found != magic {
        let expected = format!("the magic {:?}", magic.escape_ascii().to_string());
        let found = format!("{:?}", found.escape_ascii().to_string());
        return Err(Error::damaged(file, 0, expected, found));
    }
    check_checksum(
        &preamble[..VERSION_CHECKSUM],
        get_u32(preamble, VERSION_CHECKSUM),
        file,
        VERSION as u64,
        "the preamble's checksum",
    )?;
    match get_u32(preamble, VERSION) {
        FORMAT_VERSION => Ok(()),
        found => Err(Error::UnsupportedVersion {
            file: file.to_owned(),
            found,
            supported: FORMAT_VERSION,
        }),
    }
}

/// Checks that `bytes` have the checksum that the file holds for them.
pub(crate) fn check_checksum(bytes: &[u8], stored: u32, file: &Path, offset: u64, what: &str) -> Result<()> {
    let computed = crc32fast::hash(bytes);
    if computed == stored {
        return Ok(());
    }
    let expected = format!("{what} {computed:#010x}");
    Err(Error::damaged(file, offset, expected, format!("{stored:#010x}")))
}

/// Reads a whole file of at most `maximum` bytes.
pub(crate) fn read_whole(file: &dyn File, path: &Path, maximum: u64) -> Result<Vec<u8>> {
    let length = file.length().context("read the length of", path)?;
    if length > maximum {
        let expected = format!("at most {maximum} bytes");
        return Err(Error::damaged(path, maximum, expected, format!("{length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).context("read", path)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_unsupported_and_a_flipped_one_is_damage() {
        let mut bytes = [0; PREAMBLE_BYTES];
        put_preamble(&mut bytes, STORE_MAGIC);
        let check = |bytes: &[u8]| check_preamble(bytes, STORE_MAGIC, Path::new("store"));
        assert!(check(&bytes).is_ok());

        let mut newer = bytes;
        put(&mut newer, VERSION, (FORMAT_VERSION + 1).to_le_bytes());
        assert!(matches!(check(&newer), Err(Error::Damaged { offset: 8, .. })));
        let checksum = crc32fast::hash(&newer[..VERSION_CHECKSUM]);
        put(&mut newer, VERSION_CHECKSUM, checksum.to_le_bytes());
        assert!(matches!(
            check(&newer),
            Err(Error::UnsupportedVersion {
                found: 4,
                supported: 3,
                ..
            })
        ));
        assert!(matches!(
            check(&bytes[..15]),
            Err(Error::Damaged { offset: 0, .. })
        ));
        bytes[0] ^= 1;
        assert!(matches!(check(&bytes), Err(Error::Damaged { offset: 0, .. })));
    }
}
