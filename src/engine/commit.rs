//! Commits: batches are evaluated as they come, each on the ones before it; a group of them is appended with one write and one sync, and only
//! then shown, applied and answered. Meanwhile the next group forms.

use super::Engine;
use super::groups::{Join, Led};
use crate::error::{Error, Result};
use crate::journal::{AppendError, FrameKind, Pending, Position, Writer};
use crate::model::{Batch, Decisions, Limits, PlainWrite, Record, View};
use crate::sync::{Woken, lock};

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

/// The group that is forming: its members are decided as they come, each on what the ones before it will have left.
#[derive(Debug, Default)]
pub(super) struct Forming {
    members: Vec<Member>,
    /// Bytes of names and data of all members, about.
    bytes: usize,
    /// What the members have decided.
    decided: Decisions,
    /// What was decided before them, and may not be visible yet: by the group that is being made durable.
    under_way: Decisions,
}

/// A write that waits to become durable, or a refusal that may rest on one before it.
#[derive(Debug)]
pub(super) struct Member {
    request: Request,
    decision: Result<Record>,
}

/// What a member of a group is told. Where the group was appended, it gets back what it came with: whoever has allocated it frees it, and
/// not the leader for all.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Result<Commit>,
    _member: Option<Member>,
}

impl From<Result<Commit>> for Answer {
    fn from(result: Result<Commit>) -> Answer {
        Answer {
            result,
            _member: None,
        }
    }
}

impl Member {
    /// What there is to append.
    fn record(&self) -> Option<&Record> {
        let record = self.decision.as_ref().ok()?;
        (!record.view().is_empty()).then_some(record)
    }
}

impl Forming {
    fn decide(&mut self, view: &dyn View, request: &Request, limits: &Limits) -> Result<Record> {
        let view = self.under_way.over(view);
        match &request.write {
            Write::Batch(batch) => Ok(self.decided.evaluate(&view, batch, limits)?),
            Write::Plain(plain) => Ok(self.decided.evaluate_plain(&view, plain, limits)?),
        }
    }

    /// The members, to be made durable; who comes now is decided on what they have decided.
    pub(super) fn take(&mut self) -> Vec<Member> {
        self.bytes = 0;
        self.under_way = std::mem::take(&mut self.decided);
        std::mem::take(&mut self.members)
    }
}

/// What is decided may be half there after a panic: nobody goes on with it. Forgotten once all of it is there.
struct Deciding<'a>(&'a Engine);

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.0.poison(Error::LeaderPanicked);
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
        let mut request = Some(Request::new(write));
        let join = |forming: &mut Forming| self.join(forming, &mut request);
        let lead = |members, led: Led<'_, _, _>| self.lead(members, led);
        let abandoned = || self.abandoned().into();
        let answer = self.groups.submit(join, Forming::take, lead, &abandoned);
        answer.result
    }

    fn abandoned(&self) -> Result<Commit> {
        Err(self.fail(Error::LeaderPanicked))
    }

    /// Decides what is asked for, and joins the group with it.
    ///
    /// A refusal may rest on a record that is not durable yet. So it is answered after that record is durable, or, if it
    /// never will be, not at all: nobody is refused by a state that never was.
    pub(super) fn join(&self, forming: &mut Forming, request: &mut Option<Request>) -> Join<Answer> {
        if let Err(error) = self.check_commits() {
            return Join::Answered(Err(error).into());
        }
        let Some(asked) = request.take() else {
            return Join::Answered(self.abandoned().into());
        };
        if !forming.members.is_empty() && forming.bytes + asked.bytes > GROUP_BYTES {
            *request = Some(asked);
            return Join::Full;
        }
        let rests_on_nothing = forming.under_way.is_empty() && forming.decided.is_empty();
        let decision = match self.decide(forming, &asked) {
            Ok(decision) => decision,
            Err(error) => return Join::Answered(Err(error).into()),
        };
        let member = Member {
            request: asked,
            decision,
        };
        if rests_on_nothing && member.record().is_none() {
            let time = self.env.now();
            let result = member.decision.map(|_| Commit { sequence: None, time });
            return Join::Answered(result.into());
        }
        forming.bytes += member.request.bytes;
        forming.members.push(member);
        Join::Member
    }

    /// Makes a group durable, shows it, and answers each of its members. The next group is led as soon as this one is durable:
    /// it is written while this one is shown.
    pub(super) fn lead(&self, members: Vec<Member>, mut led: Led<'_, Forming, Answer>) {
        let mut writer = lock(&self.writer);
        let time = self.env.now();
        let appended = match self.check_commits() {
            Ok(()) => append(&mut writer, &members, time),
            Err(error) => return led.answer(members.iter().map(|_| Err(error.clone()).into())),
        };
        match appended {
            Ok(()) => {
                let position = writer.position();
                let records: Vec<_> = members
                    .iter()
                    .filter_map(|member| Some(member.record()?.view()))
                    .collect();
                if records.is_empty() {
                    // Refusals, and what they may rest on is durable.
                    led.hand_over(|_| ());
                    return led.answer(answers(members, position, time));
                }
                self.set_head(position);
                // Held before anybody decides on the state without what is under way.
                let (showing, decisions) = led.hand_over(|forming| {
                    let showing = self.visible.begin(|| self.head.wake());
                    (showing, std::mem::take(&mut forming.under_way))
                });
                drop(writer);
                // A panic has left the state half changed: its members are told that nobody knows.
                let Ok(showing) = showing else { return };
                let once_shown = || self.tell_of(&members);
                let Ok(woken) = showing.show(&records, decisions, position, time, once_shown) else {
                    return;
                };
                led.answer(answers(members, position, time));
                // Last: wakers of tasks may do anything, commit or panic.
                drop(woken);
            }
            Err(AppendError::Refused(error)) => {
                let mut woken = Vec::new();
                let answers = led.hand_over(|forming| {
                    let answers = self.commit_each(&mut writer, members, &error, &mut woken);
                    self.decide_again(forming);
                    answers
                });
                drop(writer);
                led.answer(answers.into_iter().map(Answer::from));
            }
            Err(AppendError::Failed(error)) => {
                let error = self.fail(error);
                led.answer(members.iter().map(|_| Err(error.clone()).into()));
            }
        }
    }

    /// After a group was refused, while nobody joins the next: one of it may be too big for the disk, so that each tries alone.
    fn commit_each(
        &self,
        writer: &mut Writer,
        members: Vec<Member>,
        error: &Error,
        woken: &mut Vec<Woken>,
    ) -> Vec<Result<Commit>> {
        if members.len() == 1 {
            return vec![Err(error.clone())];
        }
        let requests = members.into_iter().map(|member| member.request);
        requests
            .map(|request| self.commit_alone(writer, request, woken))
            .collect()
    }

    fn commit_alone(&self, writer: &mut Writer, request: Request, woken: &mut Vec<Woken>) -> Result<Commit> {
        self.check_commits()?;
        let mut forming = Forming::default();
        let decision = self.decide(&mut forming, &request)?;
        let decided = forming.decided;
        let time = self.env.now();
        let alone = [Member { request, decision }];
        match append(writer, &alone, time) {
            Ok(()) => {}
            Err(AppendError::Refused(error)) => return Err(error),
            Err(AppendError::Failed(error)) => return Err(self.fail(error)),
        }
        let position = writer.position();
        if let Some(record) = alone[0].record() {
            self.set_head(position);
            let once_shown = || self.tell_of(&alone);
            let showing = self.visible.begin(|| self.head.wake());
            let shown = showing
                .and_then(|showing| showing.show(&[record.view()], decided, position, time, once_shown));
            woken.extend(shown.map_err(|error| self.fail(error))?);
        }
        let answer = answers(alone.into(), position, time).next();
        answer.map_or_else(|| self.abandoned(), |answer| answer.result)
    }

    /// Decides the members of the forming group on the visible state: what they were decided on has not happened.
    fn decide_again(&self, forming: &mut Forming) {
        (forming.under_way, forming.decided) = Default::default();
        let mut members = std::mem::take(&mut forming.members);
        for member in &mut members {
            let decided = self.decide(forming, &member.request);
            member.decision = decided.unwrap_or_else(Err);
        }
        forming.members = members;
    }

    /// What the request does to the visible state, under what is decided and not visible yet.
    ///
    /// # Errors
    /// The outer: a panic has left the state half changed.
    fn decide(&self, forming: &mut Forming, request: &Request) -> Result<Result<Record>> {
        let visible = self.visible.now().map_err(|error| self.fail(error))?;
        let deciding = Deciding(self);
        let decision = forming.decide(&visible.view(), request, &self.limits);
        std::mem::forget(deciding);
        Ok(decision)
    }

    fn check_commits(&self) -> Result<()> {
        self.check_open()?;
        self.poisoned().map_or(Ok(()), Err)
    }

    /// Nobody knows what is on the disk.
    fn fail(&self, error: Error) -> Error {
        self.poison(error.clone());
        self.poisoned().unwrap_or(error)
    }

    /// Shows what has become durable to the next life of the store, and to other processes that look.
    fn set_head(&self, position: Position) {
        self.head.set(|head| {
            head.durable_sequence = position.sequence;
            head.frame_checksum = position.checksum;
            head.segment = position.segment;
            head.offset = position.offset;
            head.epoch = self.epoch();
        });
    }

    /// Wakes the ports that show one of the batches (none shows a plain write), and who waits in other processes; tasks when what it gives is
    /// dropped.
    #[must_use]
    fn tell_of(&self, members: &[Member]) -> Vec<Woken> {
        let is_batch = |member: &&Member| matches!(member.request.write, Write::Batch(_));
        let batches = members.iter().filter(is_batch);
        let batches = batches.filter_map(|member| Some(member.record()?.view()));
        let woken = self.waiters.tell_of(batches);
        self.head.wake();
        woken
    }
}

/// What each of a group is told, whose last record is the one before the position.
fn answers(members: Vec<Member>, position: Position, time: i64) -> impl Iterator<Item = Answer> {
    let records = members.iter().filter(|member| member.record().is_some()).count();
    let mut last = position.sequence - records as u64;
    members.into_iter().map(move |member| {
        let sequence = member.record().map(|_| {
            last += 1;
            last
        });
        let refusal = member.decision.as_ref().err().cloned();
        Answer {
            result: refusal.map_or(Ok(Commit { sequence, time }), Err),
            _member: Some(member),
        }
    })
}

/// Makes the group's records durable.
fn append(writer: &mut Writer, members: &[Member], time: i64) -> Result<(), AppendError> {
    let pending = |member| {
        let record = Member::record(member)?;
        Some(member.request.pending(record))
    };
    let records: Vec<_> = members.iter().filter_map(pending).collect();
    match records.is_empty() {
        true => Ok(()),
        false => writer.append(&records, time),
    }
}
