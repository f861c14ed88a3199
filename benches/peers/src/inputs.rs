//! Inputs that are real: a registry hive, and a recorded trace.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command as Process;

use anyhow::{Context, Result, ensure};
use clusdb::KeyPath;
use serde_json::Value as Json;

use crate::peer::{Batch, Command};

/// Changes of one process within one step of this are one batch.
const BATCH_MICROSECONDS: u64 = 10_000;

/// One step of the trace.
pub enum Step {
    Commit(Batch),
    /// A look-up of a value.
    Get(KeyPath, String),
    List(KeyPath),
}

/// What happened, and what was there before it.
pub struct Trace {
    pub before: Batch,
    pub steps: Vec<Step>,
}

fn folder() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("CLUSDB_INPUTS").map(PathBuf::from);
    given.unwrap_or_else(|| package.join("../../../shared/inputs"))
}

/// The text of an input; none, with a line that says so, where the inputs are not.
fn text(name: &str) -> Result<Option<String>> {
    let path = folder().join(format!("{name}.xz"));
    if !path.exists() {
        eprintln!("{} is not there: passed over", path.display());
        return Ok(None);
    }
    let output = Process::new("xz").arg("-dc").arg(&path).output().context("xz")?;
    ensure!(output.status.success(), "xz could not read {}", path.display());
    Ok(Some(String::from_utf8(output.stdout)?))
}

/// The keys and values of a real hive, as one batch.
pub fn hive() -> Result<Option<Batch>> {
    let Some(text) = text("system-hive.reg")? else {
        return Ok(None);
    };
    let mut commands = Vec::new();
    for line in text.lines() {
        if let Some(path) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            commands.push(Command::CreateKey(path.trim_end_matches('\\').to_owned()));
        } else if line.starts_with(['"', '@']) {
            commands.push(value(line).with_context(|| format!("the line {line:.80}"))?);
        }
    }
    Ok(Some(Batch {
        at: KeyPath::root(),
        commands,
    }))
}

/// What the exporter of the hive writes: `"name"=dword:..`, `@=hex(1):..`, on one line.
fn value(line: &str) -> Option<Command> {
    let (name, value) = match line.strip_prefix('@') {
        Some(rest) => (String::new(), rest.strip_prefix('=')?),
        None => quoted(line)?,
    };
    let (value_type, data) = value.split_once(':')?;
    let bytes = || -> Option<Vec<u8>> {
        let bytes = data.split(',').filter(|byte| !byte.is_empty());
        bytes.map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
    };
    let (value_type, data) = match value_type {
        "dword" => (4, u32::from_str_radix(data, 16).ok()?.to_le_bytes().to_vec()),
        "hex" => (3, bytes()?),
        hex => {
            let number = hex.strip_prefix("hex(")?.strip_suffix(')')?;
            (u32::from_str_radix(number, 16).ok()?, bytes()?)
        }
    };
    Some(Command::SetValue {
        name,
        value_type,
        data,
    })
}

/// The name in quotes, and what is behind the `=`.
fn quoted(line: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = line.strip_prefix('"')?.char_indices();
    loop {
        match characters.next()? {
            (_, '\\') => name.push(characters.next()?.1),
            (at, '"') => return Some((name, line[at + 2..].strip_prefix('=')?)),
            (_, character) => name.push(character),
        }
    }
}

/// The recorded trace: changes of one process within 10 ms are one batch, reads are reads. What was read with success before it was
/// written is what was there before.
pub fn trace() -> Result<Option<Trace>> {
    let Some(text) = text("registry-trace.jsonl")? else {
        return Ok(None);
    };
    let mut trace = Trace {
        before: Batch {
            at: KeyPath::root(),
            commands: Vec::new(),
        },
        steps: Vec::new(),
    };
    let mut known = HashSet::new();
    let mut groups: Vec<(u64, u64, Vec<Command>)> = Vec::new();
    let commit = |commands| {
        Step::Commit(Batch {
            at: KeyPath::root(),
            commands,
        })
    };
    for line in text.lines() {
        let operation = Operation::parse(line)?;
        let step = operation.at / BATCH_MICROSECONDS;
        for (_, _, commands) in groups.extract_if(.., |(_, of, _)| *of != step) {
            trace.steps.push(commit(commands));
        }
        if operation.succeeded && known.insert((operation.key.clone(), operation.name.clone())) {
            trace.before.commands.extend(operation.found());
        }
        let commands = operation.changes();
        if commands.is_empty() {
            trace.steps.extend(operation.read()?);
            continue;
        }
        match groups
            .iter_mut()
            .find(|(process, ..)| *process == operation.process)
        {
            Some((_, _, group)) => group.extend(commands),
            None => groups.push((operation.process, step, commands)),
        }
    }
    trace
        .steps
        .extend(groups.into_iter().map(|(_, _, commands)| commit(commands)));
    Ok(Some(trace))
}

struct Operation {
    at: u64,
    process: u64,
    what: String,
    key: String,
    name: String,
    succeeded: bool,
    value_type: u32,
    data: Vec<u8>,
}

impl Operation {
    fn parse(line: &str) -> Result<Operation> {
        let json: Json = serde_json::from_str(line)?;
        let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| json[field].as_u64().unwrap_or_default();
        let types = ["REG_NONE", "REG_SZ", "REG_EXPAND_SZ", "REG_BINARY", "REG_DWORD"];
        let value_type = match text("type").as_str() {
            "REG_MULTI_SZ" => 7,
            "REG_QWORD" => 11,
            name => types.iter().position(|known| *known == name).unwrap_or(0) as u32,
        };
        // The trace shows some of the data, and its length.
        let mut data = text("data").into_bytes();
        data.resize(number("length") as usize, 0);
        Ok(Operation {
            at: number("us"),
            process: number("pid"),
            what: text("op"),
            key: text("key").trim_matches('\\').to_owned(),
            name: text("name"),
            succeeded: json["result"] == "SUCCESS",
            value_type,
            data,
        })
    }

    fn set_value(&self) -> Command {
        Command::SetValue {
            name: self.name.clone(),
            value_type: self.value_type,
            data: self.data.clone(),
        }
    }

    /// The commands that make what a read has found.
    fn found(&self) -> Vec<Command> {
        let open = Command::CreateKey(self.key.clone());
        match self.what.as_str() {
            "QueryValue" => vec![open, self.set_value()],
            "QueryKey" | "EnumKey" | "EnumValue" => vec![open],
            _ => Vec::new(),
        }
    }

    /// The commands that do the same; none for a read, and for what failed.
    fn changes(&self) -> Vec<Command> {
        let open = Command::CreateKey(self.key.clone());
        let name = self.name.clone();
        match self.what.as_str() {
            _ if !self.succeeded => Vec::new(),
            "CreateKey" => vec![open],
            "DeleteKey" => vec![Command::DeleteKey(self.key.clone())],
            "DeleteValue" => vec![open, Command::DeleteValue { name }],
            "SetValue" => vec![open, self.set_value()],
            _ => Vec::new(),
        }
    }

    /// A query of a key is a look-up of its default value.
    fn read(&self) -> Result<Option<Step>> {
        let key = KeyPath::parse(&self.key);
        Ok(match self.what.as_str() {
            "QueryValue" | "QueryKey" | "QueryMultipleValueKey" => Some(Step::Get(key?, self.name.clone())),
            "EnumKey" | "EnumValue" => Some(Step::List(key?)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_exporter_are_read() {
        let read = |line| format!("{:?}", value(line).expect("a value"));
        assert!(
            read(r#""a \"b\\"=hex(7):61,00"#).contains(r#"name: "a \"b\\", value_type: 7, data: [97, 0]"#)
        );
        assert!(read("@=dword:0000001f").contains(r#"name: "", value_type: 4, data: [31, 0, 0, 0]"#));
        assert!(read(r#""x"=hex(0):"#).contains("data: []"));
        assert!(value("\"x\"=hex(0)").is_none());
    }
}
