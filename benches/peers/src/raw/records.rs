//! Checksummed records in a mapped file, walked by hand.
//!
//! A record is a change entry as the peers have it, behind its length and its CRC32. The walk checks each checksum and decodes the same
//! fields as everyone, texts checked to be UTF-8.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clusdb::KeyPath;
use memmap2::Mmap;

use crate::codec;
use crate::peer::Change;

pub struct RecordsWriter(BufWriter<File>);

impl RecordsWriter {
    pub fn create(path: &Path) -> Result<RecordsWriter> {
        Ok(RecordsWriter(BufWriter::new(File::create_new(path)?)))
    }

    pub fn push(&mut self, entry: &[u8]) -> Result<()> {
        self.0.write_all(&(entry.len() as u32).to_le_bytes())?;
        self.0.write_all(&crc32fast::hash(entry).to_le_bytes())?;
        Ok(self.0.write_all(entry)?)
    }

    /// What was pushed is in the file when this returns; it can go on.
    pub fn sync(&mut self) -> Result<()> {
        self.0.flush()?;
        Ok(self.0.get_ref().sync_all()?)
    }
}

pub struct Records {
    map: Mmap,
}

impl Records {
    pub fn open(path: &Path) -> Result<Records> {
        let file = File::open(path)?;
        // SAFETY: this program alone knows the file, and only appends to it.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Records { map })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Shows every change at or below the key.
    pub fn walk(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let mut rest = self.bytes();
        while !rest.is_empty() {
            let (checksum, entry) = take_record(&mut rest).context("a record ends early")?;
            ensure!(crc32fast::hash(entry) == checksum, "a record is damaged");
            codec::changes(entry, below, visit)?;
        }
        Ok(())
    }
}

/// The checksum of the first record, and the bytes that it is of.
fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some((u32::from_le_bytes(*checksum), entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::EntryWriter;
    use crate::peer::Kind;

    #[test]
    fn damage_is_seen_before_anything_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("records");
        let mut entry = EntryWriter::default();
        entry.push(Kind::CreateKey, "A", "", None, None);
        let mut writer = RecordsWriter::create(&path).expect("a file");
        writer.push(&entry.finish()).expect("a record");
        writer.sync().expect("a file");
        let walk = || {
            let mut shown = 0;
            let records = Records::open(&path).expect("records");
            let outcome = records.walk(&KeyPath::root(), &mut |_| shown += 1);
            (outcome.is_ok(), shown)
        };
        assert_eq!(walk(), (true, 1));
        let mut bytes = std::fs::read(&path).expect("a file");
        *bytes.last_mut().expect("a byte") ^= 1;
        std::fs::write(&path, bytes).expect("a file");
        assert_eq!(walk(), (false, 0));
    }
}
