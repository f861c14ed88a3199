//! The command line's contract: every failure has its exit code and its word, and leaves the store as it was.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod command;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use command::{Home, Ran};
use serde_json::{Value, json};

/// A home whose store has the key `Key` with its value `v`, and the port `p` on it.
fn home() -> Home {
    let home = Home::new();
    home.run(&["set", "Key", "v", "x"]).lines();
    home.run(&["port", "create", "p", "Key"]).lines();
    home
}

/// Runs what must fail, and checks that nothing came of it.
#[track_caller]
fn fails(home: &Home, code: i32, word: &str, run: impl FnOnce(&Home) -> Ran) -> Value {
    let before = home.everything();
    let error = run(home).error(code, word);
    assert_eq!(home.everything(), before, "{error}");
    error
}

#[test]
fn names_that_cannot_be_are_usage_errors_and_long_ones_are_over_a_limit() {
    let home = home();
    let long = "k".repeat(256);
    let deep = vec!["k"; 513].join("\\");
    let long_name = "n".repeat(16_384);
    for (code, word, arguments) in [
        (2, "path", &["set", "A\\", "v", "x"][..]),
        (2, "path", &["set", "A\\\\B", "v", "x"]),
        (2, "path", &["del", "/A"]),
        (2, "path", &["port", "create", "q", "\\"]),
        (2, "name", &["port", "create", ".q", "Key"]),
        (2, "name", &["port", "create", "q/../q", "Key"]),
        (1, "limit", &["set", &long, "v", "x"]),
        (1, "limit", &["set", &deep, "v", "x"]),
        (1, "limit", &["set", "Key", &long_name, "x"]),
        (1, "limit", &["port", "create", &long, "Key"]),
    ] {
        fails(&home, code, word, |home| home.run(arguments));
    }
    assert_eq!(home.run(&["port", "ls"]).lines().len(), 1);
}

#[test]
fn a_value_over_the_limit_is_refused_with_the_index_of_its_command() {
    let home = home();
    let large = home.file("large", vec![1; (1 << 20) + 1]);
    let error = fails(&home, 1, "limit", |home| {
        home.run(&["set", "Key", "v", "--type", "binary", "--data-file", &large])
    });
    assert_eq!(error["index"], 0);
    assert!(error["message"].as_str().unwrap().contains("1048576"), "{error}");
    home.file("large", vec![1; 1 << 20]);
    home.run(&["set", "Key", "v", "--type", "binary", "--data-file", &large])
        .lines();
}

#[test]
fn a_condition_that_does_not_hold_is_told_by_its_index_and_an_exit_code_of_its_own() {
    let home = home();
    let set = r#"{"command":"set_value","name":"v","type":"sz","data":"y"}"#;
    for condition in [
        r#"{"command":"condition_exists","name":"missing"}"#,
        r#"{"command":"condition_not_exists","name":"V"}"#,
        r#"{"command":"condition_is_equal","name":"v","type":"sz","data":"z"}"#,
        r#"{"command":"condition_is_not_equal","name":"v","type":"sz","data":"y"}"#,
        r#"{"command":"condition_is_greater_than","name":"v","type":"sz","data":"y"}"#,
        r#"{"command":"condition_is_less_than","name":"v","type":"sz","data":"x"}"#,
        r#"{"command":"condition_key_exists","key":"Missing"}"#,
        r#"{"command":"condition_key_not_exists","key":""}"#,
    ] {
        let lines = [r#"{"command":"control","value":1}"#, set, condition].join("\n");
        let error = fails(&home, 4, "condition_failed", |home| {
            home.run_with_input(&["batch", "-", "--at", "Key"], &lines)
        });
        assert_eq!(
            (&error["index"], &error["line"]),
            (&json!(2), &json!(3)),
            "{condition}"
        );
        let dry = ["batch", "-", "--at", "Key", "--dry-run"];
        fails(&home, 4, "condition_failed", |home| {
            home.run_with_input(&dry, &lines)
        });
    }
    for malformed in [
        r#"{"command":"control","value":3}"#,
        r#"{"command":"condition_exists","name":"v","type":"sz","data":"x"}"#,
        r#"{"command":"condition_is_equal","name":"v"}"#,
        r#"{"command":"condition_maybe","name":"v"}"#,
    ] {
        fails(&home, 2, "json", |home| {
            home.run_with_input(&["batch", "-"], malformed)
        });
    }
}

#[test]
fn a_read_that_cannot_be_is_refused_with_its_line_and_what_is_not_there_is_a_reply() {
    let home = home();
    let good = r#"{"key":"Key","name":"V"}"#;
    for (word, bad) in [
        ("json", r#"{"key":"Key"}"#),
        ("json", r#"{"key":"Key","name":"v","more":1}"#),
        ("path", r#"{"key":"Key\\","name":"v"}"#),
        ("name", r#"{"key":"Key","name":"\u0000"}"#),
    ] {
        let error = fails(&home, 2, word, |home| {
            home.run_with_input(&["read", "-"], [good, "", bad].join("\n"))
        });
        assert_eq!(error["line"], 3, "{bad}");
    }
    let missing = r#"{"key":"Nil","name":""}"#;
    let lines = home
        .run_with_input(&["read", "-"], [good, missing, good].join("\n"))
        .lines();
    let found = json!({"key": "Key", "name": "v", "type": "sz", "data": "x"});
    assert_eq!(
        lines,
        [found.clone(), json!({"key": "Nil", "name": "", "code": 2}), found]
    );
    fails(&home, 3, "not_found", |home| home.run(&["info", "Nil"]));
}

#[test]
fn a_batch_that_fails_says_which_command_on_which_line() {
    let home = home();
    let create = r#"{"command":"create_key","key":"New"}"#;
    let set = r#"{"command":"set_value","name":"v","type":"sz","data":"x"}"#;
    let delete = r#"{"command":"delete_key","key":"New"}"#;
    let batch = |lines: &[&str]| lines.join("\n");
    for (code, word, index, line, lines) in [
        (2, "no_current_key", 2, 4, batch(&[create, "", delete, set])),
        (
            1,
            "root",
            1,
            2,
            batch(&[create, r#"{"command":"delete_key","key":""}"#]),
        ),
        (
            2,
            "path",
            1,
            2,
            batch(&[create, r#"{"command":"create_key","key":"A\\"}"#]),
        ),
        (
            2,
            "name",
            1,
            2,
            batch(&[create, r#"{"command":"create_key","key":"A\u0000"}"#]),
        ),
    ] {
        let error = fails(&home, code, word, |home| {
            home.run_with_input(&["batch", "-"], &lines)
        });
        assert_eq!(
            (&error["index"], &error["line"]),
            (&json!(index), &json!(line)),
            "{lines}"
        );
    }
    let missing = batch(&["", set]);
    let error = fails(&home, 3, "not_found", |home| {
        home.run_with_input(&["batch", "-", "--at", "Missing"], &missing)
    });
    assert_eq!((&error["index"], &error["line"]), (&json!(0), &json!(2)));
    let deep = vec!["k"; 33].join("\\\\");
    let levels = format!("{create}\n{{\"command\":\"create_key\",\"key\":\"{deep}\"}}");
    let error = fails(&home, 1, "limit", |home| {
        home.run_with_input(&["batch", "-"], &levels)
    });
    assert_eq!((&error["index"], &error["line"]), (&json!(1), &json!(2)));
}

#[test]
fn json_that_cannot_be_read_is_a_usage_error_with_its_line() {
    let home = home();
    for line in [
        "nonsense",
        "{}",
        r#"{"command":"rename_key","key":"K"}"#,
        r#"{"command":"create_key"}"#,
        r#"{"command":"create_key","key":"K","more":1}"#,
        r#"{"command":"set_value","name":"v","type":"dword","data":"1"}"#,
        r#"{"command":"set_value","name":"v","type":"dword","data":4294967296}"#,
        r#"{"command":"set_value","name":"v","type":"word","data":1}"#,
        r#"{"command":"set_value","name":"v","type":"sz"}"#,
        r#"{"command":"set_value","name":"v","type":"binary","data_base64":"!"}"#,
        r#"{"command":"create_key","key":"\ud800"}"#,
    ] {
        let input = format!("{{\"command\":\"create_key\",\"key\":\"K\"}}\n{line}\n");
        let error = fails(&home, 2, "json", |home| {
            home.run_with_input(&["batch", "-"], input)
        });
        assert_eq!(error["line"], 2, "{line}");
    }
    let error = fails(&home, 2, "json", |home| {
        home.run_with_input(&["batch", "-"], b"\n\n\xff\n")
    });
    assert_eq!(error["line"], 3);
}

#[test]
fn bytes_of_the_protocol_that_cannot_be_read_are_a_usage_error_with_their_offset() {
    let home = home();
    let file = home.file(
        "update.bin",
        [1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let error = fails(&home, 2, "wire", |home| home.run(&["batch", "--wire", &file]));
    assert!(
        error["message"].as_str().unwrap().contains("at byte 4"),
        "{error}"
    );
    // What a batch refuses has its own word and code.
    let file = home.file(
        "update.bin",
        [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    fails(&home, 1, "root", |home| home.run(&["batch", "--wire", &file]));
    let ran = Command::new(env!("CARGO_BIN_EXE_clusdb"))
        .args(["watch", "p", "--wire", "--store"])
        .arg(home.store())
        .output()
        .unwrap();
    assert_eq!(
        ran.status.code(),
        Some(2),
        "it would not tell where the bytes end"
    );
}

#[test]
fn a_reg_file_that_cannot_be_read_is_a_usage_error_with_its_line() {
    let home = home();
    for (line, text) in [
        (1, "Windows Registry Editor Version 6.00\n"),
        (3, "REGEDIT4\n\n\"v\"=\"before any key\"\n"),
        (4, "REGEDIT4\n\n[K]\nnonsense\n"),
        (4, "REGEDIT4\n\n[K]\n\"v\"=dword:xyz\n"),
        (5, "REGEDIT4\n\n[K]\n\"v\"=hex:00,\\\n  0\n"),
        (3, "REGEDIT4\n\n[K\n"),
    ] {
        let error = fails(&home, 2, "reg", |home| {
            home.run_with_input(&["import", "-"], text)
        });
        assert_eq!(error["line"], line, "{text}");
    }
    let bad_path = "REGEDIT4\n\n[K]\n[A\\\\B]\n";
    let error = fails(&home, 2, "path", |home| {
        home.run_with_input(&["import", "-"], bad_path)
    });
    assert_eq!(error["line"], 4);
    let deletion = "REGEDIT4\n\n[K]\n\"v\"=-\n";
    let error = fails(&home, 2, "reg", |home| {
        home.run_with_input(&["import", "-", "--replace"], deletion)
    });
    assert_eq!(error["line"], 4);
    fails(&home, 1, "io", |home| home.run(&["import", "no such file"]));
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    let home = home();
    for arguments in [
        &["frobnicate"][..],
        &["set", "Key"],
        &["set", "Key", "v", "1", "2"],
        &["set", "Key", "v", "x", "--type", "dword"],
        &["set", "Key", "v", "0", "--type", "binary"],
        &["set", "Key", "v", "x", "--type", "word"],
        &["watch", "p", "--timeout", "soon"],
        &["port", "create", "q"],
    ] {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        let error: Value = serde_json::from_str(&ran.stderr).unwrap();
        assert!(error["error"].is_string() && error["message"].is_string());
    }
    let mut without_store = Command::new(env!("CARGO_BIN_EXE_clusdb"));
    let output = without_store
        .env_remove("CLUSDB_STORE")
        .arg("stat")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_is_not_there_is_not_found_and_no_reading_verb_makes_a_store() {
    let empty = Home::new();
    for arguments in [
        &["get", "K"][..],
        &["ls", ""],
        &["stat"],
        &["log"],
        &["watch", "p", "--once"],
        &["port", "ls"],
        &["port", "rm", "p"],
    ] {
        empty.run(arguments).error(3, "not_found");
        assert!(!empty.store().exists());
    }
    let home = home();
    for arguments in [
        &["get", "None"][..],
        &["get", "Key", "none"],
        &["get", "Key"],
        &["ls", "None"],
        &["port", "rm", "q"],
    ] {
        fails(&home, 3, "not_found", |home| home.run(arguments));
    }
    fails(&home, 1, "root", |home| home.run(&["del", ""]));
}

#[test]
fn a_port_of_another_key_is_refused_and_the_same_one_is_not() {
    let home = home();
    home.run(&["port", "create", "p", "KEY"]).lines();
    fails(&home, 1, "port_exists", |home| {
        home.run(&["port", "create", "p", "Other"])
    });
    assert_eq!(home.run(&["port", "ls"]).lines()[0]["key"], "Key");
}

#[test]
fn a_store_in_use_is_refused_until_its_owner_is_gone_and_wait_waits_for_it() {
    let home = home();
    let owner = clusdb::Store::open(home.store()).unwrap();
    home.run(&["set", "Key", "v", "z"]).error(5, "in_use");
    home.run(&["set", "Key", "v", "z", "--wait", "0.05"])
        .error(5, "in_use");
    let waiting = home
        .command()
        .args(["set", "Key", "v", "z", "--wait", "60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(owner);
    assert!(waiting.wait_with_output().unwrap().status.success());
}

/// A port has one owner, whichever process it is in.
#[test]
fn a_port_that_is_watched_elsewhere_is_refused() {
    let home = home();
    home.run(&["set", "Key", "v", "y"]).lines();
    let mut owner = home
        .command()
        .args(["watch", "p"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It has the port once it shows that change.
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("\"set_value\""), "{line}");
    home.run(&["watch", "p", "--once"]).error(5, "port_in_use");
    home.run(&["port", "rm", "p"]).error(5, "port_in_use");
    home.run(&["set", "Key", "v", "z"]).lines();
    owner.kill().unwrap();
    owner.wait().unwrap();
    home.run(&["watch", "p", "--once"]).lines();
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir(home.store()).unwrap();
    std::fs::write(home.store().join("thesis.txt"), "years of work").unwrap();
    for arguments in [&["set", "K", "v", "x"][..], &["stat"]] {
        home.run(arguments).error(1, "foreign_directory");
    }
    assert_eq!(std::fs::read_dir(home.store()).unwrap().count(), 1);
}

/// Each kind of file in its newer version: refused by name, never called damaged.
#[test]
fn a_newer_format_is_refused_by_name() {
    let home = home();
    for file in [
        "store",
        "head",
        "journal/00000000000000000001.segment",
        "ports/p.port",
    ] {
        let path = home.store().join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut newer = whole.clone();
        newer[8..12].copy_from_slice(&4u32.to_le_bytes());
        let checksum = crc32fast::hash(&newer[..12]);
        newer[12..16].copy_from_slice(&checksum.to_le_bytes());
        std::fs::write(&path, &newer).unwrap();
        let error = home
            .run(&["watch", "p", "--once", "--timeout", "0"])
            .error(1, "unsupported_version");
        assert!(error["message"].as_str().unwrap().contains(file), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), newer, "untouched");
        std::fs::write(&path, &whole).unwrap();
    }
    home.run(&["stat"]).lines();
}

#[test]
fn damage_is_refused_with_file_and_offset_and_nothing_is_changed() {
    let home = home();
    home.run(&["set", "Key", "v", "second"]).lines();
    let segment = home.store().join("journal/00000000000000000001.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[128 + 70] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    for arguments in [
        &["stat"][..],
        &["set", "Key", "v", "x"],
        &["watch", "p", "--once"],
    ] {
        let error = home.run(arguments).error(6, "damaged");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(segment.to_str().unwrap()) && message.contains("offset 128"),
            "{message}"
        );
    }
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}
