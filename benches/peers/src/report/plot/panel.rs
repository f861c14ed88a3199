//! One figure: a bar for each row.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::super::ranked;
use super::{Area, COLUMN, Drawn, INK, MARGIN, Scale, text};
use crate::figures::{Better, Figure, Role, Row, Spread};
use crate::number::plain;

const LABELS: i32 = 175;
/// Room for the numbers behind the bars.
const NUMBERS: i32 = 70;
const BAR: i32 = 21;
const TITLE: i32 = 44;
const BELOW: i32 = 36;

const FAINT: RGBColor = RGBColor(0x6b, 0x75, 0x85);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xed);
const OURS: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const PEER: RGBColor = RGBColor(0x5b, 0x86, 0xb5);
const RAW: RGBColor = RGBColor(0xb4, 0xba, 0xc4);

pub fn panel_height(figure: &Figure) -> i32 {
    TITLE + BAR * figure.rows.len() as i32 + BELOW
}

pub struct Panel<'a, 'b> {
    pub area: &'a Area<'b>,
    pub left: i32,
    pub top: i32,
    pub scale: Scale,
}

impl Panel<'_, '_> {
    pub fn draw(&self, figure: &Figure) -> Drawn {
        let better = match figure.measure.better {
            Better::Lower => "lower is better",
            Better::Higher => "higher is better",
        };
        self.text(&figure.measure.title, (MARGIN, 10), 14, &INK, HPos::Left)?;
        let kind = match self.scale.is_logarithmic {
            true => ", logarithmic",
            false => "",
        };
        let hint = format!("{}, {better}{kind}", figure.measure.unit);
        self.text(&hint, (LABELS, 29), 11, &FAINT, HPos::Left)?;

        let rows: Vec<(&Row, Spread)> = ranked(figure)
            .into_iter()
            .filter_map(|row| Some((row, row.spread()?)))
            .collect();
        let (first, last) = (TITLE - 4, TITLE + BAR * rows.len() as i32);
        for (tick, label) in self.scale.ticks() {
            let at = self.across(tick);
            self.line((at, first), (at, last), GRID.mix(1.0))?;
            if let Some(label) = label {
                self.text(&label, (at, last + 11), 11, &FAINT, HPos::Center)?;
            }
        }
        for (number, (row, spread)) in (0..).zip(rows) {
            self.bar(row, spread, TITLE + BAR * number + BAR / 2)?;
        }
        Ok(())
    }

    fn bar(&self, row: &Row, spread: Spread, middle: i32) -> Drawn {
        let (color, ink) = match row.role {
            Role::Raw => (RAW, FAINT),
            Role::Ours => (OURS, OURS),
            Role::Peer => (PEER, INK),
        };
        let end = self.across(spread.median).max(LABELS + 1);
        let corners = [self.place((LABELS, middle - 7)), self.place((end, middle + 7))];
        self.area.draw(&Rectangle::new(corners, color.filled()))?;
        let (low, high) = (self.across(spread.low), self.across(spread.high));
        for (from, to) in [
            ((low, middle), (high, middle)),
            ((low, middle - 3), (low, middle + 3)),
            ((high, middle - 3), (high, middle + 3)),
        ] {
            self.line(from, to, INK.mix(0.7))?;
        }
        self.text(&row.label, (LABELS - 8, middle), 13, &ink, HPos::Right)?;
        let behind = end.max(high) + 7;
        self.text(&plain(spread.median), (behind, middle), 12, &INK, HPos::Left)
    }

    /// From the left edge of the panel.
    fn across(&self, value: f64) -> i32 {
        let width = f64::from(COLUMN - LABELS - NUMBERS - MARGIN);
        LABELS + (self.scale.at(value) * width) as i32
    }

    fn place(&self, (x, y): (i32, i32)) -> (i32, i32) {
        (self.left + x, self.top + y)
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), color: RGBAColor) -> Drawn {
        let points = vec![self.place(from), self.place(to)];
        Ok(self.area.draw(&PathElement::new(points, color))?)
    }

    fn text(&self, shown: &str, at: (i32, i32), size: i32, color: &RGBColor, align: HPos) -> Drawn {
        text(self.area, shown, self.place(at), size, color, align)
    }
}
