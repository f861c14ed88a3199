//! `import`: a .reg file as one batch; and `--replace`, which makes a subtree equal to the file.

use std::collections::{BTreeMap, HashMap, HashSet};

use clusdb::model::case_table::fold;
use clusdb::{Batch, Entry, Error, KeyPath, Reader, Value, ValueType};

use crate::args;
use crate::failure::{Failure, Result};
use crate::reg::{self, Section, SectionKind};
use crate::session::{Session, argument_path, read_input};

pub fn run(session: &Session, arguments: &args::Import) -> Result {
    let at = arguments
        .at
        .as_deref()
        .map_or(Ok(KeyPath::root()), argument_path)?;
    let spinner = session.spinner("reading the file");
    let sections = reg::read(&read_input(&arguments.file)?)?;
    spinner.set_message("importing");
    if !arguments.replace {
        let (batch, lines) = additions(&at, sections)?;
        let committed = session.commit(batch, arguments.dry_run);
        spinner.finish_and_clear();
        return committed.map_err(|failure| failure.with_lines(&lines));
    }
    let desired = Desired::new(&at, sections)?;
    if arguments.dry_run {
        let batch = match session.read() {
            Ok(store) => desired.differences(Some(&store))?,
            Err(failure) if failure.is_not_found() => desired.differences(None)?,
            Err(failure) => return Err(failure),
        };
        return session.commit(batch, true);
    }
    let store = session.open_or_create()?;
    let batch = desired.differences(Some(&*store))?;
    let committed = session.commit_to(&store, batch);
    spinner.finish_and_clear();
    committed
}

/// The file's sections as commands, and the line that each command came from.
fn additions(at: &KeyPath, sections: Vec<Section>) -> Result<(Batch, Vec<u64>)> {
    let mut batch = Batch::at(at);
    let mut lines = Vec::new();
    for section in sections {
        lines.push(section.line);
        let refused = |error: clusdb::BatchError| Failure::from(error).at_line(section.line);
        match section.kind {
            SectionKind::Delete => {
                batch.delete_key(&section.key).map_err(refused)?;
            }
            SectionKind::Create(entries) => {
                batch.create_key(&section.key).map_err(refused)?;
                for entry in entries {
                    lines.push(entry.line);
                    let added = match entry.data {
                        Some(data) => batch.set_value(&entry.name, value_of(data)),
                        None => batch.delete_value(&entry.name),
                    };
                    added.map_err(|error| Failure::from(error).at_line(entry.line))?;
                }
            }
        }
    }
    Ok((batch, lines))
}

fn value_of(data: reg::Data) -> Value {
    Value::new(ValueType(data.value_type), data.bytes)
}

/// The keys and values that the file wants below its topmost keys.
struct Desired {
    /// By folded path, so that a key comes before what is below it.
    keys: BTreeMap<String, DesiredKey>,
    topmost: Vec<KeyPath>,
}

struct DesiredKey {
    path: KeyPath,
    /// By folded name: the name as the file spells it, and the value.
    values: BTreeMap<String, (String, Value)>,
}

impl Desired {
    fn new(at: &KeyPath, sections: Vec<Section>) -> Result<Desired> {
        let mut desired = Desired {
            keys: BTreeMap::new(),
            topmost: Vec::new(),
        };
        for section in sections {
            let deletion = |line| {
                let message = "a file for --replace has no deletion lines: what it does not hold is deleted";
                Failure::usage("reg", message).at_line(line)
            };
            let SectionKind::Create(entries) = section.kind else {
                return Err(deletion(section.line));
            };
            let path = KeyPath::parse(&section.key).and_then(|path| at.join(&path));
            let path = path.map_err(|error| Failure::from(error).at_line(section.line))?;
            let values = &mut desired.key(path).values;
            for entry in entries {
                let data = entry.data.ok_or_else(|| deletion(entry.line))?;
                values.insert(fold(&entry.name), (entry.name, value_of(data)));
            }
        }
        desired.close_gaps();
        Ok(desired)
    }

    fn key(&mut self, path: KeyPath) -> &mut DesiredKey {
        let folded = path.folded().to_owned();
        self.keys.entry(folded).or_insert_with(|| DesiredKey {
            path,
            values: BTreeMap::new(),
        })
    }

    /// Finds the topmost keys, and adds the keys between them and the others that the file only implies.
    fn close_gaps(&mut self) {
        let paths: Vec<_> = self.keys.values().map(|key| key.path.clone()).collect();
        for path in paths {
            let ancestors = || std::iter::successors(path.parent(), KeyPath::parent);
            let above: Vec<_> = ancestors().collect();
            match above
                .iter()
                .rposition(|path| self.keys.contains_key(path.folded()))
            {
                None => self.topmost.push(path),
                Some(topmost) => {
                    for path in above.into_iter().take(topmost) {
                        self.key(path);
                    }
                }
            }
        }
    }

    /// The batch that makes the store equal to the file at and below its topmost keys. It deletes only topmost
    /// keys of what goes, and holds only differences; CREATE_KEY of a key that exists makes it current.
    fn differences(&self, store: Option<&Reader>) -> Result<Batch> {
        let mut batch = Batch::at(&KeyPath::root());
        let mut stored = Stored::default();
        for topmost in &self.topmost {
            let Some(store) = store else { continue };
            match store.list_recursive(topmost) {
                Ok(entries) => stored.add(topmost, entries),
                Err(Error::KeyNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut deleted: Option<KeyPath> = None;
        for path in &stored.keys_in_order {
            let is_gone = deleted.as_ref().is_some_and(|above| path.is_at_or_below(above));
            if !is_gone && !self.keys.contains_key(path.folded()) {
                batch.delete_key(path.as_str())?;
                deleted = Some(path.clone());
            }
        }
        for (folded, key) in &self.keys {
            key.add_differences(stored.keys.get(folded), &mut batch)?;
        }
        Ok(batch)
    }
}

impl DesiredKey {
    fn add_differences(
        &self,
        stored: Option<&HashMap<String, (String, Value)>>,
        batch: &mut Batch,
    ) -> Result {
        let nothing = HashMap::new();
        let values = stored.unwrap_or(&nothing);
        let wanted: HashSet<_> = self.values.keys().collect();
        let mut surplus: Vec<_> = values
            .iter()
            .filter(|(folded, _)| !wanted.contains(folded))
            .collect();
        surplus.sort_by_key(|(folded, _)| *folded);
        let mut differing = self
            .values
            .iter()
            .filter(|(folded, (_, value))| values.get(*folded).is_none_or(|(_, stored)| stored != value))
            .peekable();
        if stored.is_some() && surplus.is_empty() && differing.peek().is_none() {
            return Ok(());
        }
        batch.create_key(self.path.as_str())?;
        for (_, (name, _)) in surplus {
            batch.delete_value(name)?;
        }
        for (_, (name, value)) in differing {
            batch.set_value(name, value.clone())?;
        }
        Ok(())
    }
}

/// What the store has at and below the topmost keys.
#[derive(Default)]
struct Stored {
    /// Depth first.
    keys_in_order: Vec<KeyPath>,
    /// By folded path: by folded name, the name and the value.
    keys: HashMap<String, HashMap<String, (String, Value)>>,
}

impl Stored {
    fn add(&mut self, topmost: &KeyPath, entries: Vec<Entry>) {
        self.keys.insert(topmost.folded().to_owned(), HashMap::new());
        for entry in entries {
            match entry {
                Entry::Key { path } => {
                    self.keys.insert(fold(&path), HashMap::new());
                    // A store holds only valid paths.
                    self.keys_in_order.extend(KeyPath::parse(&path));
                }
                Entry::Value { key, name, value } => {
                    let values = self.keys.entry(fold(&key)).or_default();
                    values.insert(fold(&name), (name.to_string(), value));
                }
            }
        }
    }
}
