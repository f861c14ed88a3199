//! The verbs that keep a store: `snapshot` and `trim`, which a program that has it open does by itself; `backup` and `restore`.

use std::fs;
use std::path::{Path, PathBuf};

use clusdb::Store;
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
    let path = session.path()?;
    let replaced = match arguments.replace {
        true => set_aside(session, path)?,
        false => None,
    };
    let restored = Store::restore(&arguments.folder, path);
    if let (Err(_), Some(aside)) = (&restored, &replaced) {
        rename(aside, path)?;
    }
    let restored = restored?;
    if let Some(aside) = &replaced {
        keep_ports(aside, path)?;
    }
    session.output().one(&RestoreJson {
        sequence: restored.sequence,
        epoch: restored.epoch.to_string(),
        parent: restored.parent.to_string(),
        replaced,
    })
}

/// Sets the store aside that is there, if one is and nobody writes it. One that is damaged too.
fn set_aside(session: &Session, path: &Path) -> Result<Option<PathBuf>> {
    match session.open_existing().and_then(|store| Ok(store.close()?)) {
        Err(failure) if failure.is_not_found() => return Ok(None),
        Err(failure) if !failure.is_damage() => return Err(failure),
        _ => {}
    }
    let aside = (1..)
        .map(|number: u32| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".replaced-{number}"));
            PathBuf::from(name)
        })
        .find(|aside| !aside.exists());
    let aside = aside.ok_or_else(|| Failure::usage("usage", "too many stores were set aside"))?;
    rename(path, &aside)?;
    Ok(Some(aside))
}

/// Ports of the store that was there go on where they stand, if that is in the history of the restored one; else they say so.
fn keep_ports(from: &Path, to: &Path) -> Result {
    let (from, to) = (from.join("ports"), to.join("ports"));
    let failed = |error: std::io::Error| Failure::io("copy the ports of", &from, &error);
    for entry in fs::read_dir(&from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let is_port = ["port", "trimmed"]
            .iter()
            .any(|extension| path.extension().is_some_and(|found| found == *extension));
        if is_port {
            fs::copy(&path, to.join(entry.file_name())).map_err(failed)?;
        }
    }
    fs::File::open(&to)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

fn rename(from: &Path, to: &Path) -> Result {
    fs::rename(from, to).map_err(|error| Failure::io("rename", from, &error))
}
