//! The journal as another process writes it: its segments are opened as they come, and read as far as its head says.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::Frame;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::select::Sidecars;
use super::{Journal, Position};
use crate::env::{Env, File};
use crate::error::{Error, IoContext, Result};
use crate::format;
use crate::identity::Identity;
use crate::layout::Layout;
use crate::model::RecordView;
use crate::sync::{Mutex, lock};

impl Journal {
    /// Opens the segments that are there. Nothing of the last one may be read yet.
    ///
    /// # Errors
    /// Also those of a journal that was trimmed after its identity was read.
    pub(crate) fn follow(env: &Arc<dyn Env>, layout: &Layout, identity: &Identity) -> Result<Journal> {
        let journal = Journal {
            segments: Mutex::new(Vec::new()),
            // They are the writer's.
            sidecars: Sidecars {
                env: Arc::clone(env),
                layout: layout.clone(),
                are_made: false,
            },
        };
        journal.open_new_segments(&**env, layout, identity)?;
        let first = lock(&journal.segments)
            .first()
            .map(|segment| segment.header.first_sequence);
        if first != Some(identity.trim_base) {
            let path = layout.segment(identity.trim_base);
            return Err(Error::damaged(
                &path,
                0,
                "the journal's first segment",
                "no such file",
            ));
        }
        Ok(journal)
    }

    /// Makes everything up to this position readable, which is durable.
    pub(crate) fn catch_up(
        &self,
        env: &dyn Env,
        layout: &Layout,
        identity: &Identity,
        position: Position,
    ) -> Result<()> {
        let find = || {
            let segments = lock(&self.segments);
            let mut newest_first = segments.iter().rev();
            newest_first
                .find(|segment| segment.header.first_sequence == position.segment)
                .cloned()
        };
        let found = match find() {
            None => {
                self.open_new_segments(env, layout, identity)?;
                find()
            }
            found => found,
        };
        let Some(segment) = found else {
            let path = layout.segment(position.segment);
            let expected = format!("the segment of the record {}", position.sequence);
            return Err(Error::damaged(&path, 0, expected, "no such file"));
        };
        // If the file is shorter, reading the frame says so.
        segment.mark_stable(position.offset);
        Ok(())
    }

    /// A segment that another follows is sealed: all of it is as durable as it will ever be.
    fn open_new_segments(&self, env: &dyn Env, layout: &Layout, identity: &Identity) -> Result<()> {
        let folder = layout.journal();
        let names = env.list_dir(&folder).context("list", &folder)?;
        let mut firsts: Vec<_> = names
            .iter()
            .filter_map(|name| Layout::parse_segment(name))
            .filter(|first| *first >= identity.trim_base)
            .collect();
        firsts.sort_unstable();
        let mut segments = lock(&self.segments);
        let known = segments.last().map_or(0, |segment| segment.header.first_sequence);
        // What was trimmed is not held for ever by who reads it no more.
        segments.retain(|segment| firsts.binary_search(&segment.header.first_sequence).is_ok());
        for first in firsts.into_iter().filter(|first| *first > known) {
            let path = layout.segment(first);
            let file = match env.open_file(&path) {
                // Trimmed since the folder was listed, and all before it. Who begins, reads the store file anew.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && known > 0 => {
                    segments.clear();
                    continue;
                }
                opened => opened.context("open", &path)?,
            };
            let segment = open_segment(identity, first, path, file)?;
            if let Some(before) = segments.last() {
                let length = before.file.length().context("read the length of", &before.path)?;
                before.mark_stable(length);
            }
            segments.push(Arc::new(segment));
        }
        if segments.is_empty() {
            return Err(Error::damaged(&folder, 0, "a segment", "none"));
        }
        Ok(())
    }

    /// The last place that the journal itself says is durable: what is before the last segment, and in it what a later frame
    /// was written behind.
    pub(crate) fn vouched_end(&self) -> Result<Position> {
        let segments = lock(&self.segments).clone();
        let last = &segments[segments.len() - 1];
        let bytes = format::read_whole(&*last.file, &last.path, u64::MAX)?;
        let begin = Position {
            sequence: last.header.first_sequence - 1,
            checksum: last.header.previous,
            segment: last.header.first_sequence,
            offset: SEGMENT_HEADER_BYTES as u64,
        };
        let mut vouched = begin;
        let mut seen = vec![begin];
        let mut at = begin;
        while let Some(frame) = Frame::at(&bytes, at.offset as usize, &last.salt) {
            if frame.meta.sequence != at.sequence + 1 || frame.chain.previous != at.checksum {
                break;
            }
            let durable = frame.chain.durable_before;
            if let Some(position) = seen.iter().rev().find(|position| position.sequence <= durable)
                && position.sequence > vouched.sequence
            {
                vouched = *position;
                seen.retain(|position| position.sequence >= durable);
            }
            at = Position {
                sequence: frame.meta.sequence,
                checksum: frame.checksum,
                segment: at.segment,
                offset: at.offset + frame.bytes() as u64,
            };
            seen.push(at);
        }
        Ok(vouched)
    }
}

fn open_segment(identity: &Identity, first: u64, path: PathBuf, file: Arc<dyn File>) -> Result<Segment> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0).context("read", &path)?;
    let header = SegmentHeader::decode(&header, &path)?;
    let expected = (first, identity.epoch_of(first));
    if (header.first_sequence, header.epoch) != expected {
        let expected = format!("first sequence number {first}, epoch {}", expected.1);
        let found = format!("{}, {}", header.first_sequence, header.epoch);
        return Err(Error::damaged(&path, 0, expected, found));
    }
    Ok(Segment::new(path, header, file))
}

/// Gives the records behind `position` up to the sequence number `last`, verified, and moves the position along.
pub(crate) fn replay(
    journal: &Journal,
    position: &mut Position,
    last: u64,
    apply: &mut dyn FnMut(RecordView<'_>, i64),
) -> Result<()> {
    journal.scan(position, last, &mut |visited| {
        apply(visited.record, visited.frame.meta.time);
        Ok(true)
    })
}
