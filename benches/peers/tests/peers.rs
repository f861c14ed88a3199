//! A store that is measured does the work: what is committed is read back, from the rows and from the changes, also after it
//! was opened anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command as Process;

use anyhow::Result;
use clusdb::KeyPath;
use clusdb_peers::peer::{Batch, Change, Command, Entry, Kind, Peer};
use clusdb_peers::peers::Store;

type Line = (
    Kind,
    String,
    String,
    Option<(u32, Vec<u8>)>,
    Option<(u32, Vec<u8>)>,
);

fn path(path: &str) -> KeyPath {
    KeyPath::parse(path).expect("a path")
}

fn set(name: &str, value_type: u32, data: &[u8]) -> Command {
    Command::SetValue {
        name: name.to_owned(),
        value_type,
        data: data.to_owned(),
    }
}

fn batch(at: &str, commands: impl Into<Vec<Command>>) -> Batch {
    Batch {
        at: path(at),
        commands: commands.into(),
    }
}

fn create(path: &str) -> Command {
    Command::CreateKey(path.to_owned())
}

/// Batches on two subtrees, with what they change as lines.
fn batches() -> (Vec<Batch>, Vec<Line>) {
    let delete = Command::DeleteValue { name: "b".to_owned() };
    let batches = vec![
        batch(
            r"A\B",
            [create(""), set("a", 3, b"one"), set("b", 1, "ä\0".as_bytes())],
        ),
        batch(r"AB", [create("C"), set("a", 4, &[1, 0, 0, 0])]),
        // Twice in one batch: the second finds what the first has left.
        batch(
            r"A\B",
            [create(""), set("a", 3, b"two"), set("a", 3, b"three"), delete],
        ),
        batch("", [create(r"A\B\C\D"), set("", 0, b"")]),
    ];
    let line = |kind, key: &str, name: &str, value: Option<(u32, &[u8])>, previous: Option<(u32, &[u8])>| {
        let owned = |value: Option<(u32, &[u8])>| value.map(|(value_type, data)| (value_type, data.to_vec()));
        (
            kind,
            key.to_owned(),
            name.to_owned(),
            owned(value),
            owned(previous),
        )
    };
    let lines = vec![
        line(Kind::CreateKey, r"A\B", "", None, None),
        line(Kind::SetValue, r"A\B", "a", Some((3, b"one")), None),
        line(Kind::SetValue, r"A\B", "b", Some((1, "ä\0".as_bytes())), None),
        line(Kind::CreateKey, r"AB\C", "", None, None),
        line(Kind::SetValue, r"AB\C", "a", Some((4, &[1, 0, 0, 0])), None),
        line(Kind::CreateKey, r"A\B", "", None, None),
        line(Kind::SetValue, r"A\B", "a", Some((3, b"two")), Some((3, b"one"))),
        line(
            Kind::SetValue,
            r"A\B",
            "a",
            Some((3, b"three")),
            Some((3, b"two")),
        ),
        line(Kind::DeleteValue, r"A\B", "b", None, Some((1, "ä\0".as_bytes()))),
        line(Kind::CreateKey, r"A\B\C\D", "", None, None),
        line(Kind::SetValue, r"A\B\C\D", "", Some((0, b"")), None),
    ];
    (batches, lines)
}

fn changes(peer: &dyn Peer, below: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut take = |change: &Change<'_>| {
        let owned = |value: Option<clusdb_peers::peer::ValueRef<'_>>| {
            value.map(|value| (value.value_type, value.data.to_vec()))
        };
        let (value, previous) = (owned(change.value), owned(change.previous));
        lines.push((
            change.kind,
            change.key.to_owned(),
            change.name.to_owned(),
            value,
            previous,
        ));
    };
    peer.changes(&path(below), &mut take).expect("changes");
    lines
}

fn show(entry: &Entry<'_>) -> String {
    match entry {
        Entry::Key { parent, name } => format!(r"{parent}>{name}"),
        Entry::Value { key, name, value } => format!("{key}:{name}={}{:?}", value.value_type, value.data),
    }
}

fn listed(list: impl FnOnce(&mut dyn FnMut(&Entry<'_>)) -> Result<()>) -> Vec<String> {
    let mut lines = Vec::new();
    list(&mut |entry| lines.push(show(entry))).expect("a listing");
    lines.sort();
    lines
}

fn get(peer: &dyn Peer, key: &str, name: &str) -> Option<(u32, Vec<u8>)> {
    let mut found = None;
    let is_there = peer
        .get(&path(key), name, &mut |value| {
            found = Some((value.value_type, value.data.to_vec()))
        })
        .expect("a get");
    assert_eq!(is_there, found.is_some());
    found
}

fn check(store: Store, peer: &dyn Peer, lines: &[Line]) {
    for below in ["", "A", r"A\B\C", "AB"] {
        let is_below = |key: &str| path(key).is_at_or_below(&path(below));
        let mut expected: Vec<_> = lines.iter().filter(|line| is_below(&line.1)).cloned().collect();
        if !store.keeps_previous() {
            expected.iter_mut().for_each(|line| line.4 = None);
        }
        assert_eq!(changes(peer, below), expected, "{store}, below {below:?}");
    }
    assert_eq!(get(peer, r"A\B", "a"), Some((3, b"three".to_vec())), "{store}");
    assert_eq!(get(peer, r"A\B\C\D", ""), Some((0, Vec::new())), "{store}");
    for (key, name) in [(r"A\B", "b"), (r"A\B", "aa"), ("A", "a"), ("Z", "a")] {
        assert_eq!(get(peer, key, name), None, "{store}, {name:?} of {key:?}");
    }
    let all = [
        ">A",
        ">AB",
        r"A>B",
        r"A\B:a=3[116, 104, 114, 101, 101]",
        r"A\B>C",
        r"A\B\C>D",
        r"A\B\C\D:=0[]",
        r"AB>C",
        r"AB\C:a=4[1, 0, 0, 0]",
    ];
    let pick = |prefixes: &[&str]| -> Vec<String> {
        let is_in = |line: &&&str| prefixes.iter().any(|prefix| line.starts_with(prefix));
        let mut lines: Vec<_> = all.iter().filter(is_in).map(|line| (*line).to_owned()).collect();
        lines.sort();
        lines
    };
    assert_eq!(listed(|visit| peer.iterate(visit)), pick(&[""]), "{store}");
    assert_eq!(
        listed(|visit| peer.list(&path(""), visit)),
        pick(&[">"]),
        "{store}"
    );
    let below = pick(&[r"A\B:", r"A\B>"]);
    assert_eq!(listed(|visit| peer.list(&path(r"A\B"), visit)), below, "{store}");
    assert!(listed(|visit| peer.list(&path("Z"), visit)).is_empty(), "{store}");
}

fn open(store: Store, folder: &Path) -> Box<dyn Peer> {
    let followed = ["", "A", r"A\B\C", "AB"].map(path);
    store.open(folder, &followed).expect("a store")
}

#[test]
fn what_is_committed_is_read_back_also_after_opening_anew() {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let (batches, lines) = batches();
        let peer = open(*store, folder.path());
        for batch in &batches {
            peer.write(std::slice::from_ref(batch)).expect("a commit");
        }
        check(*store, &*peer, &lines);
        peer.close().expect("a clean close");
        let peer = open(*store, folder.path());
        check(*store, &*peer, &lines);
    }
}

#[test]
fn what_was_committed_is_there_when_the_process_is_killed() {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let (batches, lines) = batches();
        let peer = open(*store, folder.path());
        for batch in &batches {
            peer.write(std::slice::from_ref(batch)).expect("a commit");
        }
        // What a kill leaves: the files of an open store.
        let killed = tempfile::tempdir().expect("a folder");
        let mut copy = Process::new("cp");
        copy.arg("-r").arg(folder.path().join(".")).arg(killed.path());
        assert!(copy.status().expect("cp").success());
        check(*store, &*open(*store, killed.path()), &lines);
    }
}

#[test]
fn a_bulk_load_leaves_what_single_commits_leave() {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let peer = open(*store, folder.path());
        let one = |number: u32| {
            let key = format!(r"AB\K{number:04}");
            batch(&key, [create(""), set("n", 4, &number.to_le_bytes())])
        };
        let batches: Vec<_> = (0..2500).map(one).collect();
        peer.write(&batches).expect("a load");
        let shown: BTreeMap<_, _> = changes(&*peer, "AB")
            .into_iter()
            .filter(|line| line.0 == Kind::SetValue)
            .map(|line| (line.1, line.3.expect("a value").1))
            .collect();
        let expected =
            (0..2500u32).map(|number| (format!(r"AB\K{number:04}"), number.to_le_bytes().to_vec()));
        assert_eq!(shown, expected.collect(), "{store}");
        assert_eq!(
            listed(|visit| peer.list(&path("AB"), visit)).len(),
            2500,
            "{store}"
        );
    }
}

#[test]
fn a_deleted_key_takes_all_below_it_along() {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let peer = open(*store, folder.path());
        let (batches, _) = batches();
        peer.write(&batches[..2]).expect("a load");
        // Also what the same batch has made.
        let delete = Command::DeleteKey("A".to_owned());
        let batch = batch("", [create(r"A\New"), set("v", 3, b"x"), delete]);
        peer.write(&[batch]).expect("a commit");
        let left = [">AB", r"AB>C", r"AB\C:a=4[1, 0, 0, 0]"];
        assert_eq!(listed(|visit| peer.iterate(visit)), left, "{store}");
        let last = changes(&*peer, "").pop().expect("a change");
        assert_eq!((last.0, last.1.as_str()), (Kind::DeleteKey, "A"), "{store}");
    }
}

#[test]
fn entries_of_several_writers_are_all_there_and_none_twice() {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let peer = open(*store, folder.path());
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let peer = &peer;
                scope.spawn(move || {
                    for number in 0..25u8 {
                        let commands = [create(""), set("n", 3, &[writer, number])];
                        peer.write(&[batch(&format!(r"AB\W{writer}"), commands)])
                            .expect("a commit");
                    }
                });
            }
        });
        let mut numbers: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for line in changes(&*peer, "AB") {
            if let Some((_, data)) = line.3 {
                numbers.entry(data[0]).or_default().push(data[1]);
            }
        }
        let expected: Vec<u8> = (0..25).collect();
        assert_eq!(numbers.len(), 4, "{store}");
        assert!(
            numbers.values().all(|shown| *shown == expected),
            "{store}: {numbers:?}"
        );
    }
}

#[test]
fn a_watcher_wakes_at_a_commit() {
    for store in Store::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let peer = open(*store, folder.path());
        peer.write(&[batch("A", [create("")])]).expect("a commit");
        let Some(mut watcher) = peer.watch("watcher", &path("A")).expect("a watcher") else {
            assert!(!matches!(store, Store::Clusdb | Store::Sled));
            continue;
        };
        let waiting = std::thread::spawn(move || watcher.wait());
        peer.write(&[batch("A", [set("v", 3, b"x")])]).expect("a commit");
        waiting.join().expect("a thread").expect("a wake");
    }
}
