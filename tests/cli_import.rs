//! `import`: every encoding and quirk of .reg files, `--replace`, and the real inputs.
#![cfg(feature = "cli")]

#[path = "support/command.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod command;

use std::collections::{BTreeMap, BTreeSet};

use command::{Home, inputs, unpack};
use serde_json::{Value, json};

const SAMPLE: &str = "Windows Registry Editor Version 5.00\r\n\r\n\
    ; a comment\r\n\
    [HKEY_CURRENT_USER\\]\r\n\
    [HKEY_CURRENT_USER\\Söftware]\r\n\
    @=\"default\"\r\n\
    \"a \\\"quoted\\\" \\\\ name\"=\"C:\\\\Dir\"\r\n\
    \"number\"=dword:0000001f\r\n\
    \"bytes\"=hex:00,01,\\\r\n  ff\r\n\
    \"strings\"=hex(7):61,00,00,00,62,00,00,00,00,00\r\n\
    \"quad\"=hex(b):01,00,00,00,00,00,00,00\r\n\
    \"empty\"=hex(0):\r\n";

fn sample_listing() -> Vec<Value> {
    let key = "HKEY_CURRENT_USER\\Söftware";
    let value = |name: &str, value: Value| {
        let mut line = json!({"kind": "value", "key": key, "name": name});
        line.as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        line
    };
    vec![
        json!({"kind": "key", "key": "HKEY_CURRENT_USER"}),
        json!({"kind": "key", "key": key}),
        value("", json!({"type": "sz", "data": "default"})),
        value("a \"quoted\" \\ name", json!({"type": "sz", "data": "C:\\Dir"})),
        value("bytes", json!({"type": "binary", "data_base64": "AAH/"})),
        value("empty", json!({"type": "none", "data_base64": ""})),
        value("number", json!({"type": "dword", "data": 31})),
        value("quad", json!({"type": "qword", "data": 1})),
        value("strings", json!({"type": "multi_sz", "data": ["a", "b"]})),
    ]
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}")
        .encode_utf16()
        .flat_map(to_bytes)
        .collect()
}

#[test]
fn every_encoding_gives_the_same_keys_and_values() {
    let unix = SAMPLE.replace("\r\n", "\n");
    for file in [
        SAMPLE.as_bytes().to_vec(),
        unix.trim_end().as_bytes().to_vec(),
        format!("\u{feff}{SAMPLE}").into_bytes(),
        utf16(SAMPLE, u16::to_le_bytes),
        utf16(&unix, u16::to_be_bytes),
    ] {
        let home = Home::new();
        assert_eq!(
            home.run_with_input(&["import", "-"], &file).lines(),
            [json!({"sequence": 1})]
        );
        assert_eq!(home.run(&["ls", "", "--recursive"]).lines(), sample_listing());
    }
}

#[test]
fn regedit4_files_deletions_and_at_are_taken_in() {
    let home = Home::new();
    let first = home.file(
        "first.reg",
        "REGEDIT4\n\n[A\\B]\n\"x\"=\"1\"\n\"y\"=hex(2):25,41,25,00\n[A\\Gone\\Below]\n",
    );
    home.run(&["import", &first, "--at", "Root/Key"]).lines();
    let second = home.file(
        "second.reg",
        "REGEDIT4\n\n[-A\\Gone]\n\n[A\\B]\n\"x\"=-\n\"none\"=-\n[-A\\None]\n",
    );
    assert_eq!(
        home.run(&["import", &second, "--at", "root\\key"]).lines(),
        [json!({"sequence": 2})]
    );
    let changed = |mut line: Value, changed: bool| {
        line["changed"] = json!(changed);
        line
    };
    assert_eq!(
        home.run(&["log", "--from", "2"]).changes(),
        [
            changed(
                json!({"command": "delete_key", "key": "Root\\Key\\A\\Gone"}),
                true
            ),
            changed(json!({"command": "create_key", "key": "Root\\Key\\A\\B"}), false),
            changed(
                json!({"command": "delete_value", "key": "Root\\Key\\A\\B", "name": "x", "previous": {"type": "sz", "data": "1"}}),
                true
            ),
            changed(
                json!({"command": "delete_value", "key": "Root\\Key\\A\\B", "name": "none"}),
                false
            ),
            changed(
                json!({"command": "delete_key", "key": "root\\key\\A\\None"}),
                false
            ),
        ]
    );
    let listed = home.run(&["ls", "Root/Key/A/B"]).lines();
    let widened =
        json!({"kind": "value", "key": "Root\\Key\\A\\B", "name": "y", "type": "expand_sz", "data": "%A%"});
    assert_eq!(listed, [widened], "8-bit characters of REGEDIT4 are widened");
}

#[test]
fn replace_makes_the_topmost_keys_equal_to_the_file_and_touches_nothing_else() {
    let home = Home::new();
    let before = "REGEDIT4\n[T]\n\"same\"=\"1\"\n\"other\"=\"1\"\n\"gone\"=\"1\"\n[T\\Keep\\Deep]\n\"v\"=\"1\"\n\
        [T\\Gone\\Below]\n\"v\"=\"1\"\n[T\\Implied\\Key]\n[Outside]\n\"v\"=\"1\"\n[U]\n";
    home.run_with_input(&["import", "-"], before).lines();
    let outside = home.run(&["ls", "Outside"]).stdout;
    let after = "REGEDIT4\n[T\\implied\\KEY]\n[t]\n\"SAME\"=\"1\"\n\"Other\"=\"2\"\n[T\\Keep\\Deep]\n\"v\"=\"1\"\n[T\\New]\n\"v\"=\"1\"\n[V]\n";
    home.run(&["port", "create", "p", ""]).lines();
    let dry = home
        .run_with_input(&["import", "-", "--replace", "--dry-run"], after)
        .lines();
    assert_eq!(home.run(&["watch", "p", "--once", "--timeout", "0"]).stdout, "");
    assert_eq!(
        home.run_with_input(&["import", "-", "--replace"], after).lines(),
        [json!({"sequence": 2})]
    );
    let sz = |data: &str| json!({"type": "sz", "data": data});
    let expected = [
        json!({"command": "delete_key", "key": "T\\Gone", "changed": true}),
        json!({"command": "create_key", "key": "T", "changed": false}),
        json!({"command": "delete_value", "key": "T", "name": "gone", "previous": sz("1"), "changed": true}),
        json!({"command": "set_value", "key": "T", "name": "other", "type": "sz", "data": "2", "previous": sz("1"), "changed": true}),
        json!({"command": "create_key", "key": "T\\New", "changed": true}),
        json!({"command": "set_value", "key": "T\\New", "name": "v", "type": "sz", "data": "1", "changed": true}),
        json!({"command": "create_key", "key": "V", "changed": true}),
    ];
    assert_eq!(dry, expected);
    assert_eq!(home.run(&["watch", "p", "--once"]).changes(), expected);
    assert_eq!(home.run(&["ls", "Outside"]).stdout, outside);
    assert_eq!(
        home.run_with_input(&["import", "-", "--replace"], after).lines(),
        [json!({})],
        "nothing to do"
    );
}

/// A real change set: two states of a user's hive.
#[test]
fn a_real_change_set_goes_in_and_its_notification_is_there_in_the_next_process() {
    let Some(folder) = inputs() else { return };
    let home = Home::new();
    let before = home.file("before.reg", unpack(&folder, "ntuser-before.reg.xz"));
    let after = home.file("after.reg", unpack(&folder, "ntuser-after.reg.xz"));
    let counts = |keys: u64, values: u64| {
        let stat = home.run(&["stat"]).lines().remove(0);
        assert_eq!((&stat["keys"], &stat["values"]), (&json!(keys), &json!(values)));
    };
    home.run(&["import", &before]).lines();
    counts(1812, 4094);
    home.run(&["port", "create", "audit", "HKEY_CURRENT_USER\\Software"])
        .lines();
    home.run(&["import", "--replace", &after]).lines();
    counts(1808, 4090);
    let shown = home.run(&["watch", "audit", "--once", "--no-acknowledge"]);
    let changed = |lines: Vec<Value>| -> Vec<(String, String)> {
        let changed = lines.into_iter().filter(|line| line["changed"] == true);
        changed
            .map(|line| {
                (
                    line["command"].as_str().unwrap().into(),
                    line["key"].as_str().unwrap().into(),
                )
            })
            .collect()
    };
    let software = |path: &str| format!("HKEY_CURRENT_USER\\Software\\{path}");
    let line = |command: &str, path: &str| (command.to_owned(), software(path));
    assert_eq!(
        changed(shown.lines()),
        [
            line("delete_key", "WinRAR"),
            line("create_key", "Microsoft\\legitimate_subkey"),
            line("set_value", "Microsoft\\legitimate_subkey"),
            line("set_value", "Microsoft\\Windows\\CurrentVersion\\Run"),
        ]
    );
    assert_eq!(
        home.run(&["watch", "audit", "--once"]).stdout,
        shown.stdout,
        "byte for byte"
    );
    assert_eq!(
        home.run(&["watch", "audit", "--once", "--timeout", "0"]).stdout,
        ""
    );

    home.run(&["import", "--replace", &before]).lines();
    counts(1812, 4094);
    home.run(&["watch", "audit", "--once"]).lines();
    let run = software("Microsoft\\Windows\\CurrentVersion\\Run");
    home.run(&["import", "--replace", &after]).lines();
    home.run(&["watch", "audit", "--once"]).lines();
    home.run(&["set", &run, "NOT_A_MALWARE", "safe"]).lines();
    home.run(&["del", &run, "not_a_malware"]).lines();
    let previous: Vec<_> = home
        .run(&["watch", "audit", "--once"])
        .lines()
        .iter()
        .map(|line| line["previous"].clone())
        .collect();
    let sz = |data: &str| json!({"type": "sz", "data": data});
    assert_eq!(previous, [sz("c:\\temp\\legitimate_binary.exe"), sz("safe")]);
}

/// The file as this test reads it: paths, and (path, name) with type and bytes.
#[derive(Default)]
struct Expected {
    keys: BTreeSet<String>,
    values: BTreeMap<(String, String), (u32, Vec<u8>)>,
}

/// What the exporter writes: one line a key or a value, `hex(N):` or `dword:`, ASCII.
fn read_export(text: &str) -> Expected {
    let mut expected = Expected::default();
    let mut key = String::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        if let Some(path) = line.strip_prefix('[') {
            key = path.trim_end_matches(']').trim_end_matches('\\').to_owned();
            let separators = key.match_indices('\\').map(|(at, _)| at);
            expected
                .keys
                .extend(separators.chain([key.len()]).map(|end| key[..end].to_owned()));
            continue;
        }
        let (name, data) = match line.strip_prefix("@=") {
            Some(data) => (String::new(), data),
            None => {
                let split = ["\"=hex(", "\"=dword:"]
                    .iter()
                    .filter_map(|middle| line.rfind(middle))
                    .max()
                    .unwrap();
                (
                    line[1..split].replace("\\\\", "\\").replace("\\\"", "\""),
                    &line[split + 2..],
                )
            }
        };
        let value = match data.strip_prefix("dword:") {
            Some(digits) => (4, u32::from_str_radix(digits, 16).unwrap().to_le_bytes().to_vec()),
            None => {
                let (number, digits) = data.strip_prefix("hex(").unwrap().split_once("):").unwrap();
                let bytes = digits.split(',').filter(|pair| !pair.is_empty());
                let bytes = bytes.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
                (u32::from_str_radix(number, 16).unwrap(), bytes)
            }
        };
        expected.values.insert((key.clone(), name), value);
    }
    expected
}

fn number_of(value_type: &Value) -> u32 {
    let names = [
        "none",
        "sz",
        "expand_sz",
        "binary",
        "dword",
        "dword_big_endian",
        "link",
        "multi_sz",
    ];
    match value_type.as_str() {
        Some("qword") => 11,
        Some(name) => names.iter().position(|known| *known == name).unwrap() as u32,
        None => value_type.as_u64().unwrap() as u32,
    }
}

fn bytes_of(line: &Value) -> Vec<u8> {
    let utf16 = |text: &str| -> Vec<u8> {
        text.encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect()
    };
    if let Some(base64) = line["data_base64"].as_str() {
        return decode_base64(base64);
    }
    match (&line["data"], number_of(&line["type"])) {
        (Value::String(text), _) => utf16(text),
        (Value::Array(strings), _) => {
            let mut bytes: Vec<u8> = strings
                .iter()
                .flat_map(|text| utf16(text.as_str().unwrap()))
                .collect();
            bytes.extend([0, 0]);
            bytes
        }
        (number, 4) => (number.as_u64().unwrap() as u32).to_le_bytes().to_vec(),
        (number, 5) => (number.as_u64().unwrap() as u32).to_be_bytes().to_vec(),
        (number, 11) => number.as_u64().unwrap().to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .trim_end_matches('=')
        .bytes()
        .map(|c| alphabet.iter().position(|known| *known == c).unwrap());
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0, 0);
    for digit in digits {
        buffer = buffer << 6 | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    bytes
}

/// 19 MB, one batch, one notification; and `ls` agrees with the file in every key, type and byte.
#[test]
fn a_whole_system_hive_goes_in_as_one_batch() {
    let Some(folder) = inputs() else { return };
    let text = unpack(&folder, "system-hive.reg.xz");
    let expected = read_export(std::str::from_utf8(&text).unwrap());
    assert_eq!((expected.keys.len(), expected.values.len()), (30_757, 73_456));
    let home = Home::new();
    let file = home.file("hive.reg", &text);
    home.run(&["port", "create", "all", ""]).lines();
    assert_eq!(home.run(&["import", &file]).lines(), [json!({"sequence": 1})]);
    let stat = home.run(&["stat"]).lines().remove(0);
    assert_eq!((&stat["keys"], &stat["values"]), (&json!(30_757), &json!(73_456)));
    assert_eq!(home.run(&["port", "ls"]).lines()[0]["pending"], 1);
    let shown = home.run(&["watch", "all", "--once"]).lines();
    assert_eq!(
        shown.len(),
        30_756 + 73_456,
        "a command for each section and each value"
    );
    assert!(
        shown
            .iter()
            .all(|line| line["sequence"] == 1 && line["changed"] == true)
    );
    let (mut keys, mut values) = (BTreeSet::new(), BTreeMap::new());
    for line in home.run(&["ls", "", "--recursive"]).lines() {
        let key = line["key"].as_str().unwrap().to_owned();
        match line["name"].as_str() {
            Some(name) => {
                let value = (number_of(&line["type"]), bytes_of(&line));
                assert!(values.insert((key, name.to_owned()), value).is_none());
            }
            None => assert!(keys.insert(key)),
        }
    }
    assert_eq!(keys, expected.keys);
    assert!(values == expected.values);
}
