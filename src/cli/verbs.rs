//! The verbs that set, delete and show.

use std::path::Path;

use clusdb::json::BatchLine;
use clusdb::{Batch, Entry, KeyPath, OpenedFrom, ReadBatch, Stat, Value, ValueType};
use serde::Serialize;

use crate::args;
use crate::failure::{Failure, Result};
use crate::json::{self, EntryJson, ReplyJson};
use crate::output::{Line, escape_control, rfc3339};
use crate::session::{Session, argument_path, read_input};
use crate::via;

pub fn set(session: &Session, arguments: &args::Set) -> Result {
    let key = argument_path(&arguments.key)?;
    let value = value_of(arguments)?;
    let store = session.open_or_create()?;
    if arguments.plain {
        // Two calls, and so two records: what the second would refuse is refused before the first.
        let mut both = Batch::at(&key);
        both.create_key("")?.set_value(&arguments.name, value.clone())?;
        store.dry_run(&both)?;
        store.create_key(&key)?;
        return session.finish(&store, store.set_value(&key, &arguments.name, value)?);
    }
    let mut batch = Batch::at(&key);
    if !store.contains(&key)? {
        batch.create_key("")?;
    }
    batch.set_value(&arguments.name, value)?;
    session.commit_to(&store, batch)
}

fn value_of(arguments: &args::Set) -> Result<Value> {
    let value_type = type_of(&arguments.value_type)?;
    if let Some(file) = &arguments.data_file {
        return Ok(Value::new(value_type, read_input(file)?));
    }
    let data = &arguments.data;
    if value_type == ValueType::MULTI_SZ {
        if data.iter().any(String::is_empty) {
            return Err(Failure::usage(
                "data",
                "an empty string would end the list: leave it out",
            ));
        }
        return Ok(Value::multi_sz(data));
    }
    let text = match data.as_slice() {
        [text] => text.as_str(),
        [] if !is_text(value_type) => "",
        _ => {
            return Err(Failure::usage(
                "data",
                format!("{value_type} takes one argument of data"),
            ));
        }
    };
    match value_type {
        ValueType::SZ => Ok(Value::sz(text)),
        ValueType::EXPAND_SZ => Ok(Value::expand_sz(text)),
        ValueType::DWORD | ValueType::DWORD_BIG_ENDIAN | ValueType::QWORD => {
            let number = integer(text).and_then(|number| Value::integer(value_type, number));
            let message = || format!("{text:?} is not a {value_type}: give a number, decimal or 0x…");
            number.ok_or_else(|| Failure::usage("data", message()))
        }
        _ => {
            let message = || format!("{text:?} is not data of {value_type}: give pairs of hex digits");
            let bytes = hex(text).ok_or_else(|| Failure::usage("data", message()))?;
            Ok(Value::new(value_type, bytes))
        }
    }
}

fn is_text(value_type: ValueType) -> bool {
    [ValueType::SZ, ValueType::EXPAND_SZ].contains(&value_type)
}

fn type_of(word: &str) -> Result<ValueType> {
    let by_number = || integer(word)?.try_into().ok().map(ValueType);
    ValueType::from_name(word).or_else(by_number).ok_or_else(|| {
        let known = "none, sz, expand_sz, binary, dword, dword_big_endian, link, multi_sz, qword";
        Failure::usage(
            "type",
            format!("{word:?} is not a type: give {known}, or a number"),
        )
    })
}

fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| (pair[0] << 4 | pair[1]) as u8)
            .collect(),
    )
}

pub fn del(session: &Session, arguments: &args::Del) -> Result {
    let key = argument_path(&arguments.key)?;
    if arguments.plain {
        let store = session.open_existing()?;
        let commit = match &arguments.name {
            Some(name) => store.delete_value(&key, name),
            None => store.delete_key(&key),
        };
        return session.finish(&store, commit?);
    }
    let mut batch = Batch::at(&key);
    match &arguments.name {
        Some(name) => batch.delete_value(name)?,
        None => batch.delete_key("")?,
    };
    session.commit(batch, arguments.dry_run)
}

pub fn batch(session: &Session, arguments: &args::Batch) -> Result {
    let at = arguments
        .at
        .as_deref()
        .map_or(Ok(KeyPath::root()), argument_path)?;
    if arguments.wire {
        let batch = Batch::from_wire(&at, &read_input(&arguments.file)?).map_err(clusdb::Error::from)?;
        return session.commit(batch, arguments.dry_run);
    }
    let text = read_text(&arguments.file)?;
    let (mut batch, mut lines) = (BatchLine::at(&at), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        lines.push(number);
        batch
            .add(line)
            .map_err(|error| Failure::from(error).with_lines(&lines))?;
    }
    let done = match &arguments.via {
        Some(socket) => via::send(socket, &batch).and_then(|committed| session.output().one(&committed)),
        None => commit_line(session, &batch, arguments.dry_run),
    };
    done.map_err(|failure| failure.with_lines(&lines))
}

fn commit_line(session: &Session, batch: &BatchLine, dry_run: bool) -> Result {
    session.commit(batch.to_batch()?, dry_run)
}

/// A file of JSON lines.
fn read_text(file: &Path) -> Result<String> {
    String::from_utf8(read_input(file)?).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count() as u64;
        Failure::usage("json", "the input is not UTF-8").at_line(line + 1)
    })
}

pub fn get(session: &Session, arguments: &args::Get) -> Result {
    let key = argument_path(&arguments.key)?;
    let store = session.read()?;
    match store.entry(&key, &arguments.name)? {
        Some(entry) => session.output().one(&EntryJson::alone(&entry)),
        None if store.contains(&key)? => {
            let message = format!("the key {:?} has no value {:?}", key.as_str(), arguments.name);
            Err(Failure::not_found(message))
        }
        None => Err(Failure::not_found(format!(
            "the key {:?} does not exist",
            key.as_str()
        ))),
    }
}

pub fn read(session: &Session, arguments: &args::Read) -> Result {
    let text = read_text(&arguments.file)?;
    let mut batch = ReadBatch::at(&KeyPath::root());
    for (number, line) in (1..).zip(text.lines()) {
        if !line.trim().is_empty() {
            json::add_read(&mut batch, line).map_err(|failure| failure.at_line(number))?;
        }
    }
    let store = session.read()?;
    let mut output = session.output();
    for reply in &store.read(&batch)? {
        output.item(&ReplyJson::from(reply))?;
    }
    output.end()
}

#[derive(Debug, Serialize)]
struct InfoJson {
    key: String,
    subkeys: u64,
    values: u64,
    longest_key: u64,
    longest_name: u64,
    largest_data: u64,
    /// Not there for a root that was never written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_write: Option<String>,
}

impl Line for InfoJson {
    fn text(&self) -> String {
        format!(
            "keys              {}, the longest name {} units\nvalues            {}, the longest name {} units\n\
             largest data      {} bytes\nlast write        {}",
            self.subkeys,
            self.longest_key,
            self.values,
            self.longest_name,
            self.largest_data,
            self.last_write.as_deref().unwrap_or("never")
        )
    }
}

pub fn info(session: &Session, arguments: &args::Info) -> Result {
    let info = session.read()?.key_info(&argument_path(&arguments.key)?)?;
    session.output().one(&InfoJson {
        key: info.path.to_string(),
        subkeys: info.subkeys,
        values: info.values,
        longest_key: info.longest_key,
        longest_name: info.longest_name,
        largest_data: info.largest_data,
        last_write: (info.last_write != 0).then(|| rfc3339(info.last_write)),
    })
}

pub fn ls(session: &Session, arguments: &args::Ls) -> Result {
    let key = argument_path(&arguments.key)?;
    let store = session.read()?;
    let entries: Vec<Entry> = match arguments.recursive {
        true => store.list_recursive(&key)?,
        false => store.list(&key)?,
    };
    let mut output = session.output();
    for entry in &entries {
        output.item(&EntryJson::listed(entry))?;
    }
    output.end()
}

pub fn port_create(session: &Session, name: &str, key: &str) -> Result {
    let key = argument_path(key)?;
    let store = session.read_or_create()?;
    store.port(name, &key)?;
    store.close()?;
    Ok(())
}

pub fn port_rm(session: &Session, name: &str) -> Result {
    let store = session.read()?;
    store.remove_port(name)?;
    store.close()?;
    Ok(())
}

#[derive(Debug, Serialize)]
struct PortJson<'a> {
    name: &'a str,
    key: &'a str,
    acknowledged: u64,
    pending: u64,
    /// Bytes of the journal from the first pending batch on.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_until_lost: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lagging: bool,
    /// Why it cannot be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
}

impl Line for PortJson<'_> {
    fn text(&self) -> String {
        let key = escape_control(self.key);
        if let Some(fault) = self.fault {
            return format!("{:<20} {}", self.name, escape_control(fault));
        }
        let lag = match (self.lagging, self.lag_bytes, self.bytes_until_lost) {
            (true, _, _) => "  LEFT BEHIND: changes are gone".to_owned(),
            (false, Some(lag), Some(left)) => format!("  {lag} bytes behind, lost after {left} more"),
            _ => String::new(),
        };
        format!(
            "{:<20} {:>8} pending, acknowledged to {:<8} {key}{lag}",
            self.name, self.pending, self.acknowledged
        )
    }
}

pub fn port_ls(session: &Session) -> Result {
    let store = session.read()?;
    let mut output = session.output();
    for port in &store.ports()? {
        output.item(&PortJson {
            name: &port.name,
            key: port.key.as_str(),
            acknowledged: port.acknowledged,
            pending: port.pending,
            lag_bytes: (port.pending > 0).then_some(port.lag_bytes),
            bytes_until_lost: port.bytes_until_lost,
            lagging: port.is_lagging,
            fault: port.fault.as_deref(),
        })?;
    }
    output.end()
}

#[derive(Debug, Serialize)]
struct StatJson {
    epoch: String,
    first_sequence: u64,
    durable_sequence: u64,
    tree_sequence: u64,
    opened_from: &'static str,
    replayed: u64,
    segments: u64,
    journal_bytes: u64,
    keys: u64,
    values: u64,
    ports: u64,
}

impl Line for StatJson {
    fn text(&self) -> String {
        format!(
            "epoch             {}\nrecords           {} to {}\nopened from       {}, {} records replayed\ntree              {}\n\
             journal           {} segments, {} bytes\nkeys              {}\nvalues            {}\nports             {}",
            self.epoch,
            self.first_sequence,
            self.durable_sequence,
            self.opened_from,
            self.replayed,
            match self.tree_sequence {
                0 => "none".to_owned(),
                sequence => format!("up to record {sequence}"),
            },
            self.segments,
            self.journal_bytes,
            self.keys,
            self.values,
            self.ports
        )
    }
}

pub fn stat(session: &Session) -> Result {
    let stat: Stat = session.stat()?;
    session.output().one(&StatJson {
        epoch: stat.epoch.to_string(),
        first_sequence: stat.first_sequence,
        durable_sequence: stat.durable_sequence,
        tree_sequence: stat.tree_sequence,
        opened_from: match stat.opened_from {
            OpenedFrom::Tree => "tree",
            OpenedFrom::Snapshot => "snapshot",
            _ => "journal",
        },
        replayed: stat.replayed,
        segments: stat.segments,
        journal_bytes: stat.journal_bytes,
        keys: stat.keys,
        values: stat.values,
        ports: stat.ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value_type: &str, data: &[&str]) -> Result<Value> {
        value_of(&args::Set {
            key: String::new(),
            name: String::new(),
            data: data.iter().map(|&text| text.to_owned()).collect(),
            value_type: value_type.to_owned(),
            data_file: None,
            plain: false,
        })
    }

    #[test]
    fn data_is_read_by_its_type() {
        assert_eq!(value("sz", &["é"]).unwrap(), Value::sz("é"));
        assert_eq!(value("dword", &["0xfF"]).unwrap(), Value::dword(255));
        assert_eq!(
            value("qword", &["18446744073709551615"]).unwrap(),
            Value::qword(u64::MAX)
        );
        assert_eq!(value("binary", &["00fF"]).unwrap(), Value::binary([0, 255]));
        assert_eq!(value("none", &[]).unwrap(), Value::new(ValueType::NONE, []));
        assert_eq!(value("8", &["aa"]).unwrap(), Value::new(ValueType(8), [0xaa]));
        assert_eq!(
            value("multi_sz", &["a", "b"]).unwrap(),
            Value::multi_sz(&["a", "b"])
        );
        assert_eq!(value("multi_sz", &[]).unwrap(), Value::multi_sz::<&str>(&[]));
    }

    #[test]
    fn data_that_does_not_fit_its_type_is_refused() {
        for (value_type, data) in [
            ("sz", &[][..]),
            ("sz", &["a", "b"]),
            ("dword", &["4294967296"]),
            ("dword", &["-1"]),
            ("dword", &["+1"]),
            ("dword", &["x"]),
            ("dword", &[]),
            ("binary", &["0"]),
            ("binary", &["0g"]),
            ("multi_sz", &["a", ""]),
            ("word", &["1"]),
            ("4294967296", &["00"]),
        ] {
            assert!(value(value_type, data).is_err(), "{value_type} {data:?}");
        }
    }
}
