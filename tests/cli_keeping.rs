//! The verbs that keep a store: snapshot, trim, backup, restore, check.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod command;

use std::path::PathBuf;

use command::Home;
use serde_json::{Value, json};

fn filled(home: &Home) {
    for number in ["1", "2", "3"] {
        home.run(&["set", "K", "v", number]).lines();
    }
    home.run(&["port", "create", "p", "K"]).lines();
    home.run(&["set", "K", "v", "4"]).lines();
}

fn segment(home: &Home) -> PathBuf {
    home.store().join("journal/00000000000000000001.segment")
}

/// Flips a byte of the record with this number; the records are small, and of one length.
fn damage(home: &Home, record: usize) -> usize {
    let mut bytes = std::fs::read(segment(home)).unwrap();
    let mut at = 128;
    for _ in 1..record {
        let length = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
        at += (64 + length).next_multiple_of(8);
    }
    bytes[at + 66] ^= 1;
    std::fs::write(segment(home), bytes).unwrap();
    at
}

#[test]
fn a_check_tells_all_faults_with_exit_code_6_and_a_repair_is_asked_for() {
    let home = Home::new();
    filled(&home);
    let whole = home.run(&["check", "--deep"]).lines();
    let summary = json!({"kind": "summary", "records": 4, "snapshots": 0, "ports": 1, "faults": 0});
    assert_eq!(whole, [summary]);
    let places = [damage(&home, 2), damage(&home, 4)];
    std::fs::write(home.store().join("ports/p.port"), "x").unwrap();
    let found = home.run(&["check"]);
    assert_eq!(found.code, 6);
    let error: Value = serde_json::from_str(&found.stderr).unwrap();
    assert_eq!(error["error"], "damaged");
    let lines: Vec<Value> = found
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let faults: Vec<_> = lines.iter().filter(|line| line["kind"] == "fault").collect();
    assert_eq!(faults.len(), 3);
    for at in places {
        let is_it = |fault: &&&Value| {
            fault["offset"] == at
                && fault["file"]
                    .as_str()
                    .is_some_and(|file| file.ends_with(".segment"))
        };
        assert!(faults.iter().any(|fault| is_it(&fault)), "{lines:?}");
    }
    assert_eq!(
        lines[3],
        json!({"kind": "summary", "records": 2, "snapshots": 0, "ports": 0, "faults": 3, "missing": [[2, 2], [4, 4]]})
    );
    // Nobody is at the terminal.
    let before = std::fs::read(segment(&home)).unwrap();
    assert_eq!(home.run(&["check", "--repair"]).code, 2);
    assert_eq!(std::fs::read(segment(&home)).unwrap(), before);
    let repaired = home.run(&["check", "--repair", "--yes"]).lines();
    let repair = repaired.last().unwrap();
    assert_eq!(
        (&repair["kind"], &repair["lost"]),
        (&json!("repair"), &json!([2, 4]))
    );
    assert!(home.run(&["check"]).lines()[0]["faults"] == 0);
    assert_eq!(home.run(&["get", "K", "v"]).lines()[0]["data"], "1");
    assert_eq!(
        home.run(&["set", "K", "v", "5"]).lines(),
        [json!({"sequence": 2})]
    );
}

#[test]
fn a_damaged_store_is_replaced_by_its_backup_and_its_ports_go_on() {
    let home = Home::new();
    filled(&home);
    home.run(&["backup", "copy"]).lines();
    home.run(&["watch", "p", "--once"]).lines();
    home.run(&["port", "create", "late", "K"]).lines();
    home.run(&["set", "K", "v", "5"]).lines();
    home.run(&["watch", "late", "--once"]).lines();
    damage(&home, 1);
    home.run(&["set", "K", "v", "6"]).error(6, "damaged");
    home.run(&["restore", "copy"]).error(1, "store_exists");
    home.run(&["restore", "nowhere", "--replace"])
        .error(3, "not_found");
    home.run(&["set", "K", "v", "6"]).error(6, "damaged");
    let restored = home.run(&["restore", "copy", "--replace"]).lines();
    assert_eq!(restored[0]["sequence"], 4);
    let aside = PathBuf::from(restored[0]["replaced"].as_str().unwrap());
    assert!(aside.join("store").exists());
    assert_eq!(home.run(&["get", "K", "v"]).lines()[0]["data"], "4");
    // It had acknowledged the backup's last record; the other had come further.
    assert_eq!(home.run(&["watch", "p", "--once", "--timeout", "0"]).stdout, "");
    home.run(&["watch", "late", "--once", "--timeout", "0"])
        .error(1, "epoch_mismatch");
    assert_eq!(
        home.run(&["set", "K", "v", "7"]).lines(),
        [json!({"sequence": 5})]
    );
    assert_eq!(home.run(&["watch", "p", "--once"]).lines()[0]["sequence"], 5);
}

#[test]
fn the_verbs_that_keep_a_store_need_it_for_themselves_and_expect_one() {
    let home = Home::new();
    for verb in [&["snapshot"][..], &["trim"], &["check"], &["backup", "copy"]] {
        home.run(verb).error(3, "not_found");
    }
    filled(&home);
    let store = clusdb::Store::open(home.store()).unwrap();
    for verb in [
        &["snapshot"][..],
        &["trim"],
        &["check"],
        &["backup", "copy"],
        &["restore", "copy", "--replace"],
    ] {
        home.run(verb).error(5, "in_use");
    }
    drop(store);
    assert_eq!(home.run(&["snapshot"]).lines(), [json!({"sequence": 4})]);
    let stat = home.run(&["stat"]).lines().remove(0);
    assert_eq!(stat["opened_from"], "snapshot");
}
