//! What the naive model says of the specification's own examples.

use super::*;

fn set(name: &str, data: &str) -> Command {
    Command::SetValue {
        name: name.into(),
        value_type: 1,
        data: data.into(),
    }
}
fn del(name: &str) -> Command {
    Command::DeleteValue { name: name.into() }
}
fn create(path: &str) -> Command {
    Command::CreateKey { path: path.into() }
}
fn remove(path: &str) -> Command {
    Command::DeleteKey { path: path.into() }
}
fn commit(store: &mut Store, key: &str, commands: &[Command]) -> Result<(), (usize, Failure)> {
    let (key, commands) = (key.into(), commands.to_vec());
    store.commit(&Batch { key, commands }).map(drop)
}
/// Each line of a batch that succeeds as "command key|name changed".
fn shown(store: &mut Store, key: &str, commands: &[Command]) -> Vec<String> {
    commit(store, key, commands).unwrap();
    let text = |s: &Shown| {
        let name = s.name.as_deref().unwrap_or("-");
        format!("{} {}|{name} {}", s.command, s.key, s.changed)
    };
    store.log.last().unwrap().shown.iter().map(text).collect()
}

/// Section 3, the table.
#[test]
fn the_protocols_worked_example() {
    let (world, universe) = ("hello world", "hello universe");
    let mut store = Store::new();
    let commands = [del("v"), set("v", world), set("v", universe), del("v")];
    commit(&mut store, "", &commands).unwrap();
    let text = |line: Line| {
        let data = line.value.map(|(_, data)| String::from_utf8(data).unwrap());
        format!("{} {}", line.command, data.unwrap_or_default())
    };
    let lines = Store::commands(&store.log[0].shown).into_iter().map(text);
    let wanted = [
        "delete_value ",
        "set_value hello world",
        "value_deleted hello world",
        "set_value hello universe",
        "value_deleted hello universe",
        "delete_value ",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), wanted);
}

/// Section 3: "writing an existing value or opening an existing key under another spelling keeps the stored one".
#[test]
fn stored_spelling_is_kept_until_the_thing_is_gone() {
    let mut store = Store::new();
    commit(&mut store, "", &[create("Key")]).unwrap();
    let commands = [set("Val", "1"), set("VAL", "2"), create("sub\\New")];
    let wanted = [
        "set_value Key|Val true",
        "set_value Key|Val true",
        "create_key Key\\sub\\New|- true",
    ];
    assert_eq!(shown(&mut store, "KEY", &commands), wanted);
    let commands = [del("vAl"), set("vAl", "3"), remove(""), create("")];
    let wanted = [
        "delete_value Key|Val true",
        "set_value Key|vAl true",
        "delete_key Key|- true",
        "create_key KEY|- true",
    ];
    assert_eq!(shown(&mut store, "KEY", &commands), wanted);
    assert_eq!(store.dump(), [DumpLine::Key("KEY".into())]);
}

/// Section 2: DELETE_KEY clears the current key; SET_VALUE in a missing key fails, DELETE_VALUE finds nothing.
#[test]
fn a_value_command_needs_a_current_key_and_set_value_an_existing_one() {
    let mut store = Store::new();
    let mut refused = |commands: &[Command]| commit(&mut store, "K", commands).unwrap_err();
    let orphan = [create(""), remove("nil"), del("v")];
    assert_eq!(refused(&orphan), (2, Failure::NoCurrentKey));
    assert_eq!(refused(&[del("v"), set("v", "")]), (1, Failure::KeyNotFound));
    let wanted = ["delete_value K|v false", "create_key K|- true"];
    assert_eq!(shown(&mut store, "K", &[del("v"), create("")]), wanted);
    assert_eq!(store.log[0].sequence, 1, "a refusal takes no number");
}

/// Section 2: "the root itself can't be deleted"; a trailing `\` is refused. Section 6: the limits.
#[test]
fn the_root_bad_names_and_what_is_over_a_limit_are_refused() {
    let mut store = Store::new();
    let mut refused = |command: Command| commit(&mut store, "", &[command]).unwrap_err().1;
    assert_eq!(refused(remove("")), Failure::Root);
    for path in ["a\\", "\\a", "a\\\\b", "\\", "a\0"] {
        assert_eq!(refused(create(path)), Failure::Name);
    }
    let deep = vec!["x"; 33].join("\\");
    let long_name = "n".repeat(16_384);
    let large = set("", &"d".repeat(MAX_DATA + 1));
    let long_key = create(&"\u{10400}".repeat(128)); // 256 units
    for command in [long_key, create(&deep), del(&long_name), large] {
        assert_eq!(refused(command), Failure::Limit);
    }
    commit(&mut store, "", &[create(&deep[2..]), del(&long_name[1..])]).unwrap();
}

/// Section 3: the port sees "the commands inside"; DELETE_KEY of an ancestor is shown; "a batch with none inside is not".
#[test]
fn a_port_sees_its_subtree_and_the_loss_of_an_ancestor() {
    let mut store = Store::new();
    let inside = [create("A\\B\\C"), set("v", ""), create("A\\Bc")];
    commit(&mut store, "", &inside).unwrap();
    commit(&mut store, "A\\Bc", &[set("v", ""), remove("")]).unwrap();
    commit(&mut store, "", &[remove("a"), create("a")]).unwrap();
    let seen = |after, upto| -> Vec<(u64, usize)> {
        let batches = store.notification("a\\b", after, upto);
        batches
            .iter()
            .map(|batch| (batch.sequence, batch.shown.len()))
            .collect()
    };
    assert_eq!(seen(0, 3), [(1, 2), (3, 1)]);
    assert_eq!(seen(1, 3), [(3, 1)]);
    assert_eq!(seen(1, 2), []);
    assert_eq!(store.notification("", 0, 3), store.log);
}

/// Section 6: "one character to one character, never one to many (`ß` is not `SS`)".
#[test]
fn names_are_equal_character_by_character() {
    let compare = |pair: &str| {
        let (a, b) = pair.split_once('=').unwrap();
        same_name(a, b)
    };
    let equal = ["straße=STRAßE", "ÿ=Ÿ", "ς=Σ", "ı=I", "ᾳᾀ=ᾼᾈ", "𐐨=𐐀"];
    assert!(equal.into_iter().all(compare));
    let different = ["ß=SS", "ß=ẞ", "İ=I", "a=ab", "é=e\u{301}"];
    assert!(!different.into_iter().any(compare));
}
