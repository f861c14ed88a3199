//! A small store, made once, whose files the fuzzer changes before it is opened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clusdb::{Batch, Epoch, Error, KeyPath, Options, Store, Value};

/// Where a patch goes: the file's number in this list.
const FILES: [&str; 5] = [
    "journal/00000000000000000001.segment",
    "journal/00000000000000000012.segment",
    "store",
    "head",
    "ports/p.port",
];
const PATCH_BYTES: usize = 5;

/// One change of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Of `FILES`.
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

/// Offsets of the frames in the segments, for seeds that hit a field.
#[must_use]
pub fn frames() -> Vec<(u8, u16)> {
    let mut frames = Vec::new();
    for (number, bytes) in master().iter().enumerate().take(2) {
        let ends = frame_ends(bytes);
        frames.extend(ends.iter().map(|(at, _)| (number as u8, *at as u16)));
    }
    frames
}

fn options() -> Options {
    Store::options().segment_size_bytes(4096).tree(false)
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

/// The bytes of each of `FILES`.
fn master() -> &'static [Vec<u8>] {
    static MASTER: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MASTER.get_or_init(|| {
        let home = folder();
        let path = home.path().join("store");
        let store = options()
            .epoch(Epoch::from_bytes([7; 16]))
            .open(&path)
            .expect("a new store");
        let port = store.port("p", &KeyPath::root()).expect("a new port");
        for number in 0..17_u32 {
            let mut batch = Batch::at(&KeyPath::parse(&format!("Key{}", number % 3)).expect("a path"));
            batch.create_key("").expect("a command");
            batch
                .set_value("v", Value::binary(vec![number as u8; 100]))
                .expect("a command");
            batch.set_value("w", Value::dword(number)).expect("a command");
            store.commit(batch).expect("a commit");
            if number == 4 {
                port.get()
                    .expect("a get")
                    .acknowledge()
                    .expect("an acknowledgement");
            }
        }
        // Not closed: as a kill leaves it.
        FILES
            .iter()
            .map(|file| fs::read(path.join(file)).expect("a file of the store"))
            .collect()
    })
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

/// Puts all checksums right, and the chain of the frames.
fn seal(file: usize, bytes: &mut [u8]) {
    let put =
        |bytes: &mut [u8], at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    if bytes.len() < 128 {
        return;
    }
    let crc = crc32fast::hash(&bytes[..12]);
    put(bytes, 12, crc);
    match file {
        0 | 1 => {
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
        3 => {
            let crc = crc32fast::hash(&[&bytes[32..36], &bytes[40..104]].concat());
            put(bytes, 36, crc);
        }
        4 => {
            for slot in [4096, 8192] {
                if bytes.len() >= slot + 64 {
                    let crc = crc32fast::hash(&bytes[slot..slot + 60]);
                    put(bytes, slot + 60, crc);
                }
            }
        }
        _ => {
            let end = bytes.len() - 8;
            let crc = crc32fast::hash(&bytes[..end]);
            put(bytes, end, crc);
        }
    }
}

fn write_patched(path: &Path, data: &[u8]) {
    let mut files: Vec<Option<Vec<u8>>> = master().iter().cloned().map(Some).collect();
    for patch in data.chunks_exact(PATCH_BYTES) {
        let number = usize::from(patch[0]) % FILES.len();
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
                    seal(number, bytes);
                }
            }
        }
    }
    for folder in ["", "journal", "ports"] {
        fs::create_dir_all(path.join(folder)).expect("a folder");
    }
    for (name, bytes) in FILES.iter().zip(files) {
        if let Some(bytes) = bytes {
            fs::write(path.join(name), bytes).expect("a file");
        }
    }
    fs::write(path.join("lock"), "").expect("a file");
}

/// What a reader sees.
fn see(store: &Store) -> (Vec<clusdb::Entry>, Vec<String>) {
    let entries = store.list_recursive(&KeyPath::root()).expect("an open store");
    let log = store.log(1..=u64::MAX).expect("recovered records are whole");
    let changes = log.batches().flat_map(|batch| {
        batch
            .changes()
            .map(move |change| format!("{} {change:?}", batch.sequence()))
    });
    (entries, changes.collect())
}

/// Opens a store whose files were patched. Refused by name, or whole: what it shows, it shows again when it was opened
/// again, and it takes commits.
pub fn open_patched(data: &[u8]) {
    let home = folder();
    let path: PathBuf = home.path().join("store");
    write_patched(&path, data);
    let store = match options().open(&path) {
        Ok(store) => store,
        Err(Error::Damaged { .. } | Error::UnsupportedVersion { .. } | Error::CaseTable { .. }) => return,
        // A directory without its store file is no store; with other files of one, a foreign one.
        Err(Error::ForeignDirectory { .. }) => return,
        Err(error) => panic!("{error:?}"),
    };
    if let Ok(port) = store.open_port("p") {
        let _ = port.try_get().map(|got| got.map(|got| got.acknowledge()));
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
    let store = options().open(&path).expect("a store that was closed");
    assert_eq!(store.torn_tail(), None);
    assert_eq!(see(&store), seen);
}
