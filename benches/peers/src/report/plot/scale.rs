//! Where a value stands from left to right.

use crate::figures::Spread;
use crate::number::plain;

/// From so many times between the lowest and the highest on, the scale is logarithmic.
const LOGARITHMIC_FROM: f64 = 12.0;
/// Of so many powers of ten every other has its number.
const CROWDED: usize = 6;

pub struct Scale {
    low: f64,
    high: f64,
    pub is_logarithmic: bool,
}

impl Scale {
    pub fn of(spreads: &[Spread]) -> Scale {
        let high = spreads.iter().map(|spread| spread.high).fold(0.0, f64::max);
        let positive = spreads.iter().map(|spread| spread.low).filter(|low| *low > 0.0);
        let low = positive.fold(high, f64::min);
        let is_logarithmic = low > 0.0 && high / low >= LOGARITHMIC_FROM;
        Scale {
            // A bar begins below the lowest value, so that this has a length too.
            low: if is_logarithmic {
                power_below(low / 2.0)
            } else {
                0.0
            },
            high: if high > 0.0 { high } else { 1.0 },
            is_logarithmic,
        }
    }

    /// From 0 to 1.
    pub fn at(&self, value: f64) -> f64 {
        let part = match self.is_logarithmic {
            true => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => value / self.high,
        };
        part.clamp(0.0, 1.0)
    }

    /// Values for lines in the background, some of them with a label.
    pub fn ticks(&self) -> Vec<(f64, Option<String>)> {
        let values: Vec<f64> = match self.is_logarithmic {
            true => std::iter::successors(Some(self.low), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= self.high)
                .collect(),
            false => {
                let step = self.step();
                let ticks = (0..=10).map(|number| step * f64::from(number));
                ticks.take_while(|tick| *tick <= self.high).collect()
            }
        };
        let every = if values.len() > CROWDED { 2 } else { 1 };
        let labelled = values.into_iter().enumerate();
        labelled
            .map(|(number, value)| (value, number.is_multiple_of(every).then(|| label(value))))
            .collect()
    }

    /// 1, 2 or 5 of a power of ten, so that there are about five.
    fn step(&self) -> f64 {
        let rough = self.high / 5.0;
        let power = power_below(rough);
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        steps.into_iter().find(|step| *step >= rough).unwrap_or(rough)
    }
}

fn power_below(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

fn label(tick: f64) -> String {
    let shown = plain(tick);
    match shown.contains('.') {
        true => shown.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(low: f64, high: f64) -> (bool, Vec<String>) {
        let median = low;
        let scale = Scale::of(&[Spread { low, median, high }]);
        assert!(scale.at(low) > 0.0 && scale.at(high) == 1.0, "a bar has a length");
        let ticks = scale.ticks().into_iter().filter_map(|(_, label)| label);
        (scale.is_logarithmic, ticks.collect())
    }

    #[test]
    fn a_wide_range_is_logarithmic_and_a_narrow_one_begins_at_zero() {
        let owned = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
        assert_eq!(ticks(3.0, 3000.0), (true, owned(&["1", "10", "100", "1,000"])));
        assert_eq!(
            ticks(40.0, 100.0),
            (false, owned(&["0", "20", "40", "60", "80", "100"]))
        );
        assert_eq!(ticks(0.2, 1e6).1, ["0.1", "10", "1,000", "100,000"]);
    }
}
