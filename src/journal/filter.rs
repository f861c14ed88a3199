//! Which records a port shows, and so needs.

use std::sync::Arc;

use super::{Frame, FrameKind};
use crate::model::{Change, Changes, CommandKind, RecordView, Relation, Run, relation};

/// Which records of the journal a view shows, and what of them.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// Every record, plain writes too.
    Everything,
    /// What a port on this folded path shows (specification, section 3): the batches' commands at or below it, and
    /// the deletions of a key above it.
    Port(Arc<str>),
}

impl Filter {
    pub(crate) fn shows_record(&self, frame: &Frame<'_>) -> bool {
        match self {
            Filter::Everything => true,
            Filter::Port(key) if frame.meta.kind == FrameKind::Batch => {
                let record = RecordView::verified(frame.payload);
                if key.is_empty() {
                    return matches!(record.len(), 1..);
                }
                record.runs().any(|run| match relation(run.key, key) {
                    Relation::AtOrBelow => true,
                    Relation::Above => run.has_deletion(),
                    Relation::Apart => false,
                })
            }
            Filter::Port(_) => false,
        }
    }

    /// The key that shown paths are at or below, folded.
    pub(crate) fn key(&self) -> &str {
        match self {
            Filter::Everything => "",
            Filter::Port(key) => key,
        }
    }

    /// The changes of a run of which something may be shown, and whether all of them are, or deletions alone.
    pub(crate) fn shown_of<'a>(&self, run: Run<'a>) -> Option<(Changes<'a>, bool)> {
        let relation = match self {
            Filter::Everything => Relation::AtOrBelow,
            Filter::Port(key) => relation(run.key, key),
        };
        match relation {
            Relation::AtOrBelow => Some((run.changes(), true)),
            Relation::Above => Some((run.changes(), false)),
            Relation::Apart => None,
        }
    }
}

pub(crate) fn is_deletion(change: &Change<'_>) -> bool {
    change.kind() == CommandKind::DeleteKey
}
