//! Where a port stands: its file, and the acknowledgements that the journal holds and the file does not have yet.

use crate::engine::Source;
use crate::error::{Error, IoContext, Result};
use crate::journal::Position;
use crate::layout::Layout;
use crate::model::RecordView;
use crate::port_file::{Cursor, PortFile};

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
    if !source.has_epoch(file.cursor.epoch) {
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
/// its `as_of`; the journal remembers the others, and they are newer.
pub(super) fn fold_acknowledgements(source: &dyn Source, file: &mut PortFile) -> Result<()> {
    let visible = source.position()?.sequence;
    if file.cursor.as_of >= visible {
        return Ok(());
    }
    let mut found = None;
    let mut position = source.journal().position_after(file.cursor.as_of)?;
    source.journal().scan(&mut position, visible, &mut |visited| {
        let record = RecordView::verified(visited.frame.payload);
        let own = record.acknowledgement().filter(|own| own.port_id == file.head.id);
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
        file.cursor = cursor_at(source, source.journal().position_after(sequence)?, as_of);
    }
    Ok(())
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
