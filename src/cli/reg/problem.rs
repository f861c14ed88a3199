//! What can be wrong with a `.reg` file.

use thiserror::Error;

use super::{VERSION_4, VERSION_5};

/// Why a file was refused, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct RegError {
    /// From 1.
    pub line: u64,
    pub problem: Problem,
}

/// The faults a file can have. The `String` is an excerpt of what was found, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error(
        "expected a byte order mark, found UTF-16 without one; save the file as UTF-16 with a byte order mark, or as UTF-8"
    )]
    Utf16WithoutMark,
    #[error(
        "expected UTF-8, found bytes that are not (an 8-bit code page?); save the file as UTF-8, or as UTF-16 with a byte order mark"
    )]
    InvalidUtf8,
    #[error(
        "expected whole UTF-16 units of two bytes, found a single byte at the end; the file may be cut short: export or copy it again"
    )]
    OddUtf16,
    #[error(
        "expected UTF-16 text, found half a surrogate pair ({0:04x}); write a value's data as hex(N): and correct a key's or a value's name"
    )]
    LoneSurrogate(u16),
    #[error(
        "expected text, found a NUL character; the file may be damaged: export it again, and write data that holds NUL as hex(N):"
    )]
    NulCharacter,
    #[error(
        "expected `{VERSION_5}` or `{VERSION_4}`, found {0}; make that the first line, if this is registry text"
    )]
    Header(String),
    #[error("expected a key in `[` and `]`, found {0}; end the line with `]`")]
    UnclosedKey(String),
    #[error(
        "expected a key's path in `[` and `]`, found none; write the whole path, as in `[HKEY_LOCAL_MACHINE\\SOFTWARE]`"
    )]
    EmptyKey,
    #[error("expected a `[KEY]` first, found a value before any; put the value under its key")]
    EntryBeforeSection,
    #[error(
        "expected no values under `[-KEY]`, which deletes its key, found one; put `[KEY]` before the value, or remove it"
    )]
    EntryInDeletedKey,
    #[error(
        "expected a value's name that ends with `\"` on its own line, found {0}; close the name, and write a `\"` in it as `\\\"`"
    )]
    UnclosedName(String),
    #[error(
        "expected a closing `\"` for the text that begins here, found the end of the file; close the text, and write a `\"` in it as `\\\"`"
    )]
    UnclosedText,
    #[error("expected `\\\\` or `\\\"`, found {0}; write a backslash as `\\\\`")]
    Escape(String),
    #[error("expected `=` after the value's name, found {0}; write `\"name\"=data`")]
    MissingEquals(String),
    #[error(
        "expected `\"text\"`, `dword:`, `hex:`, `hex(N):` or `-` after `=`, found {0}; write the data in one of these forms"
    )]
    UnknownValue(String),
    #[error("expected 1 to 8 hexadecimal digits after `dword:`, found {0}; write it as in `dword:0000001f`")]
    Dword(String),
    #[error(
        "expected a type of 1 to 8 hexadecimal digits and `):` after `hex(`, found {0}; write it as in `hex(7):`"
    )]
    ValueType(String),
    #[error("expected a byte of two hexadecimal digits, found {0}; write the bytes as in `0f,a0`")]
    Byte(String),
    #[error(
        "expected a byte after the comma, found the end of the data; remove the comma, or end the line with `\\` to go on with the next"
    )]
    TrailingComma,
    #[error(
        "expected the data to go on after the `\\` that ends this line, found nothing; add the missing line, or remove the `\\`"
    )]
    DanglingFold,
    #[error(
        "expected characters below 80 in the text of a `{VERSION_4}` file, found {0:02x}, whose code page is unknown; export the key as `{VERSION_5}`"
    )]
    CodePage(u8),
    #[error(
        "expected nothing but a `;` comment after the value that begins on line {began}, found {found}; remove it, and see that the value ends where it should"
    )]
    AfterValue { began: u64, found: String },
    #[error(
        "expected `[KEY]`, `\"name\"=data`, `@=data` or a `;` comment, found {0}; correct the line or remove it"
    )]
    UnknownLine(String),
}
