//! Strict reader of Windows registry text (`.reg`).
//!
//! What is not understood is an error that names its line: nothing is skipped, repaired or guessed.
//! Key paths are passed on as written; which of them make sense is the caller's matter.

use std::borrow::Cow;

mod problem;

pub use problem::{Problem, RegError};

const VERSION_5: &str = "Windows Registry Editor Version 5.00";
const VERSION_4: &str = "REGEDIT4";

const REG_SZ: u32 = 1;
const REG_EXPAND_SZ: u32 = 2;
const REG_BINARY: u32 = 3;
const REG_DWORD: u32 = 4;
const REG_MULTI_SZ: u32 = 7;

/// Deliberately not Unicode's white space: a key or a value name may end with, say, U+00A0.
const BLANKS: [char; 2] = [' ', '\t'];

const EXCERPT_CHARS: usize = 40;

/// One `[KEY]` or `[-KEY]` and what stands under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The line of the `[`, from 1.
    pub line: u64,
    /// The path as written, without a single trailing backslash.
    pub key: String,
    pub kind: SectionKind,
}

/// What a section asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionKind {
    /// `[KEY]`: the key exists, with these changes to its values, in the order of the file.
    Create(Vec<Entry>),
    /// `[-KEY]`: the key is deleted.
    Delete,
}

/// One `"name"=…` or `@=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The line on which the entry begins, from 1.
    pub line: u64,
    /// The value's name; empty for the default value, `@`.
    pub name: String,
    /// The value's data; `None` deletes the value (`"name"=-`).
    pub data: Option<Data>,
}

/// A value's type and its bytes as they stand in a hive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub value_type: u32,
    pub bytes: Vec<u8>,
}

/// Reads a whole file, in UTF-8 or in UTF-16 with a byte order mark.
///
/// # Errors
/// The first fault found, with its line; faults of the encoding come before those of the text.
pub fn read(bytes: &[u8]) -> Result<Vec<Section>, RegError> {
    let text = decode(bytes)?;
    let mut reader = Reader::new(&text)?;
    let mut sections: Vec<Section> = Vec::new();
    while !reader.rest.is_empty() {
        reader.skip_blanks();
        if reader.rest.starts_with('[') {
            sections.push(reader.section()?);
        } else if reader.rest.starts_with(['"', '@']) {
            match sections.last_mut().map(|section| &mut section.kind) {
                None => return reader.fail(Problem::EntryBeforeSection),
                Some(SectionKind::Delete) => return reader.fail(Problem::EntryInDeletedKey),
                Some(SectionKind::Create(entries)) => entries.push(reader.entry()?),
            }
        } else if !reader.only_comment_left() {
            return reader.unexpected(reader.line_left(), Problem::UnknownLine);
        }
        reader.next_line();
    }
    Ok(sections)
}

fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, RegError> {
    let text = match bytes {
        [0xff, 0xfe, body @ ..] => Cow::Owned(decode_utf16(body, u16::from_le_bytes)?),
        [0xfe, 0xff, body @ ..] => Cow::Owned(decode_utf16(body, u16::from_be_bytes)?),
        // The first line is ASCII, so that one byte in two is zero from the very start.
        [0, 1..=255, ..] | [1..=255, 0, ..] => return fail_at(1, Problem::Utf16WithoutMark),
        [0xef, 0xbb, 0xbf, body @ ..] => Cow::Borrowed(decode_utf8(body)?),
        body => Cow::Borrowed(decode_utf8(body)?),
    };
    match text.split_once('\0') {
        Some((before, _)) => fail_at(last_line(before.as_bytes()), Problem::NulCharacter),
        None => Ok(text),
    }
}

fn decode_utf8(bytes: &[u8]) -> Result<&str, RegError> {
    std::str::from_utf8(bytes).or_else(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or(bytes);
        fail_at(last_line(valid), Problem::InvalidUtf8)
    })
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, RegError> {
    let (pairs, odd) = bytes.as_chunks();
    let mut text = String::with_capacity(pairs.len());
    for decoded in char::decode_utf16(pairs.iter().copied().map(unit)) {
        match decoded {
            Ok(character) => text.push(character),
            Err(error) => {
                let unit = error.unpaired_surrogate();
                return fail_at(last_line(text.as_bytes()), Problem::LoneSurrogate(unit));
            }
        }
    }
    if !odd.is_empty() {
        return fail_at(last_line(text.as_bytes()), Problem::OddUtf16);
    }
    Ok(text)
}

/// The number, from 1, of the line that `text` ends in.
fn last_line(text: &[u8]) -> u64 {
    1 + line_feeds(text)
}

fn line_feeds(text: &[u8]) -> u64 {
    text.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

fn fail_at<T>(line: u64, problem: Problem) -> Result<T, RegError> {
    Err(RegError { line, problem })
}

/// The rest of the first line of `text`, without its end. A CR ends a line only before an LF.
fn first_line(text: &str) -> &str {
    match text.split_once('\n') {
        Some((line, _)) => line.strip_suffix('\r').unwrap_or(line),
        None => text,
    }
}

fn line_is_over(text: &str) -> bool {
    text.is_empty() || text.starts_with('\n') || text.starts_with("\r\n")
}

/// What an error shows of the file: short, and harmless to a terminal.
fn excerpt(text: &str) -> String {
    if text.is_empty() {
        return "the end of the line".to_owned();
    }
    let mut escaped = String::new();
    // Each character gives at least one, so one more than fits tells whether anything is left out.
    for character in text.chars().take(EXCERPT_CHARS + 1) {
        match character {
            // `escape_debug` would double these, and the user looks for them as they stand.
            '\\' | '"' | '\'' => escaped.push(character),
            _ => escaped.extend(character.escape_debug()),
        }
    }
    if escaped.chars().count() > EXCERPT_CHARS {
        escaped = escaped.chars().take(EXCERPT_CHARS - 1).collect();
        escaped.push('…');
    }
    format!("`{escaped}`")
}

/// A place in the text: what is left of it, and the number of the line it begins in.
struct Reader<'a> {
    rest: &'a str,
    line: u64,
    version_4: bool,
}

impl<'a> Reader<'a> {
    /// Reads the first line.
    fn new(text: &'a str) -> Result<Self, RegError> {
        let header = first_line(text);
        let mut reader = Reader {
            rest: text,
            line: 1,
            version_4: header.trim_end_matches(BLANKS) == VERSION_4,
        };
        if !reader.version_4 && header.trim_end_matches(BLANKS) != VERSION_5 {
            return reader.unexpected(header, Problem::Header);
        }
        reader.next_line();
        Ok(reader)
    }

    fn fail<T>(&self, problem: Problem) -> Result<T, RegError> {
        fail_at(self.line, problem)
    }

    fn unexpected<T>(&self, found: &str, problem: fn(String) -> Problem) -> Result<T, RegError> {
        self.fail(problem(excerpt(found)))
    }

    fn line_left(&self) -> &'a str {
        first_line(self.rest)
    }

    fn next_line(&mut self) {
        match self.rest.split_once('\n') {
            Some((_, rest)) => {
                self.rest = rest;
                self.line += 1;
            }
            None => self.rest = "",
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(BLANKS);
    }

    fn only_comment_left(&self) -> bool {
        line_is_over(self.rest) || self.rest.starts_with(';')
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_until(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(stop).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn section(&mut self) -> Result<Section, RegError> {
        let text = self.line_left().trim_end_matches(BLANKS);
        // A key's name may hold `]`, so that the last one closes it.
        let Some(path) = text.strip_prefix('[').and_then(|path| path.strip_suffix(']')) else {
            return self.unexpected(text, Problem::UnclosedKey);
        };
        let (path, kind) = match path.strip_prefix('-') {
            Some(path) => (path, SectionKind::Delete),
            None => (path, SectionKind::Create(Vec::new())),
        };
        // hivexregedit writes the root of a hive as `[HKEY_CURRENT_USER\]`.
        let key = path.strip_suffix('\\').unwrap_or(path);
        if key.is_empty() {
            return self.fail(Problem::EmptyKey);
        }
        let (line, key) = (self.line, key.to_owned());
        Ok(Section { line, key, kind })
    }

    fn entry(&mut self) -> Result<Entry, RegError> {
        let line = self.line;
        let name = self.name()?;
        self.skip_blanks();
        if !self.eat("=") {
            return self.unexpected(self.line_left(), Problem::MissingEquals);
        }
        self.skip_blanks();
        let data = if self.eat("-") { None } else { Some(self.data()?) };
        self.skip_blanks();
        if !self.only_comment_left() {
            let (began, found) = (line, excerpt(self.line_left()));
            return self.fail(Problem::AfterValue { began, found });
        }
        Ok(Entry { line, name, data })
    }

    fn name(&mut self) -> Result<String, RegError> {
        let start = self.rest;
        if self.eat("@") {
            return Ok(String::new());
        }
        self.eat("\"");
        match self.quoted(|character| character == '\n')? {
            Some(name) => Ok(name),
            None => self.unexpected(first_line(start), Problem::UnclosedName),
        }
    }

    /// Reads on from an opening quote through the closing one; `None` if `stop`, or the end of the
    /// file, comes first.
    fn quoted(&mut self, stop: fn(char) -> bool) -> Result<Option<String>, RegError> {
        let mut text = String::new();
        loop {
            let plain = self.take_until(|character| matches!(character, '"' | '\\') || stop(character));
            self.line += line_feeds(plain.as_bytes());
            text.push_str(plain);
            if self.eat("\"") {
                return Ok(Some(text));
            } else if self.eat("\\\\") {
                text.push('\\');
            } else if self.eat("\\\"") {
                text.push('"');
            } else if self.rest.starts_with('\\') && self.rest != "\\" {
                let escape: String = self.line_left().chars().take(2).collect();
                return self.unexpected(&escape, Problem::Escape);
            } else {
                return Ok(None);
            }
        }
    }

    fn data(&mut self) -> Result<Data, RegError> {
        let (value_type, bytes) = if self.eat("\"") {
            (REG_SZ, self.text()?)
        } else if self.eat("dword:") {
            let Some(number) = self.number() else {
                return self.unexpected(self.line_left(), Problem::Dword);
            };
            (REG_DWORD, number.to_le_bytes().to_vec())
        } else if self.eat("hex:") {
            (REG_BINARY, self.bytes(false)?)
        } else if self.eat("hex(") {
            let value_type = self.value_type()?;
            let text = matches!(value_type, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ);
            (value_type, self.bytes(self.version_4 && text)?)
        } else {
            return self.unexpected(self.line_left(), Problem::UnknownValue);
        };
        Ok(Data { value_type, bytes })
    }

    /// Reads a text, which may span lines: regedit writes its line ends as they are.
    fn text(&mut self) -> Result<Vec<u8>, RegError> {
        let began = self.line;
        match self.quoted(|_| false)? {
            Some(text) => {
                let units = text.encode_utf16().chain([0]);
                Ok(units.flat_map(u16::to_le_bytes).collect())
            }
            None => fail_at(began, Problem::UnclosedText),
        }
    }

    fn value_type(&mut self) -> Result<u32, RegError> {
        let start = self.rest;
        match self.number() {
            Some(value_type) if self.eat("):") => Ok(value_type),
            _ => self.unexpected(first_line(start), Problem::ValueType),
        }
    }

    /// Reads 1 to 8 hexadecimal digits; takes nothing if that is not what is there.
    fn number(&mut self) -> Option<u32> {
        let start = self.rest;
        let digits = self.take_until(|character| !character.is_ascii_hexdigit());
        if !(1..=8).contains(&digits.len()) {
            self.rest = start;
            return None;
        }
        u32::from_str_radix(digits, 16).ok()
    }

    /// Reads bytes and the commas between them. `widen` makes UTF-16LE of 8-bit characters.
    fn bytes(&mut self, widen: bool) -> Result<Vec<u8>, RegError> {
        let mut bytes = Vec::new();
        let mut comma = false;
        loop {
            self.skip_folds()?;
            if self.only_comment_left() {
                return if comma {
                    self.fail(Problem::TrailingComma)
                } else {
                    Ok(bytes)
                };
            }
            let byte = self.byte()?;
            bytes.push(byte);
            if widen {
                if !byte.is_ascii() {
                    return self.fail(Problem::CodePage(byte));
                }
                bytes.push(0);
            }
            self.skip_folds()?;
            comma = self.eat(",");
            if !comma {
                return Ok(bytes);
            }
        }
    }

    fn byte(&mut self) -> Result<u8, RegError> {
        let start = self.rest;
        let digits = self.take_until(|stop| matches!(stop, ',' | ' ' | '\t' | '\\' | ';' | '\r' | '\n'));
        if digits.len() == 2
            && digits.chars().all(|digit| digit.is_ascii_hexdigit())
            && let Ok(byte) = u8::from_str_radix(digits, 16)
        {
            return Ok(byte);
        }
        self.unexpected(
            if digits.is_empty() {
                first_line(start)
            } else {
                digits
            },
            Problem::Byte,
        )
    }

    /// Skips blanks and folds. A fold is a `\` that ends a line; comment lines may follow it, and
    /// then the data must go on: a blank line there means that some of it is missing.
    fn skip_folds(&mut self) -> Result<(), RegError> {
        self.skip_blanks();
        while let Some(after) = self.rest.strip_prefix('\\')
            && line_is_over(after.trim_start_matches(BLANKS))
        {
            let fold = self.line;
            self.next_line();
            self.skip_blanks();
            while self.rest.starts_with(';') {
                self.next_line();
                self.skip_blanks();
            }
            if line_is_over(self.rest) {
                return fail_at(fold, Problem::DanglingFold);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
