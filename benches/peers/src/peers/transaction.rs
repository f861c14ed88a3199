//! What a batch does to a store of rows: the same for every store that is one.

use std::collections::BTreeMap;
use std::collections::btree_map;

use anyhow::{Result, bail};
use clusdb::KeyPath;

use crate::codec::{self, EntryWriter};
use crate::peer::{Batch, Command, Kind};

/// A write transaction on the rows: it sees what it has written.
pub trait Transaction {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Gives what was there before.
    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>>;
    /// Gives what was there before.
    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>>;
    /// The rows from the first to before the second.
    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// A key was opened that has this row already: for a store whose log of writes is its change table.
    fn open_key(&mut self, _row: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// What the row of a key holds that came with one below it. Nothing otherwise.
const CAME_ALONG: &[u8] = &[1];

/// Does the batch, and gives the entry for the change table.
pub fn apply(batch: &Batch, rows: &mut impl Transaction) -> Result<Vec<u8>> {
    let mut entry = EntryWriter::default();
    let mut current = Some(batch.at.as_str().to_owned());
    for command in &batch.commands {
        match command {
            Command::CreateKey(path) => {
                let path = absolute(&batch.at, path);
                create_key(&path, rows)?;
                entry.push(Kind::CreateKey, &path, "", None, None);
                current = Some(path);
            }
            Command::DeleteKey(path) => {
                let path = absolute(&batch.at, path);
                delete_key(&path, rows)?;
                entry.push(Kind::DeleteKey, &path, "", None, None);
                current = None;
            }
            Command::SetValue {
                name,
                value_type,
                data,
            } => {
                let key = open(current.as_deref())?;
                let held = codec::encode_value(*value_type, data);
                let row = codec::value_row(key, name);
                let previous = rows.put(&row, held.clone())?;
                entry.push(Kind::SetValue, key, name, Some(&held), previous.as_deref());
            }
            Command::DeleteValue { name } => {
                let key = open(current.as_deref())?;
                let previous = rows.remove(&codec::value_row(key, name))?;
                entry.push(Kind::DeleteValue, key, name, None, previous.as_deref());
            }
        }
    }
    Ok(entry.finish())
}

fn open(current: Option<&str>) -> Result<&str> {
    match current {
        Some(key) => Ok(key),
        None => bail!("a command on a value where no key is open"),
    }
}

fn absolute(at: &KeyPath, path: &str) -> String {
    match (at.is_root(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => at.as_str().to_owned(),
        _ => format!(r"{}\{path}", at.as_str()),
    }
}

fn create_key(path: &str, rows: &mut impl Transaction) -> Result<()> {
    let Some(row) = codec::key_row(path) else {
        return Ok(());
    };
    if rows.get(&row)?.is_some() {
        return rows.open_key(&row);
    }
    rows.put(&row, Vec::new())?;
    let mut path = path;
    // What has a row has parents that have.
    while let Some((parent, _)) = path.rsplit_once('\\') {
        path = parent;
        let Some(row) = codec::key_row(path) else { break };
        if rows.get(&row)?.is_some() {
            break;
        }
        rows.put(&row, CAME_ALONG.to_vec())?;
    }
    Ok(())
}

fn delete_key(path: &str, rows: &mut impl Transaction) -> Result<()> {
    let ranges = [codec::rows_right_below(path), codec::rows_far_below(path)];
    for (from, to) in ranges {
        for row in rows.rows(&from, &to)? {
            rows.remove(&row)?;
        }
    }
    if let Some(row) = codec::key_row(path) {
        rows.remove(&row)?;
    }
    Ok(())
}

/// What an overlay lies on.
pub trait Base {
    fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>>;
    fn rows(&self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>>;
}

/// A transaction for stores that write batches, but cannot read in the middle of one: remembers what will be written. Whoever
/// makes one holds a lock, so that nothing moves beneath it.
pub struct Overlay<'a, B> {
    base: &'a B,
    /// None of a row that is removed.
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a, B: Base> Overlay<'a, B> {
    pub fn new(base: &'a B) -> Overlay<'a, B> {
        Overlay {
            base,
            written: BTreeMap::new(),
        }
    }

    pub fn into_written(self) -> btree_map::IntoIter<Vec<u8>, Option<Vec<u8>>> {
        self.written.into_iter()
    }

    fn write(&mut self, row: &[u8], held: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        match self.written.entry(row.to_owned()) {
            btree_map::Entry::Occupied(mut there) => Ok(there.insert(held)),
            btree_map::Entry::Vacant(free) => {
                free.insert(held);
                self.base.get(row)
            }
        }
    }
}

impl<B: Base> Transaction for Overlay<'_, B> {
    fn get(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.written.get(row) {
            Some(held) => Ok(held.clone()),
            None => self.base.get(row),
        }
    }

    fn put(&mut self, row: &[u8], held: Vec<u8>) -> Result<Option<Vec<u8>>> {
        self.write(row, Some(held))
    }

    fn remove(&mut self, row: &[u8]) -> Result<Option<Vec<u8>>> {
        self.write(row, None)
    }

    fn rows(&mut self, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut rows = self.base.rows(from, to)?;
        let written = self.written.range(from.to_owned()..to.to_owned());
        rows.extend(written.map(|(row, _)| row.clone()));
        rows.sort();
        rows.dedup();
        // A row that is removed already would only be removed again.
        Ok(rows)
    }
}
