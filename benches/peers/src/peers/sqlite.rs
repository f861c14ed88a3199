//! SQLite: a write-ahead log, `synchronous=FULL`, and the change table filled in the same transaction.
//!
//! In WAL mode `FULL` is what syncs the log at every commit; `NORMAL` would lose commits when the power goes. `BEGIN IMMEDIATE` takes
//! the writer's lock at once. One connection writes, behind a lock, since SQLite has one writer at a time anyway and a busy
//! handler would only sleep; it has no group commit. Another connection reads beside it. Statements are prepared once.
//! Rows are in a table `WITHOUT ROWID`, which the documentation advises for rows of less than a twentieth of a page with a key that is no
//! integer. The page cache may hold everything. Checkpoints come by themselves, as by default.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use clusdb::KeyPath;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::transaction::{Transaction, apply};
use super::{CACHE_BYTES, LOAD_GROUP};
use crate::codec;
use crate::peer::{Batch, Change, Entry, Peer, ValueRef};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS rows (row BLOB PRIMARY KEY, held BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS changes (number INTEGER PRIMARY KEY, entry BLOB NOT NULL);
";

pub struct Sqlite {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl Sqlite {
    pub fn open(folder: &Path) -> Result<Sqlite> {
        let path = folder.join("store.sqlite");
        let writer = connect(&path)?;
        writer.execute_batch(TABLES)?;
        Ok(Sqlite {
            writer: Mutex::new(writer),
            reader: Mutex::new(connect(&path)?),
        })
    }

    fn commit(&self, batches: &[Batch]) -> Result<()> {
        let mut connection = lock(&self.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for batch in batches {
            let entry = apply(batch, &mut Rows(&transaction))?;
            let mut insert = transaction.prepare_cached("INSERT INTO changes (entry) VALUES (?)")?;
            insert.execute([entry])?;
        }
        Ok(transaction.commit()?)
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Negative: in KiB.
    connection.pragma_update(None, "cache_size", -((CACHE_BYTES >> 10) as i64))?;
    Ok(connection)
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Rows<'a>(&'a Connection);

impl Transaction for Rows<'_> {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut select = self.0.prepare_cached("SELECT held FROM rows WHERE row = ?")?;
        Ok(select.query_row([row], |found| found.get(0)).optional()?)
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let previous = self.get(row)?;
        let insert = "INSERT INTO rows VALUES (?1, ?2) ON CONFLICT (row) DO UPDATE SET held = ?2";
        self.0.prepare_cached(insert)?.execute((row, held))?;
        Ok(previous)
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        let previous = self.get(row)?;
        let mut delete = self.0.prepare_cached("DELETE FROM rows WHERE row = ?")?;
        delete.execute([row])?;
        Ok(previous)
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let select = "SELECT row FROM rows WHERE row >= ? AND row < ?";
        let mut select = self.0.prepare_cached(select)?;
        let rows = select.query_map([from, to], |found| found.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Peer for Sqlite {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        batches
            .chunks(LOAD_GROUP)
            .try_for_each(|group| self.commit(group))
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let connection = lock(&self.reader);
        let mut select = connection.prepare_cached("SELECT entry FROM changes ORDER BY number")?;
        let mut found = select.query([])?;
        while let Some(found) = found.next()? {
            codec::changes(found.get_ref(0)?.as_blob()?, below, visit)?;
        }
        Ok(())
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let connection = lock(&self.reader);
        let mut select = connection.prepare_cached("SELECT held FROM rows WHERE row = ?")?;
        let mut found = select.query([codec::value_row(key.as_str(), name)])?;
        let Some(found) = found.next()? else {
            return Ok(false);
        };
        visit(codec::value(found.get_ref(0)?.as_blob()?)?);
        Ok(true)
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key.as_str());
        let connection = lock(&self.reader);
        let select = "SELECT row, held FROM rows WHERE row >= ? AND row < ? ORDER BY row";
        let mut select = connection.prepare_cached(select)?;
        show(select.query([from, to])?, visit)
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let connection = lock(&self.reader);
        let mut select = connection.prepare_cached("SELECT row, held FROM rows ORDER BY row")?;
        show(select.query([])?, visit)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let into_inner =
            |connection: Mutex<_>| connection.into_inner().unwrap_or_else(PoisonError::into_inner);
        for connection in [self.reader, self.writer] {
            into_inner(connection)
                .close()
                .map_err(|(_, error): (Connection, _)| error)?;
        }
        Ok(())
    }
}

fn show(mut found: rusqlite::Rows<'_>, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
    while let Some(found) = found.next()? {
        let (row, held) = (found.get_ref(0)?.as_blob()?, found.get_ref(1)?.as_blob()?);
        visit(&codec::entry(row, held)?);
    }
    Ok(())
}
