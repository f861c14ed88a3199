//! What stands between the store and the naive model: batches made for both, and answers of the one in terms of the other.

#[path = "folder.rs"]
mod folder;

use clusdb::{
    Batch, BatchError, Change, CommandError, Commit, Entry, Error, JournalView, KeyPath, NameError,
    ReadBatch, Store, Value, ValueRef, ValueType,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;

use folder::copy_folder;

use crate::naive::single::{Info, Plain};
use crate::naive::{self, Command, Committed, Data, DumpLine, Failure, Line, Shown};

pub type Checked<T> = Result<T, TestCaseError>;
/// The sequence number, or the index of the refused command.
pub type Answer = Result<Option<u64>, (usize, Failure)>;

/// Few names, so that they meet: the same under another case, or with a common beginning, or equal only to the careless.
fn component() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        12 => select(vec!["a", "A", "b"]),
        2 => select(vec!["ab", "aB", "a b", "a_"]),
        3 => select(vec!["σ", "ς", "Σ", "ß", "ẞ", "SS", "µ", "μ", "Μ", "ı", "i", "I", "ᾳ", "ᾼ"]),
    ]
}

/// The path of a key; rarely one so deep that a command may not create it at once.
fn key() -> impl Strategy<Value = String> {
    let components = prop_oneof![
        40 => vec(component(), 0..4),
        1 => vec(select(vec!["a", "A"]), 30..36),
    ];
    components.prop_map(|components| components.join("\\"))
}

/// What a command may ask for, the invalid included.
fn asked_path() -> impl Strategy<Value = String> {
    let invalid = ["\\", "a\\", "\\a", "a\\\\b", "a\0"].map(str::to_owned);
    let too_long = "k".repeat(naive::MAX_KEY_UNITS + 1);
    prop_oneof![
        40 => key(),
        1 => select([&invalid[..], &[too_long]].concat()),
    ]
}

fn value_name() -> impl Strategy<Value = String> {
    let names = ["", "v", "V", "σ", "ς", "a\\b", "A\\B\\"].map(str::to_owned);
    prop_oneof![
        40 => select(names.to_vec()),
        1 => Just("v\0".to_owned()),
    ]
}

/// Few values, so that some are set again; of length zero, and large enough to fill a small segment soon.
fn data() -> impl Strategy<Value = Vec<u8>> {
    select(vec![vec![], vec![0], vec![1, 0, 0, 0], vec![7; 1500]])
}

fn value_type() -> impl Strategy<Value = u32> {
    select(vec![1, 3, 4, 5, 7, 11, 77])
}

/// Data of the same few kinds as a value's, or text that differs by its case, or nearly nothing.
fn compared() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => data(), 1 => Just(b"a\0".to_vec()), 1 => Just(b"A\0".to_vec()), 1 => Just(vec![0, 0, 1, 0])]
}

fn condition() -> impl Strategy<Value = Command> {
    let value = (11..17_u32, value_name(), value_type(), compared());
    prop_oneof![
        4 => value.prop_map(|(number, name, value_type, data)| Command::ValueCondition { number, name, value_type, data }),
        2 => (17..19_u32, asked_path()).prop_map(|(number, path)| Command::KeyCondition { number, path }),
        1 => Just(Command::Control),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let value = (value_name(), value_type(), compared());
    prop_oneof![
        7 => value.prop_map(|(name, value_type, data)| Command::SetValue { name, value_type, data }),
        5 => asked_path().prop_map(|path| Command::CreateKey { path }),
        2 => asked_path().prop_map(|path| Command::DeleteKey { path }),
        3 => value_name().prop_map(|name| Command::DeleteValue { name }),
        2 => condition(),
    ]
}

pub fn batch() -> impl Strategy<Value = naive::Batch> {
    let commands = vec(command(), 0..9);
    (key(), prop::bool::weighted(0.6), commands).prop_map(|(key, creates_its_key, mut commands)| {
        // Most keys are missing; without this, most batches would be refused.
        if creates_its_key {
            let path = String::new();
            commands.insert(0, Command::CreateKey { path });
        }
        naive::Batch { key, commands }
    })
}

/// The batch for the store, and the same for the naive model: without the commands that are refused when they are added.
pub fn build(model: &naive::Store, wanted: naive::Batch) -> Checked<(Batch, naive::Batch)> {
    let mut batch = Batch::at(&path(&wanted.key));
    let mut added = naive::Batch {
        key: wanted.key,
        commands: Vec::new(),
    };
    for command in wanted.commands {
        let index = added.commands.len();
        let refused = add(&mut batch, &command).err();
        added.commands.push(command);
        let Some(refused) = refused else {
            continue;
        };
        // The naive model refuses at the commit alone, where a command before this one may be at fault.
        let at_commit = model.clone().commit(&added);
        let is_expected =
            at_commit == Err(reason(&refused)) || at_commit.is_err_and(|(earlier, _)| earlier < index);
        prop_assert!(
            refused.index == index && is_expected,
            "{refused} but {at_commit:?}"
        );
        added.commands.pop();
    }
    prop_assert_eq!(batch.len(), added.commands.len());
    Ok((batch, added))
}

fn add(batch: &mut Batch, command: &Command) -> Result<(), BatchError> {
    let added = match command {
        Command::SetValue {
            name,
            value_type,
            data,
        } => batch.set_value(name, Value::new(ValueType(*value_type), &data[..])),
        Command::CreateKey { path } => batch.create_key(path),
        Command::DeleteKey { path } => batch.delete_key(path),
        Command::DeleteValue { name } => batch.delete_value(name),
        Command::ValueCondition {
            number,
            name,
            value_type,
            data,
        } => {
            let value = Value::new(ValueType(*value_type), &data[..]);
            match number {
                11 => batch.condition_exists(name),
                12 => batch.condition_not_exists(name),
                13 => batch.condition_is_equal(name, value),
                14 => batch.condition_is_not_equal(name, value),
                15 => batch.condition_is_greater_than(name, value),
                _ => batch.condition_is_less_than(name, value),
            }
        }
        Command::KeyCondition { number: 17, path } => batch.condition_key_exists(path),
        Command::KeyCondition { path, .. } => batch.condition_key_not_exists(path),
        Command::Control => Ok(batch.control(clusdb::Control::Isolated)),
    };
    added.map(drop)
}

/// Commits to both, and compares the answers.
pub fn commit(store: &Store, model: &mut naive::Store, batch: Batch, wanted: &naive::Batch) -> Checked<()> {
    prop_assert_eq!(answer(store.commit(batch)), model.commit(wanted));
    Ok(())
}

/// A plain write in both, and compares the answers: its record, or none; or why not.
pub fn write_plain(store: &Store, model: &mut naive::Store, write: &Plain) -> Checked<()> {
    let before = model.last_sequence();
    let written = match write {
        Plain::CreateKey { path: key } => {
            parsed(key).and_then(|key| Ok(store.create_key(&key)?.then_some(before + 1)))
        }
        Plain::DeleteKey { path: key } => parsed(key).and_then(|key| Ok(store.delete_key(&key)?.sequence())),
        Plain::SetValue {
            path: key,
            name,
            value,
        } => parsed(key).and_then(|key| {
            let value = Value::new(ValueType(value.0), &value.1[..]);
            Ok(store.set_value(&key, name, value)?.sequence())
        }),
        Plain::DeleteValue { path: key, name } => {
            parsed(key).and_then(|key| Ok(store.delete_value(&key, name)?.sequence()))
        }
    };
    let answer = written.map_err(|error| match error {
        Error::Plain(refused) => failure(&refused),
        error => panic!("not the write's fault: {error}"),
    });
    prop_assert_eq!(answer, model.plain(write));
    Ok(())
}

fn parsed(key: &str) -> Result<KeyPath, Error> {
    KeyPath::parse(key).map_err(|error| Error::Plain(error.into()))
}

pub fn plain_write() -> impl Strategy<Value = Plain> {
    let value = (value_type(), data());
    prop_oneof![
        4 => asked_path().prop_map(|path| Plain::CreateKey { path }),
        3 => asked_path().prop_map(|path| Plain::DeleteKey { path }),
        4 => (key(), value_name(), value).prop_map(|(path, name, value)| Plain::SetValue { path, name, value }),
        3 => (key(), value_name()).prop_map(|(path, name)| Plain::DeleteValue { path, name }),
    ]
}

/// A key, and what is read below it.
pub type Reads = (String, Vec<(String, String)>);

pub fn reads() -> impl Strategy<Value = Reads> {
    let asked = (
        key(),
        select(vec!["", "v", "V", "ς", "a\\b"]).prop_map(str::to_owned),
    );
    (key(), vec(asked, 0..6))
}

/// The same read batch and the same questions to both.
pub fn read(store: &Store, model: &naive::Store, (base, asked): &Reads) -> Checked<()> {
    let mut batch = ReadBatch::at(&path(base));
    let mut expected = Vec::new();
    for (subkey, name) in asked {
        batch.add(subkey, name).unwrap();
        let full = [base.as_str(), subkey]
            .into_iter()
            .filter(|part| !part.is_empty());
        expected.push(model.read(&full.collect::<Vec<_>>().join("\\"), name));
    }
    let replies = store.read(&batch).unwrap().into_iter().map(|reply| {
        let data = reply
            .value
            .map(|value| (value.value_type().0, value.data().to_vec()));
        (reply.key.to_string(), reply.name.to_string(), data)
    });
    prop_assert_eq!(replies.collect::<Vec<_>>(), expected);
    let info = store.key_info(&path(base)).ok().map(|info| Info {
        path: info.path.to_string(),
        subkeys: info.subkeys,
        values: info.values,
        longest_key: info.longest_key,
        longest_name: info.longest_name,
        largest_data: info.largest_data,
    });
    prop_assert_eq!(info, model.info(base));
    Ok(())
}

pub fn answer(committed: Result<Commit, Error>) -> Answer {
    match committed {
        Ok(commit) => Ok(commit.sequence()),
        Err(Error::Batch(refused)) => Err(reason(&refused)),
        Err(error) => panic!("not the batch's fault: {error}"),
    }
}

pub fn reason(refused: &BatchError) -> (usize, Failure) {
    (refused.index, failure(&refused.source))
}

fn failure(error: &CommandError) -> Failure {
    match error {
        CommandError::Name(NameError::Limit(_)) | CommandError::Limit(_) => Failure::Limit,
        CommandError::Name(_) => Failure::Name,
        CommandError::NoCurrentKey => Failure::NoCurrentKey,
        CommandError::KeyNotFound { .. } => Failure::KeyNotFound,
        CommandError::Root => Failure::Root,
        CommandError::HasSubkeys { .. } => Failure::HasSubkeys,
        CommandError::ValueNotFound { .. } => Failure::ValueNotFound,
        CommandError::ConditionFailed(_) => Failure::Condition,
        other => panic!("the naive model knows no such refusal: {other}"),
    }
}

pub fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn data_of(value: ValueRef<'_>) -> Data {
    (value.value_type.0, value.data.to_vec())
}

pub fn shown(change: Change<'_>) -> Shown {
    Shown {
        command: change.kind().name(),
        key: change.key().to_owned(),
        name: change.name().map(str::to_owned),
        value: change.value().map(data_of),
        previous: change.previous().map(data_of),
        changed: change.changed(),
    }
}

/// A line of the registry's own stream, which has the old data as a line of its own.
pub fn line(change: Change<'_>) -> Line {
    assert_eq!(change.previous(), None);
    Line {
        command: change.kind().name(),
        key: change.key().to_owned(),
        name: change.name().map(str::to_owned),
        value: change.value().map(data_of),
        changed: change.changed(),
    }
}

pub fn committed(view: &JournalView) -> Vec<Committed> {
    let committed = |batch: clusdb::BatchView<'_>| {
        let mut at_once = Vec::new();
        batch.changes().for_each(|change| at_once.push(shown(change)));
        let mut one_by_one = Vec::new();
        for change in batch.changes() {
            one_by_one.push(shown(change));
        }
        assert_eq!(at_once, one_by_one);
        Committed {
            sequence: batch.sequence(),
            plain: batch.is_plain(),
            shown: one_by_one,
        }
    };
    view.batches().map(committed).collect()
}

pub fn contents(store: &Store) -> Vec<DumpLine> {
    dump(store.list_recursive(&KeyPath::root()).unwrap())
}

pub fn dump(entries: Vec<Entry>) -> Vec<DumpLine> {
    let dumped = |entry| match entry {
        Entry::Key { path } => DumpLine::Key(path.to_string()),
        Entry::Value { key, name, value } => DumpLine::Value {
            key: key.to_string(),
            name: name.to_string(),
            value_type: value.value_type().0,
            data: value.data().to_vec(),
        },
    };
    entries.into_iter().map(dumped).collect()
}

/// A store in a folder of its own, with segments so small that the journal rotates all the time.
pub struct Home {
    folder: TempDir,
    /// None only while it is opened anew.
    store: Option<Store>,
    limit_bytes: u64,
}

impl Home {
    pub fn new(limit_bytes: u64) -> Home {
        let mut home = Home {
            folder: TempDir::new().unwrap(),
            store: None,
            limit_bytes,
        };
        home.open();
        home
    }

    fn open(&mut self) {
        let options = Store::options()
            .segment_size_bytes(4096)
            .notification_limit_bytes(self.limit_bytes);
        self.store = Some(options.open(self.folder.path()).unwrap());
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    /// The files as a crash leaves them while the store is open: what was not closed must be recovered.
    pub fn copy(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    pub fn reopen(&mut self, crash: bool) {
        let copy = crash.then(|| self.copy());
        self.reopen_from(copy);
    }

    /// Closes the store, and goes on with the copy, or with what the closing has left.
    pub fn reopen_from(&mut self, copy: Option<TempDir>) {
        self.store = None;
        if let Some(copy) = copy {
            self.folder = copy;
        }
        self.open();
    }
}
