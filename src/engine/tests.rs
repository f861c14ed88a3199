//! Groups of commits that a test puts together, because threads would group them differently each time.

use std::io::ErrorKind;
use std::sync::mpsc;

use super::commit::{Forming, Request, Write};
use super::groups::Led;
use super::*;
use crate::model::{Batch, KeyPath, PlainWrite, Value};
use crate::probe::{Fate, Op, Probe};

/// Ends what runs beside a test, also when the test fails.
pub(super) struct SetWhenDropped<'a>(pub(super) &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn open(probe: &Probe, folder: &tempfile::TempDir) -> Arc<Engine> {
    let options = Options::new().env(probe.env());
    Engine::open(&options, &folder.path().join("store")).unwrap()
}

fn creation(key: &str) -> Batch {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.create_key("").unwrap();
    batch
}

fn creates(key: &str) -> Request {
    request(creation(key))
}

fn request(batch: Batch) -> Request {
    Request::new(Write::Batch(batch))
}

fn deletion(key: &str) -> Batch {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.delete_key("").unwrap();
    batch
}

/// Fails unless the key exists.
fn setting(key: &str) -> Batch {
    let mut batch = Batch::at(&KeyPath::parse(key).unwrap());
    batch.set_value("v", Value::dword(1)).unwrap();
    batch
}

fn sets(key: &str) -> Request {
    request(setting(key))
}

/// Commits them as one group.
fn commit<const N: usize>(engine: &Engine, requests: [Request; N]) -> Vec<Result<Commit>> {
    let mut requests = requests.map(Some);
    let join = |number: usize, forming: &mut Forming| engine.join(forming, &mut requests[number]);
    let lead = |members, led: Led<'_, _, _>| engine.lead(members, led);
    let abandoned = || Err(Error::LeaderPanicked).into();
    let answers = engine
        .groups
        .submit_together(N, join, Forming::take, lead, &abandoned);
    answers.into_iter().map(|answer| answer.result).collect()
}

fn is_segment_write(op: &Op) -> bool {
    matches!(op, Op::Write { file, .. } if file.ends_with(".segment"))
}

#[test]
fn the_batches_of_a_group_see_what_the_ones_before_them_did() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    commit(&engine, [creates("Room")]);
    probe.take();
    let answers = commit(&engine, [sets("A"), creates("A"), sets("A"), sets("B")]);
    let sequences: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().ok()?.sequence())
        .collect();
    assert_eq!(sequences, [None, Some(2), Some(3), None]);
    assert!(answers[0].is_err() && answers[3].is_err());
    let syncs = probe.take().iter().filter(|op| matches!(op, Op::Sync(_))).count();
    assert_eq!(syncs, 1, "one sync for the group");
}

/// They look for themselves too, five times a second, so that a wake that is missing is seen nowhere else.
#[test]
fn who_waits_in_other_processes_is_woken_by_every_group_once_the_head_has_it() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    let wakes = || engine.head.wakes.load(Ordering::SeqCst);
    let before = wakes();
    commit(&engine, [creates("A")]);
    assert_eq!(wakes(), before + 1);
    commit(&engine, [creates("B"), sets("B"), sets("B")]);
    assert_eq!(wakes(), before + 2);
    engine
        .commit_plain(PlainWrite::create_key(&KeyPath::parse("C").unwrap()))
        .unwrap();
    assert_eq!(wakes(), before + 3);
    assert!(commit(&engine, [sets("Missing")])[0].is_err());
    assert_eq!(wakes(), before + 3, "nothing was committed");
}

/// Crash story 9: a refusal that rests on a record which is then lost is not told as if the record had been there.
#[test]
fn a_refusal_that_rests_on_a_lost_record_is_not_given() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    commit(&engine, [creates("A")]);
    probe.rule(|op| match is_segment_sync(op) {
        true => Fate::Fails(ErrorKind::Other),
        false => Fate::Done,
    });
    // On the disk A is there still; nobody may be told that it is not.
    for answer in commit(&engine, [request(deletion("A")), sets("A")]) {
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
    }
}

/// Commits `first`, and the others while an operation of it is under way that `is_meant` picks; only once they have joined the
/// next group, what is meant is done, or fails.
fn commit_beside(
    (probe, engine): (&Probe, &Engine),
    first: Batch,
    others: Vec<Batch>,
    is_meant: fn(&Op) -> bool,
    failure: Option<ErrorKind>,
) -> Vec<Result<Commit>> {
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let mut is_first = true;
    probe.rule(move |op| {
        if !is_meant(op) {
            return Fate::Done;
        }
        if std::mem::take(&mut is_first) {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
        failure.map_or(Fate::Done, Fate::Fails)
    });
    std::thread::scope(|scope| {
        let mut threads = vec![scope.spawn(move || engine.commit(first))];
        has_begun.recv().unwrap();
        for batch in others {
            let before = engine.groups.members();
            let thread = scope.spawn(move || engine.commit(batch));
            while engine.groups.members() == before && !thread.is_finished() {
                std::thread::yield_now();
            }
            threads.push(thread);
        }
        go_on.send(()).unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn is_segment_sync(op: &Op) -> bool {
    matches!(op, Op::Sync(file) if file.ends_with(".segment"))
}

#[test]
fn what_comes_while_a_group_is_synced_is_decided_on_it_and_makes_one_group() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.commit(creation("B")).unwrap();
    probe.take();
    let others = vec![setting("A"), deletion("A"), setting("A"), setting("B")];
    let answers = commit_beside((&probe, &engine), creation("A"), others, is_segment_sync, None);
    let sequences: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().ok()?.sequence())
        .collect();
    assert_eq!(sequences, [Some(2), Some(3), Some(4), None, Some(5)]);
    assert!(
        matches!(&answers[3], Err(Error::Batch(error)) if error.index == 0),
        "{:?}",
        answers[3]
    );
    let syncs = probe.take().iter().filter(|op| is_segment_sync(op)).count();
    assert_eq!(syncs, 2, "one for each group");
    assert!(!engine.read(|visible| visible.state.contains("A")).unwrap());
}

/// Crash story 9, across groups: neither what was refused nor what was decided on a lost record is told.
#[test]
fn what_was_decided_on_a_group_that_is_lost_is_not_told() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.commit(creation("A")).unwrap();
    let (others, failure) = (vec![setting("A"), creation("A")], Some(ErrorKind::Other));
    for answer in commit_beside((&probe, &engine), deletion("A"), others, is_segment_sync, failure) {
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
    }
    assert_eq!(engine.read(|visible| visible.position.sequence).unwrap(), 1);
}

/// Crash story 7: the first finds no room, and those that were decided on it are decided without it.
#[test]
fn what_was_decided_on_a_group_that_found_no_room_is_decided_again() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.commit(creation("B")).unwrap();
    let mut large = creation("A");
    for name in ["a", "b", "c"] {
        large.set_value(name, Value::binary(vec![1; 1 << 20])).unwrap();
    }
    let is_beyond_room = |op: &Op| {
        let room = 2 << 20;
        matches!(op, Op::Write { file, offset, bytes }
            if file.contains(".segment") && offset + bytes.len() as u64 > room)
    };
    let (others, failure) = (
        vec![setting("A"), setting("B"), creation("A")],
        Some(ErrorKind::StorageFull),
    );
    let answers = commit_beside((&probe, &engine), large, others, is_beyond_room, failure);
    assert!(
        matches!(answers[0], Err(Error::Preallocation { .. })),
        "{:?}",
        answers[0]
    );
    assert!(
        matches!(&answers[1], Err(Error::Batch(_))),
        "A is not there: {:?}",
        answers[1]
    );
    assert_eq!(answers[2].as_ref().unwrap().sequence(), Some(2));
    assert_eq!(answers[3].as_ref().unwrap().sequence(), Some(3));
    let in_journal = engine.read(|visible| visible.state.contains("A")).unwrap();
    assert!(in_journal, "made by the last alone");
}

/// Crash story 7: one batch of a group may be too big for the disk; the others are committed.
#[test]
fn a_group_that_finds_no_room_is_committed_one_by_one() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    let room = 2 << 20;
    probe.rule(move |op| match op {
        Op::Write { file, offset, bytes }
            if file.contains(".segment") && offset + bytes.len() as u64 > room =>
        {
            Fate::Fails(ErrorKind::StorageFull)
        }
        _ => Fate::Done,
    });
    let mut large = Batch::at(&KeyPath::root());
    for name in ["a", "b", "c"] {
        large.set_value(name, Value::binary(vec![1; 1 << 20])).unwrap();
    }
    let answers = commit(&engine, [creates("A"), request(large), sets("A")]);
    assert_eq!(answers[0].as_ref().unwrap().sequence(), Some(1));
    assert!(
        matches!(answers[1], Err(Error::Preallocation { .. })),
        "{:?}",
        answers[1]
    );
    assert_eq!(answers[2].as_ref().unwrap().sequence(), Some(2));
}

/// Crash story 8.
#[test]
fn a_panic_while_committing_poisons_the_store_and_leaves_it_readable_by_the_next() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let engine = open(&probe, &folder);
    engine.commit(creation("A")).unwrap();
    probe.rule(|op| {
        if is_segment_write(op) {
            Fate::Panics
        } else {
            Fate::Done
        }
    });
    let commits = || engine.commit(creation("B"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(commits)).is_err());
    let error = engine.commit(creation("C")).unwrap_err();
    assert!(
        matches!(&error, Error::Poisoned { cause } if matches!(**cause, Error::LeaderPanicked)),
        "{error}"
    );
    drop(engine);
    probe.rule(|_| Fate::Done);
    let engine = open(&probe, &folder);
    assert_eq!(engine.read(|visible| visible.position.sequence).unwrap(), 1);
    engine.commit(creation("B")).unwrap();
}

/// A destructor that commits is no leader that panics.
#[test]
fn a_commit_while_its_thread_unwinds_is_like_any_other() {
    struct Session(Arc<Engine>, Arc<std::sync::Mutex<Option<Result<Commit>>>>);
    impl Drop for Session {
        fn drop(&mut self) {
            *self.1.lock().unwrap() = Some(self.0.commit(creation("Offline")));
        }
    }
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let (engine, answer) = (open(&probe, &folder), Arc::default());
    let session = Session(Arc::clone(&engine), Arc::clone(&answer));
    let panics = std::panic::AssertUnwindSafe(|| {
        let _session = session;
        panic!("a panic of the store's owner, on purpose");
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    let answer = answer.lock().unwrap().take().unwrap();
    assert_eq!(answer.unwrap().sequence(), Some(1));
    assert_eq!(engine.commit(creation("Online")).unwrap().sequence(), Some(2));
}

/// What is made ahead of need is made by a thread, which has ended when another process may open the store.
#[test]
fn the_store_is_not_given_back_before_its_threads_have_ended() {
    let (probe, folder) = (Probe::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("store");
    let options = Options::new().env(probe.env()).segment_size_bytes(2 << 20);
    let engine = Engine::open(&options, &path).unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let mut is_first = true;
    probe.rule(move |op| {
        let is_meant = matches!(op, Op::Sync(file) if file == "next.segment.unfinished");
        if is_meant && std::mem::take(&mut is_first) {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
        Fate::Done
    });
    // Nothing else is done with files once the thread has begun.
    for number in 0_u8.. {
        if lock(&engine.writer).position().offset > 1 << 20 {
            break;
        }
        let mut batch = Batch::at(&KeyPath::root());
        batch
            .set_value("v", Value::binary(vec![number; 100 << 10]))
            .unwrap();
        engine.commit(batch).unwrap();
    }
    has_begun.recv().unwrap();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| Source::close(&*engine));
        while !engine.is_closed.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert!(matches!(Engine::open(&options, &path), Err(Error::InUse { .. })));
        go_on.send(()).unwrap();
        closing.join().unwrap().unwrap();
    });
    let names = std::fs::read_dir(path.join("journal")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    Engine::open(&options, &path).unwrap();
}
