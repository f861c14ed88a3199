//! Commits: a group of batches is evaluated in order, appended with one write and one sync, applied, and only then
//! shown and answered.

use std::sync::PoisonError;

use super::Engine;
use crate::error::{Error, Result};
use crate::journal::{AppendError, Pending, Writer};
use crate::model::{Batch, Overlay, Record, evaluate};
use crate::sync::lock;

/// Batches of one group hold about this many bytes of data together, so that one large batch does not delay many.
const GROUP_BYTES: usize = 4 << 20;

/// A batch that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    sequence: Option<u64>,
    time: i64,
}

impl Commit {
    /// The sequence number of the batch's record; none for a batch that holds no more than conditions and control
    /// commands, or nothing at all, and so commits nothing.
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

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Batch,
    bytes: usize,
}

impl Request {
    pub(super) fn new(batch: Batch) -> Request {
        Request {
            bytes: batch.data_bytes(),
            batch,
        }
    }
}

impl Engine {
    /// Commits the batch. It is durable and visible when this returns.
    pub(crate) fn commit(&self, batch: Batch) -> Result<Commit> {
        if batch.is_empty() {
            self.check_open()?;
            return Ok(Commit {
                sequence: None,
                time: self.env.now(),
            });
        }
        let request = Request::new(batch);
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

    /// What the batch would do now, without doing it.
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Record> {
        self.read(|visible| evaluate(&visible.state, batch, &self.limits))?
            .map_err(Error::from)
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
            Ok(decisions) => self.publish(&writer, decisions, time),
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
        let evaluate = |request: &Request| pending.evaluate(&request.batch, &self.limits);
        group
            .iter()
            .map(evaluate)
            .map(|decision| decision.map_err(Error::from))
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
                let payload = record.payload();
                let request_id = request.batch.request_id();
                Some(Pending { request_id, payload })
            })
            .collect();
        match records.is_empty() {
            true => Ok(()),
            false => writer.append(&records, time),
        }
    }

    /// Shows what has become durable: to the next life of the store, then to readers, then to ports. Answers all.
    fn publish(&self, writer: &Writer, decisions: Vec<Result<Record>>, time: i64) -> Vec<Result<Commit>> {
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
        let mut answer = |decision: Result<Record>| {
            let record = decision?;
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
        let answers = decisions.into_iter().map(&mut answer).collect();
        visible.position = position;
        drop(visible);
        self.changed.notify(usize::MAX);
        answers
    }
}
