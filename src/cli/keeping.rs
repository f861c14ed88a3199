//! The verbs that keep a store: `snapshot` and `trim`, which a program that has it open does by itself; `backup` and `restore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use clusdb::env::{Env, File, OsEnv};
use clusdb::{Error, Restored, Store};
use serde::Serialize;

use crate::args;
use crate::failure::{Failure, Result};
use crate::output::Line;
use crate::session::Session;

#[derive(Debug, Serialize)]
struct SnapshotJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl Line for SnapshotJson {
    fn text(&self) -> String {
        match self.sequence {
            Some(sequence) => format!("snapshot of the state after the record {sequence}"),
            None => "nothing to make a snapshot of".into(),
        }
    }
}

pub fn snapshot(session: &Session) -> Result {
    let store = session.open_existing()?;
    let sequence = store.snapshot()?;
    store.close()?;
    session.output().one(&SnapshotJson { sequence })
}

#[derive(Debug, Serialize)]
struct TrimJson {
    segments: u64,
    bytes: u64,
    first_sequence: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lagging: Vec<String>,
}

impl Line for TrimJson {
    fn text(&self) -> String {
        let lagging: String = self
            .lagging
            .iter()
            .map(|name| format!("\nthe port {name} was left behind"))
            .collect();
        format!(
            "{} segments, {} bytes are gone; the journal begins with the record {}{lagging}",
            self.segments, self.bytes, self.first_sequence
        )
    }
}

pub fn trim(session: &Session) -> Result {
    let store = session.open_existing()?;
    let trimmed = store.trim()?;
    store.close()?;
    session.output().one(&TrimJson {
        segments: trimmed.segments,
        bytes: trimmed.bytes,
        first_sequence: trimmed.oldest,
        lagging: trimmed.lagging,
    })
}

#[derive(Debug, Serialize)]
struct BackupJson {
    sequence: u64,
    epoch: String,
    copied_bytes: u64,
}

impl Line for BackupJson {
    fn text(&self) -> String {
        format!(
            "backup of the state after the record {}, {} bytes copied",
            self.sequence, self.copied_bytes
        )
    }
}

pub fn backup(session: &Session, arguments: &args::Backup) -> Result {
    let store = session.open_existing()?;
    let backup = store.backup(&arguments.folder)?;
    store.close()?;
    session.output().one(&BackupJson {
        sequence: backup.sequence,
        epoch: backup.epoch.to_string(),
        copied_bytes: backup.copied_bytes,
    })
}

#[derive(Debug, Serialize)]
struct RestoreJson {
    sequence: u64,
    epoch: String,
    parent: String,
    /// Where the store is that was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<PathBuf>,
}

impl RestoreJson {
    fn new(restored: &Restored, replaced: Option<PathBuf>) -> RestoreJson {
        RestoreJson {
            sequence: restored.sequence,
            epoch: restored.epoch.to_string(),
            parent: restored.parent.to_string(),
            replaced,
        }
    }
}

impl Line for RestoreJson {
    fn text(&self) -> String {
        let replaced = self.replaced.as_deref().map_or(String::new(), |path| {
            format!("\nthe store that was there is now {}", path.display())
        });
        format!(
            "restored to the record {} of epoch {}; epoch {} begins{replaced}",
            self.sequence, self.parent, self.epoch
        )
    }
}

pub fn restore(session: &Session, arguments: &args::Restore) -> Result {
    // Without a separator at its end.
    let path: &Path = &session.path()?.components().collect::<PathBuf>();
    let there = match arguments.replace {
        true => take(session, path)?,
        false => None,
    };
    let Some(_lock) = there else {
        let restored = Store::restore(&arguments.folder, path)?;
        return session.output().one(&RestoreJson::new(&restored, None));
    };
    // Made beside, with the ports of the one that is there, and then the two change places.
    let beside = free_name(path)?;
    let restored = Store::restore(&arguments.folder, &beside)?;
    keep_ports(path, &beside)?;
    exchange(path, &beside)?;
    session.output().one(&RestoreJson::new(&restored, Some(beside)))
}

/// Takes the lock of the store that is there, if one is: damaged or not, nobody else writes it.
fn take(session: &Session, path: &Path) -> Result<Option<Arc<dyn File>>> {
    if !path.join("store").exists() && !path.join("journal").exists() {
        return Ok(None);
    }
    let lock = path.join("lock");
    let failed = |error: io::Error| Failure::io("lock", &lock, &error);
    let file = match OsEnv.open_file(&lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => OsEnv.create_file(&lock),
        opened => opened,
    };
    let file = file.map_err(failed)?;
    let deadline = Instant::now() + session.wait;
    while !file.try_lock().map_err(failed)? {
        if Instant::now() >= deadline {
            let path = path.to_owned();
            return Err(Error::InUse { path }.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(file))
}

fn free_name(path: &Path) -> Result<PathBuf> {
    let mut names = (1..).map(|number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".replaced-{number}"));
        PathBuf::from(name)
    });
    let free = names.find(|name| !name.exists());
    free.ok_or_else(|| Failure::usage("usage", "too many stores were set aside"))
}

/// In one step where the system can, so that there is a store at the path at any moment.
fn exchange(path: &Path, beside: &Path) -> Result {
    let failed = |error: io::Error| Failure::io("replace", path, &error);
    match OsEnv.exchange(path, beside) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let mut between = beside.as_os_str().to_owned();
            between.push(".unfinished");
            fs::rename(path, &between).map_err(failed)?;
            fs::rename(beside, path).map_err(failed)?;
            fs::rename(&between, beside).map_err(failed)?;
        }
        exchanged => exchanged.map_err(failed)?,
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    OsEnv.sync_dir(parent).map_err(failed)
}

/// Ports of the store that was there go on where they stand, if that is in the history of the restored one; else they say so.
fn keep_ports(from: &Path, to: &Path) -> Result {
    let (from, to) = (from.join("ports"), to.join("ports"));
    let failed = |error: io::Error| Failure::io("copy the ports of", &from, &error);
    for entry in fs::read_dir(&from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_file = entry.file_type().map_err(failed)?.is_file();
        let path = entry.path();
        let is_port = ["port", "trimmed"]
            .iter()
            .any(|extension| path.extension().is_some_and(|found| found == *extension));
        if is_file && is_port {
            let copy = to.join(entry.file_name());
            fs::copy(&path, &copy).map_err(failed)?;
            fs::File::open(&copy)
                .and_then(|file| file.sync_all())
                .map_err(failed)?;
        }
    }
    OsEnv.sync_dir(&to).map_err(failed)
}
