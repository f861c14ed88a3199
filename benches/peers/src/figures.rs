//! Figures of rounds in which all sides take turns.
//!
//! Machines are noisy, and disks swing by a factor of several within seconds: only the ratios of sides that took turns within one run
//! mean something. So each round runs every side once, the order moves on by one from round to round, and a ratio is the
//! median of the rounds' own ratios.

use anyhow::{Context, Result};

use crate::watchdog::Watchdog;

/// Whose figure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// What the machine can do at best, written by hand.
    Raw,
    Ours,
    Peer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    Lower,
    Higher,
}

/// What is measured of every side.
#[derive(Clone, Debug)]
pub struct Measure {
    pub title: String,
    pub unit: &'static str,
    pub better: Better,
}

impl Measure {
    pub fn lower(title: impl Into<String>, unit: &'static str) -> Measure {
        Measure {
            title: title.into(),
            unit,
            better: Better::Lower,
        }
    }

    pub fn higher(title: impl Into<String>, unit: &'static str) -> Measure {
        Measure {
            better: Better::Higher,
            ..Measure::lower(title, unit)
        }
    }
}

/// Who takes turns.
pub struct Side<'a> {
    pub label: String,
    pub role: Role,
    /// One value for each measure; none where it does not apply.
    pub run: Box<dyn FnMut() -> Result<Vec<Option<f64>>> + 'a>,
}

impl<'a> Side<'a> {
    pub fn new(
        label: impl Into<String>,
        role: Role,
        run: impl FnMut() -> Result<Vec<Option<f64>>> + 'a,
    ) -> Side<'a> {
        Side {
            label: label.into(),
            role,
            run: Box::new(run),
        }
    }
}

/// One measure of all sides.
#[derive(Clone, Debug)]
pub struct Figure {
    pub measure: Measure,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub label: String,
    pub role: Role,
    /// One value of each round.
    pub values: Vec<f64>,
}

/// How clusdb stands beside a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does better, or as well, or there is nothing to compare.
    None,
    /// It does worse by the median, but not in every round.
    LosesInTheMedian,
    /// It does worse in every round.
    Loses,
}

/// The median, with the lowest and the highest.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// None of no values.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        Some(Spread {
            low: *values.first()?,
            median: values[values.len() / 2],
            high: *values.last()?,
        })
    }
}

impl Row {
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.clone())
    }

    /// This row's values as multiples of the other's, round by round.
    pub fn ratio_to(&self, other: &Row) -> Option<Spread> {
        let rounds = self.values.iter().zip(&other.values);
        Spread::of(rounds.map(|(value, other)| value / other).collect())
    }
}

impl Figure {
    /// The first row of this role.
    pub fn first(&self, role: Role) -> Option<&Row> {
        self.rows.iter().find(|row| row.role == role)
    }

    /// Whether this row does better than clusdb.
    pub fn verdict(&self, row: &Row) -> Verdict {
        let ours = self.first(Role::Ours).filter(|_| row.role == Role::Peer);
        let Some(ratio) = ours.and_then(|ours| row.ratio_to(ours)) else {
            return Verdict::None;
        };
        let is_better = |ratio: f64| match self.measure.better {
            Better::Lower => ratio < 1.0,
            Better::Higher => ratio > 1.0,
        };
        match (
            is_better(ratio.median),
            is_better(ratio.low) && is_better(ratio.high),
        ) {
            (true, true) => Verdict::Loses,
            (true, false) => Verdict::LosesInTheMedian,
            _ => Verdict::None,
        }
    }
}

/// Lets the sides take turns, and gives a figure for each measure. Rows stand in the order of the sides.
pub fn take_turns(
    rounds: usize,
    watchdog: &Watchdog,
    measures: Vec<Measure>,
    mut sides: Vec<Side<'_>>,
) -> Result<Vec<Figure>> {
    let row = |side: &Side<'_>| Row {
        label: side.label.clone(),
        role: side.role,
        values: Vec::new(),
    };
    let rows: Vec<_> = sides.iter().map(row).collect();
    let figure = |measure| Figure {
        measure,
        rows: rows.clone(),
    };
    let mut figures: Vec<_> = measures.into_iter().map(figure).collect();
    let count = sides.len();
    for round in 0..rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            let side = &mut sides[index];
            let guarded = watchdog.guard(&side.label);
            let values = (side.run)().with_context(|| side.label.clone())?;
            drop(guarded);
            for (figure, value) in figures.iter_mut().zip(values) {
                figure.rows[index].values.extend(value);
            }
        }
    }
    for figure in &mut figures {
        figure.rows.retain(|row| !row.values.is_empty());
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_runs_once_a_round_and_nobody_is_always_first() {
        let order = std::cell::RefCell::new(Vec::new());
        let side = |label: &'static str| {
            let order = &order;
            Side::new(label, Role::Peer, move || {
                order.borrow_mut().push(label);
                Ok(vec![Some(1.0), None])
            })
        };
        let measures = vec![Measure::lower("a", "ms"), Measure::lower("b", "ms")];
        let sides = vec![side("x"), side("y"), side("z")];
        let figures = take_turns(3, &Watchdog::start(), measures, sides).expect("figures");
        assert_eq!(order.borrow().join(""), "xyzyzxzxy");
        assert_eq!(figures[0].rows[2].values, [1.0; 3]);
        assert!(figures[1].rows.is_empty(), "what has no values has no row");
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_own_ratios() {
        let row = |values: &[f64]| Row {
            label: String::new(),
            role: Role::Peer,
            values: values.to_vec(),
        };
        let ratio = row(&[10.0, 4.0, 90.0]).ratio_to(&row(&[5.0, 1.0, 30.0]));
        let expected = Spread {
            low: 2.0,
            median: 3.0,
            high: 4.0,
        };
        assert_eq!(ratio, Some(expected));
    }
}
