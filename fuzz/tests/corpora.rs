//! Every file of every corpus through its target, on any toolchain; and where the seeds come from:
//! `CLUSDB_WRITE_SEEDS=1 cargo test --manifest-path fuzz/Cargo.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use clusdb::model::{KeyPath, Limits, State, evaluate};
use clusdb::{Batch, CommandKind, ReadBatch, Value, wire};
use clusdb_fuzz::{Patch, backup, encode_patches, fields, killed, targets, trimmed};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 10] = [
    ("plans", targets::plans),
    ("kept", targets::kept),
    ("backup", targets::backup),
    ("sidecars", targets::sidecars),
    ("recovery", targets::recovery),
    ("record", targets::record),
    ("batch", targets::batch),
    ("wire", targets::wire),
    ("reg", targets::reg),
    ("json", targets::json),
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[test]
fn no_file_of_a_corpus_breaks_a_law() {
    for (name, target) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus(name))
            .expect("a corpus")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert!(files.len() >= 5, "{name}: {} files", files.len());
        for file in files {
            // The name is printed by the harness if a law is broken.
            println!("{}", file.display());
            target(&fs::read(file).expect("a file"));
        }
    }
}

#[test]
fn the_seeds_are_what_the_encoder_gives() {
    if std::env::var_os("CLUSDB_WRITE_SEEDS").is_none() {
        return;
    }
    for (name, _) in TARGETS {
        fs::create_dir_all(corpus(name)).expect("a folder");
    }
    let write =
        |target: &str, name: &str, bytes: &[u8]| fs::write(corpus(target).join(name), bytes).expect("a file");

    for seed in 0..24_u8 {
        // A plan each for the first life and its recovery, what is lost, and some of each step.
        let plan = [seed.wrapping_mul(37), 0, seed, seed];
        let steps: Vec<u8> = (0..96)
            .map(|index: u8| index.wrapping_mul(seed | 1).wrapping_add(seed))
            .collect();
        let bytes = [
            &[seed][..],
            &plan,
            &[seed * 3, 0, seed + 1, seed],
            &[seed],
            &steps,
        ]
        .concat();
        write("plans", &format!("seed{seed}"), &bytes);
    }
    for (target, master) in [("recovery", killed()), ("kept", trimmed()), ("backup", backup())] {
        write(target, "untouched", b"");
        for (action, distance) in [0, 16, 24, 64].into_iter().enumerate() {
            let action = action as u8;
            for (index, (file, at)) in fields(master).into_iter().step_by(3).enumerate() {
                let patch = Patch {
                    file,
                    offset: at + distance,
                    byte: 0x55,
                    action,
                };
                write(
                    target,
                    &format!("field{index}-action{action}"),
                    &encode_patches(&[patch]),
                );
            }
            for file in 0..master.len() as u8 {
                let patch = Patch {
                    file,
                    offset: 40,
                    byte: 1,
                    action,
                };
                write(
                    target,
                    &format!("file{file}-action{action}"),
                    &encode_patches(&[patch]),
                );
            }
        }
    }
    for (index, offset) in [0, 20, 44, 61, 66, 70, 74, 90, 200, 900].into_iter().enumerate() {
        for action in [0, 2, 3] {
            let patch = Patch {
                file: index as u8,
                offset,
                byte: 0x55,
                action,
            };
            write(
                "sidecars",
                &format!("offset{offset}-action{action}"),
                &encode_patches(&[patch]),
            );
        }
    }
    for (index, batch) in batches().iter().enumerate() {
        let record = evaluate(&State::new(), batch, &Limits::default()).expect("a record");
        write("record", &format!("record{index}"), record.payload());
    }
    for seed in 0..8_u8 {
        let bytes: Vec<_> = (0..120_u8)
            .map(|number| number.wrapping_mul(37 + seed * 2).wrapping_add(seed))
            .collect();
        write("batch", &format!("batches{seed}"), &bytes);
    }
    for (index, batch) in batches().iter().enumerate() {
        write("wire", &format!("batch{index}"), &batch.to_wire().expect("bytes"));
    }
    let mut conditions = Batch::at(&KeyPath::root());
    conditions
        .control(clusdb::Control::Isolated)
        .condition_is_greater_than("𝄞", Value::binary(*b"odd"))
        .expect("a command")
        .condition_key_exists("")
        .expect("a command");
    write("wire", "conditions", &conditions.to_wire().expect("bytes"));
    let mut reads = ReadBatch::at(&KeyPath::root());
    reads.add("A", "v").expect("a read").add("", "").expect("a read");
    write("wire", "reads", &reads.to_wire().expect("bytes"));
    let replies = State::new().read(&reads);
    let mut replies: Vec<_> = replies.iter().map(wire::WireReply::from).collect();
    replies[1].result = Ok(Value::binary(*b"odd"));
    write("wire", "replies", &wire::encode_replies(&replies).expect("bytes"));
    let commands = [
        (CommandKind::CreateKey, "A", None),
        (CommandKind::ValueDeleted, "v", Some(Value::sz("old"))),
        (CommandKind::DeleteValue, "v", None),
    ];
    let commands = commands.map(|(kind, name, value)| wire::WireCommand {
        kind,
        name: name.to_owned(),
        value,
    });
    write(
        "wire",
        "notification",
        &wire::encode_commands(&commands).expect("bytes"),
    );
    let header = "Windows Registry Editor Version 5.00\r\n\r\n";
    let regs = [
        "[A\\B]\r\n\"n\"=\"text\"\r\n@=dword:0000000a\r\n",
        "[A]\r\n\"b\"=hex:01,02,\\\r\n  03\r\n\"m\"=hex(7):61,00,00,00,00,00\r\n",
        "[-A\\B]\r\n[A]\r\n\"gone\"=-\r\n; a comment\r\n",
        "[A]\r\n\"quoted \\\"name\\\\\"=hex(ffff000c):\r\n\"q\"=hex(b):01,00,00,00,00,00,00,00\r\n",
    ];
    for (index, body) in regs.iter().enumerate() {
        let text = format!("{header}{body}");
        write("reg", &format!("utf8-{index}"), text.as_bytes());
        let utf16: Vec<_> = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        write("reg", &format!("utf16-{index}"), &utf16);
    }
    write(
        "reg",
        "regedit4",
        b"REGEDIT4\n[A]\n\"n\"=\"text\"\n\"h\"=hex(2):61,00\n",
    );
    let lines = [
        r#"{"command":"create_key","key":"A\\B"}"#,
        r#"{"command":"set_value","name":"n","type":"sz","data":"text"}"#,
        r#"{"command":"set_value","name":"n","type":"multi_sz","data":["a","b"]}"#,
        r#"{"command":"create_key","key":"A"}"#,
        r#"{"command":"set_value","name":"n","type":"dword","data":7}"#,
        r#"{"command":"set_value","name":"n","type":12,"data_base64":"AAE="}"#,
        r#"{"command":"condition_is_less_than","name":"n","type":"multi_sz","data":["a","b"]}"#,
        r#"{"command":"delete_value","name":"n"}"#,
        r#"{"command":"delete_key","key":"A"}"#,
    ];
    for (index, line) in lines.iter().enumerate() {
        write("json", &format!("line{index}"), line.as_bytes());
    }
    write("json", "all", lines.join("\n").as_bytes());
    let batch = format!(
        r#"{{"at":"A\\B","commands":[{}]}}"#,
        lines[lines.len() - 5..].join(",")
    );
    write("json", "batch", batch.as_bytes());
    write("json", "reply", br#"{"sequence":7}"#);
    write(
        "json",
        "refusal",
        br#"{"error":"limit","message":"too long","index":2}"#,
    );
}

fn batches() -> Vec<Batch> {
    let at = |path: &str| Batch::at(&KeyPath::parse(path).expect("a path"));
    let mut simple = at("A");
    simple
        .create_key("")
        .expect("a command")
        .set_value("n", Value::sz("text"))
        .expect("a command");
    let mut deep = at("");
    deep.create_key("A\\B\\C")
        .expect("a command")
        .set_value("", Value::qword(7))
        .expect("a command");
    let mut deletes = at("A");
    deletes
        .create_key("B")
        .expect("a command")
        .delete_value("v")
        .expect("a command")
        .delete_key("B")
        .expect("a command");
    let mut runs = at("");
    for (number, key) in ["a", "b", "A"].into_iter().enumerate() {
        runs.create_key(key).expect("a command");
        runs.set_value("v", Value::dword(number as u32))
            .expect("a command");
    }
    let mut large = at("L");
    large
        .create_key("")
        .expect("a command")
        .set_value("v", Value::binary(vec![1; 300]))
        .expect("a command");
    vec![simple, deep, deletes, runs, large]
}
