//! Trimming the journal: what no snapshot and no port needs goes, and, over the limits, also what ports have not read.
//!
//! Only whole segments go, from the oldest on, and only what is older than both snapshots that are kept. A port needs the
//! records that it would show, and no others: a quiet port does not hold a busy journal. The order of the steps survives a crash
//! between any two of them: what is known of ports, then the store file, then the segments.

use std::sync::Arc;
use std::time::Duration;

use super::keeper::Keeper;
use super::snapshots::{self, KEPT};
use crate::error::{Error, IoContext, Result, TrimReason};
use crate::journal::Filter;
use crate::journal::{Position, Segment};
use crate::layout::{Layout, remove_if_there};
use crate::model::RecordView;
use crate::port_file::{Cursor, PortFile};
use crate::snapshot;
use crate::sync::lock;
use crate::trim_note::{Lost, TrimNote};

/// How much of the journal is kept for ports that have not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) age: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: 1 << 30,
            age: None,
        }
    }
}

/// What trimming has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Trimmed {
    /// Segments that are gone, and the bytes of their files.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The oldest record that there is now.
    pub oldest: u64,
    /// Ports that were left behind: their next get says so.
    pub lagging: Vec<String>,
}

/// A port as far as trimming is concerned.
struct Follower {
    name: String,
    port_id: [u8; 16],
    filter: Filter,
    cursor: Cursor,
    /// Nothing for it is gone up to here, and it has acknowledged the rest.
    floor: u64,
    lost: Option<Lost>,
    /// What is gone up to here, the note tells of.
    noted_to: u64,
    is_warned: bool,
}

impl Follower {
    /// What it has not acknowledged, and is gone.
    fn lost(&self) -> Option<Lost> {
        self.lost.filter(|lost| lost.last > self.cursor.sequence)
    }
}

/// A port is warned of once so much of the limit is used.
const WARNED_OF: (u64, u64) = (3, 4);

impl Keeper {
    /// Trims what can go, behind two snapshots.
    pub(crate) fn trim(&self) -> Result<Trimmed> {
        let _alone = lock(&self.alone);
        self.check_running()?;
        let (env, layout) = (&*self.env, &self.layout);
        let mut result = Trimmed {
            oldest: self.journal.first_sequence(),
            ..Trimmed::default()
        };
        let mut kept = self.snapshots()?;
        kept.retain(|meta| snapshot::verify(env, &layout.snapshot(meta.sequence)).is_ok());
        kept.truncate(KEPT);
        if kept.len() < KEPT {
            return Ok(result);
        }
        // One that a killed process has made may have its name in the page cache only.
        let snapshots = layout.snapshots();
        env.sync_dir(&snapshots).context("sync the folder", &snapshots)?;
        let mut followers = self.followers()?;
        self.find_lost(&mut followers)?;
        let gone = self.choose(kept[KEPT - 1].sequence, &mut followers)?;
        let Some(last) = gone.last() else {
            snapshots::remove_older(env, layout, &kept)?;
            return Ok(result);
        };
        let oldest = last.end;
        self.note(&followers, oldest - 1)?;
        let identity = self.identity.trimmed(oldest);
        identity.write(env, &layout.store())?;
        self.journal.forget_before(oldest);
        self.head.publish(|head| head.oldest_sequence = oldest);
        remove_segments(self, gone.iter().map(|candidate| &candidate.segment))?;
        snapshots::remove_older(env, layout, &kept)?;
        result.segments = gone.len() as u64;
        result.bytes = gone.iter().map(|candidate| candidate.bytes).sum();
        result.oldest = oldest;
        let lagging = followers.iter().filter(|follower| follower.lost().is_some());
        result.lagging = lagging.map(|follower| follower.name.clone()).collect();
        tracing::info!(segments = result.segments, oldest, "trimmed the journal");
        Ok(result)
    }

    /// All ports. One whose file cannot be read holds nothing, and says so when it is opened.
    fn followers(&self) -> Result<Vec<Follower>> {
        let (env, layout) = (&*self.env, &self.layout);
        let folder = layout.ports();
        let names = env.list_dir(&folder).context("list", &folder)?;
        let mut followers = Vec::new();
        for name in names.iter().filter_map(|name| Layout::parse_port(name)) {
            let file = match PortFile::open(env, &layout.port(name)) {
                Ok(file) if self.identity.has(file.cursor.epoch, file.cursor.sequence) => file,
                Ok(_)
                | Err(
                    Error::Damaged { .. } | Error::UnsupportedVersion { .. } | Error::SymbolicLink { .. },
                ) => {
                    continue;
                }
                // It was removed meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // A cursor that is gone after a loss of power would miss what was trimmed by it.
            file.sync()?;
            let note = TrimNote::read(env, &layout.trim_note(name), file.head.id).unwrap_or_default();
            let note = note.filter(|note| note.is_of(|sequence| self.identity.epoch_of(sequence)));
            let mut follower = Follower {
                name: name.to_owned(),
                port_id: file.head.id,
                filter: Filter::Port(file.head.key.folded().into()),
                cursor: file.cursor,
                floor: file.cursor.sequence,
                lost: None,
                noted_to: 0,
                is_warned: false,
            };
            if let Some(note) = note {
                if note.cursor.sequence > follower.cursor.sequence {
                    follower.cursor = note.cursor;
                }
                follower.lost = note.lost;
                follower.floor = follower.cursor.sequence;
                follower.noted_to = note.trimmed_to;
            }
            followers.push(follower);
        }
        Ok(followers)
    }

    /// What is gone, and of which nothing is known, stays lost.
    fn find_lost(&self, followers: &mut [Follower]) -> Result<()> {
        let oldest = self.journal.first_sequence();
        let is_unknown = |follower: &Follower| follower.cursor.sequence.max(follower.noted_to) + 1 < oldest;
        if followers.iter().any(is_unknown) {
            self.fold_behind(oldest - 1, followers)?;
        }
        for follower in followers {
            if is_unknown(follower) {
                follower.lost = Some(Lost {
                    first: follower.cursor.sequence + 1,
                    last: oldest - 1,
                    time: self.env.now(),
                    reason: TrimReason::Unknown,
                });
            }
        }
        Ok(())
    }

    /// Folds what was acknowledged with batches behind this record.
    fn fold_behind(&self, sequence: u64, followers: &mut [Follower]) -> Result<()> {
        let last = self.position()?.sequence;
        let begin = self.journal.position_after(sequence)?;
        self.fold_acknowledgements(begin, last, followers)
    }

    /// The segments that go, from the oldest on.
    fn choose(&self, snapshot: u64, followers: &mut [Follower]) -> Result<Vec<Candidate>> {
        let segments = self.journal.segments();
        let mut bytes_left = self.journal.size()?.1;
        let mut ages = ages(&segments, self.env.now(), self.limits.age);
        let (mut gone, mut is_folded) = (Vec::new(), false);
        for pair in segments.windows(2) {
            let [segment, next] = pair else { break };
            let end = next.header.first_sequence;
            if end - 1 > snapshot {
                break;
            }
            let bytes = segment
                .file
                .length()
                .context("read the length of", &segment.path)?;
            let is_old = ages.next().unwrap_or_default();
            let over = match bytes_left > self.limits.bytes {
                true => Some(TrimReason::Bytes),
                false => is_old.then_some(TrimReason::Age),
            };
            let candidate = Candidate {
                segment: Arc::clone(segment),
                end,
                bytes,
            };
            self.check_running()?;
            let mut needed = self.needed(&candidate, followers)?;
            if !needed.is_empty() && !is_folded {
                // Acknowledged with a batch, perhaps, whose record stands further behind.
                self.fold_behind(end - 1, followers)?;
                needed = self.needed(&candidate, followers)?;
                is_folded = true;
            }
            match over {
                None if !needed.is_empty() => {
                    self.warn(followers, &needed, bytes_left);
                    break;
                }
                _ => self.pass(followers, &needed, over, end),
            }
            bytes_left -= bytes;
            gone.push(candidate);
        }
        Ok(gone)
    }

    /// Which ports would show a record of this segment that they have not acknowledged: first and last record of each.
    fn needed(&self, candidate: &Candidate, followers: &mut [Follower]) -> Result<Vec<Need>> {
        let first = candidate.segment.header.first_sequence;
        let begin = self.journal.position_after(first - 1)?;
        let last = candidate.end - 1;
        self.fold_acknowledgements(begin, last, followers)?;
        let mut needs: Vec<Need> = Vec::new();
        let mut behind: Vec<_> = (0..followers.len())
            .filter(|index| followers[*index].floor < last)
            .collect();
        behind.sort_unstable();
        if behind.is_empty() {
            return Ok(needs);
        }
        let mut position = begin;
        self.journal.scan(&mut position, last, &mut |visited| {
            let sequence = visited.frame.meta.sequence;
            for index in &behind {
                let follower = &followers[*index];
                if sequence <= follower.floor || !follower.filter.shows_record(&visited.frame) {
                    continue;
                }
                match needs.iter_mut().find(|need| need.follower == *index) {
                    Some(need) => need.last = sequence,
                    None => needs.push(Need {
                        follower: *index,
                        first: sequence,
                        last: sequence,
                    }),
                }
            }
            Ok(true)
        })?;
        Ok(needs)
    }

    /// Acknowledgements that stand in records go with them: the note has them.
    fn fold_acknowledgements(&self, begin: Position, last: u64, followers: &mut [Follower]) -> Result<()> {
        let mut found = Vec::new();
        let mut position = begin;
        self.journal.scan(&mut position, last, &mut |visited| {
            found.extend(RecordView::verified(visited.frame.payload).acknowledgement());
            Ok(true)
        })?;
        for acknowledgement in found {
            let is_own = |follower: &&mut Follower| follower.port_id == acknowledgement.port_id;
            let Some(follower) = followers.iter_mut().find(is_own) else {
                continue;
            };
            if acknowledgement.sequence > follower.cursor.sequence {
                let sequence = acknowledgement.sequence;
                let at = self.journal.position_after(sequence)?;
                follower.cursor = Cursor {
                    epoch: self.identity.epoch_of(sequence),
                    sequence,
                    // Of a record that is gone, nobody asks for it.
                    frame_checksum: if at.sequence == sequence { at.checksum } else { 0 },
                    as_of: follower.cursor.as_of,
                };
                follower.floor = follower.floor.max(sequence);
            }
        }
        Ok(())
    }

    /// Tells of ports that will be left behind when the journal grows on.
    fn warn(&self, followers: &mut [Follower], needed: &[Need], bytes: u64) {
        let (part, whole) = WARNED_OF;
        if bytes / whole < self.limits.bytes / whole * part / whole {
            return;
        }
        for need in needed {
            let follower = &mut followers[need.follower];
            let is_told = std::mem::replace(&mut follower.is_warned, true);
            if !is_told {
                let left = self.limits.bytes.saturating_sub(bytes);
                tracing::warn!(
                    port = follower.name,
                    from = need.first,
                    bytes_until_lost = left,
                    "a port is about to be left behind"
                );
            }
        }
    }

    /// What was needed in a segment that goes is lost.
    fn pass(&self, followers: &mut [Follower], needed: &[Need], over: Option<TrimReason>, end: u64) {
        for need in needed {
            let follower = &mut followers[need.follower];
            // What was lost before, if it was not passed by since, is where it began.
            let mut lost = follower.lost().unwrap_or(Lost {
                first: need.first,
                last: need.last,
                time: self.env.now(),
                reason: over.unwrap_or(TrimReason::Unknown),
            });
            lost.last = need.last;
            follower.lost = Some(lost);
            tracing::warn!(
                port = follower.name,
                first = lost.first,
                last = lost.last,
                "a port was left behind"
            );
        }
        for follower in followers {
            follower.floor = follower.floor.max(end - 1);
        }
    }

    /// Notes what is known of the ports that stand in what goes.
    fn note(&self, followers: &[Follower], trimmed_to: u64) -> Result<()> {
        for follower in followers {
            if follower.cursor.sequence < trimmed_to {
                let note = TrimNote {
                    port_id: follower.port_id,
                    trimmed_to,
                    trimmed_epoch: self.identity.epoch_of(trimmed_to),
                    cursor: follower.cursor,
                    lost: follower.lost(),
                };
                note.write(&*self.env, &self.layout.trim_note(&follower.name))?;
            }
        }
        Ok(())
    }
}

/// A segment that may go, and the first sequence number behind it.
struct Candidate {
    segment: Arc<Segment>,
    end: u64,
    bytes: u64,
}

/// Records of a segment that a port has yet to show.
struct Need {
    follower: usize,
    first: u64,
    last: u64,
}

/// Removes the files, from the oldest on: after a crash, what is left is above a store file that says so.
fn remove_segments<'a>(keeper: &Keeper, gone: impl Iterator<Item = &'a Arc<Segment>>) -> Result<()> {
    for segment in gone {
        remove_if_there(&*keeper.env, &segment.path)?;
    }
    let folder = keeper.layout.journal();
    keeper.env.sync_dir(&folder).context("sync the folder", &folder)
}

/// For each segment but the last, whether all of it is older than the limit. A clock that jumps makes nothing old by itself:
/// of the time between two segments no more than half the limit counts.
fn ages(segments: &[Arc<Segment>], now: i64, limit: Option<Duration>) -> std::vec::IntoIter<bool> {
    let times = segments.iter().map(|segment| segment.header.created).chain([now]);
    let times: Vec<_> = times.collect();
    are_old(&times, limit).into_iter()
}

/// From the times when segments were begun, and now: whether each but the last is old.
fn are_old(times: &[i64], limit: Option<Duration>) -> Vec<bool> {
    let limit = limit.map_or(i64::MAX, |limit| {
        i64::try_from(limit.as_micros()).unwrap_or(i64::MAX)
    });
    let mut age = 0i64;
    let mut old: Vec<_> = times
        .windows(2)
        .skip(1)
        .rev()
        .map(|pair| {
            let step = pair[1].saturating_sub(pair[0]).clamp(0, limit / 2);
            age = age.saturating_add(step);
            limit != i64::MAX && age >= limit
        })
        .collect();
    old.reverse();
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_old_when_the_next_one_was_begun_long_ago_and_a_jump_of_the_clock_ages_nothing() {
        let limit = Some(Duration::from_micros(100));
        // Begun at 0, 10, 50, 140; now it is 200.
        assert_eq!(are_old(&[0, 10, 50, 140, 200], limit), [true, true, false]);
        assert_eq!(are_old(&[0, 10, 50, 140, 200], None), [false; 3]);
        // The clock jumps ahead by years, and back.
        assert_eq!(are_old(&[0, 10, 20, 30, 1 << 50], limit), [false; 3]);
        assert_eq!(are_old(&[0, 10, 1 << 50, 20, 40], limit), [false; 3]);
        // What is really old is found in time all the same.
        assert_eq!(
            are_old(&[0, 10, 1 << 50, (1 << 50) + 60, (1 << 50) + 120], limit),
            [true, true, false]
        );
    }
}
