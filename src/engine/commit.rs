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
    /// The sequence number of the batch's record; none for an empty batch, which commits nothing.
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

/// What the evaluation of one batch of a group gave.
enum Decision {
    /// Known without looking at a record that is not durable yet.
    Answered(Result<Commit>),
    /// To be appended.
    Record(Record),
    /// A refusal that rests on a record of the same group: true only once that is durable.
    RefusedAfterRecord(Error),
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
    pub(super) fn lead(&self, group: &[Request]) -> Vec<Result<Commit>> {
        let mut writer = lock(&self.writer);
        if let Err(error) = self
            .check_open()
            .and_then(|()| self.poisoned().map_or(Ok(()), Err))
        {
            return group.iter().map(|_| Err(error.clone())).collect();
        }
        let decisions = self.decide(group);
        match self.append(&mut writer, group, &decisions) {
            Ok(time) => {
                let first = self.publish(&writer, &decisions, time);
                answer(decisions, first, time)
            }
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

    /// Evaluates each batch on the state as the ones before it will have left it.
    fn decide(&self, group: &[Request]) -> Vec<Decision> {
        let visible = self.visible.read().unwrap_or_else(PoisonError::into_inner);
        let mut pending = Overlay::new(&visible.state);
        let mut decisions = Vec::with_capacity(group.len());
        let mut has_record = false;
        for (index, request) in group.iter().enumerate() {
            decisions.push(match evaluate(&pending, &request.batch, &self.limits) {
                Ok(record) => {
                    if index + 1 < group.len() {
                        pending.apply(record.view());
                    }
                    has_record = true;
                    Decision::Record(record)
                }
                Err(error) if has_record => Decision::RefusedAfterRecord(error.into()),
                Err(error) => Decision::Answered(Err(error.into())),
            });
        }
        decisions
    }

    /// Makes the group's records durable, and gives their commit time.
    fn append(
        &self,
        writer: &mut Writer,
        group: &[Request],
        decisions: &[Decision],
    ) -> Result<i64, AppendError> {
        let time = self.env.now();
        let records: Vec<_> = group
            .iter()
            .zip(decisions)
            .filter_map(|(request, decision)| match decision {
                Decision::Record(record) => Some(Pending {
                    request_id: request.batch.request_id(),
                    payload: record.payload(),
                }),
                _ => None,
            })
            .collect();
        if !records.is_empty() {
            writer.append(&records, time)?;
        }
        Ok(time)
    }

    /// Shows what has become durable: first to the next life of the store, then to readers, then to ports. Gives
    /// the sequence number of the group's first record.
    fn publish(&self, writer: &Writer, decisions: &[Decision], time: i64) -> u64 {
        let position = writer.position();
        self.head.publish(|head| {
            head.durable_sequence = position.sequence;
            head.frame_checksum = position.checksum;
            head.segment = position.segment;
            head.offset = position.offset;
            head.epoch = self.epoch();
        });
        let mut visible = self.visible.write().unwrap_or_else(PoisonError::into_inner);
        let first = visible.position.sequence + 1;
        for decision in decisions {
            if let Decision::Record(record) = decision {
                visible.state.apply(record.view(), time);
            }
        }
        visible.position = position;
        drop(visible);
        self.changed.notify(usize::MAX);
        first
    }
}

fn answer(decisions: Vec<Decision>, first: u64, time: i64) -> Vec<Result<Commit>> {
    let mut sequence = first;
    let mut answer = |decision| match decision {
        Decision::Answered(answer) => answer,
        Decision::RefusedAfterRecord(error) => Err(error),
        Decision::Record(_) => {
            let commit = Commit {
                sequence: Some(sequence),
                time,
            };
            sequence += 1;
            Ok(commit)
        }
    };
    decisions.into_iter().map(&mut answer).collect()
}
