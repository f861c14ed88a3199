//! The subtree index: a port is shown what the naive model says, whatever becomes of the sidecars, and reads nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clusdb::{Batch, Error, JournalView, KeyPath, Options, Port, Reader, Store, Value};

#[path = "support/harness.rs"]
#[allow(dead_code, reason = "shared with the other test files")]
mod harness;
#[path = "support/naive.rs"]
#[allow(dead_code, reason = "shared with the other test files")]
mod naive;

use harness::{build, committed, path};
use naive::Command;
use naive::single::Plain;

const KEYS: [&str; 12] = [
    "",
    "A",
    "a\\b",
    "A\\B\\c",
    "a\\B\\C\\D",
    "d",
    "D\\e",
    "d\\E\\f",
    "ß\\σ",
    "SS\\ς",
    "ß\\Σ\\x",
    "ab",
];

fn options() -> Options {
    Store::options().segment_size_bytes(4096).keep(false).tree(false)
}

/// The same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

/// A store, the model of it, and a port on each key that was made at its beginning.
struct Home {
    folder: tempfile::TempDir,
    model: naive::Store,
}

impl Home {
    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> Store {
        options().open(self.path()).unwrap()
    }

    fn sidecars(&self) -> Vec<PathBuf> {
        files(&self.path().join("journal"), "index")
    }

    /// Each port, got to its end, shows what the model says; twice, with a rewind between.
    fn check(&self, reader: &Reader) {
        for (at, key) in KEYS.iter().enumerate() {
            let port = reader.open_port(&format!("p{at}")).unwrap();
            for _ in 0..2 {
                let shown = everything(&port);
                let expected = self.model.notification(key, 0, self.model.last_sequence());
                assert_eq!(shown, expected, "the port on {key:?}");
                port.rewind().unwrap();
            }
        }
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

fn everything(port: &Port) -> Vec<naive::Committed> {
    let mut shown = Vec::new();
    while let Some(got) = port.try_get().unwrap() {
        shown.extend(committed(&got));
    }
    shown
}

fn home(seed: u64, commits: usize) -> Home {
    let mut home = Home {
        folder: tempfile::tempdir().unwrap(),
        model: naive::Store::new(),
    };
    let store = home.open();
    for (at, key) in KEYS.iter().enumerate() {
        store.port(&format!("p{at}"), &path(key)).unwrap();
    }
    commit(&mut home.model, &store, &mut Dice(seed), commits);
    home
}

/// Sets, deletions of values and of keys, batches over several keys, and plain writes.
fn commit(model: &mut naive::Store, store: &Store, dice: &mut Dice, count: usize) {
    for number in 0..count {
        let key = KEYS[dice.roll(KEYS.len())];
        let create = Command::CreateKey { path: String::new() };
        let set = |name: &str, size| Command::SetValue {
            name: name.into(),
            value_type: 3,
            data: vec![number as u8; size],
        };
        let commands = match dice.roll(8) {
            0 if !key.is_empty() => vec![Command::DeleteKey { path: String::new() }],
            1 => vec![create, Command::DeleteValue { name: "v".into() }],
            2 => vec![create, set("v", 10), Command::CreateKey { path: "x\\Y".into() }],
            // A port on the key that is made is shown both: what touches it, and that it is gone with the key above.
            4 if !key.is_empty() => {
                let make = Command::CreateKey { path: "C".into() };
                let delete = Command::DeleteKey { path: String::new() };
                vec![create, make, set("v", 10), delete]
            }
            3 if !key.is_empty() => {
                let plain = Plain::CreateKey { path: key.into() };
                harness::write_plain(store, model, &plain).unwrap();
                continue;
            }
            _ => vec![create, set("V", dice.roll(120)), set("w", 3)],
        };
        let wanted = naive::Batch {
            key: key.into(),
            commands,
        };
        let (batch, added) = build(model, wanted).unwrap();
        harness::commit(store, model, batch, &added).unwrap();
    }
}

#[test]
fn a_port_shows_what_the_model_says_from_sealed_segments_and_from_the_one_that_grows() {
    for seed in 0..6 {
        let mut home = home(seed, 300);
        let store = home.open();
        home.check(&store);
        let sealed = files(&home.path().join("journal"), "segment").len() - 1;
        assert!(sealed > 10, "{sealed}");
        assert_eq!(
            home.sidecars().len(),
            sealed,
            "each sealed one has a sidecar, and no other"
        );
        // The ports stand at different places while it grows.
        let mut dice = Dice(seed + 100);
        let ports: Vec<_> = (0..KEYS.len())
            .map(|at| store.open_port(&format!("p{at}")).unwrap())
            .collect();
        let mut shown: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for _ in 0..60 {
            commit(&mut home.model, &store, &mut dice, 1 + seed as usize * 5);
            let at = dice.roll(KEYS.len());
            shown.entry(at).or_default().extend(everything(&ports[at]));
        }
        for (at, key) in KEYS.iter().enumerate() {
            let shown = shown.entry(at).or_default();
            shown.extend(everything(&ports[at]));
            let expected = home.model.notification(key, 0, home.model.last_sequence());
            assert_eq!(*shown, expected, "the port on {key:?}");
        }
    }
}

#[test]
fn the_keeper_makes_the_sidecars_that_nobody_has_asked_for() {
    let home = home(9, 10);
    let store = options().keep(true).open(home.path()).unwrap();
    for _ in 0..60 {
        let mut batch = Batch::at(&KeyPath::root());
        batch.set_value("v", Value::binary([7; 500])).unwrap();
        store.commit(batch).unwrap();
    }
    let sealed = files(&home.path().join("journal"), "segment").len() - 1;
    assert!(sealed > 5, "{sealed}");
    let began = Instant::now();
    while home.sidecars().len() < sealed {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{} of {sealed}",
            home.sidecars().len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_notification_of_limited_size_ends_before_a_batch_and_the_next_one_goes_on_there() {
    let home = home(3, 300);
    for limit in [1, 500, 3000, 20_000] {
        let store = options()
            .notification_limit_bytes(limit)
            .open(home.path())
            .unwrap();
        home.check(&store);
    }
}

#[test]
fn a_follower_shows_the_same_with_and_without_sidecars_and_makes_none() {
    let home = home(4, 300);
    let reader = options().open_reader(home.path()).unwrap();
    home.check(&reader);
    assert!(home.sidecars().is_empty());
    home.check(&home.open());
    assert!(!home.sidecars().is_empty());
    home.check(&options().open_reader(home.path()).unwrap());
}

/// Crash story 15, and any damage.
#[test]
fn a_sidecar_that_is_damaged_or_of_another_segment_is_made_again_and_nothing_is_missed() {
    let home = home(5, 150);
    home.check(&home.open());
    let sidecars = home.sidecars();
    let whole: Vec<_> = sidecars.iter().map(|path| fs::read(path).unwrap()).collect();
    let shown = |is_read: bool, change: &dyn Fn(&[u8]) -> Vec<u8>| {
        for (path, bytes) in sidecars.iter().zip(&whole) {
            fs::write(path, change(bytes)).unwrap();
        }
        home.check(&home.open());
        for (path, bytes) in sidecars.iter().zip(&whole) {
            let is_whole = fs::read(path).unwrap() == *bytes;
            assert!(is_whole || !is_read, "{} is whole again", path.display());
        }
    };
    let longest = whole.iter().map(Vec::len).max().unwrap();
    for at in (0..longest).step_by(61) {
        // A damaged list that nobody asks for stays.
        shown(false, &|bytes| {
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << (at % 8);
            bytes
        });
    }
    for cut in [0, 1, 15, 16, 71, 72, 73, 200, 1000] {
        shown(true, &|bytes| bytes[..cut.min(bytes.len() / 2)].to_vec());
    }
    shown(true, &|_| whole[1].clone());
    shown(true, &|bytes| vec![0; bytes.len()]);
}

#[test]
fn a_get_reads_only_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let store = options().open(folder.path().join("store")).unwrap();
    let port = store.port("quiet", &path("Quiet")).unwrap();
    let mut batches = Vec::new();
    for number in 0..400u32 {
        let key = if number % 37 == 36 { "Quiet\\Key" } else { "Busy" };
        let mut batch = Batch::at(&path(key));
        batch.create_key("").unwrap();
        batch.set_value("v", Value::binary([7; 300])).unwrap();
        let sequence = store.commit(batch).unwrap().sequence().unwrap();
        if key != "Busy" {
            batches.push(sequence);
        }
    }
    let sequences = |view: &JournalView| -> Vec<_> { view.batches().map(|batch| batch.sequence()).collect() };
    assert_eq!(sequences(&port.try_get().unwrap().unwrap()), batches);
    // The second frame of each sealed segment, where it is not the port's: its number, and that of the next segment's first.
    let segments = files(&folder.path().join("store/journal"), "segment");
    let first = |segment: &Path| -> u64 { segment.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let mut damaged = Vec::new();
    for pair in segments.windows(2) {
        let second = first(&pair[0]) + 1;
        if batches.contains(&second) {
            continue;
        }
        let mut bytes = fs::read(&pair[0]).unwrap();
        bytes[1000] ^= 1;
        fs::write(&pair[0], bytes).unwrap();
        damaged.push((second, first(&pair[1])));
    }
    port.rewind().unwrap();
    assert_eq!(sequences(&port.try_get().unwrap().unwrap()), batches);
    // Who reads the frames is told, in a process that has not verified them before; also where the port was shown what stands
    // behind them in the same segment.
    drop((port, store));
    let reader = options().open_reader(folder.path().join("store")).unwrap();
    let port = reader.open_port("quiet").unwrap();
    assert_eq!(sequences(&port.try_get().unwrap().unwrap()), batches);
    let mut behind = 0;
    for (second, next) in damaged {
        assert!(matches!(reader.log(second..=second), Err(Error::Damaged { .. })));
        behind += batches
            .iter()
            .filter(|batch| (second + 1..next).contains(batch))
            .count();
    }
    assert!(behind > 0);
}

#[test]
fn trimming_removes_sidecars_and_opening_removes_those_without_a_segment() {
    let home = home(6, 300);
    let store = home.open();
    home.check(&store);
    for at in 0..KEYS.len() {
        store.remove_port(&format!("p{at}")).unwrap();
    }
    let before = home.sidecars();
    for _ in 0..2 {
        store.snapshot().unwrap();
        let mut batch = Batch::at(&KeyPath::root());
        batch.set_value("v", Value::binary([7; 5000])).unwrap();
        store.commit(batch).unwrap();
    }
    assert!(store.trim().unwrap().segments > 5);
    let kept = home.sidecars();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_owned();
    let segments = files(&home.path().join("journal"), "segment");
    let segments: Vec<_> = segments.iter().map(stem).collect();
    assert!(kept.iter().all(|sidecar| segments.contains(&stem(sidecar))));
    drop(store);
    fs::copy(kept.first().unwrap_or(&before[0]), &before[0]).unwrap_or_else(|_| {
        fs::write(&before[0], "of a segment that is gone").unwrap();
        0
    });
    drop(home.open());
    assert!(!before[0].exists());
}

#[test]
fn a_check_tells_of_a_damaged_sidecar_and_a_repair_keeps_it_beside() {
    let home = home(7, 150);
    home.check(&home.open());
    assert!(options().check(home.path(), false).unwrap().is_whole());
    let sidecars = home.sidecars();
    // The last byte is one of a list, which nothing but the list's checksum covers.
    let mut bytes = fs::read(&sidecars[1]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&sidecars[1], bytes).unwrap();
    fs::copy(&sidecars[0], &sidecars[2]).unwrap();
    let report = options().check(home.path(), false).unwrap();
    let files = report.faults.iter().map(|fault| match fault {
        Error::Damaged { file, .. } => file.clone(),
        other => panic!("{other}"),
    });
    assert_eq!(
        files.collect::<Vec<_>>(),
        [sidecars[1].clone(), sidecars[2].clone()]
    );
    let repair = options().repair(home.path()).unwrap();
    assert_eq!(repair.lost, None);
    assert!(options().check(home.path(), false).unwrap().is_whole());
    assert!(!sidecars[1].exists());
    home.check(&home.open());
}

/// What a list names too much of does no harm: the filter decides. What it names too little of is a fault that a check finds.
#[test]
fn a_sidecar_that_says_less_than_its_segment_is_found_by_a_check() {
    let home = home(8, 150);
    home.check(&home.open());
    let sidecar = &home.sidecars()[0];
    let mut bytes = fs::read(sidecar).unwrap();
    // One frame fewer in the first list, and all checksums put right by hand.
    let entry = 72;
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let lists = u32_at(&bytes, 60) as usize;
    let frames = u32_at(&bytes, entry + 16);
    bytes[entry + 16..entry + 20].copy_from_slice(&(frames - 1).to_le_bytes());
    let begin = u64::from_le_bytes(bytes[entry + 8..entry + 16].try_into().unwrap()) as usize;
    let list = [
        &bytes[entry..entry + 8],
        &bytes[begin..begin + (frames as usize - 1) * 4],
    ]
    .concat();
    let checksum = crc32fast::hash(&list);
    bytes[entry + 20..entry + 24].copy_from_slice(&checksum.to_le_bytes());
    let table = crc32fast::hash(&bytes[72..72 + 24 * lists]);
    bytes[64..68].copy_from_slice(&table.to_le_bytes());
    let header = crc32fast::hash(&bytes[..68]);
    bytes[68..72].copy_from_slice(&header.to_le_bytes());
    fs::write(sidecar, bytes).unwrap();
    let report = options().check(home.path(), false).unwrap();
    assert!(
        matches!(&report.faults[..], [Error::Damaged { file, .. }] if file == sidecar),
        "{:?}",
        report.faults
    );
}
