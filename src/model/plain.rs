//! Plain writes: one change of the registry by itself, outside of any batch (specification, section 5). As durable as a
//! batch, and never shown by a port (section 1).

use super::error::{CommandError, Limit, LimitExceeded};
use super::evaluate::{Evaluation, Limits};
use super::key::KeyPath;
use super::overlay::{Decisions, Overlay};
use super::record::{MAX_RECORD_BYTES, Record};
use super::value::Value;
use super::value_name::ValueName;
use super::view::View;

/// One plain write, checked.
#[derive(Debug, Clone)]
pub struct PlainWrite {
    key: KeyPath,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    CreateKey,
    DeleteKey,
    SetValue(ValueName, Value),
    DeleteValue(ValueName),
}

impl PlainWrite {
    /// CreateKey: creates the key with its missing parents, or opens it.
    #[must_use]
    pub fn create_key(key: &KeyPath) -> PlainWrite {
        PlainWrite::new(key, Kind::CreateKey)
    }

    /// DeleteKey: deletes a key that has no key below it; its values do not matter.
    #[must_use]
    pub fn delete_key(key: &KeyPath) -> PlainWrite {
        PlainWrite::new(key, Kind::DeleteKey)
    }

    /// SetValue: sets a value of a key that exists.
    ///
    /// # Errors
    /// A name that is not valid.
    pub fn set_value(key: &KeyPath, name: &str, value: Value) -> Result<PlainWrite, CommandError> {
        Ok(PlainWrite::new(
            key,
            Kind::SetValue(ValueName::parse(name)?, value),
        ))
    }

    /// DeleteValue: deletes a value that exists.
    ///
    /// # Errors
    /// A name that is not valid.
    pub fn delete_value(key: &KeyPath, name: &str) -> Result<PlainWrite, CommandError> {
        Ok(PlainWrite::new(key, Kind::DeleteValue(ValueName::parse(name)?)))
    }

    fn new(key: &KeyPath, kind: Kind) -> PlainWrite {
        PlainWrite {
            key: key.clone(),
            kind,
        }
    }

    /// Bytes of names and data, about.
    pub(crate) fn data_bytes(&self) -> usize {
        let key = self.key.as_str().len();
        match &self.kind {
            Kind::CreateKey | Kind::DeleteKey => key,
            Kind::SetValue(name, value) => key + name.text.len() + value.data().len(),
            Kind::DeleteValue(name) => key + name.text.len(),
        }
    }
}

impl Overlay<'_> {
    /// Decides what the write does to the overlay, and adds it, if it is not refused. The record of one that changes
    /// nothing because the key is there already is empty, and nothing to commit.
    ///
    /// # Errors
    /// What section 5 says of each: a key or a value that does not exist, subkeys, the root, a limit.
    pub fn evaluate_plain(&mut self, write: &PlainWrite, limits: &Limits) -> Result<Record, CommandError> {
        self.decisions.evaluate_plain(self.view, write, limits)
    }
}

impl Decisions {
    /// Decides what the write does to the view under these decisions, and adds it to them, if it is not refused. The record of one that changes
    /// nothing because the key is there already is empty, and nothing to commit.
    ///
    /// # Errors
    /// What section 5 says of each: a key or a value that does not exist, subkeys, the root, a limit.
    pub(crate) fn evaluate_plain(
        &mut self,
        view: &dyn View,
        write: &PlainWrite,
        limits: &Limits,
    ) -> Result<Record, CommandError> {
        let under = self.over(view);
        let mut evaluation = Evaluation::new(
            &under,
            Record::with_capacity(write.data_bytes(), None),
            limits,
            &write.key,
        );
        let (key, folded) = (&write.key, write.key.folded());
        let exists = evaluation.running.layer().find(folded).is_some();
        let not_found = || CommandError::KeyNotFound {
            key: key.as_str().to_owned(),
        };
        match &write.kind {
            Kind::CreateKey if exists => {}
            Kind::CreateKey => evaluation.create_key(key.clone())?,
            Kind::DeleteKey if key.is_root() => return Err(CommandError::Root),
            _ if !exists => return Err(not_found()),
            Kind::DeleteKey if evaluation.running.layer().any_subkey(folded, &mut |_| true) => {
                let key = key.as_str().to_owned();
                return Err(CommandError::HasSubkeys { key });
            }
            Kind::DeleteKey => evaluation.delete_key(key)?,
            Kind::SetValue(name, value) => evaluation.set_value(name, value)?,
            Kind::DeleteValue(name) if evaluation.value(name)?.1.is_none() => {
                return Err(CommandError::ValueNotFound {
                    key: key.as_str().to_owned(),
                    name: name.text.to_string(),
                });
            }
            Kind::DeleteValue(name) => evaluation.delete_value(name)?,
        }
        let size = evaluation.record.payload().len() as u64;
        let maximum = limits.record_bytes.min(MAX_RECORD_BYTES);
        LimitExceeded::check(Limit::RecordBytes, maximum, size).map_err(CommandError::Limit)?;
        let (record, decisions) = evaluation.finish();
        self.add(decisions);
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;

    fn path(text: &str) -> KeyPath {
        KeyPath::parse(text).unwrap()
    }

    fn run(overlay: &mut Overlay<'_>, write: &PlainWrite) -> Result<usize, CommandError> {
        let record = overlay.evaluate_plain(write, &Limits::default())?;
        Ok(record.view().len())
    }

    /// Section 5, and what one write sees of the ones before it that are not yet durable.
    #[test]
    fn each_write_is_refused_where_the_specification_says() {
        let state = State::new();
        let mut overlay = Overlay::new(&state);
        let set = |key: &str| PlainWrite::set_value(&path(key), "v", Value::dword(1)).unwrap();
        let unset = |key: &str| PlainWrite::delete_value(&path(key), "V").unwrap();
        let create = |key: &str| PlainWrite::create_key(&path(key));
        let delete = |key: &str| PlainWrite::delete_key(&path(key));
        let mut run = |write: &PlainWrite| run(&mut overlay, write);
        let missing = |key: &str| Err(CommandError::KeyNotFound { key: key.to_owned() });
        assert_eq!(run(&set("A")), missing("A"));
        assert_eq!(run(&unset("A")), missing("A"));
        assert_eq!(run(&delete("A")), missing("A"));
        assert_eq!(run(&create("A\\B")), Ok(1));
        assert_eq!(run(&create("a\\b")), Ok(0), "opened");
        assert_eq!(run(&set("A")), Ok(1));
        assert_eq!(
            run(&delete("A")),
            Err(CommandError::HasSubkeys { key: "A".to_owned() })
        );
        assert_eq!(run(&delete("a\\b")), Ok(1));
        assert_eq!(run(&unset("A")), Ok(1));
        let (key, name) = ("A".to_owned(), "V".to_owned());
        assert_eq!(run(&unset("A")), Err(CommandError::ValueNotFound { key, name }));
        assert_eq!(run(&set("A")), Ok(1));
        assert_eq!(run(&delete("A")), Ok(1), "values do not matter");
        assert_eq!(run(&set("A")), missing("A"));
        assert_eq!(run(&delete("")), Err(CommandError::Root));
        assert_eq!(run(&set("")), Ok(1), "the root may hold values");
    }

    /// Subkeys are those of the state under what is decided and not yet made.
    #[test]
    fn subkeys_are_counted_through_what_is_decided_and_not_yet_made() {
        let mut state = State::new();
        let mut overlay = Overlay::new(&state);
        let record = overlay
            .evaluate_plain(&PlainWrite::create_key(&path("A\\B\\C")), &Limits::default())
            .unwrap();
        drop(overlay);
        state.apply(record.view(), 1);
        let mut overlay = Overlay::new(&state);
        let delete = |key: &str| PlainWrite::delete_key(&path(key));
        assert!(run(&mut overlay, &delete("A\\B")).is_err(), "C is in the state");
        assert_eq!(run(&mut overlay, &delete("A\\B\\C")), Ok(1));
        assert_eq!(
            run(&mut overlay, &delete("A\\B")),
            Ok(1),
            "C is gone, though the state has it"
        );
        assert_eq!(run(&mut overlay, &PlainWrite::create_key(&path("A\\D"))), Ok(1));
        assert!(
            run(&mut overlay, &delete("A")).is_err(),
            "D is not in the state yet"
        );
        assert_eq!(run(&mut overlay, &delete("A\\D")), Ok(1));
        assert_eq!(run(&mut overlay, &delete("A")), Ok(1));
    }
}
