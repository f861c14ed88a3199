//! Plots: for each figure a panel of bars, with the lowest and the highest round as whiskers.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::number::plain;
use super::{Section, ranked};
use crate::figures::{Better, Figure, Role, Row, Spread};

const WIDTH: u32 = 860;
const LABELS: i32 = 210;
/// Room for the numbers behind the bars.
const NUMBERS: i32 = 110;
const BAR: i32 = 22;
const TITLE: i32 = 40;
const SCALE: i32 = 36;
const HEADING: i32 = 54;
const MARGIN: i32 = 16;
/// From so many times between the lowest and the highest on, the scale is logarithmic.
const LOGARITHMIC_FROM: f64 = 12.0;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x38);
const FAINT: RGBColor = RGBColor(0x6b, 0x75, 0x85);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xed);
const OURS: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const PEER: RGBColor = RGBColor(0x5b, 0x86, 0xb5);
const RAW: RGBColor = RGBColor(0xb4, 0xba, 0xc4);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a panel for each figure of the section.
pub fn section(section: &Section, path: &Path) -> Result<()> {
    let heights = section.figures.iter().map(panel_height);
    let height = HEADING + heights.sum::<i32>() + MARGIN;
    let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    draw(section, &area).map_err(|error| anyhow!("the plot could not be drawn: {error}"))
}

fn panel_height(figure: &Figure) -> i32 {
    TITLE + BAR * figure.rows.len() as i32 + SCALE
}

fn draw(section: &Section, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    text(area, section.title, (MARGIN, 26), 20, &INK, HPos::Left)?;
    let mut top = HEADING;
    for figure in &section.figures {
        panel(figure, area, top)?;
        top += panel_height(figure);
    }
    area.present()?;
    Ok(())
}

/// Where a value stands from left to right.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn of(spreads: &[Spread]) -> Scale {
        let high = spreads.iter().map(|spread| spread.high).fold(0.0, f64::max);
        let positive = spreads.iter().map(|spread| spread.low).filter(|low| *low > 0.0);
        let low = positive.fold(high, f64::min);
        let is_logarithmic = low > 0.0 && high / low >= LOGARITHMIC_FROM;
        let high = if high > 0.0 { high } else { 1.0 };
        Scale {
            // A bar begins below the lowest value, so that this has a length too.
            low: if is_logarithmic {
                power_below(low / 2.0)
            } else {
                0.0
            },
            high,
            is_logarithmic,
        }
    }

    fn at(&self, value: f64) -> i32 {
        let width = f64::from(WIDTH as i32 - LABELS - NUMBERS - MARGIN);
        let part = match self.is_logarithmic {
            true => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => value / self.high,
        };
        LABELS + (part.clamp(0.0, 1.0) * width) as i32
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let powers = std::iter::successors(Some(self.low), |tick| Some(tick * 10.0));
            return powers.take_while(|tick| *tick <= self.high).collect();
        }
        let rough = self.high / 5.0;
        let power = power_below(rough);
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let ticks = (0..=10).map(|number| step * f64::from(number));
        ticks.take_while(|tick| *tick <= self.high).collect()
    }
}

fn power_below(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

fn panel(figure: &Figure, area: &Area<'_>, top: i32) -> Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<(&Row, Spread)> = ranked(figure)
        .into_iter()
        .filter_map(|row| Some((row, row.spread()?)))
        .collect();
    let spreads: Vec<_> = rows.iter().map(|(_, spread)| *spread).collect();
    let scale = Scale::of(&spreads);
    let better = match figure.measure.better {
        Better::Lower => "lower is better",
        Better::Higher => "higher is better",
    };
    text(
        area,
        &figure.measure.title,
        (MARGIN, top + 12),
        15,
        &INK,
        HPos::Left,
    )?;
    let kind = if scale.is_logarithmic { ", logarithmic" } else { "" };
    let hint = format!("{}, {better}{kind}", figure.measure.unit);
    text(
        area,
        &hint,
        (WIDTH as i32 - MARGIN, top + 12),
        12,
        &FAINT,
        HPos::Right,
    )?;

    let (first, last) = (top + TITLE - 8, top + TITLE + BAR * rows.len() as i32);
    for tick in scale.ticks() {
        let at = scale.at(tick);
        area.draw(&PathElement::new(vec![(at, first), (at, last)], GRID))?;
        text(area, &tick_label(tick), (at, last + 11), 11, &FAINT, HPos::Center)?;
    }
    for (number, (row, spread)) in rows.into_iter().enumerate() {
        let middle = top + TITLE + BAR * number as i32 + BAR / 2 - 4;
        bar(area, &scale, row, spread, middle)?;
    }
    Ok(())
}

fn bar(
    area: &Area<'_>,
    scale: &Scale,
    row: &Row,
    spread: Spread,
    middle: i32,
) -> Result<(), Box<dyn std::error::Error>> {
    let (color, ink) = match row.role {
        Role::Raw => (RAW, FAINT),
        Role::Ours => (OURS, OURS),
        Role::Peer => (PEER, INK),
    };
    let end = scale.at(spread.median).max(LABELS + 1);
    let corners = [(LABELS, middle - 7), (end, middle + 7)];
    area.draw(&Rectangle::new(corners, color.filled()))?;
    let (low, high) = (scale.at(spread.low), scale.at(spread.high));
    for line in [
        [(low, middle), (high, middle)],
        [(low, middle - 3), (low, middle + 3)],
        [(high, middle - 3), (high, middle + 3)],
    ] {
        area.draw(&PathElement::new(line.to_vec(), INK.mix(0.7)))?;
    }
    text(area, &row.label, (LABELS - 8, middle), 13, &ink, HPos::Right)?;
    let behind = end.max(high) + 7;
    text(
        area,
        &plain(spread.median),
        (behind, middle),
        12,
        &INK,
        HPos::Left,
    )
}

fn tick_label(tick: f64) -> String {
    let shown = plain(tick);
    match shown.contains('.') {
        true => shown.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => shown,
    }
}

fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    color: &RGBColor,
    align: HPos,
) -> Result<(), Box<dyn std::error::Error>> {
    let style = ("sans-serif", size).into_font().color(color);
    area.draw(&Text::new(text, at, style.pos(Pos::new(align, VPos::Center))))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(low: f64, high: f64) -> Spread {
        Spread {
            low,
            median: low,
            high,
        }
    }

    #[test]
    fn a_wide_range_is_logarithmic_and_every_bar_has_a_length() {
        let scale = Scale::of(&[spread(3.0, 4.0), spread(2000.0, 3000.0)]);
        assert!(scale.is_logarithmic && scale.at(3.0) > LABELS);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!(scale.at(3000.0) <= WIDTH as i32 - NUMBERS);
    }

    #[test]
    fn a_narrow_range_begins_at_zero() {
        let scale = Scale::of(&[spread(90.0, 100.0), spread(40.0, 50.0)]);
        assert!(!scale.is_logarithmic && scale.at(0.0) == LABELS);
        assert_eq!(scale.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    }
}
