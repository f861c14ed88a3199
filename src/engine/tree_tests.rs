//! The store and its tree: what is copied, what is believed, and what happens when the tree fails. In place of sled
//! stands a tree in memory that fails as it is told; `tests/tree.rs` has sled itself.

use std::path::Path;
use std::time::{Duration, Instant};

use super::tests::SetWhenDropped;
use super::*;
use crate::model::{Batch, Entry, KeyPath, Value};
use crate::store::Store;
use crate::tree::Backend;
use crate::tree::stand_in::{During, Fault, StandIn};

struct Home {
    folder: tempfile::TempDir,
    stand_in: Arc<StandIn>,
    limit: Duration,
}

/// What a reader of the store sees: all entries and the digest, which knows the times too.
type Seen = (Vec<Entry>, crate::model::Digest, u64);

impl Home {
    fn new() -> Home {
        Home {
            folder: tempfile::tempdir().unwrap(),
            stand_in: Arc::default(),
            limit: Duration::from_secs(20),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    fn tree(&self, number: u64) -> std::path::PathBuf {
        self.path().join(format!("tree.{number}"))
    }

    /// With a tree that follows each record.
    fn open(&self) -> Store {
        self.open_behind(1)
    }

    fn open_behind(&self, records: u64) -> Store {
        let mut options = Store::options();
        options.tree.backend = Arc::<StandIn>::clone(&self.stand_in);
        options.tree.limit = self.limit;
        options.tree.behind_records = records;
        options.open(self.path()).unwrap()
    }

    /// The state that the journal alone gives.
    fn journal_alone(&self) -> Seen {
        let store = Store::options().tree(false).open(self.path()).unwrap();
        assert_eq!(store.stat().unwrap().opened_from, OpenedFrom::Journal);
        seen(&store)
    }
}

fn seen(store: &Store) -> Seen {
    let visible = store.engine().visible.settled().unwrap();
    let entries = visible.state.walk("", true).unwrap();
    (entries, visible.state.digest(), visible.position.sequence)
}

fn opened(store: &Store) -> (OpenedFrom, u64) {
    let stat = store.stat().unwrap();
    (stat.opened_from, stat.replayed)
}

fn set(store: &Store, key: &str, number: u32) {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.create_key("").unwrap();
    batch.set_value("v", Value::dword(number)).unwrap();
    store.commit(batch).unwrap();
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_aside(home: &Home, number: u64) -> bool {
    Path::new(&format!("{}.aside", home.tree(number).display())).exists()
}

#[test]
fn a_store_is_opened_from_the_tree_that_followed_it() {
    let home = Home::new();
    let store = home.open();
    for number in 0..50 {
        set(&store, &format!("A\\K{}", number % 7), number);
    }
    let before = seen(&store);
    store.close().unwrap();
    let store = home.open();
    assert_eq!(opened(&store), (OpenedFrom::Tree, 0));
    assert_eq!(store.stat().unwrap().tree_sequence, 50);
    assert_eq!(seen(&store), before);
    drop(store);
    assert_eq!(home.journal_alone(), before);
}

#[test]
fn the_tree_follows_an_open_store_and_what_it_has_not_copied_is_replayed() {
    let home = Home::new();
    let store = home.open_behind(10);
    for number in 0..25 {
        set(&store, "A", number);
    }
    wait_until("the tree follows", || store.stat().unwrap().tree_sequence >= 16);
    for number in 25..30 {
        set(&store, "A\\Late", number);
    }
    let before = seen(&store);
    store.engine().checkpointer.as_ref().unwrap().stop(false);
    let tree_sequence = store.stat().unwrap().tree_sequence;
    drop(store);

    let store = home.open_behind(10);
    assert_eq!(opened(&store), (OpenedFrom::Tree, 30 - tree_sequence));
    assert_eq!(seen(&store), before);
}

#[test]
fn a_store_with_little_in_its_journal_has_no_tree() {
    let home = Home::new();
    let store = home.open_behind(100);
    for number in 0..99 {
        set(&store, "A", number);
    }
    drop(store);
    assert!(!home.tree(1).exists());
    let store = home.open_behind(100);
    set(&store, "A", 99);
    drop(store);
    assert!(home.tree(1).exists());
}

/// Deleted subtrees, keys made again below them, respelled names: the tree is the state after every step.
#[test]
fn the_tree_is_the_state_whatever_the_batches_do() {
    let home = Home::new();
    let mut dice: u64 = 99;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for _ in 0..60 {
        let store = home.open();
        for _ in 0..=roll(12) {
            let names = ["a", "A", "b", "B\\c", "a\\b\\C\\d"];
            let path = (0..=roll(2))
                .map(|_| names[roll(5) as usize])
                .collect::<Vec<_>>()
                .join("\\");
            let mut batch = Batch::at(&KeyPath::parse(&path).unwrap());
            for _ in 0..=roll(4) {
                let name = ["", "v", "V"][roll(3) as usize];
                let value = Value::dword(roll(3) as u32);
                let _ = match roll(7) {
                    0 => batch.delete_key("").map(|_| ()),
                    1 => batch.delete_value(name).map(|_| ()),
                    2 => batch.delete_key("b").map(|_| ()),
                    _ => batch
                        .create_key("")
                        .and_then(|batch| batch.set_value(name, value))
                        .map(|_| ()),
                };
            }
            let _ = store.commit(batch);
        }
        let before = seen(&store);
        drop(store);
        let store = home.open();
        assert_eq!(opened(&store).1, 0);
        assert_eq!(seen(&store), before);
        drop(store);
        assert_eq!(home.journal_alone(), before);
    }
    assert!(!is_aside(&home, 1), "none was refused");
    assert!(home.stand_in.applied() > 50);
}

/// More than one slice, so that the tree is unfinished in between.
#[test]
fn a_large_state_is_copied_in_slices_while_it_changes() {
    let home = Home::new();
    let store = home.open();
    let mut batch = Batch::at(&KeyPath::parse("Big").unwrap());
    batch.create_key("").unwrap();
    for number in 0..40_u32 {
        batch
            .set_value(&format!("v{number}"), Value::binary(vec![number as u8; 1 << 20]))
            .unwrap();
    }
    store.commit(batch).unwrap();
    for number in 0..2000 {
        set(&store, &format!("Small\\K{}", number % 1500), number);
    }
    let before = seen(&store);
    drop(store);
    assert!(home.stand_in.applied() >= 3);
    let store = home.open();
    assert_eq!(opened(&store), (OpenedFrom::Tree, 0));
    assert_eq!(seen(&store), before);
}

/// At any moment that the process may die: commits go on while the tree is copied.
#[test]
fn the_tree_is_the_state_after_one_record_at_every_moment() {
    let home = Home::new();
    let store = home.open();
    let is_over = AtomicBool::new(false);
    let mut loaded = std::collections::BTreeSet::new();
    std::thread::scope(|scope| {
        let _end = SetWhenDropped(&is_over);
        for writer in 0..4 {
            let (store, is_over) = (&store, &is_over);
            scope.spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::Acquire) {
                        return;
                    }
                    set(store, &format!("K{writer}\\{}", number % 400), number);
                    if number % 7 == 0 {
                        let mut batch = Batch::at(&KeyPath::root());
                        batch
                            .delete_key(&format!("K{writer}\\{}", number * 3 % 400))
                            .unwrap();
                        store.commit(batch).unwrap();
                    }
                }
            });
        }
        wait_until("a tree", || home.tree(1).exists() && home.stand_in.applied() > 0);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let entries = home
                .stand_in
                .with_entries(&home.tree(1), |entries| entries.clone());
            let copy = Arc::new(StandIn::default());
            let backend: Arc<dyn Backend> = Arc::<StandIn>::clone(&copy);
            let worker = crate::tree::Worker::start(&backend, Duration::from_secs(20)).unwrap();
            worker.open("copy".as_ref(), 0).unwrap();
            copy.with_entries("copy".as_ref(), |copied| *copied = entries);
            let (_, meta) = worker.load(0).unwrap();
            loaded.insert(meta.sequence);
        }
    });
    assert!(loaded.len() >= 3, "the tree has followed: {loaded:?}");
}

#[test]
fn a_tree_that_was_tampered_with_is_set_aside_and_the_state_is_exact() {
    let home = Home::new();
    let store = home.open();
    for number in 0..20 {
        set(&store, &format!("K{}", number % 4), number);
    }
    let before = seen(&store);
    drop(store);
    type Tamper = fn(&mut std::collections::BTreeMap<Vec<u8>, Vec<u8>>);
    let tampers: [(&str, Tamper); 6] = [
        ("one value's byte", |entries| {
            *entries.get_mut(&b"K1\0vV"[..]).unwrap().last_mut().unwrap() ^= 1
        }),
        ("one entry missing", |entries| {
            drop(entries.remove(&b"K2\0vV"[..]))
        }),
        ("one key missing", |entries| drop(entries.remove(&b"K2\0k"[..]))),
        ("one entry more", |entries| {
            drop(entries.insert(b"K9\0k".to_vec(), b"\0\0\0\0\0\0\0\0k9".to_vec()))
        }),
        ("a key's time", |entries| {
            entries.get_mut(&b"K3\0k"[..]).unwrap()[0] ^= 1
        }),
        ("emptied", |entries| entries.clear()),
    ];
    for (index, (what, tamper)) in tampers.into_iter().enumerate() {
        let number = index as u64 + 1;
        home.stand_in.with_entries(&home.tree(number), tamper);
        let store = home.open();
        assert_eq!(opened(&store), (OpenedFrom::Journal, 20), "{what}");
        assert_eq!(seen(&store), before, "{what}");
        assert!(is_aside(&home, number), "{what}");
        drop(store);
        let store = home.open();
        assert_eq!(opened(&store), (OpenedFrom::Tree, 0), "made again after: {what}");
        assert_eq!(seen(&store), before, "{what}");
    }
}

/// What the events of a closure say, on this thread.
fn events(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let text = Text::default();
    let writer = text.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false);
    tracing::subscriber::with_default(subscriber.finish(), run);
    let bytes = lock(&text.0).clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_event_says_why_a_tree_was_set_aside() {
    let home = Home::new();
    let store = home.open();
    set(&store, "A", 1);
    drop(store);
    home.stand_in
        .with_entries(&home.tree(1), |entries| drop(entries.remove(&b"A\0vV"[..])));
    let text = events(|| drop(home.open()));
    assert!(
        text.contains("its entries do not add up to its digest") && text.contains("tree.1.aside"),
        "{text}"
    );
}

#[test]
fn a_tree_that_fails_or_panics_when_it_is_opened_is_made_anew() {
    for during in [During::Open, During::Visit] {
        for fault in [Fault::Fails, Fault::Panics] {
            let home = Home::new();
            let store = home.open();
            set(&store, "A", 1);
            drop(store);
            home.stand_in.go_wrong(Some((during, fault)));
            let store = home.open();
            assert_eq!(opened(&store), (OpenedFrom::Journal, 1), "{during:?} {fault:?}");
            assert!(is_aside(&home, 1));
            home.stand_in.go_wrong(None);
            set(&store, "A", 2);
            drop(store);
            let store = home.open();
            assert_eq!(
                store.get(&KeyPath::parse("A").unwrap(), "v").unwrap(),
                Some(Value::dword(2))
            );
            assert!(store.stat().unwrap().durable_sequence == 2 && !home.stand_in.is_off());
        }
    }
}

#[test]
fn a_tree_that_fails_while_the_store_is_open_is_set_aside_and_the_store_goes_on() {
    for during in [During::Apply, During::Checkpoint] {
        for fault in [Fault::Fails, Fault::Panics] {
            let home = Home::new();
            let store = home.open();
            home.stand_in.go_wrong(Some((during, fault)));
            set(&store, "A", 1);
            if during == During::Apply {
                wait_until("the tree is set aside", || is_aside(&home, 1));
            }
            set(&store, "A", 2);
            let before = seen(&store);
            store.close().unwrap();
            assert!(is_aside(&home, 1), "{during:?} {fault:?}");
            home.stand_in.go_wrong(None);
            drop(store);
            let store = home.open();
            assert_eq!(seen(&store), before, "{during:?} {fault:?}");
            assert_eq!(opened(&store), (OpenedFrom::Journal, 2));
        }
    }
}

/// Crash story 17: a hang anywhere costs its time limit once, and nothing else.
#[test]
fn a_tree_that_hangs_is_let_go_and_neither_opening_nor_closing_waits_for_it() {
    for during in [During::Open, During::Visit, During::Apply, During::Checkpoint] {
        let mut home = Home::new();
        home.limit = Duration::from_millis(300);
        let store = home.open();
        set(&store, "A", 1);
        drop(store);
        home.stand_in.go_wrong(Some((during, Fault::Hangs)));
        let began = Instant::now();
        let store = home.open();
        set(&store, "A", 2);
        let before = seen(&store);
        store.close().unwrap();
        drop(store);
        assert!(began.elapsed() < Duration::from_secs(10), "{during:?}");
        assert!(home.stand_in.is_off(), "{during:?}");
        assert_eq!(home.journal_alone(), before, "{during:?}");
        let store = home.open();
        assert_eq!(
            opened(&store),
            (OpenedFrom::Journal, 2),
            "{during:?}: off until the process ends"
        );
    }
}

/// Crash story 5: a tree that went on with another branch fits by number, and is refused all the same.
#[test]
fn a_tree_of_another_branch_is_refused() {
    let (home, other) = (Home::new(), Home::new());
    let epoch = crate::Epoch::from_bytes([3; 16]);
    let stores = [&home, &other].map(|home| {
        let mut options = Store::options().epoch(epoch);
        options.tree.backend = Arc::<StandIn>::clone(&home.stand_in);
        options.tree.behind_records = 1;
        options.open(home.path()).unwrap()
    });
    for (number, store) in stores.iter().enumerate() {
        set(store, "A", number as u32);
        set(store, "A", number as u32 + 10);
    }
    let before = seen(&stores[0]);
    drop(stores);
    let branch = other
        .stand_in
        .with_entries(&other.tree(1), |entries| entries.clone());
    home.stand_in
        .with_entries(&home.tree(1), |entries| *entries = branch);
    let store = home.open();
    assert_eq!(opened(&store), (OpenedFrom::Journal, 2));
    assert_eq!(seen(&store), before);
    assert!(is_aside(&home, 1));
}

/// Crash story 4: the tree vouches. A journal that ends before it has lost what was acknowledged.
#[test]
fn a_journal_that_ends_before_its_tree_is_damage_that_names_the_tree() {
    let home = Home::new();
    let store = home.open();
    set(&store, "A", 1);
    store.close().unwrap();
    let segment = home.path().join("journal").join("00000000000000000001.segment");
    let earlier =
        [&segment, &home.path().join("head")].map(|path| (path.clone(), std::fs::read(path).unwrap()));
    drop(store);
    let store = home.open();
    set(&store, "A", 2);
    drop(store);
    for (path, bytes) in earlier {
        std::fs::write(path, bytes).unwrap();
    }
    let mut options = Store::options();
    options.tree.backend = Arc::<StandIn>::clone(&home.stand_in);
    let error = options.open(home.path()).unwrap_err();
    let Error::Damaged { file, found, .. } = &error else {
        panic!("{error}")
    };
    assert!(*file == segment && found.contains("tree.1"), "{error}");
}

#[test]
fn a_tree_that_has_grown_is_made_anew_and_the_old_one_is_removed() {
    let home = Home::new();
    let store = home.open();
    set(&store, "A", 1);
    drop(store);
    std::fs::write(home.tree(1).join("garbage"), vec![1; 1 << 20]).unwrap();
    let mut options = Store::options();
    options.tree.backend = Arc::<StandIn>::clone(&home.stand_in);
    options.tree.behind_records = 1;
    options.tree.grown_bytes = 1 << 19;
    let store = options.open(home.path()).unwrap();
    assert_eq!(opened(&store), (OpenedFrom::Tree, 0));
    wait_until("the new tree takes its place", || {
        set(&store, "A", 2);
        home.tree(2).exists() && !home.tree(1).exists()
    });
    assert!(!is_aside(&home, 1), "nothing was wrong with it");
    let before = seen(&store);
    drop(store);
    let store = home.open();
    assert_eq!(opened(&store), (OpenedFrom::Tree, 0));
    assert_eq!(seen(&store), before);
}

#[test]
fn a_tree_that_trimming_has_overtaken_is_made_anew_and_that_is_no_fault() {
    let home = Home::new();
    let mut options = Store::options().keep(false).segment_size_bytes(4096);
    options.tree.backend = Arc::<StandIn>::clone(&home.stand_in);
    options.tree.behind_records = 100;
    let store = options.open(home.path()).unwrap();
    let set_times = |count| (0..count).for_each(|number| set(&store, "A", number));
    let follows = |last| wait_until("the tree follows", || store.stat().unwrap().tree_sequence >= last);
    set_times(100);
    follows(1);
    // Overtaken more often than a tree may fail.
    for _ in 0..5 {
        let copied = store.stat().unwrap().tree_sequence;
        // It does not follow yet, and what it needs is trimmed meanwhile.
        for _ in 0..2 {
            set_times(45);
            store.snapshot().unwrap();
        }
        set_times(5);
        store.trim().unwrap();
        let stat = store.stat().unwrap();
        assert!(stat.first_sequence > copied + 1, "{stat:?}");
        set_times(100);
        follows(stat.durable_sequence + 1);
    }
    assert!((1..10).all(|number| !is_aside(&home, number)));
}
