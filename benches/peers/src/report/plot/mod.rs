//! Plots: for each figure a panel of bars, with the lowest and the highest round as whiskers.

mod panel;
mod scale;

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use self::panel::{Panel, panel_height};
use self::scale::Scale;
use super::Section;
use crate::figures::{Figure, Row};

/// Panels stand in two columns.
const COLUMN: i32 = 540;
const HEADING: i32 = 54;
const MARGIN: i32 = 16;
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x38);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What can go wrong depends on the backend; the message is all that is wanted of it.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a panel for each figure of the section. Those of the same unit have the same scale.
pub fn section(section: &Section, path: &Path) -> Result<()> {
    let columns = section.figures.len().min(2) as i32;
    let heights = section.figures.chunks(2).map(row_height);
    let height = HEADING + heights.sum::<i32>() + MARGIN;
    let size = ((columns * COLUMN) as u32, height as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    draw(section, &area).map_err(|error| anyhow!("the plot could not be drawn: {error}"))
}

fn row_height(figures: &[Figure]) -> i32 {
    figures.iter().map(panel_height).max().unwrap_or(0)
}

fn draw(section: &Section, area: &Area<'_>) -> Drawn {
    area.fill(&WHITE)?;
    text(area, section.title, (MARGIN, 26), 20, &INK, HPos::Left)?;
    let mut top = HEADING;
    for figures in section.figures.chunks(2) {
        for (column, figure) in (0..).zip(figures) {
            let unit = figure.measure.unit;
            let same = section.figures.iter().filter(|other| other.measure.unit == unit);
            let spreads: Vec<_> = same
                .flat_map(|other| &other.rows)
                .filter_map(Row::spread)
                .collect();
            let panel = Panel {
                area,
                left: column * COLUMN,
                top,
                scale: Scale::of(&spreads),
            };
            panel.draw(figure)?;
        }
        top += row_height(figures);
    }
    area.present()?;
    Ok(())
}

fn text(area: &Area<'_>, shown: &str, at: (i32, i32), size: i32, color: &RGBColor, align: HPos) -> Drawn {
    let style = ("sans-serif", size).into_font().color(color);
    area.draw(&Text::new(shown, at, style.pos(Pos::new(align, VPos::Center))))?;
    Ok(())
}
