//! Acknowledgements that are committed with a batch, and contents with the port that follows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clusdb::{
    AcknowledgementRefusal, Batch, Change, CommandKind, Contents, Entry, Error, KeyPath, Notification, Port,
    Store, Value,
};

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_size_bytes(4096)
        .open(folder.path().join("store"))
        .unwrap();
    (folder, store)
}

/// A batch that sets the value `v` of the key, making the key.
fn setting(path: &str, number: u32) -> Batch {
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    batch.set_value("v", Value::dword(number)).unwrap();
    batch
}

fn set(store: &Store, path: &str, number: u32) -> u64 {
    store.commit(setting(path, number)).unwrap().sequence().unwrap()
}

fn sequences(notification: &Notification) -> Vec<u64> {
    notification.batches().map(|batch| batch.sequence()).collect()
}

fn refusal(error: &Error) -> AcknowledgementRefusal {
    match error {
        Error::AcknowledgementRefused { reason, .. } => *reason,
        other => panic!("{other}"),
    }
}

/// The files of the store as a kill leaves them.
fn killed(store: &Path) -> (tempfile::TempDir, Store) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            match entry.path().is_dir() {
                true => copy(&entry.path(), &to.join(entry.file_name())),
                false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(store, folder.path());
    let store = Store::options()
        .segment_size_bytes(4096)
        .open(folder.path())
        .unwrap();
    (folder, store)
}

#[test]
fn a_batch_and_the_acknowledgement_that_it_carries_are_there_together_after_a_kill() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    set(&store, "In", 1);
    let got = port.get().unwrap();
    let commit = got.acknowledge_with(setting("Out", 1)).unwrap();
    assert_eq!(commit.sequence(), Some(2));
    assert_eq!(port.acknowledged(), 1);

    let (_copy, after) = killed(&folder.path().join("store"));
    assert_eq!(after.get(&key("Out"), "v").unwrap(), Some(Value::dword(1)));
    let infos = after.ports().unwrap();
    assert_eq!(
        (infos[0].acknowledged, infos[0].pending),
        (1, 0),
        "the list knows it too"
    );
    let port = after.open_port("worker").unwrap();
    assert_eq!(port.acknowledged(), 1);
    assert!(port.try_get().unwrap().is_none());
}

#[test]
fn a_batch_that_fails_acknowledges_nothing_and_can_be_tried_again() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    set(&store, "In", 1);
    let got = port.get().unwrap();
    let mut fails = setting("Out", 1);
    fails.condition_key_exists("Nowhere").unwrap();
    assert_eq!(
        got.acknowledge_with(fails).unwrap_err().word(),
        "condition_failed"
    );
    assert_eq!(port.acknowledged(), 0);
    assert_eq!(store.stat().unwrap().durable_sequence, 1);
    let (_copy, after) = killed(&folder.path().join("store"));
    assert_eq!(sequences(&after.open_port("worker").unwrap().get().unwrap()), [1]);
    assert_eq!(
        got.acknowledge_with(setting("Out", 1)).unwrap().sequence(),
        Some(2)
    );
}

#[test]
fn an_acknowledgement_without_any_change_is_a_record_that_no_port_shows() {
    let (folder, store) = open();
    let port = store.port("worker", &KeyPath::root()).unwrap();
    let other = store.port("other", &KeyPath::root()).unwrap();
    set(&store, "In", 1);
    let got = port.get().unwrap();
    let mut checks = Batch::at(&KeyPath::root());
    checks.condition_key_exists("In").unwrap();
    assert_eq!(got.acknowledge_with(checks).unwrap().sequence(), Some(2));
    assert_eq!(sequences(&other.get().unwrap()), [1]);
    assert!(port.try_get().unwrap().is_none());
    let log = store.log(1..=9).unwrap();
    let counts: Vec<_> = log.batches().map(|batch| batch.changes().count()).collect();
    assert_eq!(counts, [2, 0], "the log has it, with no change");
    let (_copy, after) = killed(&folder.path().join("store"));
    assert_eq!(after.open_port("worker").unwrap().acknowledged(), 1);
}

#[test]
fn with_a_batch_notifications_are_acknowledged_once_and_in_order() {
    let (_folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    set(&store, "In", 1);
    let first = port.get().unwrap();
    set(&store, "In", 2);
    let second = port.get().unwrap();
    let refused = second.acknowledge_with(setting("Out", 2)).unwrap_err();
    assert_eq!(refusal(&refused), AcknowledgementRefusal::OpenBefore);
    first.acknowledge_with(setting("Out", 1)).unwrap();
    let refused = first.acknowledge_with(setting("Out", 1)).unwrap_err();
    assert_eq!(refusal(&refused), AcknowledgementRefusal::Repeated);
    first
        .acknowledge()
        .expect("to say it again without a batch is no error");
    second.acknowledge_with(setting("Out", 2)).unwrap();
    assert_eq!(port.acknowledged(), 2);

    set(&store, "In", 3);
    let third = port.get().unwrap();
    port.rewind().unwrap();
    let refused = third.acknowledge_with(setting("Out", 3)).unwrap_err();
    assert_eq!(refusal(&refused), AcknowledgementRefusal::Superseded);
    assert_eq!(
        store.get(&key("Out"), "v").unwrap(),
        Some(Value::dword(2)),
        "nothing was committed"
    );
    drop(port);
    let refused = third.acknowledge_with(setting("Out", 3)).unwrap_err();
    assert!(matches!(refused, Error::PortClosed { .. }), "{refused}");
}

/// What was acknowledged out of order waits for the one before it, also when that one comes with a batch.
#[test]
fn an_acknowledgement_with_a_batch_lets_the_later_ones_through_that_waited_for_it() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    set(&store, "In", 1);
    let first = port.get().unwrap();
    set(&store, "In", 2);
    let second = port.get().unwrap();
    second.acknowledge().unwrap();
    assert_eq!(port.acknowledged(), 0);
    first.acknowledge_with(setting("Out", 1)).unwrap();
    assert_eq!(port.acknowledged(), 2);
    let (_copy, after) = killed(&folder.path().join("store"));
    assert_eq!(after.open_port("worker").unwrap().acknowledged(), 2);
}

/// Also where the cursor is saved meanwhile: what was acknowledged behind it goes along.
#[test]
fn the_later_ones_are_let_through_when_the_cursor_is_saved_too() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    for number in 0..1023 {
        set(&store, "In", number);
        port.get()
            .unwrap()
            .acknowledge_with(setting("Out", number))
            .unwrap();
    }
    let mut got = Vec::new();
    for number in 0..3 {
        set(&store, "In", 5000 + number);
        got.push(port.get().unwrap());
    }
    got[1].acknowledge().unwrap();
    got[0].acknowledge_with(setting("Out", 5000)).unwrap();
    let (_copy, after) = killed(&folder.path().join("store"));
    let second = got[1].batches().next().unwrap().sequence();
    assert_eq!(after.open_port("worker").unwrap().acknowledged(), second);
    got[2].acknowledge_with(setting("Out", 5002)).unwrap();
}

/// Two threads with one notification: one of them commits.
#[test]
fn of_two_threads_that_acknowledge_one_notification_with_a_batch_one_commits() {
    let (_folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    for round in 0..200 {
        set(&store, "In", round);
        let got = port.get().unwrap();
        let barrier = std::sync::Barrier::new(2);
        let acknowledge = |writer: u32| {
            barrier.wait();
            got.acknowledge_with(setting("Out", round * 2 + writer))
        };
        let answers = std::thread::scope(|scope| {
            let other = scope.spawn(|| acknowledge(1));
            [acknowledge(0), other.join().unwrap()]
        });
        let refused: Vec<_> = answers
            .iter()
            .filter_map(|answer| answer.as_ref().err())
            .collect();
        assert_eq!(refused.len(), 1, "round {round}: {answers:?}");
        assert_eq!(refusal(refused[0]), AcknowledgementRefusal::Repeated);
    }
    assert_eq!(store.stat().unwrap().durable_sequence, 400);
}

/// Crash story 13: the change names the port's id, and a slot holds as of which record it is.
#[test]
fn a_port_made_anew_under_the_name_does_not_inherit_and_a_later_cursor_is_not_undone_by_replay() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    set(&store, "In", 1);
    port.get().unwrap().acknowledge_with(setting("Out", 1)).unwrap();
    let first = set(&store, "In", 2);
    port.get().unwrap().acknowledge().unwrap();
    set(&store, "Elsewhere", 3);
    let (_copy, after) = killed(&folder.path().join("store"));
    assert_eq!(after.open_port("worker").unwrap().acknowledged(), first);

    drop(port);
    store.remove_port("worker").unwrap();
    // Of the same name, in a store where the old one's acknowledgement is the newest record.
    let (folder, store) = open();
    let old = store.port("worker", &key("In")).unwrap();
    set(&store, "In", 1);
    let got = old.get().unwrap();
    got.acknowledge_with(setting("Out", 1)).unwrap();
    drop(old);
    store.remove_port("worker").unwrap();
    let new = store.port("worker", &key("In")).unwrap();
    assert_eq!(new.acknowledged(), 2, "at the present");
    let (_copy, after) = killed(&folder.path().join("store"));
    assert_eq!(after.open_port("worker").unwrap().acknowledged(), 2);
}

#[test]
fn an_acknowledgement_moves_the_cursor_of_its_port_and_of_no_other() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    let _other = store.port("other", &key("In")).unwrap();
    set(&store, "In", 1);
    port.get().unwrap().acknowledge_with(setting("Out", 1)).unwrap();
    let (_copy, after) = killed(&folder.path().join("store"));
    let acknowledged = |name: &str| after.open_port(name).unwrap().acknowledged();
    assert_eq!((acknowledged("worker"), acknowledged("other")), (1, 0));
}

/// What is committed with batches reaches the port's file now and then, so that opening it reads a bounded journal.
#[test]
fn the_cursor_is_saved_now_and_then_and_when_the_port_is_dropped() {
    let (folder, store) = open();
    let port = store.port("worker", &key("In")).unwrap();
    let file = folder.path().join("store/ports/worker.port");
    let as_of = || {
        let bytes = fs::read(&file).unwrap();
        let slot = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        slot(4096 + 16).max(slot(8192 + 16))
    };
    for number in 0..1023 {
        set(&store, "In", number);
        port.get()
            .unwrap()
            .acknowledge_with(setting("Out", number))
            .unwrap();
    }
    assert_eq!(as_of(), 0);
    set(&store, "In", 1023);
    port.get()
        .unwrap()
        .acknowledge_with(setting("Out", 1023))
        .unwrap();
    assert_eq!(as_of(), 2048);
    set(&store, "In", 1024);
    port.get()
        .unwrap()
        .acknowledge_with(setting("Out", 1024))
        .unwrap();
    assert_eq!(as_of(), 2048);
    drop(port);
    assert_eq!(as_of(), 2050);
    assert_eq!(store.open_port("worker").unwrap().acknowledged(), 2049);
}

/// Keys and values by folded path and name, as contents and changes give them.
#[derive(Default, PartialEq, Eq, Debug, Clone)]
struct Copy {
    keys: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Copy {
    fn of(contents: &[Entry]) -> Copy {
        let mut copy = Copy::default();
        for entry in contents {
            match entry {
                Entry::Key { path } => _ = copy.keys.entry(path.to_string()).or_default(),
                Entry::Value { key, name, value } => {
                    let values = copy.keys.get_mut(&**key).expect("a key comes before its values");
                    values.insert(name.to_string(), value.clone());
                }
            }
        }
        copy
    }

    fn follow(&mut self, change: &Change<'_>) {
        let path = change.key();
        match change.kind() {
            CommandKind::CreateKey => {
                assert_eq!(change.changed(), !self.keys.contains_key(path), "{change}");
                self.keys.entry(path.to_owned()).or_default();
            }
            CommandKind::DeleteKey => {
                let below = format!("{path}\\");
                self.keys.retain(|key, _| key != path && !key.starts_with(&below));
            }
            CommandKind::SetValue => {
                let values = self.keys.get_mut(path).expect("a key is there before its values");
                let name = change.name().unwrap().to_owned();
                let previous = values.insert(name, change.value().unwrap().to_value());
                assert_eq!(
                    previous.as_ref().map(|value| value.data()),
                    change.previous().map(|value| value.data),
                    "missed or seen twice: {change}"
                );
            }
            CommandKind::DeleteValue => {
                self.keys
                    .get_mut(path)
                    .and_then(|values| values.remove(change.name().unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn follow(copy: &mut Copy, contents: &Contents, notification: &Notification) {
    for batch in notification.batches() {
        assert!(batch.sequence() > contents.sequence());
        for change in batch.changes() {
            copy.follow(&change);
        }
    }
}

/// Ends the writers, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each change says what was there before, so that one that was missed or that came twice is noticed.
#[test]
fn nothing_between_the_contents_and_the_first_notification_is_missed_or_seen_twice() {
    let (_folder, store) = open();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..3_u32 {
            let (store, is_over) = (&store, &is_over);
            scope.spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut batch = Batch::at(&key("Tree"));
                    batch.create_key(&format!("Key{}", number % 7)).unwrap();
                    batch
                        .set_value(
                            &format!("v{}", number % 3),
                            Value::qword(number << 8 | u64::from(writer)),
                        )
                        .unwrap();
                    if number % 11 == 0 {
                        batch.delete_key(&format!("Key{}", number / 11 % 7)).unwrap();
                    }
                    store.commit(batch).unwrap();
                }
            });
        }
        let ends = Ends(&is_over);
        let (port, mut contents) = store.port_with_contents("follower", &key("Tree")).unwrap();
        let mut copy = Copy::of(contents.entries());
        for round in 0..6000 {
            match round % 2 {
                1 => {
                    contents = port.resync().unwrap();
                    copy = Copy::of(contents.entries());
                }
                _ => follow(&mut copy, &contents, &port.get().unwrap()),
            }
        }
        drop(ends);
        while let Some(rest) = port.get_timeout(std::time::Duration::from_millis(300)).unwrap() {
            follow(&mut copy, &contents, &rest);
        }
        assert_eq!(copy, Copy::of(port.resync().unwrap().entries()));
        assert!(copy.keys.len() > 1);
    });
}

#[test]
fn contents_are_of_the_port_key_and_all_below_it_and_none_where_it_does_not_exist() {
    let (_folder, store) = open();
    set(&store, "A", 1);
    set(&store, "A\\B", 2);
    set(&store, "Ab", 3);
    let (port, contents) = store.port_with_contents("a", &key("a")).unwrap();
    let expected = [
        Entry::Key { path: "A".into() },
        Entry::Value {
            key: "A".into(),
            name: "v".into(),
            value: Value::dword(1),
        },
        Entry::Key { path: "A\\B".into() },
        Entry::Value {
            key: "A\\B".into(),
            name: "v".into(),
            value: Value::dword(2),
        },
    ];
    assert_eq!(contents.entries(), expected);
    assert_eq!(contents.sequence(), 3);
    set(&store, "A", 9);
    assert_eq!(contents.entries(), expected, "a copy of its own");
    assert_eq!(sequences(&port.get().unwrap()), [4]);
    let (_, none) = store.port_with_contents("none", &key("Nowhere")).unwrap();
    assert_eq!(none.entries(), []);
}

/// Until the contents are acknowledged, a restart goes on where the port was; and what came before them cannot be.
#[test]
fn contents_count_once_they_are_acknowledged() {
    let (folder, store) = open();
    let port: Port = store.port("a", &key("A")).unwrap();
    set(&store, "A", 1);
    let before = port.get().unwrap();
    set(&store, "A", 2);
    let contents = port.resync().unwrap();
    assert!(port.try_get().unwrap().is_none());
    let refused = before.acknowledge().unwrap_err();
    assert_eq!(refusal(&refused), AcknowledgementRefusal::Superseded);
    let seen = |store: &Store| {
        let port = store.open_port("a").unwrap();
        port.try_get()
            .unwrap()
            .map(|got| sequences(&got))
            .unwrap_or_default()
    };
    let path = folder.path().join("store");
    let (_copy, after) = killed(&path);
    assert_eq!(seen(&after), [1, 2]);
    contents.acknowledge().unwrap();
    let (_copy, after) = killed(&path);
    assert_eq!(seen(&after), [0; 0]);

    set(&store, "A", 3);
    let contents = port.resync().unwrap();
    contents.acknowledge_with(setting("Out", 3)).unwrap();
    let (_copy, after) = killed(&path);
    assert_eq!(after.open_port("a").unwrap().acknowledged(), 3);
}
