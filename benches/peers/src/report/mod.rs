//! Writes what was measured: a table in Markdown, the same as JSON, and plots.

mod json;
mod markdown;
mod plot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::figures::{Better, Figure, Role, Row};
use crate::machine::Machine;

pub struct Report {
    pub machine: Machine,
    pub command: String,
    pub versions: Vec<String>,
    pub rounds: usize,
    pub scale: f64,
    pub sections: Vec<Section>,
}

/// What a workload has found.
pub struct Section {
    pub name: &'static str,
    pub title: &'static str,
    pub about: &'static str,
    pub figures: Vec<Figure>,
    pub notes: Vec<String>,
}

impl Report {
    /// Writes `results.md`, `results.json` and a plot for each section that has figures.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.md"), markdown::report(self))?;
        let mut json = serde_json::to_string_pretty(&json::report(self))?;
        json.push('\n');
        fs::write(folder.join("results.json"), json)?;
        for section in self.sections.iter().filter(|section| !section.figures.is_empty()) {
            let path = folder.join(section.plot());
            plot::section(section, &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

impl Section {
    fn plot(&self) -> String {
        format!("{}.svg", self.name)
    }
}

/// Raw rows first, then the stores, the best at the top.
fn ranked(figure: &Figure) -> Vec<&Row> {
    let mut rows: Vec<_> = figure.rows.iter().collect();
    let median = |row: &Row| row.spread().map_or(f64::NAN, |spread| spread.median);
    rows.sort_by(|one, other| {
        let is_store = |row: &Row| row.role != Role::Raw;
        let by_value = match figure.measure.better {
            Better::Lower => median(one).total_cmp(&median(other)),
            Better::Higher => median(other).total_cmp(&median(one)),
        };
        is_store(one).cmp(&is_store(other)).then(by_value)
    });
    rows
}
