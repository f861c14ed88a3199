//! By the system calls: nothing is answered before it is on the disk.
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::path::Path;
use std::process::Command;

/// A call that succeeded: its name, and its arguments with the files' paths.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
}

/// Traces the command line; none where that can't be done, which is said.
fn trace(folder: &Path, arguments: &[&str]) -> Option<Vec<Call>> {
    let output = folder.join("trace");
    let traced = Command::new("strace")
        .args([
            "-f",
            "-yy",
            "-e",
            "trace=write,pwrite64,fdatasync,fsync,rename",
            "-o",
        ])
        .arg(&output)
        .arg(env!("CARGO_BIN_EXE_clusdb"))
        .arg("--store")
        .arg(folder.join("store"))
        .args(["-o", "jsonl"])
        .args(arguments)
        .output();
    match traced {
        Ok(traced) if traced.status.success() => {}
        other => {
            eprintln!("no system-call trace here ({other:?}): passed over");
            return None;
        }
    }
    Some(parse(&std::fs::read_to_string(output).unwrap()))
}

/// Lines are `PID name(arguments) = result`; a call that another thread interrupts stands on two lines, and counts
/// where it ends.
fn parse(trace: &str) -> Vec<Call> {
    let mut unfinished = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((process, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process.to_owned(), begun.to_owned());
            continue;
        }
        let whole = match rest.split_once(" resumed>") {
            Some((_, end)) => unfinished.remove(process).unwrap_or_default() + end,
            None => rest.to_owned(),
        };
        let Some((name, arguments)) = whole.split_once('(') else {
            continue;
        };
        let is_done = arguments
            .rsplit_once(" = ")
            .is_some_and(|(_, result)| !result.starts_with('-'));
        if is_done {
            calls.push(Call {
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            });
        }
    }
    calls
}

fn position(calls: &[Call], name: &str, holds: &[&str]) -> Option<usize> {
    calls
        .iter()
        .position(|call| call.name == name && holds.iter().all(|part| call.arguments.contains(part)))
}

#[test]
fn the_segment_is_synced_before_a_commit_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(creation) = trace(folder.path(), &["set", "Key", "First", "1"]) else {
        return;
    };
    let answered = position(&creation, "write", &["{\\\"sequence\\\":1}"]).expect("the answer");
    let made =
        position(&creation, "rename", &["00000000000000000001.segment.unfinished"]).expect("a segment");
    let whole = position(
        &creation,
        "fdatasync",
        &["00000000000000000001.segment.unfinished>"],
    )
    .expect("its content");
    let listed = position(&creation, "fsync", &["store/journal>"]).expect("its name");
    let identity = position(&creation, "rename", &["store/store.unfinished"]).expect("the store file");
    assert!(
        whole < made && made < listed && listed < identity && identity < answered,
        "{creation:#?}"
    );
    let store = position(&creation[identity..], "fsync", &["store>"]).expect("the store's folder");
    assert!(identity + store < answered);

    let calls = trace(folder.path(), &["set", "Key", "Second", "2"]).expect("as before");
    let answered = position(&calls, "write", &["{\\\"sequence\\\":2}"]).expect("the answer");
    // The record: the last write to the segment before the answer.
    let is_record = |call: &&Call| call.name == "pwrite64" && call.arguments.contains(".segment>");
    let written = calls[..answered]
        .iter()
        .rposition(|call| is_record(&call))
        .expect("a record");
    let synced = position(&calls[written..answered], "fdatasync", &[".segment>"]);
    assert!(
        synced.is_some(),
        "no sync of the segment between the record and the answer: {calls:#?}"
    );
    let head = position(&calls[written + synced.unwrap()..], "pwrite64", &[".segment>"]);
    assert!(
        head.is_none(),
        "nothing is written to the journal behind the sync: {calls:#?}"
    );
}

/// sled's own flush does not reach the disk; a checkpoint does.
#[test]
fn the_trees_files_and_folders_are_synced_when_the_store_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = clusdb::Store::options()
        .tree(false)
        .open(folder.path().join("store"))
        .unwrap();
    for number in 0..600 {
        let mut batch = clusdb::Batch::at(&clusdb::KeyPath::parse("Key").unwrap());
        batch.create_key("").unwrap();
        batch.set_value("v", clusdb::Value::dword(number)).unwrap();
        store.commit(batch).unwrap();
    }
    drop(store);
    let Some(calls) = trace(folder.path(), &["set", "Key", "Last", "1"]) else {
        return;
    };
    let is_entry = |call: &Call| call.name == "pwrite64" && call.arguments.contains("tree.1/db>");
    let written = calls.iter().rposition(is_entry).expect("a tree");
    for synced in ["tree.1/db>", "tree.1/conf>", "tree.1/blobs>", "tree.1>", "store>"] {
        let sync = position(&calls[written..], "fsync", &[synced]);
        assert!(
            sync.is_some(),
            "no sync of {synced} behind what was written: {calls:#?}"
        );
    }
}
