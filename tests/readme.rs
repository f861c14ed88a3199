//! The documents tell the truth: their example is a program that runs, their console blocks give what they show.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");
const COMMAND_LINE: &str = include_str!("../docs/command-line.md");

#[test]
fn the_example_of_the_readme_is_the_program_that_is_run_here() {
    let source = include_str!("../examples/follow.rs");
    let (_, program) = source.split_once("\n\n").unwrap();
    assert!(
        README.contains(program),
        "README.md and examples/follow.rs differ"
    );
    let folder = tempfile::tempdir().unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let arguments = [
        "run",
        "--quiet",
        "--example",
        "follow",
        "--manifest-path",
        manifest,
    ];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = [
        r#"1 create_key "Cluster\Resources\IP1""#,
        r#"1 set_value "Cluster\Resources\IP1" "Address" = sz "10.0.0.7""#,
    ];
    assert_eq!(
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn the_console_blocks_of_the_readme_give_what_they_show() {
    assert!(run_console_blocks(README) >= 6);
}

#[test]
fn the_console_blocks_of_the_command_line_page_give_what_they_show() {
    assert!(run_console_blocks(COMMAND_LINE) >= 15);
}

/// Each test that a document names is there; `…` stands for the rest of a name.
#[test]
fn the_tests_that_the_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    for folder in ["src", "tests", "fuzz/tests"] {
        read_rust(&root.join(folder), &mut source);
    }
    let mut named = 0;
    for document in [
        "docs/testing.md",
        "docs/registry.md",
        "docs/design.md",
        "README.md",
    ] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let stem = name.trim_end_matches('…');
            let is_name = stem
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            // A test's name is a sentence.
            if !is_name || stem.matches('_').count() < 3 {
                continue;
            }
            named += 1;
            let wanted = match stem == name {
                true => format!("fn {name}("),
                false => format!("fn {stem}"),
            };
            assert!(source.contains(&wanted), "{document} names {name}");
        }
    }
    assert!(named > 120, "only {named} names were found");
}

fn read_rust(folder: &Path, source: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_rust(&path, source);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            source.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The number of commands run.
fn run_console_blocks(document: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut exports = String::new();
    let mut commands = 0;
    for block in document.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        for step in block.split("$ ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap();
            if command.starts_with("export ") {
                exports += &format!("{command}\n");
                continue;
            }
            commands += 1;
            let found = run(folder.path(), &format!("{exports}{command}"));
            let expected: Vec<_> = expected.lines().collect();
            assert_eq!(found.len(), expected.len(), "{command}\n{found:#?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    matches(found, expected),
                    "{command}\nexpected {expected}\nfound    {found}"
                );
            }
        }
    }
    commands
}

/// The lines of a command's output, and `? CODE` if it failed.
fn run(folder: &Path, script: &str) -> Vec<String> {
    let binaries = Path::new(env!("CARGO_BIN_EXE_clusdb")).parent().unwrap();
    let path = format!(
        "{}:{}",
        binaries.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .env("PATH", path)
        .env_remove("CLUSDB_STORE")
        .current_dir(folder)
        .output()
        .unwrap();
    let mut lines: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    if !output.status.success() {
        lines.push(format!("? {}", output.status.code().unwrap()));
    }
    lines
}

/// Whether the line is as expected, where `[..]` stands for anything.
fn matches(found: &str, expected: &str) -> bool {
    let mut parts = expected.split("[..]");
    let Some(mut rest) = parts.next().and_then(|first| found.strip_prefix(first)) else {
        return false;
    };
    let mut is_open = false;
    for part in parts {
        is_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    is_open || rest.is_empty()
}
