//! A recorded trace of a real registry, replayed on a store and on the naive model: its changes as batches, its reads as
//! reads.
#![cfg(feature = "cli")]

#[allow(dead_code, reason = "the command line is not called here")]
#[path = "support/command.rs"]
mod command;
#[allow(dead_code, reason = "nothing is made up here")]
#[path = "support/harness.rs"]
mod harness;
#[allow(dead_code, reason = "some of it is for made-up batches alone")]
#[path = "support/naive.rs"]
mod naive;

use clusdb::{Entry, KeyPath};
use harness::{Home, build, commit, committed, contents, line, path, read};
use naive::Command;
use serde_json::Value as Json;

/// Changes of one process that are less than this apart, in steps of this, are one batch.
const BATCH_MICROSECONDS: u64 = 10_000;
/// The port that follows.
const FOLLOWED: &str = "HKLM\\Software";

/// One operation of the trace that succeeded, or a look-up that found nothing.
struct Operation {
    at: u64,
    process: u64,
    what: String,
    key: String,
    name: String,
    value: (u32, Vec<u8>),
}

impl Operation {
    fn parse(line: &str) -> Option<Operation> {
        let json: Json = serde_json::from_str(line).unwrap();
        let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
        let succeeded = json["result"] == "SUCCESS";
        let what = text("op");
        if !succeeded && what != "QueryValue" {
            return None;
        }
        let types = ["REG_NONE", "REG_SZ", "REG_EXPAND_SZ", "REG_BINARY", "REG_DWORD"];
        let value_type = match text("type").as_str() {
            "REG_MULTI_SZ" => 7,
            "REG_QWORD" => 11,
            name => types.iter().position(|known| *known == name).unwrap_or(0) as u32,
        };
        // The trace shows some of the data, and its length.
        let mut data = text("data").into_bytes();
        data.resize(json["length"].as_u64().unwrap_or(0) as usize, 0);
        Some(Operation {
            at: json["us"].as_u64().unwrap(),
            process: json["pid"].as_u64().unwrap(),
            what,
            key: text("key").trim_matches('\\').to_owned(),
            name: text("name"),
            value: (value_type, data),
        })
    }

    /// The commands that do the same in a batch on the root; none for a read.
    fn commands(&self) -> Vec<Command> {
        let path = self.key.clone();
        let name = self.name.clone();
        let open = Command::CreateKey { path: path.clone() };
        match self.what.as_str() {
            "CreateKey" => vec![open],
            "DeleteKey" => vec![Command::DeleteKey { path }],
            "DeleteValue" => vec![open, Command::DeleteValue { name }],
            "SetValue" => {
                let (value_type, data) = self.value.clone();
                vec![
                    open,
                    Command::SetValue {
                        name,
                        value_type,
                        data,
                    },
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// Changes that wait for the end of their 10 ms.
struct Group {
    process: u64,
    step: u64,
    commands: Vec<Command>,
}

#[test]
fn the_real_trace_leaves_what_the_naive_model_says() {
    let Some(folder) = command::inputs() else { return };
    let trace = String::from_utf8(command::unpack(&folder, "registry-trace.jsonl.xz")).unwrap();
    let mut home = Home::new(u64::MAX);
    let mut model = naive::Store::new();
    let port = home.store().port("follower", &path(FOLLOWED)).unwrap();
    let mut groups: Vec<Group> = Vec::new();
    let mut counts = Counts::default();
    for operation in trace.lines().filter_map(Operation::parse) {
        let step = operation.at / BATCH_MICROSECONDS;
        groups.retain(|group| {
            let is_open = group.step == step;
            if !is_open {
                commit_group(&home, &mut model, &group.commands);
                counts.batches += 1;
            }
            is_open
        });
        let commands = operation.commands();
        if commands.is_empty() {
            counts.reads += look(&home, &model, &operation);
            continue;
        }
        counts.changes += 1;
        match groups.iter_mut().find(|group| group.process == operation.process) {
            Some(group) => group.commands.extend(commands),
            None => groups.push(Group {
                process: operation.process,
                step,
                commands,
            }),
        }
    }
    for group in groups {
        commit_group(&home, &mut model, &group.commands);
        counts.batches += 1;
    }
    println!("{counts:?}");
    assert_eq!((counts.changes, counts.batches > 150), (468, true), "{counts:?}");
    assert!(counts.reads > 25_000, "{counts:?}");

    // One port's stream, the whole log, and the state: as they are, and as a kill leaves them.
    let notification = port.try_get().unwrap().unwrap();
    let expected = model.notification(FOLLOWED, 0, model.last_sequence());
    assert!(expected.len() > 50, "{}", expected.len());
    assert_eq!(committed(&notification), expected);
    for (batch, expected) in notification.batches().zip(&expected) {
        let stream: Vec<_> = batch.commands().map(line).collect();
        assert_eq!(stream, naive::Store::commands(&expected.shown));
    }
    drop(port);
    home.reopen(true);
    assert_eq!(committed(&home.store().log(1..=u64::MAX).unwrap()), model.log);
    assert_eq!(contents(home.store()), model.dump());
}

#[derive(Debug, Default)]
struct Counts {
    changes: u64,
    batches: u64,
    reads: u64,
}

fn commit_group(home: &Home, model: &mut naive::Store, commands: &[Command]) {
    let wanted = naive::Batch {
        key: String::new(),
        commands: commands.to_vec(),
    };
    let (batch, added) = build(model, wanted).unwrap();
    assert_eq!(
        added.commands.len(),
        commands.len(),
        "nothing of a real trace is refused"
    );
    commit(home.store(), model, batch, &added).unwrap();
    assert_eq!(
        model.last_sequence(),
        home.store().stat().unwrap().durable_sequence
    );
}

/// The read, on both; 1 if it is one.
fn look(home: &Home, model: &naive::Store, operation: &Operation) -> u64 {
    let (store, key) = (home.store(), &operation.key);
    match operation.what.as_str() {
        "QueryValue" | "QueryKey" | "QueryMultipleValueKey" => {
            // The value, and what is known of the key.
            let asked = vec![(String::new(), operation.name.clone())];
            read(store, model, &(key.clone(), asked)).unwrap();
        }
        "EnumKey" | "EnumValue" => {
            let found = store.list(&path(key)).ok().map(harness::dump);
            let mut expected = model.contents(key);
            let depth = key.matches('\\').count() + 1;
            let is_here = |line: &naive::DumpLine| match line {
                naive::DumpLine::Key(path) => path.matches('\\').count() == depth,
                naive::DumpLine::Value { key, .. } => key.matches('\\').count() + 1 == depth,
            };
            let exists = !expected.is_empty();
            expected.retain(is_here);
            assert_eq!(found, exists.then_some(expected), "{key}");
            let values = store
                .values(&path(key))
                .map(|values| values.map(name_of).collect::<Vec<_>>());
            let listed = store.list(&path(key)).unwrap_or_default().into_iter();
            let listed: Vec<_> = listed
                .filter(|entry| matches!(entry, Entry::Value { .. }))
                .map(name_of)
                .collect();
            assert_eq!(values.unwrap_or_default(), listed);
        }
        _ => return 0,
    }
    1
}

fn name_of(entry: Entry) -> String {
    match entry {
        Entry::Value { name, .. } => name.to_string(),
        Entry::Key { path } => KeyPath::parse(&path).unwrap().as_str().to_owned(),
    }
}
