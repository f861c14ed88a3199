//! Where a port stands: its file, and the acknowledgements that the journal holds and the file does not have yet.

use super::PortInfo;
use crate::engine::Source;
use crate::error::{Error, IoContext, Result, TrimReason};
use crate::journal::{Filter, ListId, Position};
use crate::layout::Layout;
use crate::port_file::{Cursor, PortFile};
use crate::trim_note::{Lost, TrimNote};

/// Opens the file of a port, whose epoch must be one of the store's.
pub(super) fn open_file(source: &dyn Source, name: &str) -> Result<PortFile> {
    let path = source.layout().port(name);
    let file = match PortFile::open(source.env(), &path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let name = name.to_owned();
            return Err(Error::PortNotFound { name });
        }
        opened => opened?,
    };
    // Nothing was committed under the number 0: it belongs to every history.
    if file.cursor.sequence > 0 && source.epoch_of(file.cursor.sequence) != file.cursor.epoch {
        return Err(Error::EpochMismatch {
            name: name.to_owned(),
            found: file.cursor.epoch,
        });
    }
    Ok(file)
}

pub(super) fn cursor_at(source: &dyn Source, position: Position, as_of: u64) -> Cursor {
    Cursor {
        epoch: source.epoch_of(position.sequence),
        sequence: position.sequence,
        frame_checksum: position.checksum,
        as_of,
    }
}

/// Brings the cursor up to the last acknowledgement of this port that was committed with a batch. The file has those up to
/// its `as_of`; the note of a trimming those that went with it, and the journal remembers the others, which are newer.
pub(super) fn fold_acknowledgements(source: &dyn Source, file: &mut PortFile) -> Result<()> {
    loop {
        match fold(source, file) {
            // While it was looked at: the note has what went with it.
            Err(Error::Trimmed { .. }) => {}
            folded => return folded,
        }
    }
}

fn fold(source: &dyn Source, file: &mut PortFile) -> Result<()> {
    if let Ok(Some(note)) = read_note(source, file)
        && note.cursor.sequence > file.cursor.sequence
    {
        file.cursor = note.cursor;
    }
    let visible = source.position()?;
    // Of another branch of the history it says nothing.
    let as_of = file.cursor.as_of.min(source.end_of(file.cursor.epoch));
    if as_of >= visible.sequence {
        return Ok(());
    }
    let mut found = None;
    let mut position = source.journal().position_after(as_of)?;
    let lists = [ListId::acknowledgements(&file.head.id)];
    source
        .journal()
        .select(&lists, &mut position, visible, &mut |visited| {
            let own = visited
                .record
                .acknowledgement()
                .filter(|own| own.port_id == file.head.id);
            if let Some(acknowledged) = own {
                let sequence = visited.frame.meta.sequence;
                if acknowledged.sequence >= sequence {
                    let expected = format!("an acknowledgement of a record before {sequence}");
                    let found = acknowledged.sequence.to_string();
                    return Err(Error::damaged(
                        visited.path,
                        visited.offset as u64,
                        expected,
                        found,
                    ));
                }
                found = Some((acknowledged.sequence, sequence));
            }
            Ok(true)
        })?;
    // A cursor never goes back: what was acknowledged after a commit failed, and of which the file tells, is ahead of what
    // the commit left in the journal.
    if let Some((sequence, as_of)) = found.filter(|(sequence, _)| *sequence > file.cursor.sequence) {
        let at = source.journal().position_after(sequence)?;
        file.cursor = Cursor {
            epoch: source.epoch_of(sequence),
            sequence,
            // Of a record that is gone, nobody asks for it.
            frame_checksum: if at.sequence == sequence { at.checksum } else { 0 },
            as_of,
        };
    }
    Ok(())
}

fn read_note(source: &dyn Source, file: &PortFile) -> Result<Option<TrimNote>> {
    let path = source.layout().trim_note(&file.head.name);
    let note = TrimNote::read(source.env(), &path, file.head.id)?;
    Ok(note.filter(|note| note.is_of(|sequence| source.epoch_of(sequence))))
}

/// Where a port goes on that has come up to this sequence number.
///
/// # Errors
/// `Lagged` if something that it would have shown behind that is gone.
pub(super) fn place_after(source: &dyn Source, file: &PortFile, sequence: u64) -> Result<Position> {
    loop {
        let oldest = source.journal().first_sequence();
        let (wanted, position) = place_from(source, file, sequence, oldest)?;
        // Else it was trimmed meanwhile, and another note tells of that.
        if position.sequence == wanted {
            return Ok(position);
        }
    }
}

/// The record behind which the port goes on, and its place, where the journal begins with this one.
fn place_from(source: &dyn Source, file: &PortFile, sequence: u64, oldest: u64) -> Result<(u64, Position)> {
    let journal = source.journal();
    if sequence + 1 >= oldest {
        return Ok((sequence, journal.position_after(sequence)?));
    }
    let note = read_note(source, file).ok().flatten();
    let note = note.filter(|note| note.trimmed_to + 1 >= oldest);
    let lost = match note {
        Some(note) => note.lost.filter(|lost| lost.last > sequence),
        // Nothing is known of what is gone, so that something may have been for the port.
        None => Some(Lost {
            first: sequence + 1,
            last: oldest - 1,
            time: 0,
            reason: TrimReason::Unknown,
        }),
    };
    match lost {
        None => Ok((oldest - 1, journal.position_after(oldest - 1)?)),
        Some(lost) => {
            let asked = lost.first.max(sequence + 1);
            Err(Error::Lagged {
                name: file.head.name.clone(),
                epoch: source.epoch_of(asked),
                asked,
                oldest,
                time: lost.time,
                reason: lost.reason,
            })
        }
    }
}

/// The place of a port's cursor; where the port is left behind, one before the journal's beginning, and a get says so.
pub(super) fn place(source: &dyn Source, file: &PortFile) -> Result<Position> {
    let Cursor {
        sequence,
        frame_checksum,
        ..
    } = file.cursor;
    match place_after(source, file, sequence) {
        Err(Error::Lagged { .. }) => Ok(Position {
            sequence,
            checksum: frame_checksum,
            segment: 0,
            offset: 0,
        }),
        place => place,
    }
}

/// How a port stands, for a list of all.
pub(super) fn info(source: &dyn Source, name: &str) -> Result<PortInfo> {
    loop {
        match open_file(source, name).and_then(|file| look(source, file)) {
            // While it was looked at; what is there now counts.
            Err(Error::Trimmed { .. }) => {}
            info => return info,
        }
    }
}

fn look(source: &dyn Source, mut file: PortFile) -> Result<PortInfo> {
    fold_acknowledgements(source, &mut file)?;
    let journal = source.journal();
    let end = source.position()?;
    let is_lagging = match place_after(source, &file, file.cursor.sequence) {
        Err(Error::Lagged { .. }) => true,
        placed => placed.map(|_| false)?,
    };
    let sequence = file.cursor.sequence.max(journal.first_sequence() - 1);
    let mut position = journal.position_after(sequence)?;
    let filter = Filter::Port(file.head.key.folded().into());
    let (mut pending, mut first) = (0, None);
    journal.scan_shown(&filter, &mut position, end, &mut |visited| {
        pending += 1;
        first.get_or_insert(visited.frame.meta.sequence);
        Ok(true)
    })?;
    let (mut lag_bytes, mut bytes_until_lost) = (0, None);
    if let Some(first) = first {
        let first = journal.position_after(first - 1)?;
        lag_bytes = journal.bytes_between(first, end)?;
        let held = journal.bytes_from(first.sequence + 1)?;
        let limit = source.journal_limit_bytes();
        bytes_until_lost = Some(limit.saturating_sub(held));
    }
    Ok(PortInfo {
        name: file.head.name,
        key: file.head.key,
        acknowledged: file.cursor.sequence,
        pending,
        lag_bytes,
        bytes_until_lost,
        is_lagging,
        fault: None,
    })
}

/// The names of all ports, in order.
pub(crate) fn names(source: &dyn Source) -> Result<Vec<String>> {
    let ports = source.layout().ports();
    let files = source.env().list_dir(&ports).context("list", &ports)?;
    let names = files.iter().filter_map(|name| Layout::parse_port(name));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}
