//! The report as JSON, with the value of every round.

use serde_json::{Value, json};

use super::Report;
use crate::figures::{Better, Figure, Role, Row};

pub fn report(report: &Report) -> Value {
    let sections = report.sections.iter().map(|section| {
        json!({
            "workload": section.name,
            "title": section.title,
            "notes": section.notes,
            "figures": section.figures.iter().map(figure).collect::<Vec<_>>(),
        })
    });
    json!({
        "machine": report.machine.to_json(),
        "command": report.command,
        "versions": report.versions,
        "rounds": report.rounds,
        "scale": report.scale,
        "workloads": sections.collect::<Vec<_>>(),
    })
}

fn figure(figure: &Figure) -> Value {
    let rows = figure.rows.iter().map(|row| {
        json!({
            "label": row.label,
            "role": match row.role {
                Role::Raw => "raw",
                Role::Ours => "clusdb",
                Role::Peer => "peer",
            },
            "median": row.spread().map(|spread| spread.median),
            "to_raw": ratio(figure, row, Role::Raw),
            "to_clusdb": ratio(figure, row, Role::Ours),
            "rounds": row.values,
        })
    });
    json!({
        "title": figure.measure.title,
        "unit": figure.measure.unit,
        "better": match figure.measure.better {
            Better::Lower => "lower",
            Better::Higher => "higher",
        },
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn ratio(figure: &Figure, row: &Row, role: Role) -> Option<f64> {
    let ratio = figure.first(role).and_then(|other| row.ratio_to(other));
    ratio.map(|ratio| ratio.median)
}
