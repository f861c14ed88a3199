//! The command line's contract: what each verb answers.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod command;

use std::io::Read;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use command::Home;
use serde_json::{Value, json};

fn set_value(name: &str, text: &str) -> Value {
    json!({"command": "set_value", "name": name, "type": "sz", "data": text})
}

/// The specification, section 3: the example of the protocol's document. The value is absent at first.
#[test]
fn the_worked_example_of_the_specification_is_shown_as_it_says() {
    let home = Home::new();
    home.run(&["set", "K", "other", "x"]).lines();
    home.run(&["port", "create", "p", "K"]).lines();
    let delete = json!({"command": "delete_value", "name": "v"});
    let committed = home.batch(&[
        json!({"command": "create_key", "key": "K"}),
        delete.clone(),
        set_value("v", "hello world"),
        set_value("v", "hello universe"),
        delete,
    ]);
    assert_eq!(committed.lines(), [json!({"sequence": 2})]);

    let world = json!({"type": "sz", "data": "hello world"});
    let universe = json!({"type": "sz", "data": "hello universe"});
    let set = |data: &str| json!({"command": "set_value", "key": "K", "name": "v", "type": "sz", "data": data, "changed": true});
    let deleted = |data: &str| json!({"command": "value_deleted", "key": "K", "name": "v", "type": "sz", "data": data, "changed": true});
    let create = json!({"command": "create_key", "key": "K", "changed": false});
    let mut second_set = set("hello universe");
    second_set["previous"] = world;
    let changes = home.run(&["watch", "p", "--once", "--no-acknowledge"]).changes();
    assert_eq!(
        changes,
        [
            create.clone(),
            json!({"command": "delete_value", "key": "K", "name": "v", "changed": false}),
            set("hello world"),
            second_set,
            json!({"command": "delete_value", "key": "K", "name": "v", "previous": universe, "changed": true}),
        ]
    );
    let commands = home.run(&["watch", "p", "--once", "--commands"]).changes();
    assert_eq!(
        commands,
        [
            create,
            json!({"command": "delete_value", "key": "K", "name": "v", "changed": false}),
            set("hello world"),
            deleted("hello world"),
            set("hello universe"),
            deleted("hello universe"),
            json!({"command": "delete_value", "key": "K", "name": "v", "changed": true}),
        ]
    );
}

#[test]
fn data_of_each_type_comes_back_as_it_was_given() {
    let home = Home::new();
    let raw = home.file("raw", b"a\0b");
    for (arguments, expected) in [
        (&["text"][..], json!({"type": "sz", "data": "text"})),
        (
            &["%X%", "--type", "expand_sz"],
            json!({"type": "expand_sz", "data": "%X%"}),
        ),
        (
            &["00fF", "--type", "binary"],
            json!({"type": "binary", "data_base64": "AP8="}),
        ),
        (&["0x10", "--type", "dword"], json!({"type": "dword", "data": 16})),
        (
            &["258", "--type", "dword_big_endian"],
            json!({"type": "dword_big_endian", "data": 258}),
        ),
        (
            &["18446744073709551615", "--type", "qword"],
            json!({"type": "qword", "data": u64::MAX}),
        ),
        (
            &["a", "b c", "--type", "multi_sz"],
            json!({"type": "multi_sz", "data": ["a", "b c"]}),
        ),
        (&["--type", "multi_sz"], json!({"type": "multi_sz", "data": []})),
        (&["--type", "none"], json!({"type": "none", "data_base64": ""})),
        (
            &["6100", "--type", "link"],
            json!({"type": "link", "data_base64": "YQA="}),
        ),
        (
            &["01", "--type", "4000000000"],
            json!({"type": 4_000_000_000u32, "data_base64": "AQ=="}),
        ),
        (
            &["--type", "sz", "--data-file", &raw],
            json!({"type": "sz", "data_base64": "YQBi"}),
        ),
        (
            &["--type", "dword", "--data-file", &raw],
            json!({"type": "dword", "data_base64": "YQBi"}),
        ),
    ] {
        let set = [&["set", "K", "v"], arguments].concat();
        assert!(home.run(&set).lines()[0]["sequence"].is_u64());
        let shown = home.run(&["get", "K", "V"]).lines().remove(0);
        let mut expected = expected;
        expected["key"] = json!("K");
        expected["name"] = json!("v");
        assert_eq!(shown, expected, "{arguments:?}");
        // Reading the JSON back gives the same bytes: a batch of it changes nothing.
        let mut command = expected.clone();
        command["command"] = json!("set_value");
        command.as_object_mut().unwrap().remove("key");
        let create = json!({"command": "create_key", "key": "K"});
        let lines = format!("{create}\n{command}\n");
        let would_change = home.run_with_input(&["batch", "-", "--dry-run"], lines).lines();
        assert!(
            would_change.iter().all(|change| change["changed"] == false),
            "{would_change:?}"
        );
    }
}

#[test]
fn ls_shows_values_then_keys_by_folded_name_depth_first() {
    let home = Home::new();
    for (key, name) in [
        ("a/_c", ""),
        ("a/B/x", "v"),
        ("a", "z"),
        ("a", "M"),
        ("a/b", ""),
        ("a b", ""),
        ("", "root"),
    ] {
        home.run(&["set", key, name, "1", "--type", "dword"]).lines();
    }
    let value = |key: &str, name: &str| json!({"kind": "value", "key": key, "name": name, "type": "dword", "data": 1});
    let key = |path: &str| json!({"kind": "key", "key": path});
    assert_eq!(
        home.run(&["ls", "", "--recursive"]).lines(),
        [
            value("", "root"),
            key("a"),
            value("a", "M"),
            value("a", "z"),
            key("a\\B"),
            value("a\\B", ""),
            key("a\\B\\x"),
            value("a\\B\\x", "v"),
            key("a\\_c"),
            value("a\\_c", ""),
            key("a b"),
            value("a b", ""),
        ]
    );
    assert_eq!(
        home.run(&["ls", "A"]).lines(),
        [value("a", "M"), value("a", "z"), key("a\\B"), key("a\\_c")]
    );
    let stat = home.run(&["stat"]).lines().remove(0);
    assert_eq!(
        (&stat["keys"], &stat["values"]),
        (&json!(5), &json!(7)),
        "the root is not counted"
    );
    let names: Vec<_> = stat.as_object().unwrap().keys().map(String::as_str).collect();
    for name in [
        "epoch",
        "first_sequence",
        "durable_sequence",
        "opened_from",
        "replayed",
        "segments",
        "journal_bytes",
        "ports",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(
        (&stat["durable_sequence"], &stat["opened_from"]),
        (&json!(7), &json!("journal"))
    );
}

#[test]
fn paths_are_converted_in_arguments_only() {
    let home = Home::new();
    home.batch(&[json!({"command": "create_key", "key": "a/b\\c"})])
        .lines();
    assert_eq!(
        home.run(&["ls", ""]).lines(),
        [json!({"kind": "key", "key": "a/b"})]
    );
    home.run(&["get", "a/b/c"]).error(3, "not_found");
    home.run(&["set", "a/b\\c", "v", "x"]).lines();
    home.run(&["set", "d/e", "v", "x"]).lines();
    let keys: Vec<_> = home
        .run(&["ls", "", "-r"])
        .lines()
        .iter()
        .map(|line| line["key"].clone())
        .collect();
    assert_eq!(keys, ["a/b", "a/b\\c", "a/b\\c", "d", "d\\e", "d\\e"]);
}

#[test]
fn the_common_options_stand_before_or_after_the_verb_or_in_the_environment() {
    let home = Home::new();
    home.run(&["set", "K", "v", "x"]).lines();
    let (store, program) = (home.store(), env!("CARGO_BIN_EXE_clusdb"));
    let store = store.to_str().unwrap();
    let mut from_environment = Command::new(program);
    from_environment
        .env("CLUSDB_STORE", store)
        .args(["get", "K", "v", "-o", "jsonl"]);
    let mut after_the_verb = Command::new(program);
    after_the_verb
        .env_remove("CLUSDB_STORE")
        .args(["get", "K", "v", "--output=jsonl", "--store", store]);
    for command in [&mut from_environment, &mut after_the_verb] {
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(
            output,
            "{\"key\":\"K\",\"name\":\"v\",\"type\":\"sz\",\"data\":\"x\"}\n"
        );
    }
    let mut json = Command::new(program);
    json.args(["ls", "", "-o", "json", "--store", store]);
    let document: Value = serde_json::from_slice(&json.output().unwrap().stdout).unwrap();
    assert_eq!(document, json!([{"kind": "key", "key": "K"}]));
}

#[test]
fn a_port_goes_on_where_it_was_acknowledged() {
    let home = Home::new();
    home.run(&["set", "K", "v", "1"]).lines();
    home.run(&["port", "create", "p", "k"]).lines();
    home.run(&["port", "create", "p", "K"]).lines();
    assert_eq!(home.run(&["watch", "p", "--once", "--timeout", "0"]).stdout, "");
    home.run(&["set", "K", "v", "2"]).lines();
    home.run(&["set", "Other", "v", "1"]).lines();
    home.run(&["set", "K", "v", "3"]).lines();
    let listed = |acknowledged, pending| json!({"name": "p", "key": "k", "acknowledged": acknowledged, "pending": pending});
    let mut behind = home.run(&["port", "ls"]).lines().remove(0);
    // Three small records; the journal has one segment of the 1 GiB that it may have.
    let mut take = |field| {
        behind
            .as_object_mut()
            .unwrap()
            .remove(field)
            .unwrap()
            .as_u64()
            .unwrap()
    };
    assert!((300..900).contains(&take("lag_bytes")));
    assert_eq!(take("bytes_until_lost"), (1 << 30) - (1 << 20));
    assert_eq!(behind, listed(1, 2));
    let first = home.run(&["watch", "p", "--once", "--no-acknowledge"]);
    assert_eq!(
        first
            .lines()
            .iter()
            .map(|line| line["sequence"].clone())
            .collect::<Vec<_>>(),
        [json!(2), json!(4)]
    );
    assert_eq!(
        home.run(&["watch", "p", "--timeout", "0"]).stdout,
        first.stdout,
        "byte for byte"
    );
    assert_eq!(home.run(&["watch", "p", "--once", "--timeout", "0"]).stdout, "");
    assert_eq!(home.run(&["port", "ls"]).lines(), [listed(4, 0)]);
    let time = first.lines()[0]["time"].as_str().unwrap().to_owned();
    let digits = |at: std::ops::Range<usize>| time[at].bytes().all(|byte| byte.is_ascii_digit());
    assert_eq!(
        (time.len(), &time[10..11], &time[19..20], &time[26..]),
        (27, "T", ".", "Z"),
        "{time}"
    );
    assert!(digits(0..4) && digits(20..26));
    home.run(&["port", "rm", "p"]).lines();
    assert_eq!(home.run(&["port", "ls"]).lines(), [] as [Value; 0]);
    home.run(&["watch", "p", "--once"]).error(3, "not_found");
}

#[test]
fn the_log_shows_every_record_and_a_range_of_them() {
    let home = Home::new();
    for number in ["1", "2", "3"] {
        home.run(&["set", "K", "v", number]).lines();
    }
    home.run(&["del", "K"]).lines();
    let sequences = |arguments: &[&str]| -> Vec<u64> {
        home.run(arguments)
            .lines()
            .iter()
            .map(|line| line["sequence"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(sequences(&["log"]), [1, 1, 2, 3, 4]);
    assert_eq!(sequences(&["log", "--from", "2", "--to", "3"]), [2, 3]);
    assert!(sequences(&["log", "--from", "9"]).is_empty());
    let last = home.run(&["log", "--from", "4"]).changes();
    assert_eq!(
        last,
        [json!({"command": "delete_key", "key": "K", "changed": true})]
    );
}

/// The specification, section 5; section 8: "plain writes delivered to batch ports".
#[test]
fn a_plain_write_is_in_the_log_and_no_port_shows_it() {
    let home = Home::new();
    home.run(&["port", "create", "all", ""]).lines();
    let sequence = |number: u64| [json!({ "sequence": number })];
    assert_eq!(
        home.run(&["set", "K/L", "v", "x", "--plain"]).lines(),
        sequence(2)
    );
    assert_eq!(home.run(&["set", "K/L", "w", "y"]).lines(), sequence(3));
    assert_eq!(home.run(&["del", "K/L", "V", "--plain"]).lines(), sequence(4));
    home.run(&["del", "K", "--plain"]).error(1, "has_subkeys");
    home.run(&["del", "K/L", "V", "--plain"]).error(3, "not_found");
    assert_eq!(home.run(&["del", "K/L", "--plain"]).lines(), sequence(5));
    home.run(&["del", "K/L", "--plain"]).error(3, "not_found");
    home.run(&["get", "K/L", "w"]).error(3, "not_found");

    let shown = home.run(&["watch", "all", "--once"]).lines();
    let of = |line: &Value| {
        let plain = line.get("plain").map(|plain| plain == &json!(true));
        (
            line["sequence"].as_u64().unwrap(),
            line["command"].as_str().unwrap().to_owned(),
            plain,
        )
    };
    let line = |sequence, command: &str, plain| (sequence, command.to_owned(), plain);
    assert_eq!(
        shown.iter().map(of).collect::<Vec<_>>(),
        [line(3, "set_value", None)]
    );
    let log = home.run(&["log"]).lines();
    assert_eq!(
        log.iter().map(of).collect::<Vec<_>>(),
        [
            line(1, "create_key", Some(true)),
            line(2, "set_value", Some(true)),
            line(3, "set_value", None),
            line(4, "delete_value", Some(true)),
            line(5, "delete_key", Some(true)),
        ]
    );
}

/// Only writing verbs take the store; the others work beside its owner, and see what it commits.
#[test]
fn reading_verbs_work_beside_a_running_writer() {
    let home = Home::new();
    let store = clusdb::Store::open(home.store()).unwrap();
    let set = |number: u32| {
        let mut batch = clusdb::Batch::at(&clusdb::KeyPath::parse("Key").unwrap());
        batch.create_key("").unwrap();
        batch.set_value("v", clusdb::Value::dword(number)).unwrap();
        store.commit(batch).unwrap();
    };
    set(1);
    home.run(&["port", "create", "p", "Key"]).lines();
    set(2);
    assert_eq!(home.run(&["get", "Key", "v"]).lines()[0]["data"], 2);
    assert_eq!(home.run(&["ls", "", "--recursive"]).lines().len(), 2);
    assert_eq!(home.run(&["info", "Key"]).lines()[0]["values"], 1);
    let reads = home
        .run_with_input(&["read", "-"], r#"{"key":"key","name":"V"}"#)
        .lines();
    assert_eq!(reads[0]["data"], 2);
    let stat = &home.run(&["stat"]).lines()[0];
    assert_eq!((&stat["durable_sequence"], &stat["keys"]), (&json!(2), &json!(1)));
    assert_eq!(home.run(&["log"]).lines().len(), 4);
    let ports = home.run(&["port", "ls"]).lines();
    assert_eq!(
        (&ports[0]["acknowledged"], &ports[0]["pending"]),
        (&json!(1), &json!(1))
    );
    let shown = home.run(&["watch", "p", "--once"]).changes();
    assert_eq!(shown[1]["previous"]["data"], 1);
    assert_eq!(home.run(&["watch", "p", "--once", "--timeout", "0"]).stdout, "");
    home.run(&["set", "Key", "v", "x"]).error(5, "in_use");
    home.run(&["del", "Key"]).error(5, "in_use");

    // It waits for what the writer commits.
    let mut command = home.command();
    command
        .args(["watch", "p", "--once", "--timeout", "60"])
        .stdout(Stdio::piped());
    let mut watching = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    set(3);
    let mut shown = String::new();
    watching
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut shown)
        .unwrap();
    assert!(watching.wait().unwrap().success());
    assert!(shown.contains(r#""sequence":3"#), "{shown}");
    home.run(&["port", "rm", "p"]).lines();
    assert_eq!(store.ports().unwrap(), []);
}

/// The command gets the lines; its exit decides whether they were taken.
#[test]
fn a_command_is_run_for_each_notification_and_acknowledges_by_its_exit() {
    let home = Home::new();
    home.run(&["port", "create", "p", ""]).lines();
    home.run(&["set", "Key", "v", "x"]).lines();
    let taken = home.store().with_file_name("taken");
    let script = format!("cat >> '{}'", taken.display());
    let failing = format!("{script}; exit 7");
    home.run(&["watch", "p", "--once", "--", "sh", "-c", &failing])
        .error(7, "command_failed");
    home.run(&["watch", "p", "--once", "--", "sh", "-c", "kill -9 $$"])
        .error(137, "command_failed");
    home.run(&["watch", "p", "--once", "--", "no such command"])
        .error(1, "io");
    assert_eq!(home.run(&["port", "ls"]).lines()[0]["pending"], 1);
    // One that does not read is no failure, and the next one starts behind it.
    home.run(&["watch", "p", "--once", "--", "true"]).lines();
    home.run(&["set", "Key", "v", "y"]).lines();
    home.run(&["set", "Key", "v", "z"]).lines();
    home.run(&["watch", "p", "--timeout", "0", "--", "sh", "-c", &script])
        .lines();
    assert_eq!(home.run(&["port", "ls"]).lines()[0]["pending"], 0);
    let text = std::fs::read_to_string(taken).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sequences: Vec<_> = lines
        .iter()
        .map(|line| line["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, [1, 1, 2, 3]);
}

/// Section 7: the protocol's bytes go in and come out, without any change of their own.
#[test]
fn the_protocols_bytes_go_in_and_come_out() {
    let home = Home::new();
    let mut batch = clusdb::Batch::at(&clusdb::KeyPath::root());
    batch
        .create_key("Sub")
        .unwrap()
        .set_value("a\\b", clusdb::Value::binary(*b"odd"))
        .unwrap()
        .condition_exists("a\\b")
        .unwrap();
    let file = home.file("update.bin", batch.to_wire().unwrap());
    home.run(&["port", "create", "p", "Key"]).lines();
    home.run(&["batch", "--wire", &file, "--at", "Key", "--dry-run"])
        .lines();
    let committed = home.run(&["batch", "--wire", &file, "--at", "Key"]);
    assert_eq!(committed.lines(), [json!({"sequence": 1})]);

    let mut shown = clusdb::Batch::at(&clusdb::KeyPath::root());
    shown
        .create_key("Sub")
        .unwrap()
        .set_value("a\\b", clusdb::Value::binary(*b"odd"))
        .unwrap();
    let lines = home
        .run(&["watch", "p", "--once", "--wire", "--no-acknowledge"])
        .lines();
    let base64 = lines[0]["wire_base64"].as_str().unwrap();
    let bytes = STANDARD.decode(base64).unwrap();
    assert_eq!(bytes, shown.to_wire().unwrap());
    let raw = Command::new(env!("CARGO_BIN_EXE_clusdb"))
        .args(["watch", "p", "--once", "--wire", "--store"])
        .arg(home.store())
        .output()
        .unwrap();
    assert_eq!(raw.stdout, shown.to_wire().unwrap());
    assert_eq!(
        home.run(&["watch", "p", "--once", "--timeout", "0", "--wire"])
            .stdout,
        ""
    );
}

#[test]
fn what_does_nothing_is_no_error() {
    let home = Home::new();
    home.run(&["set", "Key", "Value", "x"]).lines();
    assert_eq!(home.batch(&[]).lines(), [json!({})]);
    assert_eq!(home.run(&["del", "none\\Such"]).lines(), [json!({"sequence": 2})]);
    assert_eq!(
        home.run(&["del", "KEY", "none"]).lines(),
        [json!({"sequence": 3})]
    );
    let log = home.run(&["log", "--from", "2"]).changes();
    assert_eq!(
        log,
        [
            json!({"command": "delete_key", "key": "none\\Such", "changed": false}),
            json!({"command": "delete_value", "key": "Key", "name": "none", "changed": false}),
        ]
    );
}

#[test]
fn a_dry_run_shows_what_would_change_and_makes_no_store() {
    let home = Home::new();
    let line = r#"{"command":"create_key","key":"K"}"#;
    let shown = [json!({"command": "create_key", "key": "K", "changed": true})];
    assert_eq!(
        home.run_with_input(&["batch", "-", "--dry-run"], line).lines(),
        shown
    );
    assert!(!home.store().exists());
    home.run(&["set", "K", "v", "x"]).lines();
    let before = home.everything();
    let shown = [json!({"command": "delete_key", "key": "K", "changed": true})];
    assert_eq!(home.run(&["del", "k", "--dry-run"]).lines(), shown);
    assert_eq!(home.everything(), before);
}

#[test]
fn a_reader_that_closes_its_end_is_no_failure() {
    let home = Home::new();
    let commands: Vec<_> = (0..5000)
        .map(|number| json!({"command": "create_key", "key": format!("K{number}")}))
        .collect();
    home.batch(&commands).lines();
    let mut child = home
        .command()
        .args(["log"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn control_characters_are_escaped_in_text() {
    let home = Home::new();
    home.batch(&[
        json!({"command": "create_key", "key": "K\u{1b}[2J"}),
        set_value("n\n", "d\u{7}"),
    ])
    .lines();
    let mut text = Command::new(env!("CARGO_BIN_EXE_clusdb"));
    text.arg("--store").arg(home.store()).args(["ls", "", "-r"]);
    let shown = String::from_utf8(text.output().unwrap().stdout).unwrap();
    assert!(shown.contains("\\u{1b}[2J") && shown.contains("\\n"), "{shown}");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
}

#[test]
fn the_tour_shows_the_notification_of_a_process_that_was_killed() {
    let home = Home::new();
    let output = Command::new(env!("CARGO_BIN_EXE_clusdb"))
        .arg("tour")
        .env_remove("CLUSDB_STORE")
        .env("TMPDIR", home.store().parent().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for shown in [
        "with SIGKILL",
        "the notification is still there",
        r#"2 set_value "Cluster\Resources\IP1" "Address" = sz "10.0.0.7" (was sz "10.0.0.5")"#,
        "acknowledged",
        "nothing comes twice",
    ] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    if std::path::Path::new("/proc/self/maps").exists() {
        assert!(
            text.contains("r--s") && text.contains("00000000000000000001.segment"),
            "{text}"
        );
    }
    assert_eq!(
        std::fs::read_dir(home.store().parent().unwrap()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}
