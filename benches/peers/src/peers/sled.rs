//! sled 0.34.7: one `Batch` on one tree, `flush`, and then a real sync.
//!
//! `apply_batch` is sled's atomic unit, on one tree: so rows and change entries are in the same tree, told apart by their first
//! byte. A batch cannot read, so that the previous values are read under a lock of ours, which also numbers the entries.
//! `flush` is what the documentation names for durability; on Linux it ends in `sync_file_range`, which does not reach the disk, and so
//! the store's file is synced with fdatasync behind it: a durable commit is what is compared. Flush and sync are outside of
//! the lock, so that writers can share them as far as sled and the kernel do so.
//!
//! Segments are of 16 MiB: with the default of 512 KiB sled can hang for ever under load (a lock that is held while it waits
//! for its own threads). The cache is sled's default, 1 GiB. Followers are woken by `watch_prefix`.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use clusdb::KeyPath;
use sled::{Batch as Writes, Config, Db, Subscriber};

use super::transaction::{Base, Overlay, apply};
use super::{CACHE_BYTES, LOAD_GROUP};
use crate::codec;
use crate::peer::{Batch, Change, Entry, Peer, ValueRef, Watcher};

const ROWS: u8 = b'r';
const CHANGES: u8 = b'c';

pub struct Sled {
    database: Db,
    file: File,
    /// Number of the last change entry.
    last: Mutex<u64>,
}

impl Sled {
    pub fn open(folder: &Path) -> Result<Sled> {
        let database = Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES as u64)
            .segment_size(16 << 20)
            .open()?;
        let last = database.scan_prefix([CHANGES]).next_back().transpose()?;
        let number = |key: &[u8]| Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?));
        Ok(Sled {
            file: File::open(folder.join("db"))?,
            last: Mutex::new(last.and_then(|(key, _)| number(&key)).unwrap_or(0)),
            database,
        })
    }

    fn apply(&self, batches: &[Batch]) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Overlay::new(self);
        let mut writes = Writes::default();
        for (number, batch) in (*last + 1..).zip(batches) {
            writes.insert(key(CHANGES, &number.to_be_bytes()), apply(batch, &mut rows)?);
        }
        for (row, held) in rows.into_written() {
            match held {
                Some(held) => writes.insert(key(ROWS, &row), held),
                None => writes.remove(key(ROWS, &row)),
            }
        }
        self.database.apply_batch(writes)?;
        *last += batches.len() as u64;
        Ok(())
    }

    fn show(&self, rows: sled::Iter, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        for row in rows {
            let (row, held) = row?;
            visit(&codec::entry(&row[1..], &held)?);
        }
        Ok(())
    }
}

fn key(table: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(table);
    key.extend_from_slice(rest);
    key
}

impl Base for Sled {
    fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.database.get(key(ROWS, row))?.map(|held| held.to_vec()))
    }

    fn rows(&self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let rows = self.database.range(key(ROWS, from)..key(ROWS, to));
        rows.map(|row| Ok(row?.0[1..].to_vec())).collect()
    }
}

impl Peer for Sled {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        batches
            .chunks(LOAD_GROUP)
            .try_for_each(|group| self.apply(group))?;
        self.database.flush()?;
        self.file.sync_data().context("a sync")
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        for row in self.database.scan_prefix([CHANGES]) {
            codec::changes(&row?.1, below, visit)?;
        }
        Ok(())
    }

    fn get(&self, key_path: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let row = codec::value_row(key_path.as_str(), name);
        let found = self.database.get(key(ROWS, &row))?;
        if let Some(held) = &found {
            visit(codec::value(held)?);
        }
        Ok(found.is_some())
    }

    fn list(&self, key_path: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key_path.as_str());
        self.show(self.database.range(key(ROWS, &from)..key(ROWS, &to)), visit)
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        self.show(self.database.scan_prefix([ROWS]), visit)
    }

    fn watch(&self, _name: &str, below: &KeyPath) -> Result<Option<Box<dyn Watcher>>> {
        let subscriber = self.database.watch_prefix(key(ROWS, below.as_str().as_bytes()));
        Ok(Some(Box::new(Subscribed(subscriber))))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.flush()?;
        drop(self.database);
        self.file.sync_data().context("a sync")
    }
}

struct Subscribed(Subscriber);

impl Watcher for Subscribed {
    fn wait(&mut self) -> Result<()> {
        self.0.next().context("the subscription ended")?;
        Ok(())
    }
}
