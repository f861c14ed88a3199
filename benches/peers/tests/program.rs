//! The whole program, at a scale that tells nothing but that it works.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use clusdb_peers::peers::Store;
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_clusdb-peers"));
    program.args(arguments).output().expect("the program")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

#[test]
fn every_workload_runs_on_every_store_and_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, stores) = (folder.path().join("out"), folder.path().join("stores"));
    let arguments = [
        "--scale",
        "0.0005",
        "--rounds",
        "1",
        "--out",
        name(&out),
        "--dir",
        name(&stores),
    ];
    let output = run(&arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let json: Value = serde_json::from_str(&text(&out.join("results.json"))).expect("JSON");
    let markdown = text(&out.join("results.md"));
    let workloads = json["workloads"].as_array().expect("workloads");
    assert_eq!(workloads.len(), 9);
    for workload in workloads {
        let name = workload["workload"].as_str().expect("a name");
        let figures = workload["figures"].as_array().expect("figures");
        if name == "trace" && figures.is_empty() {
            // The inputs are not on every machine.
            continue;
        }
        assert!(!figures.is_empty(), "{name}");
        assert!(
            text(&out.join(format!("{name}.svg"))).contains("</svg>"),
            "{name}"
        );
        for figure in figures {
            let title = figure["title"].as_str().expect("a title");
            assert!(markdown.contains(title), "{title}");
            check_rows(name, figure, &format!("{name}: {title}"));
        }
    }
    let left = fs::read_dir(&stores).expect("a folder").count();
    assert_eq!(left, 0, "the stores are removed");
}

/// Every store has a row, and every row a value that can be.
fn check_rows(workload: &str, figure: &Value, what: &str) {
    let rows = figure["rows"].as_array().expect("rows");
    for store in Store::ALL {
        let is_its = |row: &Value| {
            row["label"]
                .as_str()
                .unwrap_or_default()
                .starts_with(store.name())
        };
        let is_there = rows.iter().any(is_its);
        // Two workloads are for stores that wake followers alone.
        let may_be_missing =
            ["idle", "wake"].contains(&workload) && !matches!(store, Store::Clusdb | Store::Sled);
        assert!(is_there || may_be_missing, "{what}: {store} is missing");
    }
    for row in rows {
        let values = row["rounds"].as_array().expect("rounds");
        let can_be = values.iter().all(|value| value.as_f64() >= Some(0.0));
        assert!(can_be && values.len() == 1, "{what}: {row}");
    }
}

#[test]
fn some_workloads_and_some_stores_can_be_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let (scale, only) = (
        ["--scale", "0.001", "--rounds", "1"],
        ["--only", "changes", "--peers", "LMDB"],
    );
    let output = run(&[scale.as_slice(), &only, &["--out", name(&out)]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let markdown = text(&out.join("results.md"));
    assert!(
        markdown.contains("| **clusdb** |") && markdown.contains("| LMDB |"),
        "{markdown}"
    );
    assert!(!markdown.contains("| sled |") && !out.join("commit.svg").exists());
}

#[test]
fn what_is_not_known_is_refused() {
    for arguments in [
        ["--only", "everything"],
        ["--peers", "etcd"],
        ["--scale", "0"],
        ["--fast", "1"],
    ] {
        let output = run(&arguments);
        assert!(
            !output.status.success() && !output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}
