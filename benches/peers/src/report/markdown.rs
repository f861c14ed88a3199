//! The report as Markdown.

use std::fmt::Write;

use super::{Report, Section, ranked};
use crate::figures::{Better, Figure, Role, Row, Spread, Verdict};
use crate::number::plain;

pub fn report(report: &Report) -> String {
    let mut text = String::from("# clusdb and other embedded stores\n\n");
    for line in report.machine.lines() {
        let _ = writeln!(text, "- {line}");
    }
    let _ = writeln!(text, "- {}", report.versions.join(", "));
    let _ = writeln!(text, "- `{}`", report.command);
    let _ = writeln!(
        text,
        "\nMedians of {} rounds in which all take turns, with the lowest and the highest round in brackets. Ratios are medians of the \
         rounds' own: only they mean something where the machine is shared and the disk swings. The scale is {}.",
        report.rounds, report.scale
    );
    losses(report, &mut text);
    for section in &report.sections {
        write_section(section, &mut text);
    }
    text
}

/// Where a peer does better.
fn losses(report: &Report, text: &mut String) {
    let mut lines = String::new();
    for figure in report.sections.iter().flat_map(|section| &section.figures) {
        let better = figure
            .rows
            .iter()
            .filter(|row| figure.verdict(row) != Verdict::None);
        let better: Vec<_> = better
            .map(|row| format!("{} {}", row.label, ratio(figure, row, Role::Ours)))
            .collect();
        if !better.is_empty() {
            let _ = writeln!(lines, "- {}: {}", figure.measure.title, better.join(", "));
        }
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "\n## Where clusdb loses\n\n{lines}");
        let _ = writeln!(
            text,
            "The numbers are the peer's figure as a multiple of clusdb's; where the brackets include 1, some rounds went the other way."
        );
    }
}

fn write_section(section: &Section, text: &mut String) {
    let _ = writeln!(text, "\n## {}\n\n{}", section.title, section.about);
    for note in &section.notes {
        let _ = writeln!(text, "\n{note}");
    }
    if section.figures.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n![{}]({})", section.title, section.plot());
    for figure in &section.figures {
        write_figure(figure, text);
    }
}

fn write_figure(figure: &Figure, text: &mut String) {
    let better = match figure.measure.better {
        Better::Lower => "lower is better",
        Better::Higher => "higher is better",
    };
    let (title, unit) = (&figure.measure.title, figure.measure.unit);
    let _ = writeln!(
        text,
        "\n| {title} ({better}) | {unit} | to raw | to clusdb | |\n|---|---|---|---|---|"
    );
    for row in ranked(figure) {
        let label = match row.role {
            Role::Ours => format!("**{}**", row.label),
            _ => row.label.clone(),
        };
        let verdict = match figure.verdict(row) {
            Verdict::None => "",
            Verdict::LosesInTheMedian => "**clusdb loses**, not in every round",
            Verdict::Loses => "**clusdb loses**",
        };
        let _ = writeln!(
            text,
            "| {label} | {} | {} | {} | {verdict} |",
            row.spread().map_or_else(String::new, spread),
            ratio(figure, row, Role::Raw),
            ratio(figure, row, Role::Ours),
        );
    }
}

fn spread(of: Spread) -> String {
    format!("{} [{}..{}]", plain(of.median), plain(of.low), plain(of.high))
}

fn ratio(figure: &Figure, row: &Row, role: Role) -> String {
    let ratio = figure.first(role).and_then(|other| row.ratio_to(other));
    match ratio {
        None => "–".to_owned(),
        Some(ratio) if ratio.low == ratio.high => plain(ratio.median),
        Some(ratio) => spread(ratio),
    }
}
