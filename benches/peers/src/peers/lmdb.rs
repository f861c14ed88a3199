//! LMDB (through heed): one write transaction for a batch, with LMDB's default flags.
//!
//! By default a commit syncs the data, then the page that points at it; none of the flags that give that up (`NO_SYNC`,
//! `NO_META_SYNC`) is set. Two databases, the rows and the change entries by number; entries are put with `APPEND`, which its documentation
//! names for keys that only grow. Writers wait for one another; it has no group commit. The previous value is looked up before it is
//! overwritten. Reads are in place, in the map, each in a read transaction of its own.
//!
//! A key has 511 bytes at most, as LMDB is built by default.

use std::ops::Bound;
use std::path::Path;

use anyhow::Result;
use clusdb::KeyPath;
use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvOpenOptions, PutFlags, RwTxn};

use super::LOAD_GROUP;
use super::transaction::{Transaction, apply};
use crate::codec;
use crate::peer::{Batch, Change, Entry, Peer, ValueRef};

/// Address space, not memory: the file grows as it is needed.
const MAP_BYTES: usize = 64 << 30;

type RowsDatabase = Database<Bytes, Bytes>;

pub struct Lmdb {
    env: Env,
    rows: RowsDatabase,
    changes: Database<U64<BigEndian>, Bytes>,
}

impl Lmdb {
    pub fn open(folder: &Path) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_dbs(2);
        // SAFETY: nobody else writes to the files, and each folder is open once at a time.
        let env = unsafe { options.open(folder)? };
        let mut transaction = env.write_txn()?;
        let rows = env.create_database(&mut transaction, Some("rows"))?;
        let changes = env.create_database(&mut transaction, Some("changes"))?;
        transaction.commit()?;
        Ok(Lmdb { env, rows, changes })
    }

    fn commit(&self, batches: &[Batch]) -> Result<()> {
        let transaction = self.env.write_txn()?;
        let last = self.changes.last(&transaction)?.map_or(0, |(number, _)| number);
        let mut rows = Rows {
            transaction,
            rows: self.rows,
        };
        for (number, batch) in (last + 1..).zip(batches) {
            let entry = apply(batch, &mut rows)?;
            self.changes
                .put_with_flags(&mut rows.transaction, PutFlags::APPEND, &number, &entry)?;
        }
        rows.transaction.commit()?;
        Ok(())
    }
}

fn between<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}

struct Rows<'a> {
    transaction: RwTxn<'a>,
    rows: RowsDatabase,
}

impl Transaction for Rows<'_> {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.rows.get(&self.transaction, row)?.map(<[u8]>::to_owned))
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let previous = self.get(row)?;
        self.rows.put(&mut self.transaction, row, &held)?;
        Ok(previous)
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        let previous = self.get(row)?;
        self.rows.delete(&mut self.transaction, row)?;
        Ok(previous)
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let rows = self.rows.range(&self.transaction, &between(from, to))?;
        rows.map(|row| Ok(row?.0.to_owned())).collect()
    }
}

impl Peer for Lmdb {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        batches
            .chunks(LOAD_GROUP)
            .try_for_each(|group| self.commit(group))
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let transaction = self.env.read_txn()?;
        for row in self.changes.iter(&transaction)? {
            codec::changes(row?.1, below, visit)?;
        }
        Ok(())
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        let found = self
            .rows
            .get(&transaction, &codec::value_row(key.as_str(), name))?;
        if let Some(held) = found {
            visit(codec::value(held)?);
        }
        Ok(found.is_some())
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key.as_str());
        let transaction = self.env.read_txn()?;
        for row in self.rows.range(&transaction, &between(&from, &to))? {
            let (row, held) = row?;
            visit(&codec::entry(row, held)?);
        }
        Ok(())
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let transaction = self.env.read_txn()?;
        for row in self.rows.iter(&transaction)? {
            let (row, held) = row?;
            visit(&codec::entry(row, held)?);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
