//! `check`: looks at a whole store for faults; and `--repair`, which makes a damaged one open again.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use clusdb::{CheckReport, Error, Repair, Store};
use serde::Serialize;

use crate::args;
use crate::failure::{Failure, Result};
use crate::output::{Line, escape_control};
use crate::session::Session;

/// One fault.
#[derive(Debug, Serialize)]
struct FaultJson {
    kind: &'static str,
    error: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl From<&Error> for FaultJson {
    fn from(error: &Error) -> FaultJson {
        let (file, offset) = match error {
            Error::Damaged { file, offset, .. } => (Some(file), Some(*offset)),
            Error::UnsupportedVersion { file, .. }
            | Error::CaseTable { file, .. }
            | Error::Io { file, .. } => (Some(file), None),
            _ => (None, None),
        };
        FaultJson {
            kind: "fault",
            error: error.word(),
            message: error.to_string(),
            file: file.map(|file| file.display().to_string()),
            offset,
        }
    }
}

impl Line for FaultJson {
    fn text(&self) -> String {
        escape_control(&self.message)
    }
}

/// What was looked at, at the end.
#[derive(Debug, Serialize)]
struct SummaryJson {
    kind: &'static str,
    records: u64,
    snapshots: u64,
    ports: u64,
    faults: u64,
    /// First and last sequence numbers of records that should be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<(u64, u64)>,
}

impl From<&CheckReport> for SummaryJson {
    fn from(report: &CheckReport) -> SummaryJson {
        let missing = report.missing.iter();
        SummaryJson {
            kind: "summary",
            records: report.records,
            snapshots: report.snapshots,
            ports: report.ports,
            faults: report.faults.len() as u64,
            missing: missing.map(|range| (*range.start(), *range.end())).collect(),
        }
    }
}

impl Line for SummaryJson {
    fn text(&self) -> String {
        let missing: String = self
            .missing
            .iter()
            .map(|(first, last)| format!("\nmissing           records {first} to {last}"))
            .collect();
        format!(
            "records           {}\nsnapshots         {}\nports             {}\nfaults            {}{missing}",
            self.records, self.snapshots, self.ports, self.faults
        )
    }
}

pub fn run(session: &Session, arguments: &args::Check) -> Result {
    let path = session.path()?;
    let options = || Store::options().lock_timeout(session.wait);
    let report = options().check(path, arguments.deep)?;
    let mut output = session.output();
    for fault in &report.faults {
        output.item(&FaultJson::from(fault))?;
    }
    output.item(&SummaryJson::from(&report))?;
    if report.is_whole() {
        return output.end();
    }
    if !arguments.repair {
        output.end()?;
        let message = format!(
            "{} faults: restore a backup, or keep a copy and run check --repair",
            report.faults.len()
        );
        return Err(Failure::damage(message));
    }
    output.flush()?;
    confirm(arguments.yes, path, &options().plan_repair(path)?)?;
    let repair = options().repair(path)?;
    let left = options().check(path, arguments.deep)?;
    output.item(&RepairJson::from(&repair))?;
    output.end()?;
    match left.faults.first() {
        Some(fault) if !left.missing.is_empty() => Err(fault.clone().into()),
        // What is spoilt in a tree is made anew by the next opening.
        Some(_) => Ok(session.open_existing()?.close()?),
        None => Ok(()),
    }
}

/// What was done.
#[derive(Debug, Serialize)]
struct RepairJson {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trimmed: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aside: Option<String>,
    #[serde(skip)]
    text: String,
}

impl From<&Repair> for RepairJson {
    fn from(repair: &Repair) -> RepairJson {
        let ends = |range: &std::ops::RangeInclusive<u64>| (*range.start(), *range.end());
        RepairJson {
            kind: "repair",
            lost: repair.lost.as_ref().map(ends),
            trimmed: repair.trimmed.as_ref().map(ends),
            epoch: repair.epoch.map(|epoch| epoch.to_string()),
            aside: repair.aside.as_ref().map(|path| path.display().to_string()),
            text: describe(repair),
        }
    }
}

impl Line for RepairJson {
    fn text(&self) -> String {
        let aside = self.aside.as_deref().map_or(String::new(), |path| {
            format!("; what was taken away is kept in {path}")
        });
        format!("repaired: {}{aside}", self.text)
    }
}

fn describe(repair: &Repair) -> String {
    match (&repair.lost, &repair.trimmed) {
        (Some(lost), _) => format!(
            "the journal is cut: the records {} to {} are lost, and a new epoch begins",
            lost.start(),
            lost.end()
        ),
        (None, Some(trimmed)) => format!(
            "the journal begins behind the damage: the records {} to {} are gone, a snapshot has what they did, and ports that had not read them are left behind",
            trimmed.start(),
            trimmed.end()
        ),
        (None, None) => "what is spoilt and not needed is set aside; nothing is lost".to_owned(),
    }
}

/// Asks whoever sits at the terminal.
fn confirm(yes: bool, path: &Path, plan: &Repair) -> Result {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let message = "a repair is asked for at a terminal: give --yes to repair without being asked";
        return Err(Failure::usage("usage", message));
    }
    eprint!(
        "Repair of {}: {}. Go on? (yes/no) ",
        path.display(),
        describe(plan)
    );
    let failed = |error| Failure::io("read", Path::new("the terminal"), &error);
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::damage("nothing was repaired".to_owned())),
    }
}
