//! The example daemon: batches as JSON lines on its socket and on its standard input, and `clusdb batch --via`.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod command;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command::Home;
use serde_json::{Value, json};

/// `cargo run` gives its process to the example.
fn daemon(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    command.args([
        "run",
        "--quiet",
        "--example",
        "daemon",
        "--manifest-path",
        manifest,
        "--",
    ]);
    command.arg(home.store()).args(arguments);
    command.current_dir(home.store().parent().unwrap());
    command
}

struct Running {
    child: Child,
    socket: PathBuf,
}

impl Running {
    fn start(home: &Home) -> Running {
        let socket = home.store().with_file_name("socket");
        let child = daemon(home, &["--socket", "socket"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "the daemon has not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        Running { child, socket }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(commands: &[Value]) -> String {
    commands.iter().map(|command| format!("{command}\n")).collect()
}

fn key_and_value(data: &str) -> String {
    lines(&[
        json!({"command": "create_key", "key": "IP1"}),
        json!({"command": "set_value", "name": "Address", "type": "sz", "data": data}),
    ])
}

#[test]
fn an_administrator_commits_through_the_daemon_that_owns_the_store() {
    let home = Home::new();
    let running = Running::start(&home);
    let mode = running.socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The way that goes around the daemon is closed; looking is not.
    home.run_with_input(&["batch", "-"], key_and_value("x"))
        .error(5, "in_use");
    let via = ["batch", "-", "--via", "socket", "--at", "Cluster/Resources"];
    let committed = home.run_with_input(&via, key_and_value("10.0.0.7"));
    assert_eq!(committed.lines(), [json!({"sequence": 1})]);
    let found = home.run(&["get", "Cluster/Resources/IP1", "Address"]).lines();
    assert_eq!(found[0]["data"], "10.0.0.7");
    assert_eq!(home.run_with_input(&via, "").lines(), [json!({})]);
    // It is what a dry run beside the daemon has said.
    let dry = home.run_with_input(
        &["batch", "-", "--dry-run"],
        lines(&[json!({"command": "delete_key", "key": "Cluster"})]),
    );
    assert_eq!(dry.lines()[0]["command"], "delete_key");
    let dry = home.file("replace.reg", "REGEDIT4\n\n[Cluster]\n");
    let dry = home.run(&["import", "--replace", "--dry-run", &dry]);
    assert_eq!(dry.lines()[0]["key"], "Cluster\\Resources");
}

#[test]
fn what_the_daemon_refuses_fails_as_it_does_without_one() {
    let home = Home::new();
    let running = Running::start(&home);
    let batches = [
        (lines(&[json!({"command": "delete_key", "key": ""})]), 1, "root"),
        (
            key_and_value("1") + "\n" + &lines(&[json!({"command": "condition_exists", "name": "B"})]),
            4,
            "condition_failed",
        ),
        (
            lines(&[json!({"command": "set_value", "name": "A", "type": "sz", "data": "x"})]),
            3,
            "not_found",
        ),
        (
            lines(&[json!({"command": "create_key", "key": "A\\"})]),
            2,
            "path",
        ),
        (lines(&[json!({"command": "control", "value": 3})]), 2, "json"),
        ("{".to_owned(), 2, "json"),
    ];
    let at = |word: &str| if word == "root" { "" } else { "Nowhere" };
    let sent: Vec<_> = batches
        .iter()
        .map(|(batch, code, word)| {
            let sent = home.run_with_input(&["batch", "-", "--via", "socket", "--at", at(word)], batch);
            sent.error(*code, word)
        })
        .collect();
    drop(running);
    for (sent, (batch, code, word)) in sent.iter().zip(&batches) {
        let alone = home.run_with_input(&["batch", "-", "--at", at(word)], batch);
        assert_eq!(*sent, alone.error(*code, word));
        assert!(sent["line"].is_u64(), "{sent}");
    }
    assert_eq!(home.run(&["log"]).lines(), [json!(null); 0]);
}

#[test]
fn one_connection_sends_many_batches_and_a_line_that_is_none_ends_nothing() {
    let home = Home::new();
    let running = Running::start(&home);
    let mut stream = UnixStream::connect(&running.socket).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |line: &str| -> Value {
        writeln!(stream, "{line}").unwrap();
        serde_json::from_str(&replies.next().unwrap().unwrap()).unwrap()
    };
    assert_eq!(
        ask(r#"{"commands":[{"command":"create_key","key":"A"}]}"#),
        json!({"sequence": 1})
    );
    assert_eq!(ask("nonsense")["error"], "json");
    assert_eq!(
        ask(r#"{"at":"A","commands":[{"command":"rename_key"}]}"#)["error"],
        "json"
    );
    assert_eq!(
        ask(r#"{"at":"A","commands":[{"command":"create_key","key":"B"}]}"#),
        json!({"sequence": 2})
    );
    let keys = home.run(&["ls", "", "--recursive"]).lines();
    assert_eq!(
        keys,
        [
            json!({"kind": "key", "key": "A"}),
            json!({"kind": "key", "key": "A\\B"})
        ]
    );
}

#[test]
fn the_next_daemon_takes_the_place_of_one_that_was_killed_and_a_signal_closes_the_store() {
    let home = Home::new();
    for sequence in 1..=3 {
        let running = Running::start(&home);
        let via = home.run_with_input(
            &["batch", "-", "--via", "socket"],
            key_and_value(&sequence.to_string()),
        );
        assert_eq!(via.lines(), [json!({"sequence": sequence})]);
        running.signal("-KILL");
    }
    let gone = home.run_with_input(&["batch", "-", "--via", "socket"], key_and_value("x"));
    let message = gone.error(1, "io")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("connect to a daemon at socket"), "{message}");
    for signal in ["-TERM", "-INT"] {
        let mut running = Running::start(&home);
        running.signal(signal);
        assert!(running.child.wait().unwrap().success());
        assert!(!running.socket.exists());
        assert!(clusdb::Reader::open(home.store()).unwrap().was_closed());
    }
}

/// It ends while the batch is under way: what became of it is not known, and is not said to be.
#[test]
fn a_daemon_that_ends_before_it_answers_is_an_error() {
    let home = Home::new();
    let socket = home.store().with_file_name("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ends = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(stream).lines().next().unwrap().unwrap()
    });
    let sent = home.run_with_input(&["batch", "-", "--via", "socket"], key_and_value("x"));
    let message = sent.error(1, "io")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("whether the batch was committed"), "{message}");
    let line: Value = serde_json::from_str(&ends.join().unwrap()).unwrap();
    assert_eq!(line["commands"].as_array().unwrap().len(), 2);
}

#[test]
fn without_a_socket_batches_come_from_the_standard_input() {
    let home = Home::new();
    let mut child = daemon(&home, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = concat!(
        r#"{"commands":[{"command":"create_key","key":"A"}]}"#,
        "\n\u{7f}\n",
        r#"{"at":"A","commands":[{"command":"set_value","name":"n","type":"dword","data":7}]}"#
    );
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let replies = String::from_utf8(output.stdout).unwrap();
    let replies: Vec<Value> = replies
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&replies[0], &replies[2]),
        (&json!({"sequence": 1}), &json!({"sequence": 2}))
    );
    assert_eq!(replies[1]["error"], "json");
    assert_eq!(home.run(&["get", "A", "n"]).lines()[0]["data"], 7);
}
