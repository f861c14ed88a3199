//! Opening a store, and what it takes on the disk and in memory.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Bench, Measured, Workload, millis, role, timed};
use crate::child;
use crate::figures::{Measure, Role, Side};
use crate::number::count;
use crate::peers::Store;
use crate::work::{VALUES_PER_KEY, load, read_batch, read_key, read_name};

pub const WORKLOAD: Workload = Workload {
    name: "open",
    title: "Opening, and what a store takes",
    about: "100,000 and 1,000,000 values of 40 bytes, 10 a key, each batch of 10 with its change entry. Opening ends with the first value read, its files in the \
            kernel's cache. After a kill: a process of its own has committed 300 batches of 10 commands and was killed by SIGKILL. On the disk: \
            the blocks of all files after a clean close, change entries included, for each byte of keys, names and data. Memory: what a process \
            of its own has more of after opening and one iteration over everything, for each such byte; what no file backs, all that is \
            resident, and what the C library's allocator has given out (Rust's and C's stores alike). clusdb also without the copy of its state behind the journal (`Options::tree`). Raw: reading as many bytes.",
    run,
};

const SIZES: [u64; 2] = [100_000, 1_000_000];

/// What the measures of a store are, in order.
fn measures(values: u64) -> Vec<Measure> {
    let values = count(values);
    let of = |what: &str, unit| Measure::lower(format!("{what}, {values} values"), unit);
    let bytes = "bytes/byte";
    vec![
        of("opening after a clean close", "ms"),
        of("opening after a kill", "ms"),
        of("on the disk", bytes),
        of("memory that no file backs", bytes),
        of("resident memory", bytes),
        of("allocated memory", bytes),
    ]
}

fn run(bench: &Bench<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    for full in SIZES {
        let keys = bench.count_from(10, full / VALUES_PER_KEY);
        let folder = bench.folder.join(full.to_string());
        let mut opened = bench.open_all(&folder, &[])?;
        opened.push(bench.open(Store::Treeless, &folder, &[])?);
        let stores: Vec<_> = opened.iter().map(|one| one.store).collect();
        bench.for_each(&opened, |peer| load(peer, 0..keys, read_batch))?;
        for one in opened {
            one.peer.close()?;
            // A kill leaves its commits behind: not in the store that is weighed.
            let name = one.store.name();
            copy(&folder.join(name), &folder.join(format!("{name}-killed")))?;
        }
        let logical = logical_bytes(keys);
        let raw = folder.join("raw");
        fs::write(&raw, vec![0xa5; logical as usize])?;
        let mut sides = vec![Side::new("raw: reading the bytes", Role::Raw, || {
            let mut bytes = Vec::new();
            let time = timed(|| {
                fs::File::open(&raw)?.read_to_end(&mut bytes)?;
                Ok(())
            })?;
            ensure!(bytes.len() as u64 == logical, "the file is too short");
            Ok(vec![
                Some(millis(time)),
                Some(millis(time)),
                Some(1.0),
                Some(1.0),
                Some(1.0),
                Some(1.0),
            ])
        })];
        for store in stores {
            let (name, folder) = (store.name(), &folder);
            sides.push(Side::new(name, role(store), move || {
                measure(
                    store,
                    &folder.join(name),
                    &folder.join(format!("{name}-killed")),
                    logical,
                )
            }));
        }
        measured
            .figures
            .extend(bench.take_turns(measures(keys * VALUES_PER_KEY), sides)?);
        measured.notes.push(format!(
            "{} values have {} bytes.",
            count(keys * VALUES_PER_KEY),
            count(logical)
        ));
    }
    Ok(measured)
}

/// Each key's path once, and names and data.
fn logical_bytes(keys: u64) -> u64 {
    let value = read_name(0).len() as u64 + 40;
    (0..keys)
        .map(|key| read_key(key).as_str().len() as u64 + VALUES_PER_KEY * value)
        .sum()
}

fn measure(store: Store, folder: &Path, to_kill: &Path, logical: u64) -> Result<Vec<Option<f64>>> {
    let each = |bytes: u64| bytes as f64 / logical as f64;
    let clean = time_opening(store, folder)?;
    let disk = blocks(folder)?;
    let taken = child::memory(store, folder)?;
    child::kill_behind_commits(store, to_kill)?;
    let killed = time_opening(store, to_kill)?;
    Ok(vec![
        Some(millis(clean)),
        Some(millis(killed)),
        Some(each(disk)),
        Some(each(taken.anonymous)),
        Some(each(taken.resident)),
        taken.allocated.map(each),
    ])
}

/// Opens it, reads a value, and closes it again.
fn time_opening(store: Store, folder: &Path) -> Result<Duration> {
    let began = Instant::now();
    let peer = store.open(folder, &[])?;
    let found = peer.get(&read_key(1), &read_name(1), &mut |_| {})?;
    let time = began.elapsed();
    ensure!(found, "a value is missing");
    peer.close()?;
    Ok(time)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    let status = copy.arg("-r").args([from, to]).status()?;
    ensure!(status.success(), "{} could not be copied", from.display());
    Ok(())
}

/// Bytes of the blocks that the files below this folder have.
fn blocks(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}
