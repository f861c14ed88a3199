//! redb: one write transaction for a batch, `Durability::Immediate`.
//!
//! That is redb's default and what its documentation names for data that must not be lost: the commit returns when the disk has
//! it. Two tables, the rows and the change entries by number, in one transaction. Writers wait for one another inside
//! redb; it has no group commit. `insert` gives the value that was there before. The cache is redb's default, 1 GiB. Every
//! read opens a read transaction, which is how the newest state is seen.

use std::path::Path;

use anyhow::Result;
use clusdb::KeyPath;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::transaction::{Transaction, apply};
use super::{CACHE_BYTES, LOAD_GROUP};
use crate::codec;
use crate::peer::{Batch, Change, Entry, Peer, ValueRef};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");

pub struct Redb {
    database: Database,
}

impl Redb {
    pub fn open(folder: &Path) -> Result<Redb> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(folder.join("store.redb"))?;
        // So that reading finds the tables.
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.open_table(CHANGES)?;
        transaction.commit()?;
        Ok(Redb { database })
    }

    fn commit(&self, batches: &[Batch]) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut rows = Rows(transaction.open_table(ROWS)?);
            let mut changes = transaction.open_table(CHANGES)?;
            let last = changes.last()?.map_or(0, |(number, _)| number.value());
            for (number, batch) in (last + 1..).zip(batches) {
                changes.insert(number, apply(batch, &mut rows)?.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn show(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        let range = match to {
            Some(to) => table.range(from..to)?,
            None => table.range(from..)?,
        };
        for row in range {
            let (row, held) = row?;
            visit(&codec::entry(row.value(), held.value())?);
        }
        Ok(())
    }
}

struct Rows<'a>(Table<'a, &'static [u8], &'static [u8]>);

impl Transaction for Rows<'_> {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(row)?.map(|held| held.value().to_owned()))
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let previous = self.0.insert(row, held.as_slice())?;
        Ok(previous.map(|held| held.value().to_owned()))
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        let previous = self.0.remove(row)?;
        Ok(previous.map(|held| held.value().to_owned()))
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let rows = self.0.range(from..to)?;
        rows.map(|row| Ok(row?.0.value().to_owned())).collect()
    }
}

impl Peer for Redb {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        batches
            .chunks(LOAD_GROUP)
            .try_for_each(|group| self.commit(group))
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let table = self.database.begin_read()?.open_table(CHANGES)?;
        for row in table.iter()? {
            codec::changes(row?.1.value(), below, visit)?;
        }
        Ok(())
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        let found = table.get(codec::value_row(key.as_str(), name).as_slice())?;
        if let Some(held) = &found {
            visit(codec::value(held.value())?);
        }
        Ok(found.is_some())
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key.as_str());
        self.show(&from, Some(&to), visit)
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        self.show(&[], None, visit)
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.database);
        Ok(())
    }
}
