//! Commits: a group of batches is evaluated in order, appended with one write and one sync, applied, and only then
//! shown and answered.

use std::sync::PoisonError;

use super::Engine;
use crate::error::{Error, Result};
use crate::journal::{AppendError, FrameKind, Pending, Writer};
use crate::model::{Batch, Limits, Overlay, PlainWrite, Record};
use crate::sync::lock;

/// Batches of one group hold about this many bytes of data together, so that one large batch does not delay many.
const GROUP_BYTES: usize = 4 << 20;

/// A batch or a plain write that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    sequence: Option<u64>,
    time: i64,
}

impl Commit {
    /// The sequence number of the record; none for what commits nothing: a batch that acknowledges nothing and holds no more
    /// than conditions and control commands, or nothing at all; and a plain creation of a key that is there already.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// The commit time in microseconds since 1970, by this machine's clock.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }
}

/// What is to be committed.
#[derive(Debug)]
pub(super) enum Write {
    Batch(Batch),
    Plain(PlainWrite),
}

/// A write on its way.
#[derive(Debug)]
pub(super) struct Request {
    write: Write,
    bytes: usize,
}

impl Request {
    pub(super) fn new(write: Write) -> Request {
        let bytes = match &write {
            Write::Batch(batch) => batch.data_bytes(),
            Write::Plain(plain) => plain.data_bytes(),
        };
        Request { write, bytes }
    }

    fn decide(&self, pending: &mut Overlay<'_>, limits: &Limits) -> Result<Record> {
        match &self.write {
            Write::Batch(batch) => Ok(pending.evaluate(batch, limits)?),
            Write::Plain(plain) => Ok(pending.evaluate_plain(plain, limits)?),
        }
    }

    fn pending<'a>(&self, record: &'a Record) -> Pending<'a> {
        let (kind, request_id) = match &self.write {
            Write::Batch(batch) => (FrameKind::Batch, batch.request_id()),
            Write::Plain(_) => (FrameKind::Plain, [0; 16]),
        };
        Pending {
            kind,
            request_id,
            payload: record.payload(),
        }
    }
}

impl Engine {
    /// Commits the batch. It is durable and visible when this returns.
    pub(crate) fn commit(&self, batch: Batch) -> Result<Commit> {
        if batch.is_empty() && batch.acknowledgement().is_none() {
            self.check_open()?;
            return Ok(Commit {
                sequence: None,
                time: self.env.now(),
            });
        }
        self.submit(Write::Batch(batch))
    }

    /// Commits a plain write. It is durable and visible when this returns.
    pub(crate) fn commit_plain(&self, write: PlainWrite) -> Result<Commit> {
        self.submit(Write::Plain(write))
    }

    fn submit(&self, write: Write) -> Result<Commit> {
        let request = Request::new(write);
        let fits = |group: &[Request], next: &Request| {
            let bytes: usize = group.iter().map(|request| request.bytes).sum();
            bytes + next.bytes <= GROUP_BYTES
        };
        let abandoned = || {
            self.poison(Error::LeaderPanicked);
            Err(self.poisoned().unwrap_or(Error::LeaderPanicked))
        };
        self.queue
            .submit(request, fits, |group| self.lead(&group), abandoned)
    }

    /// Commits a group, and answers each of it.
    ///
    /// A refusal may rest on a record of the same group. So it is answered after that record is durable, or, if it
    /// never will be, not at all: nobody is refused by a state that never was.
    pub(super) fn lead(&self, group: &[Request]) -> Vec<Result<Commit>> {
        let mut writer = lock(&self.writer);
        let time = self.env.now();
        let appended = match self.check_commits() {
            Ok(()) => {
                let decisions = self.decide(group);
                self.append(&mut writer, group, &decisions, time)
                    .map(|()| decisions)
            }
            Err(error) => return group.iter().map(|_| Err(error.clone())).collect(),
        };
        match appended {
            Ok(decisions) => self.publish(&writer, group, decisions, time),
            Err(AppendError::Refused(error)) if group.len() == 1 => vec![Err(error)],
            // One of the group may be too big for the disk: let each try alone.
            Err(AppendError::Refused(_)) => {
                drop(writer);
                let alone = group.iter().map(std::slice::from_ref);
                alone.flat_map(|request| self.lead(request)).collect()
            }
            Err(AppendError::Failed(error)) => {
                self.poison(error.clone());
                let poisoned = self.poisoned().unwrap_or(error);
                group.iter().map(|_| Err(poisoned.clone())).collect()
            }
        }
    }

    fn check_commits(&self) -> Result<()> {
        self.check_open()?;
        self.poisoned().map_or(Ok(()), Err)
    }

    /// Evaluates each batch on the state as the ones before it will have left it.
    fn decide(&self, group: &[Request]) -> Vec<Result<Record>> {
        let visible = self.visible.read().unwrap_or_else(PoisonError::into_inner);
        let mut pending = Overlay::new(&visible.state);
        group
            .iter()
            .map(|request| request.decide(&mut pending, &self.limits))
            .collect()
    }

    /// Makes the group's records durable.
    fn append(
        &self,
        writer: &mut Writer,
        group: &[Request],
        decisions: &[Result<Record>],
        time: i64,
    ) -> Result<(), AppendError> {
        let records: Vec<_> = group
            .iter()
            .zip(decisions)
            .filter_map(|(request, decision)| {
                let record = decision
                    .as_ref()
                    .ok()
                    .filter(|record| !record.view().is_empty())?;
                Some(request.pending(record))
            })
            .collect();
        match records.is_empty() {
            true => Ok(()),
            false => writer.append(&records, time),
        }
    }

    /// Shows what has become durable: to the next life of the store, then to readers, then to ports. Answers all.
    fn publish(
        &self,
        writer: &Writer,
        group: &[Request],
        decisions: Vec<Result<Record>>,
        time: i64,
    ) -> Vec<Result<Commit>> {
        let position = writer.position();
        self.head.publish(|head| {
            head.durable_sequence = position.sequence;
            head.frame_checksum = position.checksum;
            head.segment = position.segment;
            head.offset = position.offset;
            head.epoch = self.epoch();
        });
        let mut visible = self.visible.write().unwrap_or_else(PoisonError::into_inner);
        let mut sequence = visible.position.sequence;
        let mut answer = |decision: &Result<Record>| {
            let record = decision.as_ref().map_err(Clone::clone)?;
            if record.view().is_empty() {
                return Ok(Commit { sequence: None, time });
            }
            visible.state.apply(record.view(), time);
            sequence += 1;
            Ok(Commit {
                sequence: Some(sequence),
                time,
            })
        };
        let answers = decisions.iter().map(&mut answer).collect();
        visible.position = position;
        drop(visible);
        // Ports show no plain writes.
        let committed = group.iter().zip(&decisions);
        let batches = committed.filter(|(request, _)| matches!(request.write, Write::Batch(_)));
        self.waiters
            .tell_of(batches.filter_map(|(_, decision)| Some(decision.as_ref().ok()?.view())));
        answers
    }
}
