//! The work that is done everywhere: batches, keys, loads.

use anyhow::Result;
use clusdb::KeyPath;

use crate::peer::{Batch, Command, Peer};

/// Values of a key, in stores that are read.
pub const VALUES_PER_KEY: u64 = 10;
/// Keys right below one key there: what is listed.
pub const KEYS_PER_GROUP: u64 = 100;
/// REG_BINARY.
const BINARY: u32 = 3;
/// Batches that are made before they are loaded.
const LOAD_CHUNK: u64 = 10_000;

pub fn path(path: &str) -> KeyPath {
    KeyPath::parse(path).expect("paths here are valid")
}

/// Bytes that do not compress, and are the same in every run.
pub fn data(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn set_value(name: impl Into<String>, data: Vec<u8>) -> Command {
    Command::SetValue {
        name: name.into(),
        value_type: BINARY,
        data,
    }
}

/// 10 commands: a key of about 40 bytes is opened, and 9 values of 100 bytes are set. A writer goes round 100 keys.
pub fn batch_of_10(writer: u64, number: u64) -> Batch {
    let mut commands = vec![Command::CreateKey(String::new())];
    commands
        .extend((0..9).map(|name| set_value(format!("Parameter{name:03}"), data(number * 10 + name, 100))));
    Batch {
        at: path(&format!(
            r"Cluster\Resources\Bench{writer:04}\Key{:07}",
            number % 100
        )),
        commands,
    }
}

/// The key of this number in a store that is read: 100 stand side by side.
pub fn read_key(number: u64) -> KeyPath {
    let group = number / KEYS_PER_GROUP;
    path(&format!(r"Cluster\Group{group:05}\Resource{number:07}"))
}

pub fn read_name(number: u64) -> String {
    format!("Parameter{number:03}")
}

/// The batch that makes the key of this number with its values, of 40 bytes each.
pub fn read_batch(number: u64) -> Batch {
    let mut commands = vec![Command::CreateKey(String::new())];
    let value = |name| set_value(read_name(name), data(number * VALUES_PER_KEY + name, 40));
    commands.extend((0..VALUES_PER_KEY).map(value));
    Batch {
        at: read_key(number),
        commands,
    }
}

/// Commits the batches of these numbers, many at a time.
pub fn load(peer: &dyn Peer, numbers: std::ops::Range<u64>, make: impl Fn(u64) -> Batch) -> Result<()> {
    let mut from = numbers.start;
    while from < numbers.end {
        let to = numbers.end.min(from + LOAD_CHUNK);
        let batches: Vec<_> = (from..to).map(&make).collect();
        peer.write(&batches)?;
        from = to;
    }
    Ok(())
}
