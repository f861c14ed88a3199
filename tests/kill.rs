//! A real process, killed with SIGKILL at random moments: what it acknowledged is there, nothing is half there, and no
//! port misses or reorders a batch.
//!
//! The child is this test binary again, told by environment variables what to do.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clusdb::{Batch, BatchView, CommandKind, Entry, KeyPath, Options, Store, Value};

const ROLE: &str = "CLUSDB_TEST_ROLE";
const FOLDER: &str = "CLUSDB_TEST_FOLDER";
const WRITERS: u64 = 4;
/// Values that one batch sets to the same number.
const VALUES: u64 = 5;
const PORTS: [(&str, &str); 2] = [("all", ""), ("first", "Writer0")];

fn options() -> Options {
    // Small, so that segments are rotated all the time.
    Store::options().segment_size_bytes(64 << 10)
}

/// Does nothing, unless this process is a child.
#[test]
fn child_process() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let role = std::env::var(ROLE);
    if role.as_deref() == Ok("busy") {
        // So long that they are made ahead of need.
        let store = options().segment_size_bytes(2 << 20).open(folder).unwrap();
        return std::thread::scope(|scope| {
            scope.spawn(|| write_much(&store));
            commit_and_follow(&store);
        });
    }
    let store = options().open(folder).unwrap();
    match role.as_deref() {
        Ok("commit") => commit_and_follow(&store),
        Ok("derive") => derive(&store),
        _ => {
            store.commit(batch(0, 1)).unwrap();
        }
    }
}

fn batch(writer: u64, number: u64) -> Batch {
    let mut batch = Batch::at(&KeyPath::parse(&format!("Writer{writer}")).unwrap());
    batch.create_key("").unwrap();
    for value in 0..VALUES {
        batch
            .set_value(&format!("v{value}"), Value::qword(number))
            .unwrap();
    }
    batch
}

/// Says it in one write, so that a killed process leaves whole lines and at most one cut one.
fn say(line: String) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn commit_and_follow(store: &Store) {
    std::thread::scope(|scope| {
        for (name, key) in PORTS {
            let port = store.port(name, &KeyPath::parse(key).unwrap()).unwrap();
            scope.spawn(move || {
                loop {
                    let notification = port.get().unwrap();
                    let last = notification.batches().last().unwrap().sequence();
                    notification.acknowledge().unwrap();
                    say(format!("acknowledged {name} {last}"));
                }
            });
        }
        for writer in 0..WRITERS {
            let first = number_of(store, writer) + 1;
            scope.spawn(move || {
                for number in first.. {
                    let sequence = store.commit(batch(writer, number)).unwrap().sequence().unwrap();
                    say(format!("committed {writer} {number} {sequence}"));
                }
            });
        }
    });
}

/// Fills the journal, with writes that no port shows.
fn write_much(store: &Store) {
    let key = path("Much");
    store.create_key(&key).unwrap();
    for number in (0_u8..=255).cycle() {
        store
            .set_value(&key, "v", Value::binary(vec![number; 40 << 10]))
            .unwrap();
        // All rounds together stay below what the keeper would trim.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn qword(store: &Store, key: &str, name: &str) -> u64 {
    let value = store.get(&path(key), name).unwrap();
    value.map_or(0, |value| u64::from_le_bytes(value.data().try_into().unwrap()))
}

/// Numbers go into one key, and a consumer adds them up in another of the same store, each exactly once.
fn derive(store: &Store) {
    let port = store.port("worker", &path("In")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in qword(store, "In", "v") + 1.. {
                let mut batch = Batch::at(&path("In"));
                batch.create_key("").unwrap();
                batch.set_value("v", Value::qword(number)).unwrap();
                let sequence = store.commit(batch).unwrap().sequence().unwrap();
                say(format!("committed 0 {number} {sequence}"));
            }
        });
        let mut total = qword(store, "Out", "total");
        loop {
            let notification = port.get().unwrap();
            let mut results = Batch::at(&path("Out"));
            results.create_key("").unwrap();
            for batch in notification.batches() {
                let value = batch.changes().last().unwrap().value().unwrap();
                let number = u64::from_le_bytes(value.data.try_into().unwrap());
                total += number;
                let name = batch.sequence().to_string();
                results.condition_not_exists(&name).unwrap();
                results.set_value(&name, Value::qword(number)).unwrap();
            }
            results.set_value("total", Value::qword(total)).unwrap();
            notification.acknowledge_with(results).unwrap();
            let last = notification.batches().last().unwrap().sequence();
            say(format!("acknowledged worker {last}"));
        }
    });
}

/// The number that the writer's last batch has set; all its values have it.
fn number_of(store: &Store, writer: u64) -> u64 {
    let key = KeyPath::parse(&format!("Writer{writer}")).unwrap();
    let numbers: Vec<_> = store
        .list(&key)
        .unwrap_or_default()
        .into_iter()
        .map(|entry| match entry {
            Entry::Value { value, .. } => u64::from_le_bytes(value.data().try_into().unwrap()),
            Entry::Key { path } => panic!("{path} is no value"),
        })
        .collect();
    assert!(
        [0, VALUES as usize].contains(&numbers.len()),
        "half a batch: {numbers:?}"
    );
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "half a batch: {numbers:?}"
    );
    numbers.first().copied().unwrap_or(0)
}

/// The writer and the number of a batch in the log, which must be whole.
fn content(batch: &BatchView<'_>) -> (u64, u64) {
    let changes: Vec<_> = batch.changes().collect();
    let kinds: Vec<_> = changes.iter().map(|change| change.kind()).collect();
    let mut expected = vec![CommandKind::CreateKey];
    expected.resize(1 + VALUES as usize, CommandKind::SetValue);
    assert_eq!(kinds, expected, "half a batch: {batch:?}");
    let writer = changes[0].key().strip_prefix("Writer").unwrap().parse().unwrap();
    let numbers: Vec<_> = changes[1..]
        .iter()
        .map(|change| u64::from_le_bytes(change.value().unwrap().data.try_into().unwrap()))
        .collect();
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "half a batch: {numbers:?}"
    );
    (writer, numbers[0])
}

fn start_child(role: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Random numbers that can be had again: xorshift, with the seed printed.
struct Random(u64);

impl Random {
    fn new(test: &str) -> Random {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let seed = std::env::var("CLUSDB_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(now.as_nanos() as u64 | 1);
        println!("{test}: CLUSDB_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("CLUSDB_KILL_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

/// What the children have said, over all rounds.
#[derive(Default)]
struct Said {
    /// By sequence number: the writer and its number.
    committed: BTreeMap<u64, (u64, u64)>,
    acknowledged: BTreeMap<String, u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().unwrap();
        match words[..] {
            ["committed", writer, content, sequence] => {
                self.committed
                    .insert(number(sequence), (number(writer), number(content)));
            }
            ["acknowledged", name, sequence] => {
                self.acknowledged.insert(name.to_owned(), number(sequence));
            }
            // The test harness speaks too.
            _ => {}
        }
    }
}

/// Starts the child again and again, hears it, and kills it some time after its first commit.
fn kill_again_and_again(test: &str, role: &str, default_rounds: u64, check: fn(&Path, &Said, u64)) {
    let mut random = Random::new(test);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut said = Said::default();
    for round in 0..rounds(default_rounds) {
        let mut child = start_child(role, &path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let deadline = Duration::from_millis(random.below(60));
        let killed = std::thread::scope(|scope| {
            let (first_line, wait) = std::sync::mpsc::channel::<()>();
            let reader = scope.spawn({
                let said = &mut said;
                move || {
                    for line in lines.by_ref().map_while(Result::ok) {
                        let line = String::from_utf8(line).unwrap();
                        said.hear(&line);
                        if line.starts_with("committed") {
                            let _ = first_line.send(());
                        }
                    }
                }
            });
            wait.recv_timeout(Duration::from_secs(60))
                .expect("the child commits");
            std::thread::sleep(deadline);
            child.kill().unwrap();
            reader.join().unwrap();
            child.wait().unwrap()
        });
        assert!(!killed.success());
        check(&path, &said, round);
    }
    println!("{} commits acknowledged", said.committed.len());
    assert!(said.committed.len() > 100);
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment_and_no_port_misses_a_batch() {
    kill_again_and_again("kill", "commit", 60, check);
}

/// Segments are made by a thread of their own there, which is killed with the rest.
#[test]
fn what_was_acknowledged_survives_a_kill_beside_segments_that_are_made_ahead_of_need() {
    kill_again_and_again("kill, busy", "busy", 15, check);
}

#[test]
fn a_consumer_that_acknowledges_with_its_results_processes_each_change_exactly_once() {
    kill_again_and_again("exactly once", "derive", 50, |path, said, round| {
        let store = options().open(path).unwrap();
        let acknowledged = store.open_port("worker").unwrap().acknowledged();
        let heard = said.acknowledged.get("worker").copied().unwrap_or(0);
        assert!(
            acknowledged >= heard,
            "round {round}: {heard} was answered, {acknowledged} is there"
        );
        let mut results = BTreeMap::new();
        let mut total = 0;
        for entry in store.list(&self::path("Out")).unwrap_or_default() {
            let Entry::Value { name, value, .. } = entry else {
                panic!("{entry:?}")
            };
            let number = u64::from_le_bytes(value.data().try_into().unwrap());
            match name.parse::<u64>() {
                Ok(sequence) => _ = results.insert(sequence, number),
                Err(_) => total = number,
            }
        }
        // Every change up to the cursor has its result, and none behind it.
        let log = store.log(1..=u64::MAX).unwrap();
        let changes = log.batches().filter_map(|batch| {
            let last = batch.changes().last().filter(|change| change.key() == "In")?;
            let number = u64::from_le_bytes(last.value()?.data.try_into().unwrap());
            (batch.sequence() <= acknowledged).then_some((batch.sequence(), number))
        });
        let expected: BTreeMap<_, _> = changes.collect();
        assert_eq!(results, expected, "round {round}");
        assert_eq!(total, expected.values().sum::<u64>(), "round {round}");
    });
}

fn check(path: &Path, said: &Said, round: u64) {
    let store = options().open(path).unwrap();
    let log = store.log(1..=u64::MAX).unwrap();
    let mut newest = [0; WRITERS as usize];
    for (batch, sequence) in log.batches().zip(1..) {
        assert_eq!(batch.sequence(), sequence, "round {round}: no gap");
        if batch.is_plain() {
            continue;
        }
        let (writer, number) = content(&batch);
        if let Some(acknowledged) = said.committed.get(&sequence) {
            assert_eq!(
                *acknowledged,
                (writer, number),
                "round {round}, sequence {sequence}"
            );
        }
        assert_eq!(
            number,
            newest[writer as usize] + 1,
            "round {round}: each batch once, in order"
        );
        newest[writer as usize] = number;
    }
    let last = said
        .committed
        .last_key_value()
        .map_or(0, |(sequence, _)| *sequence);
    assert!(
        log.len() as u64 >= last,
        "round {round}: {last} was acknowledged, {} are there",
        log.len()
    );
    for (writer, number) in newest.iter().enumerate() {
        assert_eq!(
            number_of(&store, writer as u64),
            *number,
            "the state is the fold of the records"
        );
    }
    for (name, key) in PORTS {
        let port = store.open_port(name).unwrap();
        let from = port.acknowledged();
        let acknowledged = said.acknowledged.get(name).copied().unwrap_or(0);
        assert!(
            from >= acknowledged,
            "round {round}, {name}: {acknowledged} was acknowledged, {from} is saved"
        );
        let expected: Vec<_> = log
            .batches()
            .filter(|batch| batch.sequence() > from && !batch.is_plain())
            .filter(|batch| batch.changes().next().unwrap().key().starts_with(key))
            .map(|batch| batch.sequence())
            .collect();
        let shown = port.try_get().unwrap();
        let shown: Vec<_> = shown
            .iter()
            .flat_map(|shown| shown.batches())
            .map(|batch| batch.sequence())
            .collect();
        assert_eq!(shown, expected, "round {round}, {name}");
    }
}

#[test]
fn a_store_that_was_killed_while_it_was_made_is_empty_or_whole() {
    let mut random = Random::new("creation");
    let mut committed = 0;
    for round in 0..rounds(40) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let mut child = start_child("create", &path);
        std::thread::sleep(Duration::from_micros(random.below(12_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = options().open(&path).unwrap();
        let number = number_of(&store, 0);
        assert_eq!(store.log(1..=9).unwrap().len() as u64, number, "round {round}");
        assert_eq!(
            store.commit(batch(0, number + 1)).unwrap().sequence(),
            Some(number + 1)
        );
        committed += number;
    }
    println!("{committed} of the stores had their first commit");
}

/// The same for the command line: a large file is there as a whole or not at all.
#[cfg(feature = "cli")]
#[test]
fn an_import_that_was_killed_is_there_as_a_whole_or_not_at_all() {
    let mut random = Random::new("import");
    let folder = tempfile::tempdir().unwrap();
    let (file, path) = (folder.path().join("large.reg"), folder.path().join("store"));
    let mut text = String::from("REGEDIT4\n");
    let (keys, values) = (3_000, 10);
    for key in 0..keys {
        text += &format!("[K\\{key}]\n");
        for value in 0..values {
            text += &format!("\"v{value}\"=\"{key:0>100}\"\n");
        }
    }
    std::fs::write(&file, text).unwrap();
    let mut outcomes = BTreeMap::<u64, u32>::new();
    let mut span = 1_000_000;
    for round in 0..rounds(20) {
        let mut import = Command::new(env!("CARGO_BIN_EXE_clusdb"));
        import
            .arg("--store")
            .arg(&path)
            .arg("import")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let began = Instant::now();
        let mut child = import.spawn().unwrap();
        if round == 0 {
            // To its end, to know how long it takes.
            child.wait().unwrap();
            span = began.elapsed().as_micros() as u64;
        } else {
            std::thread::sleep(Duration::from_micros(random.below(span)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&path).unwrap();
        let stat = store.stat().unwrap();
        let expected = if stat.durable_sequence == 0 {
            (0, 0)
        } else {
            (keys + 1, keys * values)
        };
        assert_eq!((stat.keys, stat.values), expected, "round {round}");
        assert!(stat.durable_sequence <= 1);
        *outcomes.entry(stat.durable_sequence).or_default() += 1;
        drop(store);
        std::fs::remove_dir_all(&path).unwrap();
    }
    println!("nothing or all of it: {outcomes:?}");
}
