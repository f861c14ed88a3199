//! Rows in a map in memory, and an append with fdatasync for each batch: a store without anything that makes one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Result, bail};
use clusdb::KeyPath;

use super::RawFile;
use crate::codec;
use crate::peer::{Batch, Change, Entry, Peer, ValueRef};
use crate::peers::{Transaction, apply};

/// It cannot be opened again, nor tell its changes.
pub struct RawTree {
    rows: Mutex<RawRows>,
    file: RawFile,
}

/// The rows alone.
#[derive(Default)]
pub struct RawRows(BTreeMap<Vec<u8>, Vec<u8>>);

impl RawRows {
    pub fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key.as_str());
        for (row, held) in self.0.range(from..to) {
            visit(&codec::entry(row, held)?);
        }
        Ok(())
    }

    pub fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        for (row, held) in &self.0 {
            visit(&codec::entry(row, held)?);
        }
        Ok(())
    }
}

impl RawTree {
    pub fn create(path: &Path) -> Result<RawTree> {
        Ok(RawTree {
            rows: Mutex::new(RawRows::default()),
            file: RawFile::create(path)?,
        })
    }

    fn rows(&self) -> MutexGuard<'_, RawRows> {
        self.rows.lock().expect("a lock")
    }
}

impl Transaction for RawRows {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(row).cloned())
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        Ok(self.0.insert(row.to_owned(), held))
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.remove(row))
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let rows = self.0.range(from.to_owned()..to.to_owned());
        Ok(rows.map(|(row, _)| row.clone()).collect())
    }
}

impl Peer for RawTree {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        let mut entries = Vec::new();
        {
            let mut rows = self.rows();
            for batch in batches {
                entries.extend(apply(batch, &mut *rows)?);
            }
        }
        self.file.append(&entries)
    }

    fn changes(&self, _below: &KeyPath, _visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        bail!("nothing reads its file")
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let rows = self.rows();
        let found = rows.0.get(&codec::value_row(key.as_str(), name));
        if let Some(held) = found {
            visit(codec::value(held)?);
        }
        Ok(found.is_some())
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        self.rows().list(key, visit)
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        self.rows().iterate(visit)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
