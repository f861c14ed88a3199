//! A notification as the protocol's bytes: the registry's own stream, with paths relative to the port's key.

use super::{Decoder, Encoder, WireError};
use crate::model::change::{Change, CommandKind};
use crate::model::key::{KeyPath, SEPARATOR};
use crate::model::value::{Value, ValueType};
use crate::model::value_name::ValueName;

/// One command of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireCommand {
    /// Which.
    pub kind: CommandKind,
    /// The value's name; the path relative to the port's key for the commands on keys.
    pub name: String,
    /// What SET_VALUE set, and what VALUE_DELETED says was there before; none for the others.
    pub value: Option<Value>,
}

/// Commands of a notification as the protocol's bytes.
///
/// # Errors
/// Data of 4 GiB or more.
pub fn encode_commands(commands: &[WireCommand]) -> Result<Vec<u8>, WireError> {
    let mut encoder = Encoder::new();
    for WireCommand { kind, name, value } in commands {
        let value = value.as_ref();
        let (value_type, data) = value.map_or((0, &[][..]), |value| (value.value_type().0, value.data()));
        encoder.command(*kind as u32, value_type, name, data)?;
    }
    Ok(encoder.bytes)
}

/// The commands of the notification that these bytes are.
///
/// # Errors
/// The first place that is not as the protocol has it, or a path or a name that cannot be.
pub fn decode_notification(bytes: &[u8]) -> Result<Vec<WireCommand>, WireError> {
    let mut decoder = Decoder::new(bytes)?;
    let mut commands = Vec::new();
    while let Some(command) = decoder.next()? {
        let kind = match command.number {
            1 => CommandKind::SetValue,
            2 => CommandKind::CreateKey,
            3 => CommandKind::DeleteKey,
            4 => CommandKind::DeleteValue,
            6 => CommandKind::ValueDeleted,
            _ => return Err(command.misplaced("a notification")),
        };
        let value = match kind {
            CommandKind::SetValue | CommandKind::ValueDeleted => {
                Some(Value::new(ValueType(command.value_type), command.data))
            }
            _ => {
                command.without_value()?;
                None
            }
        };
        let name = match kind {
            CommandKind::CreateKey | CommandKind::DeleteKey => KeyPath::parse(&command.name).map(drop),
            _ => ValueName::parse(&command.name).map(drop),
        };
        name.map_err(|error| command.refused(error))?;
        commands.push(WireCommand {
            kind,
            name: command.name,
            value,
        });
    }
    Ok(commands)
}

/// Changes of the registry's own stream, as a port on `base` shows them.
///
/// At first the port's key is current; a CREATE_KEY stands before a command on a value of another key than the one before
/// (specification, section 3). The deletion of an ancestor is that of the port's key, `""`.
pub(crate) fn encode_changes<'a>(
    base: &str,
    changes: impl Iterator<Item = Change<'a>>,
) -> Result<Vec<u8>, WireError> {
    let mut encoder = Encoder::new();
    let mut current = Some("");
    for change in changes {
        let path = relative(change.key(), base);
        let (value_type, data) = change
            .value()
            .map_or((0, &[][..]), |value| (value.value_type.0, value.data));
        let name = match change.kind() {
            CommandKind::CreateKey => {
                current = Some(path);
                path
            }
            CommandKind::DeleteKey => {
                current = None;
                path
            }
            _ => {
                if current != Some(path) {
                    encoder.command(CommandKind::CreateKey as u32, 0, path, &[])?;
                    current = Some(path);
                }
                change.name().unwrap_or_default()
            }
        };
        encoder.command(change.kind() as u32, value_type, name, data)?;
    }
    Ok(encoder.bytes)
}

/// The part of a path below a key, of which only the number of components counts: it is spelled in any case.
fn relative<'a>(path: &'a str, base: &str) -> &'a str {
    if base.is_empty() {
        return path;
    }
    let mut rest = path;
    for _ in base.split(SEPARATOR) {
        rest = rest.split_once(SEPARATOR).map_or("", |(_, below)| below);
    }
    rest
}
