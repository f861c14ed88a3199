//! Threads that write, read and follow one store.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use clusdb::{Batch, Entry, Error, JournalView, KeyPath, Notification, Port, Store, Value};

/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_size_bytes(32 << 10)
        .open(folder.path().join("store"))
        .unwrap();
    (folder, store)
}

/// Sets two values of the key to the number, and gives the sequence number.
fn set(store: &Store, path: &str, number: u64) -> u64 {
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    batch
        .set_value("a", Value::qword(number))
        .unwrap()
        .set_value("b", Value::qword(number))
        .unwrap();
    store.commit(batch).unwrap().sequence().unwrap()
}

fn number(value: &Value) -> u64 {
    u64::from_le_bytes(value.data().try_into().unwrap())
}

fn sequences(view: &JournalView) -> Vec<u64> {
    view.batches().map(|batch| batch.sequence()).collect()
}

/// All that is shown, as text: for comparing views.
fn text(view: &JournalView) -> String {
    format!("{view:?}")
}

#[test]
fn every_port_sees_its_subtree_in_order_while_eight_writers_commit() {
    const WRITERS: u64 = 8;
    const COMMITS: u64 = 60;
    let (_folder, store) = open();
    // Two threads share the last one.
    let keys = ["", "Half0", "Half1\\Writer3", "Half1"];
    let port = |(index, path)| store.port(&format!("p{index}"), &key(path)).unwrap();
    let ports: Vec<_> = keys.into_iter().enumerate().map(port).collect();
    let is_over = AtomicBool::new(false);
    let path_of = |writer: u64| format!("Half{}\\Writer{writer}", writer % 2);
    let seen: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let (store, is_over) = (&store, &is_over);
        let followers: Vec<_> = ports
            .iter()
            .chain(ports.last())
            .map(|port| scope.spawn(move || follow(store, port, is_over)))
            .collect();
        for reader in 0..2 {
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    read_whole_batches(store, &path_of(reader));
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for number in 1..=COMMITS {
                        set(store, &path_of(writer), number);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Release);
        followers
            .into_iter()
            .map(|follower| follower.join().unwrap())
            .collect()
    });
    let log = store.log(1..=u64::MAX).unwrap();
    assert_eq!(log.len() as u64, WRITERS * COMMITS);
    let expected = |path: &str| -> Vec<u64> {
        let is_below = |batch: &clusdb::BatchView<'_>| {
            key(batch.changes().next().unwrap().key()).is_at_or_below(&key(path))
        };
        log.batches()
            .filter(is_below)
            .map(|batch| batch.sequence())
            .collect()
    };
    for (path, seen) in keys[..3].iter().zip(&seen) {
        assert_eq!(*seen, expected(path), "{path:?}");
    }
    let (one, other) = (&seen[3], &seen[4]);
    assert!(one.is_sorted() && other.is_sorted(), "each thread in order");
    let mut both = [one.as_slice(), other.as_slice()].concat();
    both.sort_unstable();
    assert_eq!(both, expected("Half1"), "each batch to one of the two");
}

/// Follows the port until nothing comes any more; nothing is shown before it can be read.
fn follow(store: &Store, port: &Port, is_over: &AtomicBool) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        let Some(notification) = port.get_timeout(Duration::from_millis(20)).unwrap() else {
            if was_over {
                return seen;
            }
            continue;
        };
        for batch in notification.batches() {
            seen.push(batch.sequence());
            for change in batch.changes().filter(|change| change.name() == Some("b")) {
                let shown = number(&change.value().unwrap().to_value());
                let read = number(
                    &store
                        .get(&key(change.key()), "b")
                        .unwrap()
                        .expect("shown, so readable"),
                );
                assert!(read >= shown, "a port shows {shown} while a read gives {read}");
            }
        }
        notification.acknowledge().unwrap();
    }
}

fn read_whole_batches(store: &Store, path: &str) {
    let Ok(entries) = store.list(&key(path)) else {
        return;
    };
    let numbers: Vec<_> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Value { value, .. } => number(value),
            Entry::Key { path } => panic!("{path}"),
        })
        .collect();
    assert_eq!(numbers.len(), 2, "half a batch");
    assert_eq!(numbers[0], numbers[1], "half a batch");
}

#[test]
fn a_waiting_get_ends_when_the_port_or_the_store_is_closed() {
    let (_folder, store) = open();
    let port = store.port("p", &key("")).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| port.get());
        port.close();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::PortClosed { .. }), "{error}");
    });
    drop(port);
    let port = store.open_port("p").unwrap();
    std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| port.get()),
            scope.spawn(|| block_on(port.get_async())),
        ];
        store.close().unwrap();
        for waiting in waiting {
            assert!(matches!(waiting.join().unwrap().unwrap_err(), Error::Closed));
        }
    });
}

/// Without a race: the get is known to wait, and the waker tells whether it was woken.
#[test]
fn closing_wakes_a_get_that_waits() {
    let (_folder, store) = open();
    for close in [
        |port: &Port, _: &Store| port.close(),
        |_: &Port, store: &Store| store.close().unwrap(),
    ] {
        let port = store.port("p", &key("")).unwrap();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut waiting = pin!(port.get_async());
        assert!(
            waiting
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        close(&port, &store);
        assert!(flag.0.load(Ordering::SeqCst), "woken");
        assert!(matches!(
            waiting.as_mut().poll(&mut Context::from_waker(&waker)),
            Poll::Ready(Err(_))
        ));
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_get_with_a_timeout_ends_with_nothing_or_with_what_comes() {
    let (_folder, store) = open();
    let port = store.port("p", &key("")).unwrap();
    let began = Instant::now();
    assert!(port.get_timeout(Duration::from_millis(30)).unwrap().is_none());
    assert!(began.elapsed() >= Duration::from_millis(30));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| port.get_timeout(PATIENCE).unwrap().map(|shown| shown.len()));
        set(&store, "K", 1);
        assert_eq!(waiting.join().unwrap(), Some(1));
    });
    assert!(port.get_timeout(Duration::from_millis(1)).unwrap().is_none());
}

struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Thread>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn an_awaited_get_is_woken_by_a_commit_and_takes_nothing_when_it_is_dropped() {
    let (_folder, store) = open();
    let port = store.port("p", &key("")).unwrap();
    {
        let mut dropped = pin!(port.get_async());
        let waker = Waker::noop();
        assert!(
            dropped
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        set(&store, "K", 1);
    }
    assert_eq!(sequences(&block_on(port.get_async()).unwrap()), [1]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sequences(&block_on(port.get_async()).unwrap()));
        set(&store, "K", 2);
        assert_eq!(waiting.join().unwrap(), [2]);
    });
}

/// Crash story 14.
#[test]
fn what_is_saved_is_what_has_nothing_open_before_it() {
    let (folder, store) = open();
    let port = store.port("p", &key("")).unwrap();
    let notifications: Vec<Notification> = (1..=3)
        .map(|number| {
            set(&store, "K", number);
            port.get().unwrap()
        })
        .collect();
    notifications[2].acknowledge().unwrap();
    notifications[1].acknowledge().unwrap();
    assert_eq!(port.acknowledged(), 0);
    // Killed here, all three come again: the file says so.
    let copy = folder.path().join("copy");
    std::fs::copy(folder.path().join("store/ports/p.port"), &copy).unwrap();
    notifications[0].acknowledge().unwrap();
    assert_eq!(port.acknowledged(), 3);
    notifications[0].acknowledge().unwrap();
    assert_eq!(port.acknowledged(), 3, "a second acknowledgement changes nothing");
    drop((port, store));
    std::fs::copy(&copy, folder.path().join("store/ports/p.port")).unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    assert_eq!(
        sequences(&store.open_port("p").unwrap().get().unwrap()),
        [1, 2, 3]
    );
}

#[test]
fn what_was_not_acknowledged_comes_again_after_a_rewind_and_after_reopening() {
    let (folder, store) = open();
    let port = store.port("p", &key("")).unwrap();
    set(&store, "K", 1);
    port.get().unwrap().acknowledge().unwrap();
    set(&store, "K", 2);
    set(&store, "K", 3);
    let lost = port.get().unwrap();
    assert_eq!(sequences(&lost), [2, 3]);
    assert!(port.try_get().unwrap().is_none());
    port.rewind().unwrap();
    let again = port.get().unwrap();
    assert_eq!(text(&again), text(&lost));
    assert!(matches!(
        lost.acknowledge().unwrap_err(),
        Error::AcknowledgementRefused { .. }
    ));
    drop((again, port, store));
    let store = Store::open(folder.path().join("store")).unwrap();
    let port = store.port("p", &key("")).unwrap();
    let again = port.get().unwrap();
    assert_eq!(text(&again), text(&lost));
    again.acknowledge().unwrap();
    port.rewind().unwrap();
    assert!(port.try_get().unwrap().is_none());
}

#[test]
fn a_view_outlives_later_gets_its_port_its_store_and_their_files() {
    let (folder, store) = open();
    let port = store.port("p", &key("")).unwrap();
    let mut views = Vec::new();
    for round in 0..20 {
        for number in 0..20 {
            set(&store, &format!("K{number}"), round * 20 + number);
        }
        let view = port.get().unwrap();
        views.push((text(&view), view));
    }
    assert!(store.stat().unwrap().segments > 1, "they stand in several files");
    drop(port);
    store.close().unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.path()).unwrap();
    for (before, view) in &views {
        assert_eq!(text(view), *before);
        assert_eq!(view.len(), 20);
    }
}

#[test]
fn a_notification_with_a_byte_limit_ends_between_two_batches_and_holds_at_least_one() {
    let folder = tempfile::tempdir().unwrap();
    let options = Store::options().notification_limit_bytes(700);
    let store = options.open(folder.path().join("store")).unwrap();
    let port = store.port("p", &key("K")).unwrap();
    for number in 1..=6 {
        set(&store, "K", number);
        set(&store, "Other", number);
    }
    let mut large = Batch::at(&key("K"));
    large.set_value("large", Value::binary(vec![1; 10_000])).unwrap();
    store.commit(large).unwrap();
    set(&store, "K", 7);
    let mut shown = Vec::new();
    while let Some(notification) = port.try_get().unwrap() {
        for batch in notification.batches() {
            let expected = if batch.sequence() == 13 { 1 } else { 3 };
            assert_eq!(batch.changes().count(), expected, "whole batches");
        }
        shown.push(sequences(&notification));
    }
    assert!(shown.len() > 2, "the limit ends some: {shown:?}");
    assert!(shown.contains(&vec![13]), "the large one comes alone: {shown:?}");
    assert_eq!(shown.concat(), [1, 3, 5, 7, 9, 11, 13, 14]);
}

/// Section 4 of the specification: all replies come from one moment, wholly before or wholly after any batch.
#[test]
fn a_read_batch_never_sees_half_of_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let path = |key: &str| KeyPath::parse(key).unwrap();
    let mut reads = clusdb::ReadBatch::at(&KeyPath::root());
    for key in ["A", "B\\C", "D"] {
        reads.add(key, "number").unwrap();
    }
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (store, reads, is_over) = (&store, &reads, &is_over);
                scope.spawn(move || {
                    let mut seen = std::collections::BTreeSet::new();
                    while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                        let replies = store.read(reads).unwrap();
                        let values: Vec<_> = replies.into_iter().map(|reply| reply.value).collect();
                        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
                        seen.extend(values[0].as_ref().map(|value| value.data().to_vec()));
                    }
                    seen.len()
                })
            })
            .collect();
        for number in 0..300 {
            let mut batch = Batch::at(&KeyPath::root());
            for key in ["A", "B\\C", "D"] {
                batch
                    .create_key(key)
                    .unwrap()
                    .set_value("number", Value::dword(number))
                    .unwrap();
            }
            store.commit(batch).unwrap();
        }
        is_over.store(true, std::sync::atomic::Ordering::Release);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum::<usize>()
    });
    assert!(seen > 30, "{seen} moments were seen");
    assert_eq!(store.key_info(&path("b\\c")).unwrap().values, 1);
}

/// Section 5: by index from 0 to the number less one, in a stable order, and an end.
#[test]
fn keys_and_values_are_enumerated_by_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let root = KeyPath::root();
    let mut batch = Batch::at(&root);
    for key in ["b", "A", "c\\d"] {
        batch
            .create_key(key)
            .unwrap()
            .set_value(key, Value::dword(1))
            .unwrap();
    }
    batch
        .create_key("")
        .unwrap()
        .set_value("y", Value::dword(1))
        .unwrap()
        .set_value("X", Value::dword(2))
        .unwrap();
    store.commit(batch).unwrap();
    let keys: Vec<_> = (0..)
        .map_while(|index| store.subkey(&root, index).unwrap())
        .collect();
    assert_eq!(
        keys.iter().map(KeyPath::as_str).collect::<Vec<_>>(),
        ["A", "b", "c"]
    );
    let names: Vec<_> = (0..)
        .map_while(|index| match store.value(&root, index).unwrap() {
            Some(Entry::Value { name, .. }) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["X", "y"]);
    let info = store.key_info(&root).unwrap();
    assert_eq!((info.subkeys, info.values), (3, 2));
    let missing = KeyPath::parse("nil").unwrap();
    for error in [
        store.subkey(&missing, 0).unwrap_err(),
        store.value(&missing, 0).unwrap_err(),
        store.key_info(&missing).unwrap_err(),
    ] {
        assert_eq!(error.word(), "not_found");
    }
}
