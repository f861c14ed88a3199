//! A naive model of the cluster registry: the oracle for property tests. "Spec" is spec/cluster-registry.md.
//!
//! Everything is a list searched by a loop. That is deliberate: an oracle is only worth something if it shares no ideas
//! (indexes, folded keys, path trees) with the store it judges.

#[path = "naive/single.rs"]
pub mod single;
#[cfg(test)]
#[path = "naive/tests.rs"]
mod tests;

/// Spec section 6: the limits the model enforces.
pub const MAX_KEY_UNITS: usize = 255;
pub const MAX_VALUE_NAME_UNITS: usize = 16_383;
pub const MAX_DEPTH: usize = 512;
pub const MAX_NEW_LEVELS: usize = 32;
pub const MAX_DATA: usize = 1024 * 1024;

/// A value's type and data.
pub type Data = (u32, Vec<u8>);

/// One command. Paths are relative to the batch key, their components separated by `\`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    SetValue {
        name: String,
        value_type: u32,
        data: Vec<u8>,
    },
    CreateKey {
        path: String,
    },
    DeleteKey {
        path: String,
    },
    DeleteValue {
        name: String,
    },
    /// `number` is the registry's own, 11 to 16.
    ValueCondition {
        number: u32,
        name: String,
        value_type: u32,
        data: Vec<u8>,
    },
    /// 17 or 18.
    KeyCondition {
        number: u32,
        path: String,
    },
    Control,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub key: String,
    pub commands: Vec<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NoCurrentKey,
    KeyNotFound,
    Root,
    HasSubkeys,
    ValueNotFound,
    Condition,
    Limit,
    /// Text that is no name at all: an empty component (so also a leading or trailing `\`), or a NUL.
    Name,
}

/// One command as it is committed and shown. `key` is the full path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub command: &'static str,
    pub key: String,
    pub name: Option<String>,
    pub value: Option<Data>,
    pub previous: Option<Data>,
    pub changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub sequence: u64,
    /// A plain write, which no port shows.
    pub plain: bool,
    pub shown: Vec<Shown>,
}

/// One line of the registry's own stream. A `value_deleted` line has the old data as `value`, and `changed` of the command
/// it precedes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub command: &'static str,
    pub key: String,
    pub name: Option<String>,
    pub value: Option<Data>,
    pub changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpLine {
    Key(String),
    Value {
        key: String,
        name: String,
        value_type: u32,
        data: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
pub struct NaiveValue {
    pub name: String,
    pub value_type: u32,
    pub data: Vec<u8>,
}

/// `path` has the components as stored, the parents' too.
#[derive(Clone, Debug)]
pub struct NaiveKey {
    pub path: Vec<String>,
    pub values: Vec<NaiveValue>,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub keys: Vec<NaiveKey>,
    pub log: Vec<Committed>,
}

impl Store {
    /// Only the root, which always exists.
    pub fn new() -> Self {
        let root = NaiveKey {
            path: Vec::new(),
            values: Vec::new(),
        };
        Store {
            keys: vec![root],
            log: Vec::new(),
        }
    }

    /// All or nothing. Panics if the batch key is no valid path: such a batch can't be made, so there is no command to blame.
    pub fn commit(&mut self, batch: &Batch) -> Result<Option<u64>, (usize, Failure)> {
        let shown = self.try_run(batch)?;
        // Nothing at all, or conditions and control commands alone: checked, and nothing to commit.
        Ok(match shown {
            (_, shown) if shown.is_empty() => None,
            (keys, shown) => Some(self.record(keys, shown, false)),
        })
    }

    /// A batch that also acknowledges is something to commit, whatever else it does.
    pub fn commit_acknowledging(&mut self, batch: &Batch) -> Result<Option<u64>, (usize, Failure)> {
        let (keys, shown) = self.try_run(batch)?;
        Ok(Some(self.record(keys, shown, false)))
    }

    fn try_run(&self, batch: &Batch) -> Result<(Vec<NaiveKey>, Vec<Shown>), (usize, Failure)> {
        assert_eq!(
            check_path(&split(&batch.key)),
            Ok(()),
            "batch key {:?}",
            batch.key
        );
        // The batch runs on a copy, so "undo" is forgetting the copy, and `previous` is the running state of itself.
        let mut keys = self.keys.clone();
        let mut current = Some(batch.key.clone());
        let mut shown = Vec::new();
        for (index, command) in batch.commands.iter().enumerate() {
            match run(&mut keys, &mut current, &batch.key, command) {
                Ok(line) => shown.extend(line),
                Err(failure) => return Err((index, failure)),
            }
        }
        Ok((keys, shown))
    }

    fn record(&mut self, keys: Vec<NaiveKey>, shown: Vec<Shown>, plain: bool) -> u64 {
        let sequence = self.last_sequence() + 1;
        self.keys = keys;
        self.log.push(Committed {
            sequence,
            plain,
            shown,
        });
        sequence
    }

    /// 0 if nothing was committed yet.
    pub fn last_sequence(&self) -> u64 {
        self.log.last().map_or(0, |last| last.sequence)
    }

    /// Keys without the root, and values.
    pub fn counts(&self) -> (u64, u64) {
        let values: usize = self.keys.iter().map(|key| key.values.len()).sum();
        (self.keys.len() as u64 - 1, values as u64)
    }

    /// Depth first: the key, its values by folded name, its child keys by folded name. The root has no line of its own.
    pub fn dump(&self) -> Vec<DumpLine> {
        let mut lines = Vec::new();
        dump_key(&self.keys, &[], &mut lines);
        lines
    }

    /// The key itself and all below it; nothing if it does not exist.
    pub fn contents(&self, path: &str) -> Vec<DumpLine> {
        let path = split(path);
        let mut lines = Vec::new();
        if find_key(&self.keys, &path).is_some() {
            if path.is_empty() {
                lines.push(DumpLine::Key(String::new()));
            }
            dump_key(&self.keys, &path, &mut lines);
        }
        lines
    }

    /// What a port on `port_key` sees of the batches with `after < sequence <= upto` (spec section 3).
    pub fn notification(&self, port_key: &str, after: u64, upto: u64) -> Vec<Committed> {
        let port = split(port_key);
        let is_shown = |line: &Shown| {
            let key = split(&line.key);
            // Of a deleted ancestor, everything below is gone, the port's key with it.
            is_at_or_below(&key, &port) || line.command == "delete_key" && is_at_or_below(&port, &key)
        };
        let mut seen = Vec::new();
        for batch in &self.log {
            let sequence = batch.sequence;
            let shown: Vec<_> = batch
                .shown
                .iter()
                .filter(|line| is_shown(line))
                .cloned()
                .collect();
            if sequence > after && sequence <= upto && !shown.is_empty() && !batch.plain {
                seen.push(Committed {
                    sequence,
                    plain: false,
                    shown,
                });
            }
        }
        seen
    }

    /// The registry's own stream: VALUE_DELETED before each command whose value had data at that moment.
    pub fn commands(shown: &[Shown]) -> Vec<Line> {
        let mut lines = Vec::new();
        for s in shown {
            let line = |command, value| Line {
                command,
                key: s.key.clone(),
                name: s.name.clone(),
                value,
                changed: s.changed,
            };
            if s.previous.is_some() {
                lines.push(line("value_deleted", s.previous.clone()));
            }
            lines.push(line(s.command, s.value.clone()));
        }
        lines
    }
}

/// The fold of the records, as a reader would do it: it trusts what is shown and checks no limit. Panics on a value set in a
/// key that was never created, because a complete log has no such record.
pub fn replay(log: &[Committed]) -> Store {
    let mut store = Store::new();
    for s in log.iter().flat_map(|batch| &batch.shown) {
        let (keys, path) = (&mut store.keys, split(&s.key));
        let name = s.name.as_deref().unwrap_or_default();
        match (s.command, find_key(keys, &path), &s.value) {
            ("create_key", _, None) => drop(make_key(keys, &path)),
            ("delete_key", _, None) => drop(remove_key(keys, &path)),
            ("set_value", Some(key), Some((value_type, data))) => {
                put_value(&mut keys[key], name, *value_type, data);
            }
            ("delete_value", Some(key), None) => drop(take_value(&mut keys[key], name)),
            ("delete_value", None, None) => {}
            _ => panic!("no record of a complete log: {s:?}"),
        }
    }
    store.log = log.to_vec();
    store
}

/// One character to one character (spec section 6). std has only the full mapping; where that gives several characters, the
/// simple one is the character itself, but for 27 Greek letters with an iota below, which std does not know.
pub fn fold(c: char) -> char {
    let raised = |by: u32| char::from_u32(c as u32 + by).expect("a Greek letter");
    match c {
        '\u{1F80}'..='\u{1F87}' | '\u{1F90}'..='\u{1F97}' | '\u{1FA0}'..='\u{1FA7}' => raised(8),
        '\u{1FB3}' | '\u{1FC3}' | '\u{1FF3}' => raised(9),
        _ => {
            let mut upper = c.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(one), None) => one,
                _ => c,
            }
        }
    }
}

fn fold_text(text: &str) -> String {
    text.chars().map(fold).collect()
}

pub fn same_name(a: &str, b: &str) -> bool {
    a.chars().map(fold).eq(b.chars().map(fold))
}

fn is_at_or_below(path: &[String], top: &[String]) -> bool {
    path.len() >= top.len() && path.iter().zip(top).all(|(a, b)| same_name(a, b))
}

fn same_path(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && is_at_or_below(a, b)
}

fn split(path: &str) -> Vec<String> {
    if path.is_empty() {
        Vec::new()
    } else {
        path.split('\\').map(String::from).collect()
    }
}

fn join(base: &str, path: &str) -> String {
    if base.is_empty() || path.is_empty() {
        format!("{base}{path}")
    } else {
        format!("{base}\\{path}")
    }
}

fn check_path(path: &[String]) -> Result<(), Failure> {
    for part in path {
        if part.is_empty() || part.contains('\0') {
            return Err(Failure::Name);
        }
        if part.encode_utf16().count() > MAX_KEY_UNITS {
            return Err(Failure::Limit);
        }
    }
    if path.len() > MAX_DEPTH {
        Err(Failure::Limit)
    } else {
        Ok(())
    }
}

fn check_value_name(name: &str) -> Result<(), Failure> {
    if name.contains('\0') {
        return Err(Failure::Name);
    }
    if name.encode_utf16().count() > MAX_VALUE_NAME_UNITS {
        Err(Failure::Limit)
    } else {
        Ok(())
    }
}

fn find_key(keys: &[NaiveKey], path: &[String]) -> Option<usize> {
    keys.iter().position(|key| same_path(&key.path, path))
}

fn find_value(key: &NaiveKey, name: &str) -> Option<usize> {
    key.values.iter().position(|value| same_name(&value.name, name))
}

/// The path as stored, and how many of its last components were missing.
fn make_key(keys: &mut Vec<NaiveKey>, path: &[String]) -> (Vec<String>, usize) {
    let mut stored: Vec<String> = Vec::new();
    let mut made = 0;
    for depth in 1..=path.len() {
        if let Some(key) = find_key(keys, &path[..depth]) {
            stored = keys[key].path.clone();
        } else {
            stored.push(path[depth - 1].clone());
            keys.push(NaiveKey {
                path: stored.clone(),
                values: Vec::new(),
            });
            made += 1;
        }
    }
    (stored, made)
}

/// The key with all below; its stored path if it was there.
fn remove_key(keys: &mut Vec<NaiveKey>, path: &[String]) -> Option<Vec<String>> {
    let stored = find_key(keys, path).map(|key| keys[key].path.clone());
    keys.retain(|key| !is_at_or_below(&key.path, path));
    stored
}

/// The stored name and what was there before.
fn put_value(key: &mut NaiveKey, name: &str, value_type: u32, data: &[u8]) -> (String, Option<Data>) {
    if let Some(found) = find_value(key, name) {
        let value = &mut key.values[found];
        let previous = (value.value_type, value.data.clone());
        value.value_type = value_type;
        value.data = data.to_vec();
        return (value.name.clone(), Some(previous));
    }
    key.values.push(NaiveValue {
        name: name.to_string(),
        value_type,
        data: data.to_vec(),
    });
    (name.to_string(), None)
}

fn take_value(key: &mut NaiveKey, name: &str) -> Option<NaiveValue> {
    find_value(key, name).map(|found| key.values.remove(found))
}

fn run(
    keys: &mut Vec<NaiveKey>,
    current: &mut Option<String>,
    base: &str,
    command: &Command,
) -> Result<Option<Shown>, Failure> {
    let key_line = |command, key, changed| Shown {
        command,
        key,
        name: None,
        value: None,
        previous: None,
        changed,
    };
    match command {
        Command::CreateKey { path } => {
            let full = split(&join(base, path));
            check_path(&full)?;
            let (stored, made) = make_key(keys, &full);
            if made > MAX_NEW_LEVELS {
                return Err(Failure::Limit); // what was made is in the copy, which is now forgotten
            }
            let key = stored.join("\\");
            *current = Some(key.clone());
            Ok(Some(key_line("create_key", key, made > 0)))
        }
        Command::DeleteKey { path } => {
            let given = join(base, path);
            check_path(&split(&given))?;
            if given.is_empty() {
                return Err(Failure::Root);
            }
            *current = None;
            let stored = remove_key(keys, &split(&given));
            let changed = stored.is_some();
            let key = stored.map_or(given, |stored| stored.join("\\"));
            Ok(Some(key_line("delete_key", key, changed)))
        }
        Command::SetValue {
            name,
            value_type,
            data,
        } => {
            let current = current.as_ref().ok_or(Failure::NoCurrentKey)?;
            check_value_name(name)?;
            if data.len() > MAX_DATA {
                return Err(Failure::Limit);
            }
            let key = find_key(keys, &split(current)).ok_or(Failure::KeyNotFound)?;
            let key = &mut keys[key];
            let value = Some((*value_type, data.clone()));
            let (name, previous) = put_value(key, name, *value_type, data);
            let changed = previous != value;
            Ok(Some(Shown {
                command: "set_value",
                key: key.path.join("\\"),
                name: Some(name),
                value,
                previous,
                changed,
            }))
        }
        Command::DeleteValue { name } => {
            let current = current.as_ref().ok_or(Failure::NoCurrentKey)?;
            check_value_name(name)?;
            let (mut shown_key, mut shown_name, mut previous) = (current.clone(), name.clone(), None);
            if let Some(key) = find_key(keys, &split(current)) {
                shown_key = keys[key].path.join("\\");
                if let Some(old) = take_value(&mut keys[key], name) {
                    shown_name = old.name;
                    previous = Some((old.value_type, old.data));
                }
            }
            let changed = previous.is_some();
            Ok(Some(Shown {
                command: "delete_value",
                key: shown_key,
                name: Some(shown_name),
                value: None,
                previous,
                changed,
            }))
        }
        Command::ValueCondition {
            number,
            name,
            value_type,
            data,
        } => {
            let current = current.as_ref().ok_or(Failure::NoCurrentKey)?;
            check_value_name(name)?;
            let key = find_key(keys, &split(current));
            let found =
                key.and_then(|key| find_value(&keys[key], name).map(|value| &keys[key].values[value]));
            if holds(*number, found, *value_type, data) {
                Ok(None)
            } else {
                Err(Failure::Condition)
            }
        }
        Command::KeyCondition { number, path } => {
            let full = split(&join(base, path));
            check_path(&full)?;
            if find_key(keys, &full).is_some() == (*number == 17) {
                Ok(None)
            } else {
                Err(Failure::Condition)
            }
        }
        Command::Control => Ok(None),
    }
}

/// Section 2. A missing value, and one of another type, is not equal, not greater and not less.
fn holds(number: u32, found: Option<&NaiveValue>, value_type: u32, data: &[u8]) -> bool {
    let same_type = found.filter(|found| found.value_type == value_type);
    match number {
        11 => found.is_some(),
        12 => found.is_none(),
        13 => same_type.is_some_and(|found| found.data == data),
        14 => same_type.is_none_or(|found| found.data != data),
        15 => same_type.is_some_and(|found| is_greater(value_type, &found.data, data)),
        16 => same_type.is_some_and(|found| is_greater(value_type, data, &found.data)),
        _ => panic!("no condition on a value: {number}"),
    }
}

/// "Integers as unsigned integers; texts by UTF-16 code units ignoring case as names do; anything else byte by byte."
fn is_greater(value_type: u32, a: &[u8], b: &[u8]) -> bool {
    let number = |data: &[u8]| -> Option<u128> {
        let wanted = if value_type == 11 { 8 } else { 4 };
        if data.len() != wanted {
            return None;
        }
        let mut bytes = data.to_vec();
        if value_type == 5 {
            bytes.reverse();
        }
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum * 256 + u128::from(*byte)),
        )
    };
    let units = |data: &[u8]| -> Option<Vec<u16>> {
        let pairs = data
            .chunks(2)
            .map(|pair| pair.try_into().ok().map(u16::from_le_bytes));
        let units: Option<Vec<u16>> = pairs.collect();
        let decoded = char::decode_utf16(units?).map(|unit| match unit {
            Ok(c) => fold(c).to_string().encode_utf16().collect(),
            Err(lone) => vec![lone.unpaired_surrogate()],
        });
        Some(decoded.flatten().collect())
    };
    match value_type {
        4 | 5 | 11 => match (number(a), number(b)) {
            (Some(a), Some(b)) => a > b,
            _ => a > b,
        },
        1 | 2 | 7 => match (units(a), units(b)) {
            (Some(a), Some(b)) => a > b,
            _ => a > b,
        },
        _ => a > b,
    }
}

fn dump_key(keys: &[NaiveKey], path: &[String], lines: &mut Vec<DumpLine>) {
    let key = &keys[find_key(keys, path).expect("a key's parents exist")];
    let text = key.path.join("\\");
    if !path.is_empty() {
        lines.push(DumpLine::Key(text.clone()));
    }
    let mut values = key.values.clone();
    values.sort_by_key(|value| fold_text(&value.name));
    for NaiveValue {
        name,
        value_type,
        data,
    } in values
    {
        lines.push(DumpLine::Value {
            key: text.clone(),
            name,
            value_type,
            data,
        });
    }
    let mut children: Vec<&NaiveKey> = keys
        .iter()
        .filter(|child| child.path.len() == path.len() + 1 && is_at_or_below(&child.path, path))
        .collect();
    children.sort_by_key(|child| fold_text(&child.path[path.len()]));
    for child in children {
        dump_key(keys, &child.path, lines);
    }
}
