//! Who is woken by a commit: the ports that have something to show, and no others.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use clusdb::{Batch, KeyPath, Notification, Port, Store, Value};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Get<'a> = Pin<Box<dyn Future<Output = clusdb::Result<Notification>> + 'a>>;

/// A get that waits, and how often it was woken.
struct Waiting<'a> {
    get: Get<'a>,
    count: Arc<Count>,
    waker: Waker,
}

impl<'a> Waiting<'a> {
    fn new(port: &'a Port) -> Waiting<'a> {
        let count = Arc::new(Count::default());
        let mut waiting = Waiting {
            get: Box::pin(port.get_async()),
            waker: Waker::from(Arc::clone(&count)),
            count,
        };
        assert!(waiting.poll().is_none(), "nothing is there yet");
        waiting
    }

    fn poll(&mut self) -> Option<clusdb::Result<Notification>> {
        match self.get.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(got) => Some(got),
            Poll::Pending => None,
        }
    }

    fn is_woken(&self) -> bool {
        self.count.0.load(Ordering::SeqCst) > 0
    }
}

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::options()
        .tree(false)
        .open(folder.path().join("store"))
        .unwrap();
    (folder, store)
}

fn set(store: &Store, path: &str) {
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    batch.set_value("v", Value::dword(1)).unwrap();
    store.commit(batch).unwrap();
}

fn delete(store: &Store, path: &str) {
    let mut batch = Batch::at(&key(path));
    batch.delete_key("").unwrap();
    store.commit(batch).unwrap();
}

/// Which of the ports on these keys are woken, in a store in which all of them exist.
fn woken(keys: &[&str], happens: impl FnOnce(&Store)) -> Vec<String> {
    let (_folder, store) = open();
    keys.iter()
        .filter(|path| !path.is_empty())
        .for_each(|path| set(&store, path));
    let ports: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(at, path)| store.port(&format!("p{at}"), &key(path)).unwrap())
        .collect();
    let mut waiting: Vec<_> = ports.iter().map(Waiting::new).collect();
    happens(&store);
    let mut woken = Vec::new();
    for (waiting, path) in waiting.iter_mut().zip(keys) {
        let got = waiting.poll();
        assert_eq!(
            waiting.is_woken(),
            got.is_some(),
            "{path:?} is woken if it has something"
        );
        if got.is_some() {
            woken.push((*path).to_owned());
        }
    }
    woken
}

const KEYS: [&str; 7] = ["", "A", "A\\B", "a\\B\\c", "A\\B\\C\\D", "AB", "Z\\B"];

#[test]
fn a_batch_wakes_the_ports_on_its_key_and_above_it_in_any_case() {
    assert_eq!(woken(&KEYS, |store| set(store, "a\\b")), ["", "A", "A\\B"]);
    assert_eq!(woken(&KEYS, |store| set(store, "New")), [""]);
    assert_eq!(woken(&KEYS, |store| set(store, "Z\\B\\C")), ["", "Z\\B"]);
}

/// Crash story 20.
#[test]
fn the_deletion_of_a_key_wakes_the_ports_below_it_too() {
    let below = ["", "A", "A\\B", "a\\B\\c", "A\\B\\C\\D"];
    assert_eq!(woken(&KEYS, |store| delete(store, "a\\b")), below);
}

#[test]
fn a_plain_write_and_a_batch_that_is_refused_wake_nobody() {
    let plain = |store: &Store| _ = store.set_value(&key("A"), "v", Value::dword(2)).unwrap();
    assert_eq!(woken(&KEYS, plain), [""; 0]);
    let refused = |store: &Store| {
        let mut batch = Batch::at(&key("Missing"));
        batch.set_value("v", Value::dword(1)).unwrap();
        store.commit(batch).unwrap_err();
    };
    assert_eq!(woken(&KEYS, refused), [""; 0]);
}

#[test]
fn the_end_of_the_store_wakes_all() {
    assert_eq!(woken(&KEYS, |store| store.close().unwrap()), KEYS);
}

#[test]
fn closing_a_port_wakes_those_who_wait_on_it() {
    let (_folder, store) = open();
    let [port, other] = ["p", "q"].map(|name| store.port(name, &key("A")).unwrap());
    let (mut waiting, others) = (Waiting::new(&port), Waiting::new(&other));
    port.clone().close();
    assert!(waiting.is_woken() && waiting.poll().unwrap().is_err());
    assert!(!others.is_woken());
}

#[test]
fn two_who_wait_on_one_port_or_on_one_key_are_both_woken_also_after_another_was_dropped() {
    let (_folder, store) = open();
    let [port, other, dropped] = ["p", "q", "r"].map(|name| store.port(name, &key("A\\B")).unwrap());
    drop(Waiting::new(&dropped));
    drop(dropped);
    let clone = port.clone();
    let waiting = [&port, &clone, &other].map(Waiting::new);
    set(&store, "A\\B");
    assert!(waiting.iter().all(Waiting::is_woken));
}

/// Looks, lists and commits on the thread that wakes it.
struct UsesTheStore {
    store: Arc<Store>,
    done: mpsc::Sender<usize>,
}

impl Wake for UsesTheStore {
    fn wake(self: Arc<Self>) {
        let is_there = self.store.get(&key("A"), "v").unwrap().is_some();
        let listed = self.store.list(&key("A")).unwrap();
        set(&self.store, "Elsewhere");
        assert!(is_there && self.store.get(&key("Elsewhere"), "v").unwrap().is_some());
        self.done.send(listed.len()).unwrap();
    }
}

/// Wakers are other people's code: who runs them holds nothing of the store.
#[test]
fn a_waker_may_read_the_store_and_commit_whether_the_batch_was_small_or_large() {
    for values in [1, 2000] {
        let (_folder, store) = open();
        let store = Arc::new(store);
        let port = store.port("p", &key("A")).unwrap();
        let (done, is_done) = mpsc::channel();
        let waker = Waker::from(Arc::new(UsesTheStore {
            store: Arc::clone(&store),
            done,
        }));
        let commits = std::thread::spawn(move || {
            let mut get = Box::pin(port.get_async());
            let mut context = Context::from_waker(&waker);
            assert!(get.as_mut().poll(&mut context).is_pending());
            let mut batch = Batch::at(&key("A"));
            batch.create_key("").unwrap();
            batch.set_value("v", Value::dword(1)).unwrap();
            for number in 1..values {
                let name = format!("v{number}");
                batch.set_value(&name, Value::dword(number)).unwrap();
            }
            store.commit(batch).unwrap();
        });
        let listed = is_done.recv_timeout(Duration::from_secs(60));
        assert_eq!(listed.ok(), Some(values as usize), "it hangs, or was not woken");
        commits.join().unwrap();
    }
}
