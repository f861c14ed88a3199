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
use crate::journal::{Filter, ListId, Position, Segment};
use crate::layout::{Layout, remove_if_there};
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
    /// Segments that are gone.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// The oldest record that there is now.
    pub oldest: u64,
    /// Ports that were left behind: their next get says so.
    pub lagging: Vec<String>,
}

/// A port as far as trimming is concerned.
struct Standing {
    name: String,
    port_id: [u8; 16],
    filter: Filter,
    cursor: Cursor,
    /// Nothing for it is gone up to here, and it has acknowledged the rest.
    floor: u64,
    lost: Option<Lost>,
    /// What is gone up to here, the note tells of.
    noted_to: u64,
}

impl Standing {
    /// What it has not acknowledged, and is gone.
    fn lost(&self) -> Option<Lost> {
        self.lost.filter(|lost| lost.last > self.cursor.sequence)
    }
}

/// Of a port that holds the journal it is warned once so many of a hundred bytes of the limit are used.
const WARNED_OF_PERCENT: u64 = 75;

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
        let mut standings = self.standings()?;
        self.find_lost(&mut standings)?;
        let gone = self.choose(kept[KEPT - 1].sequence, &mut standings)?;
        let Some(last) = gone.last() else {
            snapshots::remove_older(env, layout, &kept)?;
            return Ok(result);
        };
        let oldest = last.end;
        self.note(&standings, oldest - 1)?;
        let identity = self.identity.trimmed(oldest);
        identity.write(env, &layout.store())?;
        self.journal.forget_before(oldest);
        self.head.publish(|head| head.oldest_sequence = oldest);
        remove_segments(self, gone.iter().map(|candidate| &candidate.segment))?;
        snapshots::remove_older(env, layout, &kept)?;
        result.segments = gone.len() as u64;
        result.bytes = gone.iter().map(|candidate| candidate.bytes).sum();
        result.oldest = oldest;
        let lagging = standings.iter().filter(|standing| standing.lost().is_some());
        result.lagging = lagging.map(|standing| standing.name.clone()).collect();
        tracing::info!(segments = result.segments, oldest, "trimmed the journal");
        Ok(result)
    }

    /// Whether a segment is over the limit in age.
    pub(super) fn is_old(&self) -> bool {
        let times = times(&self.journal.segments(), self.env.now());
        self.limits.age.is_some() && are_old(&times, self.limits.age).contains(&true)
    }

    /// All ports. One whose file cannot be read holds nothing, and says so when it is opened.
    fn standings(&self) -> Result<Vec<Standing>> {
        let (env, layout) = (&*self.env, &self.layout);
        let folder = layout.ports();
        let names = env.list_dir(&folder).context("list", &folder)?;
        let mut standings = Vec::new();
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
            let mut standing = Standing {
                name: name.to_owned(),
                port_id: file.head.id,
                filter: Filter::Port(file.head.key.folded().into()),
                cursor: file.cursor,
                floor: file.cursor.sequence,
                lost: None,
                noted_to: 0,
            };
            if let Some(note) = note {
                if note.cursor.sequence > standing.cursor.sequence {
                    standing.cursor = note.cursor;
                }
                standing.lost = note.lost;
                standing.floor = standing.cursor.sequence;
                standing.noted_to = note.trimmed_to;
            }
            standings.push(standing);
        }
        Ok(standings)
    }

    /// What is gone, and of which nothing is known, stays lost.
    fn find_lost(&self, standings: &mut [Standing]) -> Result<()> {
        let oldest = self.journal.first_sequence();
        let is_unknown = |standing: &Standing| standing.cursor.sequence.max(standing.noted_to) + 1 < oldest;
        if standings.iter().any(is_unknown) {
            self.fold_behind(oldest - 1, standings)?;
        }
        for standing in standings {
            if is_unknown(standing) {
                standing.lost = Some(Lost {
                    first: standing.cursor.sequence + 1,
                    last: oldest - 1,
                    time: self.env.now(),
                    reason: TrimReason::Unknown,
                });
            }
        }
        Ok(())
    }

    /// Folds what was acknowledged with batches behind this record.
    fn fold_behind(&self, sequence: u64, standings: &mut [Standing]) -> Result<()> {
        let begin = self.journal.position_after(sequence)?;
        self.fold_acknowledgements(begin, self.position()?, standings)
    }

    /// The segments that go, from the oldest on.
    fn choose(&self, snapshot: u64, standings: &mut [Standing]) -> Result<Vec<Candidate>> {
        let segments = self.journal.segments();
        let mut bytes_left = self.journal.size()?.1;
        let old = are_old(&times(&segments, self.env.now()), self.limits.age);
        let (mut gone, mut is_folded) = (Vec::new(), false);
        for (pair, is_old) in segments.windows(2).zip(old) {
            let [segment, next] = pair else { break };
            let end = next.header.first_sequence;
            if end - 1 > snapshot {
                break;
            }
            let bytes = segment
                .file
                .length()
                .context("read the length of", &segment.path)?;
            let over = match bytes_left > self.limits.bytes {
                true => Some(TrimReason::Bytes),
                false => is_old.then_some(TrimReason::Age),
            };
            let candidate = Candidate {
                segment: Arc::clone(segment),
                behind: Position::at_beginning(next),
                end,
                bytes,
            };
            self.check_running()?;
            let mut needed = self.needed(&candidate, standings)?;
            if !needed.is_empty() && !is_folded {
                // Acknowledged with a batch, perhaps, whose record stands further behind.
                self.fold_behind(end - 1, standings)?;
                needed = self.needed(&candidate, standings)?;
                is_folded = true;
            }
            match over {
                None if !needed.is_empty() => {
                    self.warn(standings, &needed, bytes_left);
                    break;
                }
                _ => self.pass(standings, &needed, over, end),
            }
            bytes_left -= bytes;
            gone.push(candidate);
        }
        Ok(gone)
    }

    /// Which ports would show a record of this segment that they have not acknowledged: first and last record of each.
    fn needed(&self, candidate: &Candidate, standings: &mut [Standing]) -> Result<Vec<Need>> {
        let begin = Position::at_beginning(&candidate.segment);
        let end = candidate.behind;
        self.fold_acknowledgements(begin, end, standings)?;
        let mut needs = Vec::new();
        for (index, standing) in standings.iter().enumerate() {
            if standing.floor >= end.sequence {
                continue;
            }
            let mut found: Option<(u64, u64)> = None;
            let mut position = begin;
            self.journal
                .scan_shown(&standing.filter, &mut position, end, &mut |visited| {
                    let sequence = visited.frame.meta.sequence;
                    if sequence > standing.floor {
                        found = Some((found.map_or(sequence, |(first, _)| first), sequence));
                    }
                    Ok(true)
                })?;
            needs.extend(found.map(|(first, last)| Need {
                standing: index,
                first,
                last,
            }));
        }
        Ok(needs)
    }

    /// Acknowledgements that stand in records go with them: the note has them.
    fn fold_acknowledgements(
        &self,
        begin: Position,
        end: Position,
        standings: &mut [Standing],
    ) -> Result<()> {
        for standing in standings {
            let mut newest = None;
            let mut position = begin;
            let lists = [ListId::acknowledgements(&standing.port_id)];
            self.journal.select(&lists, &mut position, end, &mut |visited| {
                let own = visited
                    .record
                    .acknowledgement()
                    .filter(|own| own.port_id == standing.port_id);
                newest = newest.max(own.map(|own| own.sequence));
                Ok(true)
            })?;
            if let Some(sequence) = newest.filter(|newest| *newest > standing.cursor.sequence) {
                let at = self.journal.position_after(sequence)?;
                standing.cursor = Cursor {
                    epoch: self.identity.epoch_of(sequence),
                    sequence,
                    // Of a record that is gone, nobody asks for it.
                    frame_checksum: if at.sequence == sequence { at.checksum } else { 0 },
                    as_of: standing.cursor.as_of,
                };
                standing.floor = standing.floor.max(sequence);
            }
        }
        Ok(())
    }

    /// Tells of ports that will be left behind when the journal grows on.
    fn warn(&self, standings: &[Standing], needed: &[Need], bytes: u64) {
        if bytes < self.limits.bytes / 100 * WARNED_OF_PERCENT {
            return;
        }
        for need in needed {
            tracing::warn!(
                port = standings[need.standing].name,
                from = need.first,
                bytes_until_lost = self.limits.bytes.saturating_sub(bytes),
                "a port is about to be left behind"
            );
        }
    }

    /// What was needed in a segment that goes is lost.
    fn pass(&self, standings: &mut [Standing], needed: &[Need], over: Option<TrimReason>, end: u64) {
        for need in needed {
            let standing = &mut standings[need.standing];
            // What was lost before, if it was not passed by since, is where it began.
            let mut lost = standing.lost().unwrap_or(Lost {
                first: need.first,
                last: need.last,
                time: self.env.now(),
                reason: over.unwrap_or(TrimReason::Unknown),
            });
            lost.last = need.last;
            standing.lost = Some(lost);
            tracing::warn!(
                port = standing.name,
                first = lost.first,
                last = lost.last,
                "a port was left behind"
            );
        }
        for standing in standings {
            standing.floor = standing.floor.max(end - 1);
        }
    }

    /// Notes what is known of the ports that stand in what goes.
    fn note(&self, standings: &[Standing], trimmed_to: u64) -> Result<()> {
        for standing in standings {
            if standing.cursor.sequence < trimmed_to {
                let note = TrimNote {
                    port_id: standing.port_id,
                    trimmed_to,
                    trimmed_epoch: self.identity.epoch_of(trimmed_to),
                    cursor: standing.cursor,
                    lost: standing.lost(),
                };
                note.write(&*self.env, &self.layout.trim_note(&standing.name))?;
            }
        }
        Ok(())
    }
}

/// A segment that may go, and the first sequence number behind it.
struct Candidate {
    segment: Arc<Segment>,
    /// The place behind its last frame.
    behind: Position,
    end: u64,
    bytes: u64,
}

/// Records of a segment that a port has yet to show.
struct Need {
    standing: usize,
    first: u64,
    last: u64,
}

/// Removes the files, from the oldest on: after a crash, what is left is above a store file that says so.
fn remove_segments<'a>(keeper: &Keeper, gone: impl Iterator<Item = &'a Arc<Segment>>) -> Result<()> {
    for segment in gone {
        let sidecar = keeper.layout.sidecar(segment.header.first_sequence);
        remove_if_there(&*keeper.env, &sidecar)?;
        remove_if_there(&*keeper.env, &segment.path)?;
    }
    let folder = keeper.layout.journal();
    keeper.env.sync_dir(&folder).context("sync the folder", &folder)
}

/// When the segments were begun, and now.
fn times(segments: &[Arc<Segment>], now: i64) -> Vec<i64> {
    let begun = segments.iter().map(|segment| segment.header.created);
    begun.chain([now]).collect()
}

/// From the times when segments were begun, and now: whether all of each but the last is older than the limit. A clock that
/// jumps makes nothing old by itself: of the time between two segments no more than half the limit counts.
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
