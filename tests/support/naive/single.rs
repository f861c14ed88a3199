//! Spec section 5 and 4: the registry's single calls, and the read batch.

use super::{Command, Data, Failure, NaiveKey, Store, check_path, check_value_name};
use super::{find_key, find_value, is_at_or_below, run, split};

/// A plain write. The path is the whole one.
#[derive(Clone, Debug)]
pub enum Plain {
    CreateKey { path: String },
    DeleteKey { path: String },
    SetValue { path: String, name: String, value: Data },
    DeleteValue { path: String, name: String },
}

/// Numbers of keys and values; lengths in units, and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub path: String,
    pub subkeys: u64,
    pub values: u64,
    pub longest_key: u64,
    pub longest_name: u64,
    pub largest_data: u64,
}

/// The key and the name, as stored where they exist; the value, if there is one.
pub type Reply = (String, String, Option<Data>);

impl Store {
    /// The record's number; none where a key that exists was opened.
    pub fn plain(&mut self, write: &Plain) -> Result<Option<u64>, Failure> {
        let mut keys = self.keys.clone();
        let (path, command) = match write.clone() {
            Plain::CreateKey { path } => (path, Command::CreateKey { path: String::new() }),
            Plain::DeleteKey { path } => (path, Command::DeleteKey { path: String::new() }),
            Plain::SetValue { path, name, value } => (
                path,
                Command::SetValue {
                    name,
                    value_type: value.0,
                    data: value.1,
                },
            ),
            Plain::DeleteValue { path, name } => (path, Command::DeleteValue { name }),
        };
        let parts = split(&path);
        check_path(&parts)?;
        if let Plain::SetValue { name, .. } | Plain::DeleteValue { name, .. } = write {
            check_value_name(name)?;
        }
        let key = find_key(&keys, &parts);
        match (write, key) {
            (Plain::CreateKey { .. }, Some(_)) => return Ok(None),
            (Plain::CreateKey { .. }, None) => {}
            (Plain::DeleteKey { .. }, _) if path.is_empty() => return Err(Failure::Root),
            (_, None) => return Err(Failure::KeyNotFound),
            (Plain::DeleteKey { .. }, Some(_)) => {
                if !subkeys(&keys, &parts).is_empty() {
                    return Err(Failure::HasSubkeys);
                }
            }
            (Plain::SetValue { .. }, Some(_)) => {}
            (Plain::DeleteValue { name, .. }, Some(key)) => {
                if find_value(&keys[key], name).is_none() {
                    return Err(Failure::ValueNotFound);
                }
            }
        }
        let shown = run(&mut keys, &mut Some(path.clone()), &path, &command)?;
        let shown = shown.into_iter().collect();
        Ok(Some(self.record(keys, shown, true)))
    }

    pub fn read(&self, path: &str, name: &str) -> Reply {
        let Some(key) = find_key(&self.keys, &split(path)) else {
            return (path.to_owned(), name.to_owned(), None);
        };
        let key = &self.keys[key];
        let stored = key.path.join("\\");
        match find_value(key, name) {
            None => (stored, name.to_owned(), None),
            Some(value) => {
                let value = &key.values[value];
                let data = (value.value_type, value.data.clone());
                (stored, value.name.clone(), Some(data))
            }
        }
    }

    pub fn info(&self, path: &str) -> Option<Info> {
        let key = &self.keys[find_key(&self.keys, &split(path))?];
        let below = subkeys(&self.keys, &key.path);
        let units = |text: &str| text.encode_utf16().count() as u64;
        let longest = |lengths: Vec<u64>| lengths.into_iter().max().unwrap_or(0);
        Some(Info {
            path: key.path.join("\\"),
            subkeys: below.len() as u64,
            values: key.values.len() as u64,
            longest_key: longest(
                below
                    .iter()
                    .map(|key| units(&key.path[key.path.len() - 1]))
                    .collect(),
            ),
            longest_name: longest(key.values.iter().map(|value| units(&value.name)).collect()),
            largest_data: longest(key.values.iter().map(|value| value.data.len() as u64).collect()),
        })
    }
}

fn subkeys<'a>(keys: &'a [NaiveKey], path: &[String]) -> Vec<&'a NaiveKey> {
    keys.iter()
        .filter(|key| key.path.len() == path.len() + 1 && is_at_or_below(&key.path, path))
        .collect()
}
