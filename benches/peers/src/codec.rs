//! The encoding that all peers share: rows of the state, and change entries.
//!
//! A store that orders its keys holds the state as rows. The row of a value is `path 0 name` and holds type and data; the row
//! of a key is `parent 1 name` and is empty. So what is right below a key stands side by side: a path goes on with `\`,
//! which is greater than both, and no path or name has a 0 or 1 in it.
//!
//! A change entry is what a batch did, as runs of commands on one key: the key once, then the commands. Lengths are of a
//! fixed size and little endian, as bincode writes them. Who looks for a subtree passes over a run by its length.

use anyhow::{Context, Result, bail, ensure};
use clusdb::KeyPath;

use crate::peer::{Change, Entry, Kind, ValueRef};

const VALUE_MARK: u8 = 0;
const KEY_MARK: u8 = 1;

/// The row of a value.
pub fn value_row(key: &str, name: &str) -> Vec<u8> {
    row(key, VALUE_MARK, name)
}

/// The row of a key; none for the root, which is always there.
pub fn key_row(key: &str) -> Option<Vec<u8>> {
    let (parent, name) = match key.rsplit_once('\\') {
        Some(parts) => parts,
        None if key.is_empty() => return None,
        None => ("", key),
    };
    Some(row(parent, KEY_MARK, name))
}

/// From the first row right below a key to behind the last one.
pub fn rows_right_below(key: &str) -> (Vec<u8>, Vec<u8>) {
    (row(key, VALUE_MARK, ""), row(key, KEY_MARK + 1, ""))
}

/// From the first row that belongs to a key below this one, or is a value of one, to behind the last one.
pub fn rows_far_below(key: &str) -> (Vec<u8>, Vec<u8>) {
    (row(key, b'\\', ""), row(key, b'\\' + 1, ""))
}

fn row(key: &str, mark: u8, name: &str) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1 + name.len());
    row.extend_from_slice(key.as_bytes());
    row.push(mark);
    row.extend_from_slice(name.as_bytes());
    row
}

/// The row as what it stands for.
pub fn entry<'a>(row: &'a [u8], held: &'a [u8]) -> Result<Entry<'a>> {
    let at = row.iter().position(|byte| *byte <= KEY_MARK);
    let at = at.context("a row without a mark")?;
    let (key, name) = (str::from_utf8(&row[..at])?, str::from_utf8(&row[at + 1..])?);
    Ok(match row[at] {
        KEY_MARK => Entry::Key { parent: key, name },
        _ => Entry::Value {
            key,
            name,
            value: value(held)?,
        },
    })
}

/// What the row of a value holds.
pub fn encode_value(value_type: u32, data: &[u8]) -> Vec<u8> {
    let mut held = Vec::with_capacity(4 + data.len());
    held.extend_from_slice(&value_type.to_le_bytes());
    held.extend_from_slice(data);
    held
}

pub fn value(held: &[u8]) -> Result<ValueRef<'_>> {
    let (value_type, data) = held.split_first_chunk().context("a value without a type")?;
    Ok(ValueRef {
        value_type: u32::from_le_bytes(*value_type),
        data,
    })
}

/// Writes a change entry.
#[derive(Default)]
pub struct EntryWriter {
    bytes: Vec<u8>,
    /// Where the bytes of the run under way begin.
    run: usize,
    key: String,
}

impl EntryWriter {
    /// `value` and `previous` are as the rows hold them.
    pub fn push(&mut self, kind: Kind, key: &str, name: &str, value: Option<&[u8]>, previous: Option<&[u8]>) {
        if self.run == 0 || self.key != key {
            self.end_run();
            key.clone_into(&mut self.key);
            put_bytes(&mut self.bytes, key.as_bytes());
            self.bytes.extend_from_slice(&[0; 4]);
            self.run = self.bytes.len();
        }
        self.bytes.push(kind as u8);
        put_bytes(&mut self.bytes, name.as_bytes());
        for held in [value, previous] {
            self.bytes.push(u8::from(held.is_some()));
            if let Some(held) = held {
                put_bytes(&mut self.bytes, held);
            }
        }
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            let length = (self.bytes.len() - self.run) as u32;
            self.bytes[self.run - 4..self.run].copy_from_slice(&length.to_le_bytes());
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.end_run();
        self.bytes
    }
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.extend_from_slice(bytes);
}

/// Shows the changes of an entry that are at or below the key.
pub fn changes(mut entry: &[u8], below: &KeyPath, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
    let rest = &mut entry;
    while !rest.is_empty() {
        let key = take_bytes(rest)?;
        let mut run = take_bytes(rest)?;
        if !is_at_or_below(key, below.as_str()) {
            continue;
        }
        let key = str::from_utf8(key)?;
        while !run.is_empty() {
            visit(&change(key, &mut run)?);
        }
    }
    Ok(())
}

/// Whether the path is the ancestor's, or goes on behind it.
pub fn is_at_or_below(path: &[u8], ancestor: &str) -> bool {
    match path.strip_prefix(ancestor.as_bytes()) {
        Some(rest) => rest.is_empty() || ancestor.is_empty() || rest[0] == b'\\',
        None => false,
    }
}

fn change<'a>(key: &'a str, run: &mut &'a [u8]) -> Result<Change<'a>> {
    let kind = match take(run, 1)? {
        [1] => Kind::SetValue,
        [2] => Kind::CreateKey,
        [3] => Kind::DeleteKey,
        [4] => Kind::DeleteValue,
        kind => bail!("an unknown kind of change: {kind:?}"),
    };
    Ok(Change {
        kind,
        key,
        name: str::from_utf8(take_bytes(run)?)?,
        value: take_value(run)?,
        previous: take_value(run)?,
    })
}

fn take_value<'a>(from: &mut &'a [u8]) -> Result<Option<ValueRef<'a>>> {
    match take(from, 1)? {
        [0] => Ok(None),
        _ => value(take_bytes(from)?).map(Some),
    }
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = take(from, 4)?.try_into().map(u32::from_le_bytes)?;
    take(from, length as usize)
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    ensure!(count <= from.len(), "an entry ends early");
    let (taken, rest) = from.split_at(count);
    *from = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back_as_it_was_written() {
        let (new, old) = (encode_value(3, b"new"), encode_value(1, b""));
        let mut writer = EntryWriter::default();
        writer.push(Kind::CreateKey, r"A\B", "", None, None);
        writer.push(Kind::SetValue, r"A\B", "name", Some(&new), Some(&old));
        writer.push(Kind::DeleteValue, "AB", "x", None, None);
        let bytes = writer.finish();
        let shown = |below: &str| {
            let mut lines = Vec::new();
            let below = KeyPath::parse(below).expect("a path");
            changes(&bytes, &below, &mut |change| lines.push(format!("{change:?}"))).expect("an entry");
            lines
        };
        let all = shown("");
        assert_eq!(all.len(), 3);
        assert_eq!(shown("A"), all[..2]);
        assert_eq!(shown("AB"), all[2..]);
        assert!(all[1].contains("name: \"name\"") && all[1].contains("value_type: 1"));
    }

    #[test]
    fn an_entry_that_is_cut_short_is_an_error() {
        let mut writer = EntryWriter::default();
        writer.push(Kind::CreateKey, "A", "", None, None);
        let bytes = writer.finish();
        for length in 1..bytes.len() {
            assert!(changes(&bytes[..length], &KeyPath::root(), &mut |_| {}).is_err());
        }
    }

    #[test]
    fn rows_right_below_a_key_leave_out_what_is_further_down() {
        let (from, to) = rows_right_below("A");
        let is_in = |row: &[u8]| from.as_slice() <= row && row < to.as_slice();
        assert!(is_in(&value_row("A", "")) && is_in(&value_row("A", "\u{10ffff}")));
        assert!(is_in(&key_row(r"A\B").expect("a row")));
        assert!(!is_in(&value_row(r"A\B", "")) && !is_in(&value_row("AB", "")));
        assert!(!is_in(&key_row(r"A\B\C").expect("a row")) && !is_in(&key_row("A").expect("a row")));
        assert_eq!(key_row(""), None);
    }
}
