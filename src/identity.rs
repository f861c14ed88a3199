//! The store file: what a store is, from its creation on. Where it stands, the store is complete.
//!
//! It holds the format's version, the case table, and the lineage: which epoch begins at which sequence number. It
//! is never written in place; `write_aside` replaces it.

use std::path::Path;

use crate::env::Env;
use crate::epoch::Epoch;
use crate::error::{Error, IoContext, Result};
use crate::format::{self, PREAMBLE_BYTES, STORE_MAGIC, get, get_u32, get_u64, put};
use crate::layout::write_aside;
use crate::model::case_table::CASE_TABLE_ID;

const CASE_TABLE: usize = PREAMBLE_BYTES;
const LINEAGE_COUNT: usize = CASE_TABLE + 4;
const CREATED: usize = LINEAGE_COUNT + 4;
/// The sequence number below which the journal may have been trimmed; 1 as long as nothing trims it.
const TRIM_BASE: usize = CREATED + 8;
const LINEAGE: usize = TRIM_BASE + 8;
/// An entry of the lineage: the epoch, and the first sequence number committed under it.
const ENTRY_BYTES: usize = 16 + 8;
/// Behind the lineage: a checksum of all before it, and four zero bytes.
const TRAILER_BYTES: usize = 8;
/// A lineage of 40,000 epochs; no store gets near.
const MAX_BYTES: u64 = 1 << 20;

/// The identity of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) created: i64,
    pub(crate) trim_base: u64,
    /// Epochs with their first sequence numbers, the oldest first; never empty.
    lineage: Vec<(Epoch, u64)>,
}

impl Identity {
    pub(crate) fn new(epoch: Epoch, created: i64) -> Identity {
        Identity {
            created,
            trim_base: 1,
            lineage: vec![(epoch, 1)],
        }
    }

    /// The epoch that commits are made under.
    pub(crate) fn epoch(&self) -> Epoch {
        self.lineage[self.lineage.len() - 1].0
    }

    /// The epoch that this sequence number was committed under.
    pub(crate) fn epoch_of(&self, sequence: u64) -> Epoch {
        let later = self.lineage.partition_point(|(_, first)| *first <= sequence);
        self.lineage[later.saturating_sub(1)].0
    }

    /// Whether this sequence number was committed under this epoch. Nothing was under the number 0, which belongs to every history.
    pub(crate) fn has(&self, epoch: Epoch, sequence: u64) -> bool {
        sequence == 0 || self.epoch_of(sequence) == epoch
    }

    /// Whether it is the same history, trimmed or not.
    pub(crate) fn is_same_history(&self, other: &Identity) -> bool {
        self.lineage == other.lineage
    }

    /// The last sequence number that was, or may yet be, committed under this epoch; 0 if it is not part of the history.
    pub(crate) fn end_of(&self, epoch: Epoch) -> u64 {
        let Some(index) = self.lineage.iter().position(|(known, _)| *known == epoch) else {
            return 0;
        };
        let next = self.lineage.get(index + 1);
        next.map_or(u64::MAX, |(_, first)| first - 1)
    }

    /// The same store after its journal was trimmed.
    pub(crate) fn trimmed(&self, trim_base: u64) -> Identity {
        Identity {
            trim_base,
            ..self.clone()
        }
    }

    /// The same store, whose history goes on from this sequence number in a branch of its own.
    pub(crate) fn branched(&self, epoch: Epoch, first: u64) -> Identity {
        let mut branch = self.clone();
        // An epoch under which nothing was committed, or will be, is not part of the history.
        branch.lineage.retain(|(_, began)| *began < first);
        branch.lineage.push((epoch, first));
        branch
    }

    pub(crate) fn write(&self, env: &dyn Env, path: &Path) -> Result<()> {
        write_aside(env, path, &self.encode())
    }

    pub(crate) fn read(env: &dyn Env, path: &Path) -> Result<Identity> {
        let file = env.open_file(path).context("open", path)?;
        Identity::decode(&format::read_whole(&*file, path, MAX_BYTES)?, path)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let checksum_at = LINEAGE + self.lineage.len() * ENTRY_BYTES;
        let mut bytes = vec![0; checksum_at + TRAILER_BYTES];
        format::put_preamble(&mut bytes, STORE_MAGIC);
        put(&mut bytes, CASE_TABLE, CASE_TABLE_ID.to_le_bytes());
        put(
            &mut bytes,
            LINEAGE_COUNT,
            (self.lineage.len() as u32).to_le_bytes(),
        );
        put(&mut bytes, CREATED, self.created.to_le_bytes());
        put(&mut bytes, TRIM_BASE, self.trim_base.to_le_bytes());
        for (index, (epoch, first)) in self.lineage.iter().enumerate() {
            let at = LINEAGE + index * ENTRY_BYTES;
            put(&mut bytes, at, epoch.to_bytes());
            put(&mut bytes, at + 16, first.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..checksum_at]);
        put(&mut bytes, checksum_at, checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Identity> {
        format::check_preamble(bytes, STORE_MAGIC, path)?;
        let damaged = |offset: usize, expected: &str, found: String| {
            Err(Error::damaged(path, offset as u64, expected, found))
        };
        if bytes.len() < LINEAGE + ENTRY_BYTES + TRAILER_BYTES {
            return damaged(bytes.len(), "a lineage", "the end of the file".into());
        }
        let checksum_at = bytes.len() - TRAILER_BYTES;
        let stored = get_u32(bytes, checksum_at);
        let offset = checksum_at as u64;
        format::check_checksum(&bytes[..checksum_at], stored, path, offset, "the checksum")?;
        if get_u32(bytes, checksum_at + 4) != 0 {
            return damaged(checksum_at + 4, "zeroes", "other bytes".into());
        }
        let found = get_u32(bytes, CASE_TABLE);
        if found != CASE_TABLE_ID {
            return Err(Error::CaseTable {
                file: path.to_owned(),
                found,
                expected: CASE_TABLE_ID,
            });
        }
        let (entries, rest) = bytes[LINEAGE..checksum_at].as_chunks::<ENTRY_BYTES>();
        let count = get_u32(bytes, LINEAGE_COUNT);
        if !rest.is_empty() || entries.len() as u64 != u64::from(count) {
            return damaged(LINEAGE_COUNT, "the length of the lineage", count.to_string());
        }
        let trim_base = get_u64(bytes, TRIM_BASE);
        if trim_base == 0 {
            return damaged(TRIM_BASE, "a sequence number", "0".into());
        }
        let lineage = entries
            .iter()
            .map(|entry| (Epoch::from_bytes(get(entry, 0)), get_u64(entry, 16)))
            .collect();
        Ok(Identity {
            created: get_u64(bytes, CREATED).cast_signed(),
            trim_base,
            lineage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        let mut identity = Identity::new(Epoch::from_bytes([1; 16]), 5);
        identity.lineage.push((Epoch::from_bytes([2; 16]), 10));
        identity
    }

    #[test]
    fn an_identity_is_read_as_it_was_written_and_no_flipped_bit_is_accepted() {
        let bytes = sample().encode();
        assert_eq!(Identity::decode(&bytes, Path::new("store")).unwrap(), sample());
        for offset in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[offset] ^= 4;
            let error = Identity::decode(&flipped, Path::new("store")).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{offset}: {error}");
        }
        for cut in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..cut], Path::new("store")).is_err());
        }
    }

    #[test]
    fn another_case_table_is_refused_by_name() {
        let mut bytes = sample().encode();
        put(&mut bytes, CASE_TABLE, 99u32.to_le_bytes());
        let end = bytes.len() - TRAILER_BYTES;
        let checksum = crc32fast::hash(&bytes[..end]);
        put(&mut bytes, end, checksum.to_le_bytes());
        let error = Identity::decode(&bytes, Path::new("store")).unwrap_err();
        assert!(matches!(error, Error::CaseTable { found: 99, .. }), "{error}");
    }

    #[test]
    fn each_sequence_number_belongs_to_the_epoch_that_it_was_committed_under() {
        let identity = sample();
        let epoch = |byte| Epoch::from_bytes([byte; 16]);
        assert_eq!(identity.epoch_of(9), epoch(1));
        assert_eq!(identity.epoch_of(10), epoch(2));
        assert_eq!(identity.epoch(), epoch(2));
        let ends = [1, 2, 3].map(|byte| identity.end_of(epoch(byte)));
        assert_eq!(ends, [9, u64::MAX, 0]);
    }

    #[test]
    fn a_branch_leaves_out_the_epochs_that_it_does_not_go_on_from() {
        let epoch = |byte| Epoch::from_bytes([byte; 16]);
        let branch = sample().branched(epoch(3), 12);
        assert_eq!(
            [9, 10, 12].map(|sequence| branch.epoch_of(sequence)),
            [1, 2, 3].map(epoch)
        );
        let branch = sample().branched(epoch(3), 10);
        assert_eq!(branch.end_of(epoch(2)), 0);
        assert_eq!(
            [9, 10].map(|sequence| branch.epoch_of(sequence)),
            [1, 3].map(epoch)
        );
    }
}
