//! The current key of a batch (specification, section 2): looked up once for all commands on its values.

use std::sync::Arc;

use super::key::KeyPath;
use super::overlay::Overlay;
use super::value::Value;
use super::view::KeyView;

/// The key that the commands on values go to.
pub(super) struct Current<'a> {
    /// As the batch spells it.
    pub(super) path: KeyPath,
    /// Once it was looked up, and if it is there: nothing but DELETE_KEY takes it away.
    pub(super) key: Option<CurrentKey<'a>>,
}

pub(super) struct CurrentKey<'a> {
    /// Its path as it is stored.
    pub(super) stored: String,
    /// What it was before the batch; none if the batch has made it.
    pub(super) before: Option<KeyView<'a>>,
}

impl<'a> Current<'a> {
    pub(super) fn new(path: KeyPath) -> Current<'a> {
        Current { path, key: None }
    }

    /// The key, if it is there; looked up the first time.
    pub(super) fn look_up(&mut self, running: &Overlay<'a>) -> Option<(&KeyPath, &CurrentKey<'a>)> {
        if self.key.is_none() {
            self.key = CurrentKey::find(running, self.path.folded());
        }
        Some((&self.path, self.key.as_ref()?))
    }
}

impl<'a> CurrentKey<'a> {
    fn find(running: &Overlay<'a>, path: &str) -> Option<CurrentKey<'a>> {
        let before = running.before(path);
        let stored = match &before {
            Some(before) => before.path().into_owned(),
            None => running.made(path)?.to_owned(),
        };
        Some(CurrentKey { stored, before })
    }

    pub(super) fn value_before(&self, name: &str) -> Option<(&'a Arc<str>, &'a Value)> {
        self.before.as_ref()?.value(name)
    }

    /// The value of this folded name, as the batch has left it so far.
    pub(super) fn value<'b>(
        &'b self,
        running: &'b Overlay<'_>,
        path: &KeyPath,
        name: &str,
    ) -> Option<(&'b Arc<str>, &'b Value)> {
        match running.decided(path.folded(), name) {
            Some(decided) => decided,
            None => self.value_before(name),
        }
    }
}
