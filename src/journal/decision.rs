//! What the end of the frames in a segment means: the decision table of recovery, as data.
//!
//! `docs/format.md` has the same table in words, and a test below runs every combination.

/// What stands behind the last valid frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing, or zeroes only.
    Zeroes,
    /// Other bytes, and no valid frame among them.
    Garbage,
    /// A valid frame, of which none says that the missing record was durable.
    UnpromisedFrame,
    /// A valid frame that says that the missing record was durable before it.
    PromisedFrame,
    /// The end of the file, where it cannot have ended: bytes are missing.
    CutFile,
}

/// The segment behind this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is none.
    None,
    /// It goes on with the next sequence number and the last frame's checksum.
    GoesOn,
    /// It begins elsewhere.
    BeginsElsewhere,
}

/// Whether anything outside of the journal vouches for a record that was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vouched {
    /// Every record that is vouched for is there.
    Reached,
    /// One is missing.
    Missing,
}

/// What the end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The segment is full; go on with the next.
    Sealed,
    /// The journal ends here.
    End,
    /// The journal ends here; what follows was promised to nobody: cut it, and report.
    TornTail,
    /// A record that was promised is missing: refuse the store, and name the place.
    Damage,
}

/// Decides. The header of a later segment is a promise by itself: it is written once all before it is durable.
pub(crate) fn decide(rest: Rest, next: Next, vouched: Vouched) -> Verdict {
    match (next, vouched, rest) {
        (Next::GoesOn, _, _) => Verdict::Sealed,
        (Next::BeginsElsewhere, _, _) => Verdict::Damage,
        (Next::None, Vouched::Missing, _) => Verdict::Damage,
        (Next::None, Vouched::Reached, Rest::Zeroes) => Verdict::End,
        (Next::None, Vouched::Reached, Rest::Garbage | Rest::UnpromisedFrame) => Verdict::TornTail,
        (Next::None, Vouched::Reached, Rest::PromisedFrame | Rest::CutFile) => Verdict::Damage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table in `docs/format.md`, read from the document itself.
    #[test]
    fn every_combination_is_decided_as_the_document_says() {
        let document = include_str!("../../docs/format.md");
        let rows: Vec<[&str; 4]> = document
            .lines()
            .filter_map(|line| {
                let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
                let cells: [&str; 4] = cells.try_into().ok()?;
                let is_row = [
                    "zeroes",
                    "garbage",
                    "unpromised frame",
                    "promised frame",
                    "cut file",
                    "any",
                ];
                is_row.contains(&cells[1]).then_some(cells)
            })
            .collect();
        assert!(rows.len() >= 8, "the document has lost its table");
        let mut combinations = 0;
        for (next, next_name) in [
            (Next::None, "none"),
            (Next::GoesOn, "goes on"),
            (Next::BeginsElsewhere, "begins elsewhere"),
        ] {
            for (rest, rest_name) in [
                (Rest::Zeroes, "zeroes"),
                (Rest::Garbage, "garbage"),
                (Rest::UnpromisedFrame, "unpromised frame"),
                (Rest::PromisedFrame, "promised frame"),
                (Rest::CutFile, "cut file"),
            ] {
                for (vouched, vouched_name) in [(Vouched::Reached, "no"), (Vouched::Missing, "yes")] {
                    let matching: Vec<_> = rows
                        .iter()
                        .filter(|row| row[0] == next_name)
                        .filter(|row| [rest_name, "any"].contains(&row[1]))
                        .filter(|row| [vouched_name, "any"].contains(&row[2]))
                        .collect();
                    let [row] = matching[..] else {
                        panic!("{next:?} {rest:?} {vouched:?}: {} rows", matching.len());
                    };
                    let verdict = match decide(rest, next, vouched) {
                        Verdict::Sealed => "sealed",
                        Verdict::End => "end",
                        Verdict::TornTail => "torn tail",
                        Verdict::Damage => "damage",
                    };
                    assert_eq!(row[3], verdict, "{next:?} {rest:?} {vouched:?}");
                    combinations += 1;
                }
            }
        }
        assert_eq!(combinations, 30);
    }
}
