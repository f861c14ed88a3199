//! A batch as the protocol's bytes.

use super::{CONTROL_COMMAND, Decoder, Encoder, RawCommand, WireError, WireProblem};
use crate::model::batch::{Batch, Command, Control};
use crate::model::change::CommandKind;
use crate::model::condition::ConditionKind;
use crate::model::error::BatchError;
use crate::model::key::KeyPath;
use crate::model::value::{Value, ValueType};

impl Batch {
    /// The batch that these bytes are (specification, section 7), on this key. Conditions and control commands are part of
    /// it; the number of a control command stands where a value's type would.
    ///
    /// # Errors
    /// The first place that is not as the protocol has it, or a command that the batch refuses.
    pub fn from_wire(key: &KeyPath, bytes: &[u8]) -> Result<Batch, WireError> {
        let mut decoder = Decoder::new(bytes)?;
        let mut batch = Batch::at(key);
        while let Some(command) = decoder.next()? {
            add(&mut batch, &command)?;
        }
        Ok(batch)
    }

    /// The batch as the protocol's bytes. Its key and its request id are not part of them.
    ///
    /// # Errors
    /// Data of 4 GiB or more, which the protocol cannot tell.
    pub fn to_wire(&self) -> Result<Vec<u8>, WireError> {
        let mut encoder = Encoder::new();
        for command in self.commands() {
            let (number, name, value) = match command {
                Command::SetValue { name, value } => (CommandKind::SetValue as u32, &*name.text, Some(value)),
                Command::CreateKey { path } => (CommandKind::CreateKey as u32, path.as_str(), None),
                Command::DeleteKey { path } => (CommandKind::DeleteKey as u32, path.as_str(), None),
                Command::DeleteValue { name } => (CommandKind::DeleteValue as u32, &*name.text, None),
                Command::ValueCondition { kind, name, value } => (*kind as u32, &*name.text, value.as_ref()),
                Command::KeyCondition { kind, path } => (*kind as u32, path.as_str(), None),
                Command::Control(control) => {
                    encoder.command(CONTROL_COMMAND, *control as u32, "", &[])?;
                    continue;
                }
            };
            let (value_type, data) = value.map_or((0, &[][..]), |value| (value.value_type().0, value.data()));
            encoder.command(number, value_type, name, data)?;
        }
        Ok(encoder.bytes)
    }
}

fn add(batch: &mut Batch, command: &RawCommand<'_>) -> Result<(), WireError> {
    const SET_VALUE: u32 = CommandKind::SetValue as u32;
    const CREATE_KEY: u32 = CommandKind::CreateKey as u32;
    const DELETE_KEY: u32 = CommandKind::DeleteKey as u32;
    const DELETE_VALUE: u32 = CommandKind::DeleteValue as u32;
    const EXISTS: u32 = ConditionKind::Exists as u32;
    const NOT_EXISTS: u32 = ConditionKind::NotExists as u32;
    const IS_EQUAL: u32 = ConditionKind::IsEqual as u32;
    const IS_NOT_EQUAL: u32 = ConditionKind::IsNotEqual as u32;
    const IS_GREATER_THAN: u32 = ConditionKind::IsGreaterThan as u32;
    const IS_LESS_THAN: u32 = ConditionKind::IsLessThan as u32;
    const KEY_EXISTS: u32 = ConditionKind::KeyExists as u32;
    const KEY_NOT_EXISTS: u32 = ConditionKind::KeyNotExists as u32;

    let name = command.name.as_str();
    let value = || Value::new(ValueType(command.value_type), command.data);
    // Those that carry no value have nothing where it would stand.
    match command.number {
        SET_VALUE | IS_EQUAL..=IS_LESS_THAN => {}
        CONTROL_COMMAND => {
            command.without_name()?;
            command.without_data()?;
        }
        CREATE_KEY..=DELETE_VALUE | EXISTS | NOT_EXISTS | KEY_EXISTS | KEY_NOT_EXISTS => {
            command.without_value()?;
        }
        _ => {}
    }
    let added = match command.number {
        SET_VALUE => batch.set_value(name, value()),
        CREATE_KEY => batch.create_key(name),
        DELETE_KEY => batch.delete_key(name),
        DELETE_VALUE => batch.delete_value(name),
        CONTROL_COMMAND => match command.value_type {
            1 => Ok(batch.control(Control::Synchronous)),
            2 => Ok(batch.control(Control::Isolated)),
            found => return Err(command.problem(WireProblem::Control { found })),
        },
        EXISTS => batch.condition_exists(name),
        NOT_EXISTS => batch.condition_not_exists(name),
        IS_EQUAL => batch.condition_is_equal(name, value()),
        IS_NOT_EQUAL => batch.condition_is_not_equal(name, value()),
        IS_GREATER_THAN => batch.condition_is_greater_than(name, value()),
        IS_LESS_THAN => batch.condition_is_less_than(name, value()),
        KEY_EXISTS => batch.condition_key_exists(name),
        KEY_NOT_EXISTS => batch.condition_key_not_exists(name),
        _ => return Err(command.misplaced("a batch")),
    };
    added
        .map(drop)
        .map_err(|BatchError { source, .. }| command.refused(source))
}
