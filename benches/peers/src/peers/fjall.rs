//! fjall 3: a single-writer transaction for a batch, `PersistMode::SyncData`.
//!
//! The documentation advises a transactional database where a write depends on what it reads, as the previous value does;
//! the single-writer one never has to repeat a transaction. Two keyspaces, the rows and the change entries by number. `SyncData`
//! is fdatasync of its journal, enough for a file that is only appended to. Writers wait for one another; it has no group
//! commit. The cache is set to hold everything, as the documentation advises where that is possible.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use clusdb::KeyPath;
use fjall::{
    Guard, Iter, KeyspaceCreateOptions, PersistMode, Readable, SingleWriterTxDatabase,
    SingleWriterTxKeyspace, SingleWriterWriteTx,
};

use super::transaction::{Transaction, apply};
use super::{CACHE_BYTES, LOAD_GROUP};
use crate::codec;
use crate::peer::{Batch, Change, Entry, Peer, ValueRef};

pub struct Fjall {
    database: SingleWriterTxDatabase,
    rows: SingleWriterTxKeyspace,
    changes: SingleWriterTxKeyspace,
    /// Number of the last change entry; moves inside of a transaction, of which there is one at a time.
    last: AtomicU64,
}

impl Fjall {
    pub fn open(folder: &Path) -> Result<Fjall> {
        let database = SingleWriterTxDatabase::builder(folder)
            .cache_size(CACHE_BYTES as u64)
            .open()?;
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default)?;
        let changes = database.keyspace("changes", KeyspaceCreateOptions::default)?;
        let last = changes.last_key_value().map(Guard::key).transpose()?;
        let last = last.and_then(|number| Some(u64::from_be_bytes(number.as_ref().try_into().ok()?)));
        Ok(Fjall {
            database,
            rows,
            changes,
            last: AtomicU64::new(last.unwrap_or(0)),
        })
    }

    fn commit(&self, batches: &[Batch], durability: Option<PersistMode>) -> Result<()> {
        let mut rows = Rows {
            transaction: self.database.write_tx().durability(durability),
            rows: &self.rows,
        };
        for batch in batches {
            let entry = apply(batch, &mut rows)?;
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            rows.transaction
                .insert(&self.changes, number.to_be_bytes(), entry);
        }
        rows.transaction.commit()?;
        Ok(())
    }

    fn show(rows: Iter, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        for row in rows {
            let (row, held) = row.into_inner()?;
            visit(&codec::entry(&row, &held)?);
        }
        Ok(())
    }
}

struct Rows<'a> {
    transaction: SingleWriterWriteTx<'a>,
    rows: &'a SingleWriterTxKeyspace,
}

impl Transaction for Rows<'_> {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.transaction.get(self.rows, row)?.map(|held| held.to_vec()))
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let previous = self.get(row)?;
        self.transaction.insert(self.rows, row, held);
        Ok(previous)
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        let previous = self.get(row)?;
        self.transaction.remove(self.rows, row);
        Ok(previous)
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let rows = self.transaction.range(self.rows, from..to);
        rows.map(|row| Ok(row.key()?.to_vec())).collect()
    }
}

impl Peer for Fjall {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        if batches.len() == 1 {
            return self.commit(batches, Some(PersistMode::SyncData));
        }
        batches
            .chunks(LOAD_GROUP)
            .try_for_each(|group| self.commit(group, None))?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        for row in self.changes.inner().iter() {
            codec::changes(&row.value()?, below, visit)?;
        }
        Ok(())
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let found = self.rows.get(codec::value_row(key.as_str(), name))?;
        if let Some(held) = &found {
            visit(codec::value(held)?);
        }
        Ok(found.is_some())
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key.as_str());
        Fjall::show(self.rows.inner().range(from..to), visit)
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        Fjall::show(self.rows.inner().iter(), visit)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
