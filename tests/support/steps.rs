//! The steps that the crash and the fault runs do.

use crate::naive::single::Plain;
use crate::naive::{Batch, Command};
use crate::workload::Step;

fn create(path: &str) -> Command {
    Command::CreateKey { path: path.into() }
}

fn set(name: &str, bytes: usize) -> Command {
    Command::SetValue {
        name: name.into(),
        value_type: 3,
        data: vec![bytes as u8; bytes],
    }
}

fn batch(key: &str, commands: Vec<Command>) -> Batch {
    Batch {
        key: key.into(),
        commands,
    }
}

/// A batch that sets a value of so many bytes in a key, which it makes where it is missing.
fn setting(key: &str, bytes: usize) -> Batch {
    batch(key, vec![create(""), set("v", bytes)])
}

fn commit(key: &str, bytes: usize) -> Step {
    Step::Commit(setting(key, bytes))
}

/// Batches whose records fill some sectors together.
fn group(sizes: &[usize]) -> Step {
    let batches = sizes
        .iter()
        .map(|bytes| setting(&format!("group\\{bytes}"), *bytes));
    Step::Group(batches.collect())
}

fn deletion(path: &str) -> Step {
    let path = path.into();
    Step::Commit(batch("", vec![Command::DeleteKey { path }]))
}

fn plain(path: &str, bytes: usize) -> Step {
    Step::Plain(Plain::SetValue {
        path: path.into(),
        name: "plain".into(),
        value: (3, vec![bytes as u8; bytes]),
    })
}

/// Three ports, `all` on the root, `part` on a subtree and `quiet` where nothing happens, and one that is removed; segments that are full soon, one record larger than a segment, and
/// one that makes the first segment longer; a clean close, and a life after it.
pub fn workload() -> Vec<Step> {
    vec![
        Step::Open,
        commit("large", 5000),
        Step::Port("all", ""),
        Step::Port("quiet", "quiet"),
        commit("a", 100),
        Step::Port("part", "a\\b"),
        commit("a\\b", 200),
        group(&[30, 600, 700, 800]),
        Step::Plain(Plain::CreateKey { path: "p\\q".into() }),
        plain("p", 300),
        Step::Get("all"),
        Step::Acknowledge("all"),
        commit("a\\b\\c", 1500),
        Step::Read,
        Step::Get("part"),
        Step::AcknowledgeWith("part", setting("done", 20)),
        commit("a\\b", 1700),
        Step::Get("all"),
        Step::Rewind("all"),
        Step::Get("all"),
        Step::Acknowledge("all"),
        deletion("a"),
        Step::Port("short-lived", "a"),
        Step::Get("part"),
        Step::Acknowledge("part"),
        commit("a\\b", 900),
        Step::RemovePort("short-lived"),
        Step::Close,
        Step::Open,
        Step::Port("part", "a\\b"),
        Step::Port("all", ""),
        commit("a\\b", 2500),
        Step::Resync("all"),
        Step::Get("part"),
        Step::AcknowledgeWith("part", setting("done", 30)),
        group(&[40, 50, 60, 610]),
        commit("large", 6000),
        Step::Snapshot,
        Step::Get("all"),
        Step::AcknowledgeWith("all", setting("done", 40)),
        Step::Backup,
        plain("p\\q", 10),
        Step::Snapshot,
        Step::Trim,
        Step::Backup,
        Step::Restore,
        commit("a\\b", 60),
        Step::Get("part"),
        Step::Acknowledge("part"),
        Step::Read,
    ]
}

/// What a store that was recovered must be able to go on with.
pub fn resumption() -> Vec<Step> {
    vec![
        Step::Port("all", ""),
        Step::Get("all"),
        Step::Acknowledge("all"),
        commit("resumed", 700),
        Step::Snapshot,
        Step::Trim,
        plain("resumed", 5),
        Step::Get("all"),
        Step::AcknowledgeWith("all", setting("done", 50)),
        // A backup that was told of is there.
        Step::Restore,
    ]
}

/// A life in which nobody opens a port, and what all have acknowledged before it goes.
pub fn unseen_life() -> Vec<Step> {
    vec![
        Step::OpenUnseen,
        Step::Snapshot,
        commit("unseen", 2000),
        Step::Snapshot,
        Step::Trim,
    ]
}

/// A new life, and a record so small that it makes no segment of its own.
pub fn another_life() -> Vec<Step> {
    vec![Step::Close, Step::Open, commit("small", 1)]
}
