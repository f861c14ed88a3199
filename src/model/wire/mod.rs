//! The protocol's bytes: a batch, a read batch, its replies and a notification as CLUSTER_REG_BATCH_UPDATE (specification,
//! section 7).
//!
//! Reading is strict: whatever is accepted would be written as the same bytes. Nothing needs to be aligned, and no memory
//! is set aside by a length before that many bytes were seen.

mod batch;
mod notification;
mod read;

use std::fmt;

pub use notification::{WireCommand, decode_notification, encode_commands};
pub use read::{WireReply, decode_replies, encode_replies};

pub(crate) use notification::encode_changes;

use super::error::CommandError;

/// The version that stands at the beginning.
const VERSION: u32 = 1;
/// Number, type, and the two lengths.
const HEADER_BYTES: usize = 16;
const UNIT_BYTES: usize = 2;

// Commands that are neither changes nor conditions.
const SET_KEY_SECURITY: u32 = 5;
const READ_KEY: u32 = 7;
const READ_VALUE: u32 = 8;
const READ_ERROR: u32 = 9;
const CONTROL_COMMAND: u32 = 10;
/// NONE and LAST are brackets around the numbers of commands.
const LAST: u32 = 19;

/// Why bytes are not a CLUSTER_REG_BATCH_UPDATE of the kind that was asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// Offset in the buffer, in bytes.
    pub offset: usize,
    /// The command that it is about, from 0; none for the version.
    pub index: Option<usize>,
    /// What is wrong there.
    pub problem: WireProblem,
}

/// What is wrong with the protocol's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireProblem {
    /// The version is not 1.
    Version {
        /// The version.
        found: u32,
    },
    /// The buffer ends inside of something.
    CutShort {
        /// Bytes that it would take.
        needed: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// The length of a name is odd, or too short for its NUL.
    NameLength {
        /// The length in bytes.
        found: u32,
    },
    /// A name does not end with a NUL, or has one before its end.
    NameNul,
    /// Half of a surrogate pair: the name is not Unicode.
    LoneSurrogate {
        /// The unit.
        unit: u16,
    },
    /// The byte that follows data of an odd length is not zero.
    Padding {
        /// The byte.
        found: u8,
    },
    /// The number is not that of a command.
    UnknownCommand {
        /// The number.
        number: u32,
    },
    /// SET_KEY_SECURITY, which is reserved.
    Unsupported {
        /// The number.
        number: u32,
    },
    /// A command that does not belong here.
    Misplaced {
        /// The number.
        number: u32,
        /// What is being read.
        place: &'static str,
    },
    /// A command has a type that has none.
    UnexpectedType {
        /// The number.
        number: u32,
        /// The type.
        found: u32,
    },
    /// A command has data that has none.
    UnexpectedData {
        /// The number.
        number: u32,
        /// The length of the data.
        found: usize,
    },
    /// A command has a name that has none.
    UnexpectedName {
        /// The number.
        number: u32,
    },
    /// CONTROL_COMMAND asks for something other than 1 or 2.
    Control {
        /// What it asks for.
        found: u32,
    },
    /// A READ_ERROR whose code is that of success.
    NoError,
    /// The command is refused, as it would be when it is added.
    Refused(CommandError),
    /// A name or data has more bytes than a length can tell.
    TooLarge {
        /// The length in bytes.
        found: usize,
    },
}

impl fmt::Display for WireProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireProblem::Version { found } => write!(f, "expected version {VERSION}, found {found}"),
            WireProblem::CutShort { needed, left } => {
                write!(f, "expected {needed} more bytes, found {left}")
            }
            WireProblem::NameLength { found } => {
                write!(
                    f,
                    "expected an even length of at least 2 for a name, found {found}"
                )
            }
            WireProblem::NameNul => f.write_str("expected a name with one NUL, at its end"),
            WireProblem::LoneSurrogate { unit } => {
                write!(
                    f,
                    "found the lone surrogate {unit:04x}: a name must be valid UTF-16"
                )
            }
            WireProblem::Padding { found } => {
                write!(
                    f,
                    "expected a zero byte behind data of an odd length, found {found:02x}"
                )
            }
            WireProblem::UnknownCommand { number } => write!(f, "found {number}, which is no command"),
            WireProblem::Unsupported { number } => {
                write!(f, "found command {number}, which is reserved and not supported")
            }
            WireProblem::Misplaced { number, place } => {
                write!(f, "found command {number}, which does not belong into {place}")
            }
            WireProblem::UnexpectedType { number, found } => {
                write!(f, "expected type 0 for command {number}, found {found}")
            }
            WireProblem::UnexpectedData { number, found } => {
                write!(f, "expected no data for command {number}, found {found} bytes")
            }
            WireProblem::UnexpectedName { number } => {
                write!(f, "expected an empty name for command {number}, found another")
            }
            WireProblem::Control { found } => {
                write!(f, "expected a control command of 1 or 2, found {found}")
            }
            WireProblem::NoError => f.write_str("expected the code of an error, found 0"),
            WireProblem::Refused(error) => error.fmt(f),
            WireProblem::TooLarge { found } => {
                write!(f, "{found} bytes are more than a length of 32 bits can tell")
            }
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the batch update at byte {}: {}", self.offset, self.problem)
    }
}

impl std::error::Error for WireError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            WireProblem::Refused(error) => Some(error),
            _ => None,
        }
    }
}

/// A command as it stands in the buffer: whole, and nothing more is known of it.
#[derive(Debug)]
struct RawCommand<'a> {
    /// Its offset in the buffer, and which it is.
    at: usize,
    index: usize,
    number: u32,
    value_type: u32,
    name: String,
    data: &'a [u8],
}

impl RawCommand<'_> {
    /// Where the field is that says how long the name is.
    const NAME_LENGTH: usize = 8;

    fn problem(&self, problem: WireProblem) -> WireError {
        WireError {
            offset: self.at,
            index: Some(self.index),
            problem,
        }
    }

    fn refused(&self, error: impl Into<CommandError>) -> WireError {
        self.problem(WireProblem::Refused(error.into()))
    }

    /// The error of a number that is not one of those that are expected.
    fn misplaced(&self, place: &'static str) -> WireError {
        let number = self.number;
        self.problem(match number {
            0 | LAST.. => WireProblem::UnknownCommand { number },
            SET_KEY_SECURITY => WireProblem::Unsupported { number },
            _ => WireProblem::Misplaced { number, place },
        })
    }

    fn without_type(&self) -> Result<(), WireError> {
        let (number, found) = (self.number, self.value_type);
        match found {
            0 => Ok(()),
            _ => Err(self.problem(WireProblem::UnexpectedType { number, found })),
        }
    }

    fn without_data(&self) -> Result<(), WireError> {
        let (number, found) = (self.number, self.data.len());
        match found {
            0 => Ok(()),
            _ => Err(self.problem(WireProblem::UnexpectedData { number, found })),
        }
    }

    fn without_value(&self) -> Result<(), WireError> {
        self.without_type()?;
        self.without_data()
    }

    fn without_name(&self) -> Result<(), WireError> {
        let number = self.number;
        match self.name.is_empty() {
            true => Ok(()),
            false => Err(self.problem(WireProblem::UnexpectedName { number })),
        }
    }
}

/// Reads the commands of a buffer, one after the other.
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The command that is being read; none for the version.
    index: Option<usize>,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Result<Decoder<'a>, WireError> {
        let mut decoder = Decoder {
            bytes,
            at: 0,
            index: None,
        };
        let found = decoder.u32()?;
        match found {
            VERSION => Ok(decoder),
            _ => Err(decoder.problem_at(0, WireProblem::Version { found })),
        }
    }

    /// The next command; none at the end of the buffer.
    fn next(&mut self) -> Result<Option<RawCommand<'a>>, WireError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let at = self.at;
        let index = self.index.map_or(0, |index| index + 1);
        self.index = Some(index);
        let (number, value_type) = (self.u32()?, self.u32()?);
        let name_bytes = self.u32()?;
        if name_bytes < UNIT_BYTES as u32 || !name_bytes.is_multiple_of(UNIT_BYTES as u32) {
            let problem = WireProblem::NameLength { found: name_bytes };
            return Err(self.problem_at(at + RawCommand::NAME_LENGTH, problem));
        }
        let name_at = self.at;
        let name = self.take(u64::from(name_bytes))?;
        let name = decode_name(name).map_err(|(at, problem)| self.problem_at(name_at + at, problem))?;
        let data_bytes = self.u32()?;
        let data = self.take(u64::from(data_bytes))?;
        if !data.len().is_multiple_of(UNIT_BYTES) {
            let offset = self.at;
            let found = self.take(1)?[0];
            if found != 0 {
                let problem = WireProblem::Padding { found };
                return Err(self.problem_at(offset, problem));
            }
        }
        Ok(Some(RawCommand {
            at,
            index,
            number,
            value_type,
            name,
            data,
        }))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn take(&mut self, needed: u64) -> Result<&'a [u8], WireError> {
        let left = &self.bytes[self.at..];
        match usize::try_from(needed).ok().and_then(|needed| left.get(..needed)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => {
                let left = left.len();
                Err(self.problem_at(self.at, WireProblem::CutShort { needed, left }))
            }
        }
    }

    fn problem_at(&self, offset: usize, problem: WireProblem) -> WireError {
        WireError {
            offset,
            index: self.index,
            problem,
        }
    }
}

/// A name of whole units, of which the last is the NUL; or what is wrong with it, and at which byte.
fn decode_name(bytes: &[u8]) -> Result<String, (usize, WireProblem)> {
    let (units, _) = bytes.as_chunks::<UNIT_BYTES>();
    let mut units: Vec<_> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let problem_at = |unit: usize, problem| (unit * UNIT_BYTES, problem);
    let last = units.len() - 1;
    match units.iter().position(|unit| *unit == 0) {
        Some(nul) if nul == last => units.truncate(last),
        Some(nul) => return Err(problem_at(nul, WireProblem::NameNul)),
        None => return Err(problem_at(last, WireProblem::NameNul)),
    }
    let mut name = String::with_capacity(units.len());
    let mut at = 0;
    for decoded in char::decode_utf16(units) {
        match decoded {
            Ok(c) => {
                at += c.len_utf16();
                name.push(c);
            }
            Err(lone) => {
                let unit = lone.unpaired_surrogate();
                return Err(problem_at(at, WireProblem::LoneSurrogate { unit }));
            }
        }
    }
    Ok(name)
}

/// Writes commands one after the other.
struct Encoder {
    bytes: Vec<u8>,
    /// The number of commands so far.
    commands: usize,
}

impl Encoder {
    fn new() -> Encoder {
        Encoder {
            bytes: VERSION.to_le_bytes().to_vec(),
            commands: 0,
        }
    }

    fn command(&mut self, number: u32, value_type: u32, name: &str, data: &[u8]) -> Result<(), WireError> {
        let units = name.encode_utf16().count() + 1;
        let name_bytes = length(units * UNIT_BYTES).map_err(|problem| self.problem(problem))?;
        let data_bytes = length(data.len()).map_err(|problem| self.problem(problem))?;
        self.commands += 1;
        self.bytes
            .reserve(HEADER_BYTES + units * UNIT_BYTES + data.len() + 1);
        let mut put = |number: u32| self.bytes.extend(number.to_le_bytes());
        put(number);
        put(value_type);
        put(name_bytes);
        self.bytes
            .extend(name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        self.bytes.extend(data_bytes.to_le_bytes());
        self.bytes.extend(data);
        if !data.len().is_multiple_of(UNIT_BYTES) {
            self.bytes.push(0);
        }
        Ok(())
    }

    /// About the command that comes next.
    fn problem(&self, problem: WireProblem) -> WireError {
        WireError {
            offset: self.bytes.len(),
            index: Some(self.commands),
            problem,
        }
    }
}

fn length(found: usize) -> Result<u32, WireProblem> {
    u32::try_from(found).map_err(|_| WireProblem::TooLarge { found })
}

#[cfg(test)]
mod tests;
