//! A small store, made once, whose files the fuzzer changes before it is opened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clusdb::{Batch, Epoch, Error, KeyPath, OpenedFrom, Options, Port, Store, Value};

/// A small store, or the backup of one: its files, each by its name and bytes, in order.
type Master = Vec<(String, Vec<u8>)>;

const PATCH_BYTES: usize = 5;

/// One change of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// The file's number.
    pub file: u8,
    pub offset: u16,
    pub byte: u8,
    /// 0: put the byte there. 1: and then put all checksums of the file right. 2: cut the file there. 3: remove it.
    pub action: u8,
}

#[must_use]
pub fn encode_patches(patches: &[Patch]) -> Vec<u8> {
    let encode = |patch: &Patch| {
        let [low, high] = patch.offset.to_le_bytes();
        [patch.file, low, high, patch.byte, patch.action]
    };
    patches.iter().flat_map(encode).collect()
}

/// Files of the store that the fuzzer patches, with the offsets of fields in them, for seeds that hit one.
#[must_use]
pub fn fields(master: &[(String, Vec<u8>)]) -> Vec<(u8, u16)> {
    let mut fields = Vec::new();
    for (number, (name, bytes)) in master.iter().enumerate() {
        let offsets = match kind(name) {
            Kind::Segment => frame_ends(bytes).iter().map(|(at, _)| *at).collect(),
            Kind::Snapshot => blocks(bytes).iter().map(|(at, _)| *at).collect(),
            _ => vec![0],
        };
        fields.extend(offsets.into_iter().map(|at| (number as u8, at as u16)));
    }
    fields
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Segment,
    Snapshot,
    Port,
    Head,
    /// Ends with the CRC of all before it, and so many zeroes.
    Whole(usize),
}

fn kind(name: &str) -> Kind {
    match name.rsplit(['.', '/']).next() {
        Some("segment") => Kind::Segment,
        Some("snapshot") => Kind::Snapshot,
        Some("port") => Kind::Port,
        Some("head") => Kind::Head,
        Some("store") => Kind::Whole(4),
        _ => Kind::Whole(0),
    }
}

fn options() -> Options {
    Store::options().segment_size_bytes(4096).tree(false).keep(false)
}

fn folder() -> tempfile::TempDir {
    // In memory where that is to be had: the disk is not what is tested.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    folder.expect("a folder")
}

fn new_store(path: &Path) -> Store {
    let epoch = Epoch::from_bytes([7; 16]);
    options().epoch(epoch).open(path).expect("a new store")
}

fn commit(store: &Store, number: u32) {
    let mut batch = Batch::at(&KeyPath::parse(&format!("Key{}", number % 3)).expect("a path"));
    batch.create_key("").expect("a command");
    batch
        .set_value("v", Value::binary(vec![number as u8; 100]))
        .expect("a command");
    batch.set_value("w", Value::dword(number)).expect("a command");
    store.commit(batch).expect("a commit");
}

/// As a kill leaves it.
#[must_use]
pub fn killed() -> &'static Master {
    static MASTER: OnceLock<Master> = OnceLock::new();
    MASTER.get_or_init(|| {
        let home = folder();
        let path = home.path().join("store");
        let store = new_store(&path);
        let port = store.port("p", &KeyPath::root()).expect("a new port");
        for number in 0..17 {
            commit(&store, number);
            if number == 4 {
                let got = port.get().expect("a get");
                got.acknowledge().expect("an acknowledgement");
            }
        }
        read_files(&path)
    })
}

/// Trimmed: with two snapshots, and notes on two ports, of which one was left behind.
#[must_use]
pub fn trimmed() -> &'static Master {
    static MASTER: OnceLock<Master> = OnceLock::new();
    MASTER.get_or_init(|| {
        let home = folder();
        let path = home.path().join("store");
        make_trimmed(&path);
        read_files(&path)
    })
}

fn make_trimmed(path: &Path) -> Store {
    let epoch = Epoch::from_bytes([7; 16]);
    let limited = options().epoch(epoch).journal_limit_bytes(4096);
    let store = limited.open(path).expect("a new store");
    for (name, key) in [("p", ""), ("quiet", "Quiet")] {
        let key = KeyPath::parse(key).expect("a path");
        drop(store.port(name, &key).expect("a new port"));
    }
    for number in 0..40 {
        commit(&store, number);
        if [25, 34].contains(&number) {
            store.snapshot().expect("a snapshot");
        }
    }
    assert!(store.trim().expect("a trimming").segments > 0);
    store
}

/// A backup of that.
#[must_use]
pub fn backup() -> &'static Master {
    static MASTER: OnceLock<Master> = OnceLock::new();
    MASTER.get_or_init(|| {
        let home = folder();
        let store = make_trimmed(&home.path().join("store"));
        let path = home.path().join("backup");
        store.backup(&path).expect("a backup");
        read_files(&path)
    })
}

const FOLLOWED: &str = "Key1";

/// With a port that has got all, and acknowledged nothing, and a sidecar for each sealed segment.
#[must_use]
pub fn indexed() -> &'static Master {
    static MASTER: OnceLock<Master> = OnceLock::new();
    MASTER.get_or_init(|| {
        let home = folder();
        let path = home.path().join("store");
        let store = new_store(&path);
        let key = KeyPath::parse(FOLLOWED).expect("a path");
        let port = store.port("p", &key).expect("a new port");
        for number in 0..48 {
            commit(&store, number);
        }
        assert_eq!(shown(&port), expected());
        store.close().expect("a clean close");
        read_files(&path)
    })
}

fn shown(port: &Port) -> Vec<u64> {
    let got = port.try_get().expect("a get").expect("batches");
    got.batches().map(|batch| batch.sequence()).collect()
}

/// Of the keys of `commit`, every third is the port's.
fn expected() -> Vec<u64> {
    (0..48u64)
        .filter(|number| number % 3 == 1)
        .map(|number| number + 1)
        .collect()
}

/// Shows what a port has to show, whatever stands in the sidecars.
pub fn follow_patched(data: &[u8]) {
    let home = folder();
    let path = home.path().join("store");
    let is_sidecar = |name: &str| name.ends_with(".index");
    let (sidecars, others): (Master, Master) =
        indexed().iter().cloned().partition(|(name, _)| is_sidecar(name));
    write_patched(&others, &path, b"");
    write_patched(&sidecars, &path, data);
    fs::write(path.join("lock"), "").expect("a file");
    let store = options().open(&path).expect("a store");
    let port = store.open_port("p").expect("a port");
    assert_eq!(shown(&port), expected());
}

/// All files that are not empty.
fn read_files(root: &Path) -> Master {
    fn visit(root: &Path, folder: &Path, files: &mut Master) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                visit(root, &path, files);
                continue;
            }
            let bytes = fs::read(&path).expect("a file");
            let name = path.strip_prefix(root).expect("a name").to_str().expect("text");
            if !bytes.is_empty() {
                files.push((name.to_owned(), bytes));
            }
        }
    }
    let mut files = Vec::new();
    visit(root, root, &mut files);
    files.sort();
    files
}

/// Where each frame begins and ends, as far as the lengths lead.
fn frame_ends(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut frames, mut at) = (Vec::new(), 128);
    while let Some(header) = bytes.get(at..at + 64) {
        let length = u32::from_le_bytes(header[16..20].try_into().expect("four bytes")) as usize;
        let end = at + 64 + length.next_multiple_of(8);
        if header.iter().all(|byte| *byte == 0) || end > bytes.len() {
            break;
        }
        frames.push((at, end));
        at = end;
    }
    frames
}

/// Where each block of a snapshot begins and ends, as far as the lengths lead.
fn blocks(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut blocks, mut at) = (Vec::new(), 16);
    while let Some(header) = bytes.get(at..at + 16) {
        let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
        let end = at.saturating_add(16).saturating_add(length);
        if end > bytes.len() {
            break;
        }
        blocks.push((at, end));
        at = end;
    }
    blocks
}

/// Puts all checksums right, and the chain of the frames.
fn seal(kind: Kind, bytes: &mut [u8]) {
    fn put(bytes: &mut [u8], at: usize, value: u32) {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    if bytes.len() < 100 {
        return;
    }
    let crc = crc32fast::hash(&bytes[..12]);
    put(bytes, 12, crc);
    match kind {
        Kind::Segment if bytes.len() >= 128 => {
            let crc = crc32fast::hash(&bytes[..124]);
            put(bytes, 124, crc);
            let nonce = bytes[32..48].to_vec();
            let mut previous = u32::from_le_bytes(bytes[64..68].try_into().expect("four bytes"));
            for (at, end) in frame_ends(bytes) {
                put(bytes, at + 4, previous);
                let covered = [&nonce, &(at as u64).to_le_bytes()[..], &bytes[at + 4..end]].concat();
                previous = crc32fast::hash(&covered);
                put(bytes, at, previous);
            }
        }
        Kind::Snapshot => {
            for (at, end) in blocks(bytes) {
                if end - at == 16 + 80 {
                    let crc = crc32fast::hash(&bytes[end - 80..end - 4]);
                    put(bytes, end - 4, crc);
                }
                let covered = [
                    &(at as u64).to_le_bytes()[..],
                    &bytes[at..at + 8],
                    &bytes[at + 12..end],
                ];
                let crc = crc32fast::hash(&covered.concat());
                put(bytes, at + 8, crc);
            }
        }
        Kind::Head if bytes.len() >= 112 => {
            let crc = crc32fast::hash(&[&bytes[32..36], &bytes[40..112]].concat());
            put(bytes, 36, crc);
        }
        Kind::Port => {
            for slot in [4096, 8192] {
                if bytes.len() >= slot + 64 {
                    let crc = crc32fast::hash(&bytes[slot..slot + 60]);
                    put(bytes, slot + 60, crc);
                }
            }
        }
        Kind::Whole(zeroes) => {
            let end = bytes.len() - 4 - zeroes;
            let crc = crc32fast::hash(&bytes[..end]);
            put(bytes, end, crc);
        }
        _ => {}
    }
}

fn write_patched(master: &Master, path: &Path, data: &[u8]) {
    let mut files: Vec<Option<Vec<u8>>> = master.iter().map(|(_, bytes)| Some(bytes.clone())).collect();
    for patch in data.chunks_exact(PATCH_BYTES) {
        let number = usize::from(patch[0]) % files.len();
        let Some(bytes) = &mut files[number] else { continue };
        let at = usize::from(u16::from_le_bytes([patch[1], patch[2]])) % (bytes.len() + 1);
        match patch[4] % 4 {
            2 => bytes.truncate(at),
            3 => files[number] = None,
            action => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = patch[3];
                }
                if action == 1 {
                    seal(kind(&master[number].0), bytes);
                }
            }
        }
    }
    for folder in ["", "journal", "ports", "snapshots"] {
        fs::create_dir_all(path.join(folder)).expect("a folder");
    }
    for ((name, _), bytes) in master.iter().zip(files) {
        if let Some(bytes) = bytes {
            let path = path.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, bytes).expect("a file");
        }
    }
}

/// What a reader sees.
fn see(store: &Store) -> (Vec<clusdb::Entry>, Vec<String>) {
    let entries = store.list_recursive(&KeyPath::root()).expect("an open store");
    let log = match store.log(1..=u64::MAX) {
        Ok(log) => log,
        // What stands before a snapshot is not read by an opening, but by who asks for it.
        Err(error) => {
            let from = store.stat().expect("an open store").opened_from;
            assert!(is_refusal(&error) && from == OpenedFrom::Snapshot, "{error:?}");
            return (entries, vec!["damaged".to_owned()]);
        }
    };
    let changes = log.batches().flat_map(|batch| {
        batch
            .changes()
            .map(move |change| format!("{} {change:?}", batch.sequence()))
    });
    (entries, changes.collect())
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Damaged { .. } | Error::UnsupportedVersion { .. } | Error::CaseTable { .. }
    )
}

/// Opens a store whose files were patched. Refused by name, or whole: what it shows, it shows again when it was opened
/// again, and it takes commits. One that is refused is checked, and opens once it is repaired.
pub fn open_patched(master: &Master, data: &[u8]) {
    let home = folder();
    let path: PathBuf = home.path().join("store");
    write_patched(master, &path, data);
    fs::write(path.join("lock"), "").expect("a file");
    match options().open(&path) {
        Ok(store) => use_store(&path, store),
        // A directory without its store file is no store; with other files of one, a foreign one.
        Err(Error::ForeignDirectory { .. }) => {}
        Err(error) if is_refusal(&error) => repair(&path),
        Err(error) => panic!("{error:?}"),
    }
}

fn repair(path: &Path) {
    let report = match options().check(path, true) {
        Ok(report) => report,
        Err(Error::StoreNotFound { .. }) => return,
        Err(error) => panic!("{error:?}"),
    };
    assert!(!report.is_whole(), "a store that does not open has a fault");
    match options().repair(path) {
        Ok(_) => {
            let report = options().check(path, true).expect("a check");
            assert!(report.is_whole(), "{:?}", report.faults);
            use_store(path, options().open(path).expect("a store that was repaired"));
        }
        // Nothing is left to start from.
        Err(error) => assert!(is_refusal(&error), "{error:?}"),
    }
}

fn use_store(path: &Path, store: Store) {
    for name in ["p", "quiet"] {
        if let Ok(port) = store.open_port(name) {
            let _ = port.try_get().map(|got| got.map(|got| got.acknowledge()));
        }
    }
    let last = store.stat().expect("an open store").durable_sequence;
    let mut batch = Batch::at(&KeyPath::root());
    batch
        .create_key("After")
        .expect("a command")
        .set_value("v", Value::dword(1))
        .expect("a command");
    match store.commit(batch) {
        Ok(commit) => assert_eq!(commit.sequence(), Some(last + 1)),
        // A record may have left a key whose path is too deep for one more; nothing else.
        Err(error) => assert!(matches!(error, Error::Batch(_)), "{error:?}"),
    }
    let seen = see(&store);
    store.close().expect("a clean close");
    drop(store);
    let store = options().open(path).expect("a store that was closed");
    assert_eq!(store.torn_tail(), None);
    assert_eq!(see(&store), seen);
}

/// Restores a backup whose files were patched: it is refused by name, and leaves nothing, or is a store that works.
pub fn restore_patched(data: &[u8]) {
    let home = folder();
    let (from, to) = (home.path().join("backup"), home.path().join("store"));
    write_patched(backup(), &from, data);
    match options().restore(&from, &to) {
        Ok(restored) => {
            let store = options().open(&to).expect("a store that was restored");
            assert_eq!(
                store.stat().expect("an open store").durable_sequence,
                restored.sequence
            );
            use_store(&to, store);
        }
        Err(error) => {
            assert!(
                is_refusal(&error) || matches!(error, Error::BackupNotFound { .. }),
                "{error:?}"
            );
            assert!(!to.exists());
        }
    }
}
