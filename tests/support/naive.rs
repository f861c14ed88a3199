//! A naive model of the cluster registry: the oracle for property tests. "Spec" is spec/cluster-registry.md.
//!
//! Everything is a list searched by a loop. That is deliberate: an oracle is only worth something if it shares no ideas
//! (indexes, folded keys, path trees) with the store it judges.
#![allow(dead_code)] // a test file takes the module whole and seldom uses all of it

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

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
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
        assert_eq!(
            check_path(&split(&batch.key)),
            Ok(()),
            "batch key {:?}",
            batch.key
        );
        if batch.commands.is_empty() {
            return Ok(None);
        }
        // The batch runs on a copy, so "undo" is forgetting the copy, and `previous` is the running state of itself.
        let mut keys = self.keys.clone();
        let mut current = Some(batch.key.clone());
        let mut shown = Vec::new();
        for (index, command) in batch.commands.iter().enumerate() {
            match run(&mut keys, &mut current, &batch.key, command) {
                Ok(line) => shown.push(line),
                Err(failure) => return Err((index, failure)),
            }
        }
        let sequence = self.log.last().map_or(0, |last| last.sequence) + 1;
        self.keys = keys;
        self.log.push(Committed { sequence, shown });
        Ok(Some(sequence))
    }

    /// The stored name, the type, the data.
    pub fn get(&self, key: &str, name: &str) -> Option<(String, u32, Vec<u8>)> {
        let key = find_key(&self.keys, &split(key))?;
        let value = find_value(&self.keys[key], name)?;
        let value = &self.keys[key].values[value];
        Some((value.name.clone(), value.value_type, value.data.clone()))
    }

    /// Depth first: the key, its values by folded name, its child keys by folded name. The root's own line only if it has values.
    pub fn dump(&self) -> Vec<DumpLine> {
        let mut lines = Vec::new();
        dump_key(&self.keys, &[], &mut lines);
        lines
    }

    /// What a port on `port_key` sees of the batches with `after < sequence <= upto` (spec section 3).
    pub fn notification(&self, port_key: &str, after: u64, upto: u64) -> Vec<Committed> {
        let port = split(port_key);
        let mut seen = Vec::new();
        for batch in &self.log {
            if batch.sequence <= after || batch.sequence > upto {
                continue;
            }
            let mut shown = Vec::new();
            for line in &batch.shown {
                let key = split(&line.key);
                let inside = is_at_or_below(&key, &port);
                // Everything below the deleted key is gone, the port's key with it.
                let ancestor_gone = line.command == "delete_key" && is_at_or_below(&port, &key);
                if inside || ancestor_gone {
                    shown.push(line.clone());
                }
            }
            if !shown.is_empty() {
                seen.push(Committed {
                    sequence: batch.sequence,
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
    for batch in log {
        for s in &batch.shown {
            let path = split(&s.key);
            match s.command {
                "create_key" => {
                    make_key(&mut store.keys, &path);
                }
                "delete_key" => {
                    remove_key(&mut store.keys, &path);
                }
                "set_value" => {
                    let key =
                        find_key(&store.keys, &path).expect("a value is set in a key that exists");
                    let (value_type, data) = s.value.clone().expect("set_value has a value");
                    let name = s.name.as_ref().expect("set_value has a name");
                    put_value(&mut store.keys[key], name, value_type, &data);
                }
                "delete_value" => {
                    if let Some(key) = find_key(&store.keys, &path) {
                        take_value(
                            &mut store.keys[key],
                            s.name.as_ref().expect("delete_value has a name"),
                        );
                    }
                }
                other => panic!("no such command in a record: {other}"),
            }
        }
        store.log.push(batch.clone());
    }
    store
}

/// One character to one character (spec section 6). std has only the full mapping; where that gives several characters the
/// character stays itself. See `fold_is_doubtful` for where this is not the Unicode simple mapping.
pub fn fold(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The 27 characters with a simple upper case of one character AND a full one of several: UnicodeData has U+1F80 -> U+1F88,
/// `fold` has U+1F80 -> itself. A generator of names for a store that uses UnicodeData's table should leave them out.
pub fn fold_is_doubtful(c: char) -> bool {
    matches!(c, '\u{1F80}'..='\u{1F87}' | '\u{1F90}'..='\u{1F97}' | '\u{1FA0}'..='\u{1FA7}' | '\u{1FB3}' | '\u{1FC3}' | '\u{1FF3}')
}

fn fold_text(text: &str) -> String {
    text.chars().map(fold).collect()
}

fn same_name(a: &str, b: &str) -> bool {
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
    key.values
        .iter()
        .position(|value| same_name(&value.name, name))
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
fn put_value(
    key: &mut NaiveKey,
    name: &str,
    value_type: u32,
    data: &[u8],
) -> (String, Option<Data>) {
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
) -> Result<Shown, Failure> {
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
            Ok(key_line("create_key", key, made > 0))
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
            Ok(key_line(
                "delete_key",
                stored.map_or(given, |stored| stored.join("\\")),
                changed,
            ))
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
            Ok(Shown {
                command: "set_value",
                key: key.path.join("\\"),
                name: Some(name),
                value,
                previous,
                changed,
            })
        }
        Command::DeleteValue { name } => {
            let current = current.as_ref().ok_or(Failure::NoCurrentKey)?;
            check_value_name(name)?;
            let (mut shown_key, mut shown_name, mut previous) =
                (current.clone(), name.clone(), None);
            if let Some(key) = find_key(keys, &split(current)) {
                shown_key = keys[key].path.join("\\");
                if let Some(old) = take_value(&mut keys[key], name) {
                    shown_name = old.name;
                    previous = Some((old.value_type, old.data));
                }
            }
            let changed = previous.is_some();
            Ok(Shown {
                command: "delete_value",
                key: shown_key,
                name: Some(shown_name),
                value: None,
                previous,
                changed,
            })
        }
    }
}

fn dump_key(keys: &[NaiveKey], path: &[String], lines: &mut Vec<DumpLine>) {
    let key = &keys[find_key(keys, path).expect("a key's parents exist")];
    let text = key.path.join("\\");
    if !path.is_empty() || !key.values.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, data: &str) -> Command {
        let data = data.as_bytes().to_vec();
        Command::SetValue {
            name: name.into(),
            value_type: 1,
            data,
        }
    }
    fn del(name: &str) -> Command {
        Command::DeleteValue { name: name.into() }
    }
    fn create(path: &str) -> Command {
        Command::CreateKey { path: path.into() }
    }
    fn remove(path: &str) -> Command {
        Command::DeleteKey { path: path.into() }
    }
    fn batch(key: &str, commands: &[Command]) -> Batch {
        Batch {
            key: key.into(),
            commands: commands.to_vec(),
        }
    }
    fn store_with(paths: &[&str]) -> Store {
        let mut store = Store::new();
        for path in paths {
            store.commit(&batch("", &[create(path)])).unwrap();
        }
        store
    }
    /// Commits, and gives each shown line as "command key|name changed".
    fn shown(store: &mut Store, key: &str, commands: &[Command]) -> Vec<String> {
        store.commit(&batch(key, commands)).unwrap();
        let last = store.log.last().unwrap();
        let text = |s: &Shown| {
            format!(
                "{} {}|{} {}",
                s.command,
                s.key,
                s.name.as_deref().unwrap_or("-"),
                s.changed
            )
        };
        last.shown.iter().map(text).collect()
    }
    fn refused(store: &mut Store, key: &str, commands: &[Command]) -> (usize, Failure) {
        let (dump, log) = (store.dump(), store.log.len());
        let failure = store.commit(&batch(key, commands)).unwrap_err();
        assert_eq!(
            (store.dump(), store.log.len()),
            (dump, log),
            "nothing changes"
        );
        failure
    }
    fn levels(n: usize) -> String {
        vec!["x"; n].join("\\")
    }

    /// Section 3, the table.
    #[test]
    fn the_protocols_worked_example() {
        let mut store = store_with(&["K"]);
        let commands = [
            del("v"),
            set("v", "hello world"),
            set("v", "hello universe"),
            del("v"),
        ];
        assert_eq!(store.commit(&batch("K", &commands)), Ok(Some(2)));
        let lines = Store::commands(&store.notification("K", 1, 2)[0].shown);
        let seen: Vec<_> = lines
            .iter()
            .map(|l| (l.command, l.value.as_ref().map(|v| v.1.as_slice())))
            .collect();
        let world: Option<&[u8]> = Some(b"hello world");
        let universe: Option<&[u8]> = Some(b"hello universe");
        let wanted = [
            ("delete_value", None),
            ("set_value", world),
            ("value_deleted", world),
            ("set_value", universe),
            ("value_deleted", universe),
            ("delete_value", None),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(store.get("K", "v"), None);
    }

    /// Section 3: "A value of length zero counts as having data"; "VALUE_DELETED carries the old type too".
    #[test]
    fn an_empty_value_has_data_and_its_type_is_carried() {
        let mut store = Store::new();
        let empty = Command::SetValue {
            name: "v".into(),
            value_type: 77,
            data: vec![],
        };
        store.commit(&batch("", &[empty, set("v", "")])).unwrap();
        let shown = &store.log[0].shown;
        assert_eq!(
            (shown[1].previous.clone(), shown[1].changed),
            (Some((77, vec![])), true),
            "the type differs"
        );
        assert_eq!(Store::commands(shown)[1].value, Some((77, vec![])));
    }

    /// Section 3: "every command appears, also a DELETE_VALUE that found nothing and a SET that changed nothing".
    #[test]
    fn commands_that_change_nothing_are_shown_and_take_a_number() {
        let mut store = store_with(&["K"]);
        shown(&mut store, "K", &[set("v", "1")]);
        let seen = shown(
            &mut store,
            "k",
            &[set("V", "1"), del("Nil"), create(""), remove("Gone\\X")],
        );
        let wanted = [
            "set_value K|v false",
            "delete_value K|Nil false",
            "create_key K|- false",
            "delete_key k\\Gone\\X|- false",
        ];
        assert_eq!(seen, wanted);
        assert_eq!(store.log.last().unwrap().sequence, 3);
    }

    /// Section 3: "writing an existing value or opening an existing key under another spelling keeps the stored one".
    #[test]
    fn stored_spelling_is_kept_until_the_thing_is_gone() {
        let mut store = store_with(&["Key"]);
        let seen = shown(
            &mut store,
            "KEY",
            &[
                set("Val", "1"),
                set("VAL", "2"),
                create("SUB"),
                create("sub\\New"),
            ],
        );
        let wanted = [
            "set_value Key|Val true",
            "set_value Key|Val true",
            "create_key Key\\SUB|- true",
            "create_key Key\\SUB\\New|- true",
        ];
        assert_eq!(seen, wanted);
        assert_eq!(
            store.get("key", "vAL"),
            Some(("Val".into(), 1, b"2".to_vec()))
        );
        let seen = shown(
            &mut store,
            "KEY",
            &[del("vAl"), set("vAl", "3"), remove(""), create("")],
        );
        let wanted = [
            "delete_value Key|Val true",
            "set_value Key|vAl true",
            "delete_key Key|- true",
            "create_key KEY|- true",
        ];
        assert_eq!(seen, wanted);
        assert_eq!(
            store.dump(),
            [DumpLine::Key("KEY".into())],
            "values and subkeys went with the deleted key"
        );
    }

    /// Section 2: "DELETE_KEY clears it, and a value command after that, before another CREATE_KEY, is error 87".
    #[test]
    fn delete_key_clears_the_current_key_even_if_it_found_nothing() {
        let mut store = store_with(&["K"]);
        assert_eq!(
            refused(&mut store, "K", &[remove("nil"), set("v", "")]),
            (1, Failure::NoCurrentKey)
        );
        assert_eq!(
            refused(&mut store, "K", &[set("v", ""), remove(""), del("v")]),
            (2, Failure::NoCurrentKey)
        );
        assert!(
            store
                .commit(&batch("K", &[remove("nil"), create(""), set("v", "")]))
                .is_ok()
        );
    }

    /// Section 2: base "the batch key (the only reading that works after DELETE_KEY)".
    #[test]
    fn paths_start_at_the_batch_key_not_at_the_current_key() {
        let seen = shown(
            &mut store_with(&["K"]),
            "K",
            &[create("a"), create("b"), remove("a")],
        );
        assert_eq!(
            seen,
            [
                "create_key K\\a|- true",
                "create_key K\\b|- true",
                "delete_key K\\a|- true"
            ]
        );
    }

    /// Section 2: "SET_VALUE is error 2 with its index; DELETE_VALUE finds nothing, which is no error".
    #[test]
    fn a_batch_key_need_not_exist_until_it_is_needed() {
        let mut store = Store::new();
        assert_eq!(
            refused(&mut store, "No\\Key", &[del("v"), set("v", "")]),
            (1, Failure::KeyNotFound)
        );
        let seen = shown(&mut store, "No\\Key", &[del("v"), create(""), set("v", "")]);
        assert_eq!(
            seen,
            [
                "delete_value No\\Key|v false",
                "create_key No\\Key|- true",
                "set_value No\\Key|v true"
            ]
        );
        assert!(
            store.dump().contains(&DumpLine::Key("No".into())),
            "the parent was made, and not shown"
        );
    }

    /// Section 2: "the root itself can't be deleted (error 5), and may hold values"; a trailing `\` is refused.
    #[test]
    fn the_root_stays_and_bad_paths_are_refused() {
        let mut store = Store::new();
        assert_eq!(
            shown(&mut store, "", &[create(""), set("", "1")]),
            ["create_key |- false", "set_value | true"]
        );
        assert_eq!(store.dump().len(), 2);
        assert_eq!(
            refused(&mut store, "", &[create("a"), remove("")]),
            (1, Failure::Root)
        );
        for path in ["a\\", "\\a", "a\\\\b", "\\", "a\0"] {
            assert_eq!(refused(&mut store, "", &[create(path)]), (0, Failure::Name));
            assert_eq!(
                refused(&mut store, "K", &[remove(path)]),
                (0, Failure::Name)
            );
        }
        assert!(
            store.commit(&batch("", &[set("a\\b\\", "")])).is_ok(),
            "section 6: a value's name may contain it"
        );
    }

    /// Section 6: "Depth at most 512; one call creates at most 32 levels", 255 and 16,383 units, 1 MiB.
    #[test]
    fn limits_hold_at_their_edges() {
        let mut store = Store::new();
        assert_eq!(
            refused(&mut store, "", &[create(&levels(33))]),
            (0, Failure::Limit)
        );
        for n in 1..=16 {
            assert!(store.commit(&batch("", &[create(&levels(32 * n))])).is_ok());
        }
        assert_eq!(
            refused(&mut store, &levels(512), &[del("v"), create("x")]),
            (1, Failure::Limit)
        );
        for (units, ok) in [(255, true), (256, false)] {
            assert_eq!(
                store
                    .commit(&batch("", &[create(&"k".repeat(units))]))
                    .is_ok(),
                ok
            );
        }
        assert_eq!(
            refused(&mut store, "", &[create(&"\u{10400}".repeat(128))]),
            (0, Failure::Limit),
            "256 units"
        );
        for (units, ok) in [(16_383, true), (16_384, false)] {
            assert_eq!(
                store
                    .commit(&batch("", &[set(&"n".repeat(units), "")]))
                    .is_ok(),
                ok
            );
        }
        for (bytes, ok) in [(MAX_DATA, true), (MAX_DATA + 1, false)] {
            assert_eq!(
                store
                    .commit(&batch("", &[set("v", &"d".repeat(bytes))]))
                    .is_ok(),
                ok
            );
        }
    }

    /// Section 2: "commits nothing, takes no sequence number"; "the first failing command undoes the batch".
    #[test]
    fn numbers_have_no_gaps() {
        let mut store = Store::new();
        assert_eq!(store.commit(&batch("K", &[])), Ok(None));
        assert_eq!(store.commit(&batch("K", &[create("")])), Ok(Some(1)));
        assert_eq!(
            refused(&mut store, "K", &[set("v", ""), remove("x"), set("v", "")]),
            (2, Failure::NoCurrentKey)
        );
        assert_eq!(store.commit(&batch("K", &[del("v")])), Ok(Some(2)));
    }

    /// Section 3: the port sees "the commands inside"; DELETE_KEY of an ancestor is shown; "a batch with none inside is not".
    #[test]
    fn a_port_sees_its_subtree_and_the_loss_of_an_ancestor() {
        let mut store = Store::new();
        let commands = [
            create("A"),
            create("A\\Bc"),
            create("A\\B\\C"),
            set("v", ""),
            create("A\\B"),
        ];
        store.commit(&batch("", &commands)).unwrap();
        store
            .commit(&batch("A\\Bc", &[set("v", ""), remove("")]))
            .unwrap();
        store
            .commit(&batch(
                "",
                &[remove("a"), remove("A"), create("a"), create("A\\b")],
            ))
            .unwrap();
        let seen = |after, upto| -> Vec<(u64, Vec<String>)> {
            let text = |s: &Shown| format!("{} {}", s.command, s.key);
            let batches = store.notification("a\\B", after, upto);
            batches
                .iter()
                .map(|b| (b.sequence, b.shown.iter().map(text).collect()))
                .collect()
        };
        let one: Vec<String> = vec![
            "create_key A\\B\\C".into(),
            "set_value A\\B\\C".into(),
            "create_key A\\B".into(),
        ];
        let three: Vec<String> = vec![
            "delete_key A".into(),
            "delete_key A".into(),
            "create_key a\\b".into(),
        ];
        assert_eq!(seen(0, 3), [(1, one), (3, three.clone())]);
        assert_eq!(seen(1, 3), [(3, three)], "a port opened at 1");
        assert_eq!(seen(0, 0).len() + seen(1, 2).len() + seen(3, 9).len(), 0);
        assert_eq!(
            store.notification("", 0, 3),
            store.log,
            "everything is at or below the root"
        );
    }

    /// Section 6: "one character to one character, never one to many (`ß` is not `SS`)".
    #[test]
    fn names_are_equal_character_by_character() {
        assert!(same_name("straße", "STRAßE") && !same_name("ß", "SS") && !same_name("ß", "ẞ"));
        assert!(
            same_name("ÿ", "Ÿ")
                && same_name("ς", "Σ")
                && same_name("ı", "I")
                && !same_name("İ", "I")
        );
        assert!(
            same_name("\u{10428}", "\u{10400}")
                && !same_name("a", "ab")
                && !same_name("é", "e\u{301}")
        );
    }

    /// The order the callers compare dumps in: folded, so `_` (0x5F) stands after `Z` and `z` alike.
    #[test]
    fn a_dump_is_ordered_by_folded_name() {
        let mut store = store_with(&["_", "z", "A\\b", "Aa"]);
        shown(&mut store, "a", &[set("_", ""), set("Z", ""), set("b", "")]);
        let name = |line: DumpLine| match line {
            DumpLine::Key(key) => key,
            DumpLine::Value { key, name, .. } => format!("{key}:{name}"),
        };
        let seen: Vec<_> = store.dump().into_iter().map(name).collect();
        assert_eq!(seen, ["A", "A:b", "A:Z", "A:_", "A\\b", "Aa", "z", "_"]);
    }

    /// The records alone rebuild the state (sections 1 and 3: nothing is merged, nothing left out); a port's own subtree too.
    #[test]
    fn replaying_the_records_gives_the_state() {
        let mut seed = 1u64;
        let mut pick = move |n: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        let paths = ["", "a", "A", "a\\b", "A\\B", "a\\b\\c", "d"];
        let names = ["", "v", "V", "w"];
        let mut store = Store::new();
        for _ in 0..400 {
            let mut commands = Vec::new();
            for _ in 0..pick(6) {
                commands.push(match pick(10) {
                    0..4 => set(names[pick(4)], names[pick(4)]),
                    4..7 => create(paths[pick(7)]),
                    7 => remove(paths[pick(7)]),
                    _ => del(names[pick(4)]),
                });
            }
            let dump = store.dump();
            if store.commit(&batch(paths[pick(7)], &commands)).is_err() {
                assert_eq!(store.dump(), dump, "all or nothing");
            }
            let again = replay(&store.log);
            assert_eq!((again.dump(), &again.log), (store.dump(), &store.log));
            let port = |store: &Store| -> Vec<DumpLine> {
                let inside = |line: &DumpLine| match line {
                    DumpLine::Key(key) | DumpLine::Value { key, .. } => {
                        is_at_or_below(&split(key), &split("a\\b"))
                    }
                };
                store.dump().into_iter().filter(inside).collect()
            };
            assert_eq!(
                port(&replay(&store.notification("a\\b", 0, u64::MAX))),
                port(&store)
            );
        }
        assert!(store.log.len() > 100, "the run must not be mostly refusals");
    }
}
