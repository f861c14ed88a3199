//! Batches out of bytes: few names, so that they meet, and now and then a name of the fuzzer's own.

use clusdb::model::KeyPath;
use clusdb::{Batch, Value, ValueType};

const PATHS: [&str; 12] = [
    "",
    "a",
    "A",
    "b",
    "a\\b",
    "A\\B",
    "a\\b\\c",
    "ß",
    "ẞ",
    "a\\\\b",
    "\\a",
    "b\\a\\A\\a",
];
const NAMES: [&str; 6] = ["", "v", "V", "σ", "Σ", "a\\b"];

pub struct Commands<'a> {
    bytes: &'a [u8],
}

impl<'a> Commands<'a> {
    pub fn new(bytes: &'a [u8]) -> Commands<'a> {
        Commands { bytes }
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*byte)
    }

    fn text(&mut self, known: &[&str]) -> Option<String> {
        let choice = usize::from(self.byte()?);
        if choice < 224 {
            return Some(known[choice % known.len()].to_owned());
        }
        let length = (choice - 224).min(self.bytes.len());
        let (text, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    pub fn next_batch(&mut self) -> Option<Batch> {
        let path = self.text(&PATHS)?;
        let mut batch = Batch::at(&KeyPath::parse(&path).unwrap_or_else(|_| KeyPath::root()));
        for _ in 0..self.byte()? % 8 {
            // What the batch refuses at once is left out of it.
            match self.byte()? % 10 {
                0 => _ = batch.delete_key(&self.text(&PATHS)?),
                1 => _ = batch.delete_value(&self.text(&NAMES)?),
                2 | 3 => _ = batch.create_key(&self.text(&PATHS)?),
                4 => {
                    let name = self.text(&NAMES)?;
                    let value = Value::new(
                        ValueType(u32::from(self.byte()? % 12)),
                        vec![7; usize::from(self.byte()? % 5)],
                    );
                    _ = match self.byte()? % 6 {
                        0 => batch.condition_exists(&name).map(drop),
                        1 => batch.condition_not_exists(&name).map(drop),
                        2 => batch.condition_is_equal(&name, value).map(drop),
                        3 => batch.condition_is_not_equal(&name, value).map(drop),
                        4 => batch.condition_is_greater_than(&name, value).map(drop),
                        _ => batch.condition_is_less_than(&name, value).map(drop),
                    };
                }
                5 => _ = batch.condition_key_exists(&self.text(&PATHS)?),
                _ => {
                    let name = self.text(&NAMES)?;
                    let value_type = ValueType(u32::from(self.byte()? % 12));
                    let length = usize::from(self.byte()? % 5);
                    _ = batch.set_value(&name, Value::new(value_type, vec![7; length]));
                }
            }
        }
        Some(batch)
    }
}
