//! A store that is followed: by readers of this process and of others, beside a writer, after it, and when another comes.

use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use clusdb::{Batch, Entry, Error, KeyPath, Notification, Options, ReadBatch, Reader, Store, Value};

const ROLE: &str = "CLUSDB_FOLLOW_ROLE";
const FOLDER: &str = "CLUSDB_FOLLOW_FOLDER";

fn key(path: &str) -> KeyPath {
    KeyPath::parse(path).unwrap()
}

fn options() -> Options {
    // Small, so that segments are rotated all the time.
    Store::options().segment_size_bytes(variable("CLUSDB_SEGMENT_BYTES").unwrap_or(16 << 10))
}

fn open() -> (tempfile::TempDir, PathBuf, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = options().open(&path).unwrap();
    (folder, path, store)
}

fn set(store: &Store, path: &str, number: u32) -> u64 {
    let mut batch = Batch::at(&key(path));
    batch.create_key("").unwrap();
    batch.set_value("v", Value::dword(number)).unwrap();
    store.commit(batch).unwrap().sequence().unwrap()
}

fn get(reader: &Reader, path: &str) -> Option<Value> {
    reader.get(&key(path), "v").unwrap()
}

fn contents(reader: &Reader) -> Vec<Entry> {
    reader.list_recursive(&KeyPath::root()).unwrap()
}

#[test]
fn a_reader_sees_what_the_writer_has_committed_and_nothing_more() {
    let (_folder, path, store) = open();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(contents(&reader), []);
    // Over many segments.
    for number in 0..500 {
        set(&store, &format!("K\\{}", number % 7), number);
        if number % 50 == 0 {
            assert_eq!(contents(&reader), contents(&store));
        }
    }
    assert_eq!(contents(&reader), contents(&store));
    assert_eq!(get(&reader, "k\\3"), get(&store, "K\\3"));
    assert_eq!(get(&reader, "nil"), None);
    let mut reads = ReadBatch::at(&key("K"));
    reads.add("1", "v").unwrap().add("nil", "v").unwrap();
    assert_eq!(reader.read(&reads).unwrap(), store.read(&reads).unwrap());
    assert_eq!(
        reader.key_info(&key("K")).unwrap(),
        store.key_info(&key("K")).unwrap()
    );
    let log = |reader: &Reader| format!("{:?}", reader.log(1..=u64::MAX).unwrap());
    assert_eq!(log(&reader), log(&store));
    let (theirs, own) = (reader.stat().unwrap(), store.stat().unwrap());
    assert_eq!(theirs.durable_sequence, 500);
    assert_eq!(
        (theirs.keys, theirs.values, theirs.epoch, theirs.segments),
        (own.keys, own.values, own.epoch, own.segments)
    );
    assert!(theirs.segments >= 4, "{theirs:?}");
    let (late, before) = (Reader::open(&path).unwrap(), contents(&reader));
    assert_eq!(contents(&late), before);
    store.close().unwrap();
    assert_eq!(contents(&reader), before, "it goes on without a writer");
    assert_eq!(
        contents(&Reader::open(&path).unwrap()),
        before,
        "and begins without one"
    );
}

#[test]
fn a_reader_needs_a_store_and_cannot_write_to_it() {
    let (_folder, path, store) = open();
    let nowhere = path.join("nowhere");
    assert!(matches!(Reader::open(&nowhere), Err(Error::StoreNotFound { .. })));
    assert!(!nowhere.exists());
    let reader = Reader::open(&path).unwrap();
    let port = reader.port("p", &KeyPath::root()).unwrap();
    set(&store, "K", 1);
    let got = port.get().unwrap();
    let refused = got.acknowledge_with(Batch::at(&key("K"))).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    got.acknowledge().unwrap();
    assert_eq!(port.acknowledged(), 1);
}

/// A reader takes no lock that a writer sees, and a port has one owner in whichever process.
#[test]
fn readers_and_a_writer_stand_side_by_side_and_a_port_has_one_owner() {
    let (_folder, path, store) = open();
    let reader = Reader::open(&path).unwrap();
    let other = Reader::open(&path).unwrap();
    let port = reader.port("p", &key("K")).unwrap();
    for taken in [store.port("p", &key("K")), other.open_port("p")] {
        assert!(matches!(taken, Err(Error::PortInUse { .. })), "{taken:?}");
    }
    assert!(matches!(
        other.port("p", &key("L")),
        Err(Error::PortExists { .. })
    ));
    assert_eq!(store.ports().unwrap(), reader.ports().unwrap());
    drop(store);
    let store = options().open(&path).unwrap();
    set(&store, "K", 1);
    assert_eq!(port.get().unwrap().len(), 1);
    drop(port);
    let port = store.port("p", &key("K")).unwrap();
    assert_eq!(port.get().unwrap().len(), 1, "it was not acknowledged");
}

#[test]
fn a_get_of_a_reader_wakes_at_a_commit_and_at_a_close() {
    let (_folder, path, store) = open();
    let reader = Reader::open(&path).unwrap();
    let port = reader.port("p", &key("K")).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| port.get().map(|got| got.batches().next().unwrap().sequence()));
        std::thread::sleep(Duration::from_millis(50));
        set(&store, "Elsewhere", 1);
        set(&store, "K", 2);
        assert_eq!(waits.join().unwrap().unwrap(), 2);
        let began = Instant::now();
        assert!(port.get_timeout(Duration::from_millis(20)).unwrap().is_none());
        assert!(began.elapsed() >= Duration::from_millis(20));
        let waits = scope.spawn(|| port.get());
        std::thread::sleep(Duration::from_millis(50));
        port.close();
        assert!(matches!(waits.join().unwrap(), Err(Error::PortClosed { .. })));
        let other = reader.port("other", &key("K")).unwrap();
        let waits = scope.spawn(move || other.get());
        std::thread::sleep(Duration::from_millis(50));
        reader.close().unwrap();
        assert!(matches!(waits.join().unwrap(), Err(Error::Closed)));
        assert!(matches!(reader.get(&key("K"), "v"), Err(Error::Closed)));
    });
}

struct Unparks(Thread);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unparks(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn an_awaited_get_of_a_reader_is_woken_by_another_writer() {
    let (_folder, path, store) = open();
    let reader = Reader::open(&path).unwrap();
    let port = reader.port("p", &key("K")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            set(&store, "K", 1);
        });
        assert_eq!(block_on(port.get_async()).unwrap().len(), 1);
    });
}

/// What a reader has taken along at one moment fits to what its port gives after it.
#[test]
fn contents_of_a_reader_and_its_port_fit_together() {
    let (_folder, path, store) = open();
    let reader = Reader::open(&path).unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0..2000 {
            set(&store, "K", number);
        }
        store
    });
    let (port, contents) = reader.port_with_contents("p", &key("K")).unwrap();
    let mut seen = contents.sequence();
    while seen < 2000 {
        let notification = port.get().unwrap();
        for batch in notification.batches() {
            seen += 1;
            assert_eq!(batch.sequence(), seen);
        }
    }
    drop(writer.join().unwrap());
}

#[test]
fn a_store_that_takes_the_place_of_another_is_refused_by_name() {
    let (folder, path, store) = open();
    set(&store, "K", 1);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(get(&reader, "K"), Some(Value::dword(1)));
    drop(store);
    fs::rename(&path, folder.path().join("old")).unwrap();
    let store = options().open(&path).unwrap();
    set(&store, "K", 2);
    let refused = reader.get(&key("K"), "v").unwrap_err();
    assert!(matches!(refused, Error::StoreReplaced { .. }), "{refused}");
}

/// Crash story 11: a head that cannot be read vouches for nothing; what the journal itself says is durable is shown.
#[test]
fn without_a_head_that_can_be_believed_a_reader_shows_what_the_journal_vouches_for() {
    let (_folder, path, store) = open();
    for number in 0..300 {
        set(&store, "K", number);
    }
    let whole = contents(&store);
    drop(store);
    let head = path.join("head");
    let mut bytes = fs::read(&head).unwrap();
    bytes[64] ^= 1;
    fs::write(&head, bytes).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(
        reader.stat().unwrap().durable_sequence,
        299,
        "the last one has no voucher"
    );
    assert_eq!(get(&reader, "K"), Some(Value::dword(298)));
    // The next writer recovers the store, and the reader goes over to it.
    let store = options().open(&path).unwrap();
    assert_eq!(contents(&reader), whole);
    set(&store, "K", 300);
    assert_eq!(get(&reader, "K"), Some(Value::dword(300)));
}

#[test]
fn a_segment_that_is_cut_or_gone_is_damage_with_its_file() {
    let (_folder, path, store) = open();
    for number in 0..300 {
        set(&store, "K", number);
    }
    drop(store);
    let mut segments: Vec<_> = fs::read_dir(path.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    let last = segments.last().unwrap();
    let refused = || {
        let read = Reader::open(&path).and_then(|reader| reader.get(&key("K"), "v"));
        match read {
            Err(Error::Damaged { file, .. }) => assert_eq!(&file, last),
            other => panic!("{other:?}"),
        }
    };
    fs::File::options()
        .write(true)
        .open(last)
        .unwrap()
        .set_len(200)
        .unwrap();
    refused();
    fs::remove_file(last).unwrap();
    refused();
}

/// Does nothing, unless this process is a child.
#[test]
fn child_process() {
    let (Ok(folder), Ok(role)) = (std::env::var(FOLDER), std::env::var(ROLE)) else {
        return;
    };
    let path = Path::new(&folder);
    match role.split_once(' ') {
        Some(("write", first)) => write(path, first.parse().unwrap()),
        Some(("follow", port)) => follow(path, port),
        _ => panic!("{role}"),
    }
}

/// Says it in one write, so that a killed process leaves whole lines and at most one cut one.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

const SUBTREES: u32 = 8;

fn write(path: &Path, first: u32) {
    let store = options()
        .lock_timeout(Duration::from_secs(10))
        .open(path)
        .unwrap();
    let last = store.stat().unwrap().durable_sequence;
    say("\nready");
    for number in first + last as u32.. {
        let sequence = set(&store, &format!("K\\{}", number % SUBTREES), number);
        say(&format!("committed {sequence} {number}"));
    }
}

/// Says each batch that it is shown, and acknowledges three notifications at a time, so that a kill finds some that are not.
fn follow(path: &Path, port: &str) {
    let reader = Reader::open(path).unwrap();
    let port = reader.port(port, &key(&format!("K\\{port}"))).unwrap();
    say(&format!("\nready {}", port.acknowledged()));
    let mut held = Vec::new();
    loop {
        let got = port.get_timeout(Duration::from_millis(20)).unwrap();
        if held.len() == 3 || got.is_none() {
            for notification in held.drain(..) {
                acknowledge(&notification);
            }
        }
        let Some(notification) = got else { continue };
        for batch in notification.batches() {
            let value = batch.changes().last().unwrap().value().unwrap();
            let number = u32::from_le_bytes(value.data.try_into().unwrap());
            say(&format!("shown {} {number}", batch.sequence()));
        }
        held.push(notification);
    }
}

fn acknowledge(notification: &Notification) {
    notification.acknowledge().unwrap();
    let last = notification.batches().last().unwrap().sequence();
    say(&format!("acknowledged {last}"));
}

struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(path: &Path, role: &str) -> Running {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FOLDER, path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut running = Running { child, lines };
        running.wait_for("ready");
        running
    }

    fn wait_for(&mut self, word: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the child goes on");
            if line.starts_with(word) {
                return line;
            }
        }
    }

    /// Kills it, and gives the lines that it has said since.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }
}

#[test]
fn a_reader_goes_on_when_the_writer_was_killed_and_wakes_when_the_next_one_comes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut writer = Running::start(&path, "write 0");
    let reader = Reader::open(&path).unwrap();
    let port = reader.port("p", &KeyPath::root()).unwrap();
    let mut seen = port.acknowledged();
    for _ in 0..5 {
        writer.wait_for("committed");
        let said = writer.kill();
        let last = said
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("committed ")?.split(' ').next()?.parse().ok());
        // Everything that was acknowledged is shown, without a writer.
        while let Some(got) = port.try_get().unwrap() {
            for batch in got.batches() {
                seen += 1;
                assert_eq!(batch.sequence(), seen);
            }
        }
        assert!(Some(seen) >= last, "{seen} was shown, {last:?} acknowledged");
        assert_eq!(reader.stat().unwrap().durable_sequence, seen);
        let waits = std::thread::spawn({
            let port = port.clone();
            move || port.get().unwrap()
        });
        std::thread::sleep(Duration::from_millis(20));
        writer = Running::start(&path, "write 0");
        for batch in waits.join().unwrap().batches() {
            seen += 1;
            assert_eq!(batch.sequence(), seen);
        }
    }
    writer.kill();
}

/// A writer that dies between making its head and telling those who wait on the one before.
#[test]
fn a_reader_finds_the_next_writer_also_when_nobody_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut writer = Running::start(&path, "write 0");
    writer.wait_for("committed");
    let reader = Reader::open(&path).unwrap();
    writer.kill();
    let port = reader.port("p", &KeyPath::root()).unwrap();
    let (head, copy) = (path.join("head"), path.join("copy"));
    fs::copy(&head, &copy).unwrap();
    fs::rename(&copy, &head).unwrap();
    let store = options().open(&path).unwrap();
    let sequence = set(&store, "K", 1);
    let got = port
        .get_timeout(Duration::from_secs(30))
        .unwrap()
        .expect("the commit");
    assert_eq!(got.batches().last().unwrap().sequence(), sequence);
}

/// Random numbers that can be had again: xorshift, with the seed printed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What a follower has said, over all its lives.
#[derive(Default)]
struct Follower {
    shown: Vec<(u64, u32)>,
    acknowledged: u64,
}

impl Follower {
    /// What came twice, came because it was not acknowledged.
    fn hear(&mut self, lines: &[String], transcript: &Path) {
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(transcript)
            .unwrap();
        file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["shown", sequence, number] => {
                    let (sequence, number) = (sequence.parse().unwrap(), number.parse().unwrap());
                    assert!(
                        sequence > self.acknowledged,
                        "{sequence} came after it was acknowledged"
                    );
                    let at = self.shown.partition_point(|(shown, _)| *shown < sequence);
                    self.shown.truncate(at);
                    self.shown.push((sequence, number));
                }
                ["acknowledged", sequence] => self.acknowledged = sequence.parse().unwrap(),
                _ => {}
            }
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `CLUSDB_KILL_ROUNDS` and `CLUSDB_KILL_PAUSE` (milliseconds at most between two kills) make it longer, for which segments of 16 KiB are
/// too many (`CLUSDB_SEGMENT_BYTES`); `CLUSDB_KEEP` is a folder for the store and for what the followers have said.
#[test]
fn each_followers_stream_is_the_journals_whoever_is_killed() {
    let rounds = variable("CLUSDB_KILL_ROUNDS").unwrap_or(60);
    let pause = variable("CLUSDB_KILL_PAUSE").unwrap_or(40);
    let seed = variable("CLUSDB_SEED");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let mut random = Random(seed.unwrap_or(now.as_nanos() as u64 | 1));
    println!("followers: CLUSDB_SEED={}", random.0);
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("CLUSDB_KEEP").map(std::path::PathBuf::from);
    let folder = kept.as_deref().unwrap_or(temporary.path());
    let transcript = |number: usize| folder.join(format!("follower.{number}"));
    let path = folder.join("store");
    let start_writer = || Running::start(&path, "write 0");
    let start_follower = |number: u32| Running::start(&path, &format!("follow {number}"));
    // The ports are there before the first commit.
    {
        let store = options().open(&path).unwrap();
        for number in 0..SUBTREES {
            store
                .port(&number.to_string(), &key(&format!("K\\{number}")))
                .unwrap();
        }
    }
    let mut followers: Vec<_> = (0..SUBTREES)
        .map(|number| (start_follower(number), Follower::default()))
        .collect();
    let mut writer = start_writer();
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.below(pause)));
        match random.below(u64::from(SUBTREES) + 2) as usize {
            victim if victim < followers.len() => {
                let killed = std::mem::replace(&mut followers[victim].0, start_dummy());
                followers[victim].1.hear(&killed.kill(), &transcript(victim));
                followers[victim].0 = start_follower(victim as u32);
            }
            _ => {
                writer.kill();
                writer = start_writer();
            }
        }
    }
    writer.kill();
    let store = options().open(&path).unwrap();
    let log = store.log(1..=u64::MAX).unwrap();
    println!("{} commits", log.len());
    assert!(log.len() > 100);
    for (number, (running, mut follower)) in followers.into_iter().enumerate() {
        let subtree = format!("K\\{number}");
        let expected: Vec<_> = log
            .batches()
            .filter_map(|batch| {
                let change = batch.changes().last()?;
                let value = change.value()?;
                (change.key() == subtree).then(|| {
                    (
                        batch.sequence(),
                        u32::from_le_bytes(value.data.try_into().unwrap()),
                    )
                })
            })
            .collect();
        // It has all the time that it needs to come to the end.
        let last = expected.last().map_or(0, |(sequence, _)| *sequence);
        let deadline = Instant::now() + Duration::from_secs(60);
        let acknowledged = || {
            let ports = store.ports().unwrap();
            ports
                .into_iter()
                .find(|port| port.name == number.to_string())
                .unwrap()
                .acknowledged
        };
        while acknowledged() < last && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        follower.hear(&running.kill(), &transcript(number));
        assert!(follower.shown == expected, "follower {number}");
    }
    store.close().unwrap();
    count_and_hash(folder);
}

/// By a program of another language, which reads the journal by its document alone.
fn count_and_hash(folder: &Path) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/independent/streams.py");
    match Command::new("python3").arg(program).arg(folder).output() {
        Ok(output) => {
            let said = String::from_utf8(output.stdout).unwrap();
            println!("{said}");
            assert!(
                output.status.success(),
                "{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(said.matches(" is the journal's").count(), SUBTREES as usize);
        }
        Err(error) => eprintln!("no python3 to count and hash: {error}"),
    }
}

/// Stands in the place of a child while it is killed and started anew.
fn start_dummy() -> Running {
    let child = Command::new("true").spawn().unwrap();
    let (_, lines) = std::sync::mpsc::channel();
    Running { child, lines }
}
