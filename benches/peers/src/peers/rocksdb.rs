//! RocksDB: one `WriteBatch` written with `sync`, and its write-ahead log as the change table.
//!
//! `GetUpdatesSince` reads the log back, batch by batch, so that no entry is written beside the rows: RocksDB's best case,
//! and less than the others do, since the log has no previous values, and shows a deleted key as one deletion for each row. The log is
//! kept after its rows were flushed (`WAL_ttl_seconds`). Nothing is read before it is written, so that writers need no lock of ours,
//! and RocksDB's own group commit makes them durable together.
//!
//! Tuned as its wiki's basic advice has it: a block cache that may hold everything, bloom filters of 10 bits, index and filter
//! blocks in the cache, dynamic level sizes, background jobs for each processor. Compression is the default of
//! the library that is linked.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::Result;
use clusdb::KeyPath;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRawIterator, Options, ReadOptions, WriteBatch, WriteBatchIterator,
    WriteOptions,
};

use super::CACHE_BYTES;
use super::transaction::{Transaction, apply};
use crate::codec;
use crate::peer::{Batch, Change, Entry, Kind, Peer, ValueRef};

/// Ten years.
const LOG_SECONDS: u64 = 10 * 365 * 24 * 3600;

pub struct RocksDb {
    database: DB,
}

impl RocksDb {
    pub fn open(folder: &Path) -> Result<RocksDb> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES)?);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.increase_parallelism(available_parallelism()?.get() as i32);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_bytes_per_sync(1 << 20);
        options.set_block_based_table_factory(&blocks);
        options.set_wal_ttl_seconds(LOG_SECONDS);
        let database = DB::open(&options, folder)?;
        if database.latest_sequence_number() == 0 {
            // The iterator of this version passes over the first batch that it stands on: here is one to pass over.
            database.delete(b"\xff")?;
        }
        Ok(RocksDb { database })
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<()> {
        let mut writes = Writes {
            database: &self.database,
            batch: WriteBatch::default(),
            written: BTreeMap::new(),
        };
        apply(batch, &mut writes)?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        Ok(self.database.write_opt(writes.batch, &options)?)
    }

    /// From the first row that is not less than `from` to before `to`.
    fn range(&self, from: &[u8], to: Option<Vec<u8>>) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.database.raw_iterator_opt(options);
        rows.seek(from);
        rows
    }

    fn show(&self, from: &[u8], to: Option<Vec<u8>>, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let mut rows = self.range(from, to);
        while let Some((row, held)) = rows.item() {
            visit(&codec::entry(row, held)?);
            rows.next();
        }
        Ok(rows.status()?)
    }
}

/// A batch that is being filled, in the order of its commands.
struct Writes<'a> {
    database: &'a DB,
    batch: WriteBatch,
    /// Whether a row that it wrote is there.
    written: BTreeMap<Vec<u8>, bool>,
}

impl Transaction for Writes<'_> {
    /// Asked for the rows of keys alone, which hold nothing that matters.
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        let is_there = match self.written.get(row) {
            Some(is_there) => *is_there,
            None => self.database.get_pinned(row)?.is_some(),
        };
        Ok(is_there.then(Vec::new))
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        self.batch.put(row, held);
        self.written.insert(row.to_owned(), true);
        Ok(None)
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        self.batch.delete(row);
        self.written.insert(row.to_owned(), false);
        Ok(None)
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut found: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_owned());
        let mut rows = self.database.raw_iterator_opt(options);
        rows.seek(from);
        while let Some(row) = rows.key() {
            found.insert(row.to_owned(), true);
            rows.next();
        }
        rows.status()?;
        let written = self.written.range(from.to_owned()..to.to_owned());
        found.extend(written.map(|(row, is_there)| (row.clone(), *is_there)));
        let rows = found.into_iter().filter(|(_, is_there)| *is_there);
        Ok(rows.map(|(row, _)| row).collect())
    }

    fn open_key(&mut self, row: &[u8]) -> Result<()> {
        self.put(row, Vec::new()).map(drop)
    }
}

/// Shows the writes of one batch of the log as changes.
struct Log<'a> {
    below: &'a KeyPath,
    visit: &'a mut dyn FnMut(&Change<'_>),
    outcome: Result<()>,
}

impl Log<'_> {
    fn show(&mut self, row: &[u8], held: Option<&[u8]>) -> Result<()> {
        let path_ends = row.iter().position(|byte| *byte <= 1).unwrap_or(row.len());
        let is_value = row.get(path_ends) == Some(&0);
        if is_value && !codec::is_at_or_below(&row[..path_ends], self.below.as_str()) {
            return Ok(());
        }
        // A row that is deleted holds nothing, where the decoder wants a type.
        let entry = codec::entry(row, held.unwrap_or(&[0; 4]))?;
        let mut show = |kind, key: &str, name: &str, value| {
            if codec::is_at_or_below(key.as_bytes(), self.below.as_str()) {
                (self.visit)(&Change {
                    kind,
                    key,
                    name,
                    value,
                    previous: None,
                });
            }
        };
        match (entry, held) {
            (Entry::Value { key, name, value }, Some(_)) => show(Kind::SetValue, key, name, Some(value)),
            (Entry::Value { key, name, .. }, None) => show(Kind::DeleteValue, key, name, None),
            // A parent that came with its child.
            (Entry::Key { .. }, Some([_, ..])) => {}
            (Entry::Key { parent: "", name }, held) => show(of_key(held), name, "", None),
            (Entry::Key { parent, name }, held) => show(of_key(held), &format!(r"{parent}\{name}"), "", None),
        }
        Ok(())
    }

    fn take(&mut self, row: &[u8], held: Option<&[u8]>) {
        if self.outcome.is_ok() {
            self.outcome = self.show(row, held);
        }
    }
}

fn of_key(held: Option<&[u8]>) -> Kind {
    match held {
        Some(_) => Kind::CreateKey,
        None => Kind::DeleteKey,
    }
}

impl WriteBatchIterator for Log<'_> {
    fn put(&mut self, row: Box<[u8]>, held: Box<[u8]>) {
        self.take(&row, Some(&held));
    }

    fn delete(&mut self, row: Box<[u8]>) {
        self.take(&row, None);
    }
}

impl Peer for RocksDb {
    fn write(&self, batches: &[Batch]) -> Result<()> {
        if let [batch] = batches {
            return self.commit(batch, true);
        }
        batches.iter().try_for_each(|batch| self.commit(batch, false))?;
        Ok(self.database.flush_wal(true)?)
    }

    fn changes(&self, below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let mut log = Log {
            below,
            visit,
            outcome: Ok(()),
        };
        for update in self.database.get_updates_since(0)? {
            update?.1.iterate(&mut log);
        }
        log.outcome
    }

    fn get(&self, key: &KeyPath, name: &str, visit: &mut dyn FnMut(ValueRef<'_>)) -> Result<bool> {
        let found = self.database.get_pinned(codec::value_row(key.as_str(), name))?;
        if let Some(held) = &found {
            visit(codec::value(held)?);
        }
        Ok(found.is_some())
    }

    fn list(&self, key: &KeyPath, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        let (from, to) = codec::rows_right_below(key.as_str());
        self.show(&from, Some(to), visit)
    }

    fn iterate(&self, visit: &mut dyn FnMut(&Entry<'_>)) -> Result<()> {
        self.show(&[], None, visit)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.flush()?;
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}
