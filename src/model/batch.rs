//! A batch: commands that are committed together or not at all (specification, section 2).

use super::condition::ConditionKind;
use super::error::{BatchError, CommandError};
use super::key::KeyPath;
use super::value::Value;
use super::value_name::ValueName;

/// Commands of one batch, in order, relative to its key.
///
/// The **current key** starts at the batch's key; CREATE_KEY sets it, DELETE_KEY clears it. Paths are relative to
/// the batch's key, not to the current one. Adding a command checks its names and the current-key rule; everything
/// that depends on the store is checked by the commit. A command that is refused is not added, and the batch can
/// still be used.
#[derive(Debug, Clone)]
pub struct Batch {
    key: KeyPath,
    commands: Vec<Command>,
    has_current_key: bool,
    request_id: [u8; 16],
    acknowledgement: Option<Acknowledgement>,
}

/// What a port has acknowledged together with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    /// Of the port, not of its name: one that is made anew under the name does not inherit it.
    pub(crate) port_id: [u8; 16],
    /// Everything up to here.
    pub(crate) sequence: u64,
}

/// One command, checked. Paths are relative to the batch's key.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    SetValue {
        name: ValueName,
        value: Value,
    },
    CreateKey {
        path: KeyPath,
    },
    DeleteKey {
        path: KeyPath,
    },
    DeleteValue {
        name: ValueName,
    },
    /// On a value of the current key. `value` is what it is compared with, where it is.
    ValueCondition {
        kind: ConditionKind,
        name: ValueName,
        value: Option<Value>,
    },
    KeyCondition {
        kind: ConditionKind,
        path: KeyPath,
    },
    /// Says what holds anyway: a commit is synchronous and isolated.
    Control(Control),
}

/// What CONTROL_COMMAND asks for. On a single node every commit has both, so that they are accepted and do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Control {
    /// Synchronise to all nodes before the commit returns.
    Synchronous = 1,
    /// Show the batch to readers as a whole.
    Isolated = 2,
}

impl Batch {
    /// An empty batch on a key, which need not exist until a command needs it.
    #[must_use]
    pub fn at(key: &KeyPath) -> Batch {
        Batch {
            key: key.clone(),
            commands: Vec::new(),
            has_current_key: true,
            request_id: [0; 16],
            acknowledgement: None,
        }
    }

    /// CREATE_KEY (command 2): creates the key with its missing parents, or opens it; it becomes the current key.
    /// `""` is the batch's key. Never an error because the key exists.
    ///
    /// # Errors
    /// A path that is not valid.
    pub fn create_key(&mut self, path: &str) -> Result<&mut Batch, BatchError> {
        let path = self.relative(path)?;
        self.has_current_key = true;
        self.push(Command::CreateKey { path })
    }

    /// DELETE_KEY (command 3): deletes the key with all below it, and clears the current key. Deleting a key that
    /// is missing is not an error; deleting the root is one.
    ///
    /// # Errors
    /// A path that is not valid; the root.
    pub fn delete_key(&mut self, path: &str) -> Result<&mut Batch, BatchError> {
        let path = self.relative(path)?;
        if self.key.is_root() && path.is_root() {
            return Err(self.refuse(CommandError::Root));
        }
        self.has_current_key = false;
        self.push(Command::DeleteKey { path })
    }

    /// SET_VALUE (command 1): sets a value of the current key. The name `""` is its default value.
    ///
    /// # Errors
    /// A name that is not valid; no current key after DELETE_KEY.
    pub fn set_value(&mut self, name: &str, value: Value) -> Result<&mut Batch, BatchError> {
        let name = self.value_name(name)?;
        self.push(Command::SetValue { name, value })
    }

    /// DELETE_VALUE (command 4): deletes a value of the current key. A missing value is not an error.
    ///
    /// # Errors
    /// A name that is not valid; no current key after DELETE_KEY.
    pub fn delete_value(&mut self, name: &str) -> Result<&mut Batch, BatchError> {
        let name = self.value_name(name)?;
        self.push(Command::DeleteValue { name })
    }

    /// CONDITION_EXISTS (command 11): the value of the current key exists when the command's turn comes, or the batch
    /// fails.
    ///
    /// # Errors
    /// A name that is not valid; no current key after DELETE_KEY.
    pub fn condition_exists(&mut self, name: &str) -> Result<&mut Batch, BatchError> {
        self.value_condition(ConditionKind::Exists, name, None)
    }

    /// CONDITION_NOT_EXISTS (command 12): the value does not exist.
    ///
    /// # Errors
    /// Those of [`condition_exists`](Batch::condition_exists).
    pub fn condition_not_exists(&mut self, name: &str) -> Result<&mut Batch, BatchError> {
        self.value_condition(ConditionKind::NotExists, name, None)
    }

    /// CONDITION_IS_EQUAL (command 13): the value exists with this type and this data, byte by byte.
    ///
    /// # Errors
    /// Those of [`condition_exists`](Batch::condition_exists).
    pub fn condition_is_equal(&mut self, name: &str, value: Value) -> Result<&mut Batch, BatchError> {
        self.value_condition(ConditionKind::IsEqual, name, Some(value))
    }

    /// CONDITION_IS_NOT_EQUAL (command 14): the value does not exist, or its type or its data is another.
    ///
    /// # Errors
    /// Those of [`condition_exists`](Batch::condition_exists).
    pub fn condition_is_not_equal(&mut self, name: &str, value: Value) -> Result<&mut Batch, BatchError> {
        self.value_condition(ConditionKind::IsNotEqual, name, Some(value))
    }

    /// CONDITION_IS_GREATER_THAN (command 15): the stored value is greater than this one. Integers of the same type
    /// compare as unsigned integers, texts of the same type by UTF-16 units ignoring case, all else byte by byte. A
    /// value that is missing or of another type is not greater.
    ///
    /// # Errors
    /// Those of [`condition_exists`](Batch::condition_exists).
    pub fn condition_is_greater_than(&mut self, name: &str, value: Value) -> Result<&mut Batch, BatchError> {
        self.value_condition(ConditionKind::IsGreaterThan, name, Some(value))
    }

    /// CONDITION_IS_LESS_THAN (command 16): the stored value is less than this one; compared as by
    /// [`condition_is_greater_than`](Batch::condition_is_greater_than).
    ///
    /// # Errors
    /// Those of [`condition_exists`](Batch::condition_exists).
    pub fn condition_is_less_than(&mut self, name: &str, value: Value) -> Result<&mut Batch, BatchError> {
        self.value_condition(ConditionKind::IsLessThan, name, Some(value))
    }

    /// CONDITION_KEY_EXISTS (command 17): the key exists. The path is relative to the batch's key, and the current key
    /// stays as it is.
    ///
    /// # Errors
    /// A path that is not valid.
    pub fn condition_key_exists(&mut self, path: &str) -> Result<&mut Batch, BatchError> {
        self.key_condition(ConditionKind::KeyExists, path)
    }

    /// CONDITION_KEY_NOT_EXISTS (command 18): the key does not exist.
    ///
    /// # Errors
    /// A path that is not valid.
    pub fn condition_key_not_exists(&mut self, path: &str) -> Result<&mut Batch, BatchError> {
        self.key_condition(ConditionKind::KeyNotExists, path)
    }

    /// CONTROL_COMMAND (command 10): accepted, and without effect, since every commit is synchronous and isolated.
    pub fn control(&mut self, control: Control) -> &mut Batch {
        self.commands.push(Command::Control(control));
        self
    }

    /// An id of the caller's for this batch, kept in its record and given back by
    /// [`BatchView::request_id`](crate::BatchView::request_id). All zeroes, the default, means none.
    pub fn set_request_id(&mut self, request_id: [u8; 16]) -> &mut Batch {
        self.request_id = request_id;
        self
    }

    /// The acknowledgement is committed with the batch, or not at all.
    pub(crate) fn set_acknowledgement(&mut self, acknowledgement: Acknowledgement) {
        self.acknowledgement = Some(acknowledgement);
    }

    pub(crate) fn acknowledgement(&self) -> Option<Acknowledgement> {
        self.acknowledgement
    }

    /// The key that the batch's paths are relative to.
    #[must_use]
    pub fn key(&self) -> &KeyPath {
        &self.key
    }

    /// The number of commands.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether it has no command; committing it does nothing. One of conditions and control commands alone is checked, and
    /// commits nothing either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The id set by [`Batch::set_request_id`].
    #[must_use]
    pub fn request_id(&self) -> [u8; 16] {
        self.request_id
    }

    /// Bytes of names and data in all commands, about.
    pub(crate) fn data_bytes(&self) -> usize {
        let bytes = self.commands.iter().map(|command| match command {
            Command::SetValue { name, value } => name.text.len() + value.data().len(),
            Command::DeleteValue { name } => name.text.len(),
            Command::CreateKey { path } | Command::DeleteKey { path } => path.as_str().len(),
            // Not recorded.
            Command::ValueCondition { .. } | Command::KeyCondition { .. } | Command::Control(_) => 0,
        });
        bytes.sum()
    }

    pub(crate) fn commands(&self) -> &[Command] {
        &self.commands
    }

    fn value_condition(
        &mut self,
        kind: ConditionKind,
        name: &str,
        value: Option<Value>,
    ) -> Result<&mut Batch, BatchError> {
        let name = self.value_name(name)?;
        self.push(Command::ValueCondition { kind, name, value })
    }

    fn key_condition(&mut self, kind: ConditionKind, path: &str) -> Result<&mut Batch, BatchError> {
        let path = self.relative(path)?;
        self.push(Command::KeyCondition { kind, path })
    }

    fn push(&mut self, command: Command) -> Result<&mut Batch, BatchError> {
        self.commands.push(command);
        Ok(self)
    }

    fn relative(&self, path: &str) -> Result<KeyPath, BatchError> {
        let path = KeyPath::parse(path).map_err(|error| self.refuse(error.into()))?;
        self.key.join(&path).map_err(|error| self.refuse(error.into()))?;
        Ok(path)
    }

    fn value_name(&self, name: &str) -> Result<ValueName, BatchError> {
        if !self.has_current_key {
            return Err(self.refuse(CommandError::NoCurrentKey));
        }
        ValueName::parse(name).map_err(|error| self.refuse(error.into()))
    }

    fn refuse(&self, source: CommandError) -> BatchError {
        BatchError {
            index: self.commands.len(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        Batch::at(&KeyPath::root())
    }

    /// Section 2: a value command after DELETE_KEY, before another CREATE_KEY, is refused when it is added.
    #[test]
    fn a_value_command_without_a_current_key_is_refused_with_its_index() {
        let mut batch = batch();
        batch.delete_key("A").unwrap();
        let refused = batch.set_value("v", Value::dword(1)).unwrap_err();
        assert_eq!((refused.index, refused.source), (1, CommandError::NoCurrentKey));
        let refused = batch.delete_value("v").unwrap_err();
        assert_eq!(refused.source, CommandError::NoCurrentKey);
        batch.create_key("A").unwrap();
        batch.set_value("v", Value::dword(1)).unwrap();
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn deleting_the_root_is_refused_and_deleting_the_batch_key_is_not() {
        assert_eq!(batch().delete_key("").unwrap_err().source, CommandError::Root);
        let mut below = Batch::at(&KeyPath::parse("A").unwrap());
        assert!(below.delete_key("").is_ok());
    }

    #[test]
    fn a_refused_command_leaves_the_batch_as_it_was() {
        let mut batch = batch();
        assert!(batch.create_key("A\\").is_err());
        assert!(batch.delete_key("\\").is_err());
        assert!(batch.set_value("a\0", Value::dword(1)).is_err());
        assert!(batch.is_empty());
        assert!(batch.set_value("a", Value::dword(1)).is_ok());
    }
}
