//! A look at the whole journal that does not stop at the first fault, and changes nothing.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::decision::{Next, Rest, Verdict, Vouched, decide};
use super::frame::{ALIGNMENT, Frame};
use super::index::Index;
use super::recovery::{Recovery, classify_rest};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::sidecar::Sidecar;
use super::{Position, TornTail};
use crate::error::{Error, Result};
use crate::model::{MalformedRecord, RecordView};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// All of them, in the order of the journal.
    pub(crate) faults: Vec<Error>,
    /// Records that should be there and cannot be read.
    pub(crate) missing: Vec<RangeInclusive<u64>>,
    /// Sidecars that are not those of their segments, and why.
    pub(crate) sidecars: Vec<(PathBuf, Error)>,
    /// The first sequence numbers of all segments.
    pub(crate) segments: Vec<u64>,
    /// The first segment behind all faults; none if the last one has one.
    pub(crate) whole_from: Option<u64>,
    /// Where the first fault is: behind the last record before it.
    pub(crate) first_fault: Option<Position>,
    /// The last record that was read, or is missing.
    pub(crate) last: u64,
    /// The number of records that were read.
    pub(crate) records: u64,
    /// Bytes of commits that were never acknowledged. No fault: opening the store cuts them.
    pub(crate) torn_tail: Option<TornTail>,
}

/// How far the look has come.
struct Place {
    sequence: u64,
    /// Of the frame with that number; none if it could not be read.
    checksum: Option<u32>,
}

impl Recovery<'_> {
    /// Looks at all segments. `visit` is given each record that can be read, in order, with its time.
    pub(crate) fn survey(&mut self, visit: &mut dyn FnMut(u64, RecordView<'_>, i64)) -> Result<Survey> {
        self.sort_vouchers();
        let mut survey = Survey {
            segments: self.find_segments()?,
            ..Survey::default()
        };
        let mut place = Place {
            sequence: self.identity.trim_base - 1,
            checksum: None,
        };
        match survey.segments.first() {
            Some(first) if *first > self.identity.trim_base => {
                survey.fault(self.first_is_missing(*first), &place, self.identity.trim_base, 0);
            }
            Some(_) => {}
            None => {
                let error = Error::damaged(&self.layout.journal(), 0, "a segment", "none");
                survey.fault(error, &place, self.identity.trim_base, 0);
            }
        }
        for first in survey.segments.clone() {
            let faults = survey.faults.len();
            self.survey_segment(first, &mut place, &mut survey, visit);
            if survey.faults.len() > faults {
                survey.whole_from = None;
            } else if !survey.faults.is_empty() {
                survey.whole_from.get_or_insert(first);
            }
        }
        survey.last = place.sequence;
        if let Some(voucher) = self
            .vouchers
            .last()
            .filter(|voucher| voucher.sequence > place.sequence)
        {
            survey.missing.push(place.sequence + 1..=voucher.sequence);
            survey.last = voucher.sequence;
        }
        Ok(survey)
    }

    fn survey_segment(
        &self,
        first: u64,
        place: &mut Place,
        survey: &mut Survey,
        visit: &mut dyn FnMut(u64, RecordView<'_>, i64),
    ) {
        let path = self.layout.segment(first);
        let opened = self.open_segment(first);
        if first != place.sequence + 1 {
            // What is before it says what is wrong where it ends.
            survey.lacks(place.sequence + 1, first - 1);
            *place = Place {
                sequence: first - 1,
                checksum: None,
            };
        }
        let (segment, bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                survey.fault(error, place, first, 0);
                place.checksum = None;
                return;
            }
        };
        let previous = segment.header.previous;
        if place.checksum.is_some_and(|checksum| checksum != previous) {
            let expected = "the checksum of the record before";
            let found = "another";
            survey.fault(Error::damaged(&path, 64, expected, found), place, first, 0);
        }
        place.checksum = Some(previous);
        let mut offset = SEGMENT_HEADER_BYTES;
        let (mut index, faults) = (Index::default(), survey.faults.len());
        loop {
            offset = self.survey_frames(&segment, &bytes, offset, place, survey, &mut |offset, frame| {
                let record = RecordView::verify(frame.payload)?;
                index.add(offset, frame);
                visit(frame.meta.sequence, record, frame.meta.time);
                Ok(())
            });
            match self.survey_gap(&segment, &bytes, offset, place, survey) {
                Some(next) => offset = next,
                None => break,
            }
        }
        // What a damaged segment's sidecar says is found out when the segment is whole again.
        if survey.faults.len() == faults {
            self.survey_sidecar(&segment, place, &index, survey);
        }
    }

    fn survey_sidecar(&self, segment: &Segment, place: &Place, index: &Index, survey: &mut Survey) {
        let binding = segment.binding(Position {
            sequence: place.sequence,
            checksum: place.checksum.unwrap_or_default(),
            ..Position::at_beginning(segment)
        });
        let path = self.layout.sidecar(binding.first_sequence);
        let compared = Sidecar::open(self.env, &path, &binding);
        if let Err(error) =
            compared.and_then(|sidecar| sidecar.map_or(Ok(()), |sidecar| sidecar.compare(index)))
        {
            survey.sidecars.push((path, error));
        }
    }

    /// Reads frames that follow each other, and gives the offset behind the last.
    fn survey_frames(
        &self,
        segment: &Segment,
        bytes: &[u8],
        mut offset: usize,
        place: &mut Place,
        survey: &mut Survey,
        visit: &mut dyn FnMut(usize, &Frame<'_>) -> Result<(), MalformedRecord>,
    ) -> usize {
        while let Some(frame) = Frame::at(bytes, offset, &segment.salt) {
            let sequence = frame.meta.sequence;
            if sequence != place.sequence + 1 || Some(frame.chain.previous) != place.checksum {
                break;
            }
            let first = segment.header.first_sequence;
            if let Err(error) = self.check_vouchers(segment, offset, &frame) {
                survey.fault(error, place, first, offset);
            }
            match visit(offset, &frame) {
                Ok(()) => survey.records += 1,
                Err(malformed) => {
                    let at = offset + super::FRAME_HEADER_BYTES + malformed.offset;
                    let error = Error::damaged(&segment.path, at as u64, malformed.expected, "other bytes");
                    survey.fault(error, place, first, offset);
                    survey.lacks(sequence, sequence);
                }
            }
            place.sequence = sequence;
            place.checksum = Some(frame.checksum);
            offset += frame.bytes();
        }
        offset
    }

    /// What the end of the frames means. Gives the offset of the next frame if there is one behind a gap.
    fn survey_gap(
        &self,
        segment: &Segment,
        bytes: &[u8],
        offset: usize,
        place: &mut Place,
        survey: &mut Survey,
    ) -> Option<usize> {
        let first = segment.header.first_sequence;
        let index = survey.segments.partition_point(|other| *other <= first);
        let next = survey.segments.get(index).copied();
        if next == Some(place.sequence + 1) {
            return None;
        }
        let missing = place.sequence + 1;
        let rest = classify_rest(
            segment,
            bytes,
            offset,
            place.sequence,
            place.checksum.unwrap_or(0),
        );
        if next.is_none() {
            let is_vouched = self
                .vouchers
                .last()
                .is_some_and(|voucher| voucher.sequence >= missing);
            let vouched = if is_vouched {
                Vouched::Missing
            } else {
                Vouched::Reached
            };
            match decide(rest, Next::None, vouched) {
                Verdict::Damage => {}
                Verdict::TornTail => {
                    survey.torn_tail = Some(torn_tail(&segment.path, bytes, offset));
                    return None;
                }
                _ => return None,
            }
        }
        let behind = (offset..bytes.len())
            .step_by(ALIGNMENT)
            .filter_map(|at| Some((at, Frame::at(bytes, at, &segment.salt)?)))
            .find(|(_, frame)| frame.meta.sequence >= missing);
        let found = match &behind {
            Some((at, frame)) => format!("none before the record {} at offset {at}", frame.meta.sequence),
            None if rest == Rest::CutFile => "the end of a file that was longer".to_owned(),
            None => "no valid frame up to the end of the segment".to_owned(),
        };
        let error = Error::damaged(
            &segment.path,
            offset as u64,
            format!("the record {missing}"),
            found,
        );
        survey.fault(error, place, first, offset);
        let (at, frame) = behind?;
        survey.lacks(missing, frame.meta.sequence - 1);
        *place = Place {
            sequence: frame.meta.sequence - 1,
            checksum: Some(frame.chain.previous),
        };
        Some(at)
    }
}

impl Survey {
    fn fault(&mut self, error: Error, place: &Place, segment: u64, offset: usize) {
        self.faults.push(error);
        self.first_fault.get_or_insert(Position {
            sequence: place.sequence,
            checksum: place.checksum.unwrap_or(0),
            segment,
            offset: offset as u64,
        });
    }

    fn lacks(&mut self, first: u64, last: u64) {
        if first <= last {
            self.missing.push(first..=last);
        }
    }
}

fn torn_tail(path: &Path, bytes: &[u8], offset: usize) -> TornTail {
    let used = bytes[offset..].iter().rposition(|byte| *byte != 0);
    TornTail {
        segment: path.to_owned(),
        offset: offset as u64,
        bytes: used.map_or(0, |last| last as u64 + 1),
    }
}
