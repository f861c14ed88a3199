//! Writing results: lines for people, one JSON document, or one JSON object a line.

use std::io::{self, Write};

use clusdb::json::Committed;
use serde::Serialize;

use crate::args::Format;
use crate::failure::{Failure, Result};

/// A result, in the forms that it can be written in.
pub trait Line: Serialize {
    /// For people.
    fn text(&self) -> String;
}

/// Standard output, or the standard input of a command, in the chosen format.
pub struct Output {
    format: Format,
    out: io::BufWriter<Box<dyn Write>>,
    /// Objects of a JSON array so far.
    written: u64,
}

impl Output {
    pub fn new(format: Format) -> Output {
        Output::to(format, Box::new(io::stdout().lock()))
    }

    pub fn to(format: Format, out: Box<dyn Write>) -> Output {
        Output {
            format,
            out: io::BufWriter::with_capacity(64 << 10, out),
            written: 0,
        }
    }

    /// Writes the only result of a verb.
    pub fn one<L: Line>(&mut self, line: &L) -> Result {
        self.write(line, "")
            .and_then(|()| self.out.flush())
            .map_err(|error| Failure::of_output(&error))
    }

    /// Writes one of several results; `end` follows the last.
    pub fn item<L: Line>(&mut self, line: &L) -> Result {
        let before = match (self.format, self.written) {
            (Format::Json, 0) => "[",
            (Format::Json, _) => ",",
            _ => "",
        };
        self.written += 1;
        self.write(line, before)
            .map_err(|error| Failure::of_output(&error))
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result {
        self.out
            .write_all(bytes)
            .map_err(|error| Failure::of_output(&error))
    }

    /// Hands over what was written so far.
    pub fn flush(&mut self) -> Result {
        self.out.flush().map_err(|error| Failure::of_output(&error))
    }

    /// Ends the results that were written by `item`, also if there were none.
    pub fn end(&mut self) -> Result {
        let ending = match (self.format, self.written) {
            (Format::Json, 0) => "[]\n",
            (Format::Json, _) => "]\n",
            _ => "",
        };
        self.out
            .write_all(ending.as_bytes())
            .map_err(|error| Failure::of_output(&error))?;
        self.flush()
    }

    fn write<L: Line>(&mut self, line: &L, before: &str) -> io::Result<()> {
        self.out.write_all(before.as_bytes())?;
        match self.format {
            Format::Text => self.out.write_all(line.text().as_bytes())?,
            Format::Json | Format::Jsonl => serde_json::to_writer(&mut self.out, line)?,
        }
        self.out.write_all(b"\n")
    }
}

/// What a writing verb answers.
impl Line for Committed {
    fn text(&self) -> String {
        match self.sequence {
            Some(sequence) => format!("committed {sequence}"),
            None => "nothing to do".into(),
        }
    }
}

/// The text with its control characters escaped, so that no name can move a terminal's cursor.
pub fn escape_control(text: &str) -> String {
    let escape = |c: char| {
        let escaped = c.is_control().then(|| c.escape_default());
        let plain = (!c.is_control()).then_some(c);
        escaped.into_iter().flatten().chain(plain)
    };
    text.chars().flat_map(escape).collect()
}

/// RFC 3339, UTC, microseconds.
pub fn rfc3339(microseconds: i64) -> String {
    match jiff::Timestamp::from_microsecond(microseconds) {
        Ok(time) => format!("{time:.6}"),
        Err(_) => format!("{microseconds}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_microseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_795_455_123_000_042), "2026-11-23T17:32:03.000042Z");
    }

    #[test]
    fn control_characters_are_escaped_and_others_are_not() {
        assert_eq!(escape_control("é\u{1b}[2J\n"), "é\\u{1b}[2J\\n");
    }
}
