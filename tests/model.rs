//! Property tests: the pure model, the store and its ports against a naive model of the same specification.
//!
//! A failure prints its seed as a line `cc …`, which also goes to `tests/model.regressions` and is tried first from then
//! on. `CLUSDB_CASES=n` runs n cases of each test.

#[path = "support/harness.rs"]
mod harness;
#[path = "support/naive.rs"]
mod naive;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Barrier;
use std::thread;

use clusdb::model::{Limits, Overlay, State, evaluate};
use clusdb::{Batch, Commit, Contents, Notification, Port, Store};
use harness::{
    Answer, Checked, Home, Reads, answer, batch, build, commit, committed, contents, dump, line, path,
    plain_write, read, reads, reason, shown, write_plain,
};
use naive::single::Plain;
use naive::{Committed, DumpLine};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{FileFailurePersistence, TestCaseResult};

fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("CLUSDB_CASES").ok();
    let asked = asked.map(|cases| cases.parse().expect("CLUSDB_CASES is a number"));
    ProptestConfig {
        cases: asked.unwrap_or(default),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/model.regressions",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(260))]
    #[test]
    fn a_batch_does_what_the_naive_model_says(groups in vec(vec(batch(), 1..5), 1..10)) {
        let limits = Limits::default();
        let mut model = naive::Store::new();
        let mut state = State::new();
        for group in groups {
            // As the store commits a group: each batch on the ones before it, which the state does not have yet. The
            // same batch on a state that has them must be decided the same.
            let mut pending = Overlay::new(&state);
            let mut applied = state.clone();
            for wanted in group {
                let (batch, wanted) = build(&model, wanted)?;
                let decided = pending.evaluate(&batch, &limits);
                prop_assert_eq!(&decided, &evaluate(&applied, &batch, &limits));
                let committed = model.commit(&wanted);
                match decided {
                    Err(refused) => prop_assert_eq!(Err(reason(&refused)), committed),
                    Ok(record) if record.view().is_empty() => prop_assert_eq!(Ok(None), committed),
                    Ok(record) => {
                        let sequence = model.last_sequence();
                        prop_assert_eq!(Ok(Some(sequence)), committed);
                        let changes: Vec<_> = record.view().changes().map(shown).collect();
                        prop_assert_eq!(&changes, &model.log.last().unwrap().shown);
                        applied.apply(record.view(), sequence as i64);
                    }
                }
            }
            state = applied;
            prop_assert_eq!(dump(state.walk("", true).unwrap()), model.dump());
            prop_assert_eq!((state.key_count(), state.value_count()), model.counts());
        }
    }
}

proptest! {
    #![proptest_config(cases(80))]
    #[test]
    fn the_state_after_reopening_is_the_fold_of_the_records(
        steps in vec(prop_oneof![8 => batch().prop_map(Some), 1 => Just(None)], 1..40),
        crash in any::<bool>(),
    ) {
        let mut home = Home::new(u64::MAX);
        let mut model = naive::Store::new();
        let mut folded = State::new();
        for step in steps {
            let Some(wanted) = step else {
                home.reopen(crash);
                prop_assert_eq!(contents(home.store()), model.dump());
                continue;
            };
            let (batch, wanted) = build(&model, wanted)?;
            // The log lends no records to fold, but a rehearsal gives the very record that the commit will write.
            let rehearsal = home.store().dry_run(&batch);
            commit(home.store(), &mut model, batch, &wanted)?;
            if let Ok(record) = rehearsal {
                folded.apply(record.view(), 0);
            }
        }
        home.reopen(crash);
        let store = home.store();
        let log = committed(&store.log(1..=u64::MAX).unwrap());
        prop_assert_eq!(&log, &model.log);
        prop_assert_eq!(contents(store), model.dump());
        prop_assert_eq!(contents(store), naive::replay(&log).dump());
        prop_assert_eq!(contents(store), dump(folded.walk("", true).unwrap()));
        let stat = store.stat().unwrap();
        prop_assert_eq!((stat.keys, stat.values), model.counts());
        prop_assert_eq!(stat.durable_sequence, model.last_sequence());
    }
}

/// What happens to the ports, each named by its index.
#[derive(Clone, Debug)]
enum PortStep {
    Commit(naive::Batch),
    Plain(Plain),
    Read(Reads),
    Open(usize),
    Get(usize),
    /// One of the notifications that are out, in any order.
    Acknowledge(usize, Index),
    AcknowledgeWith(usize, Index, naive::Batch),
    Resync(usize),
    Rewind(usize),
    Drop(usize),
    Reopen {
        crash: bool,
    },
}

const PORTS: usize = 3;

/// Keys that the batches often meet, in any spelling and above one another; and one that they never do.
fn port_key() -> impl Strategy<Value = String> {
    select(vec!["", "a", "B", "A\\a", "b\\A\\b", "ς", "no such key"]).prop_map(str::to_owned)
}

fn port_step() -> impl Strategy<Value = PortStep> {
    let index = any::<Index>;
    prop_oneof![
        12 => batch().prop_map(PortStep::Commit),
        5 => plain_write().prop_map(PortStep::Plain),
        2 => reads().prop_map(PortStep::Read),
        6 => (0..PORTS).prop_map(PortStep::Open),
        14 => (0..PORTS).prop_map(PortStep::Get),
        6 => (0..PORTS, index()).prop_map(|(port, which)| PortStep::Acknowledge(port, which)),
        4 => (0..PORTS, index(), batch()).prop_map(|(port, which, batch)| PortStep::AcknowledgeWith(port, which, batch)),
        1 => (0..PORTS).prop_map(PortStep::Resync),
        1 => (0..PORTS).prop_map(PortStep::Rewind),
        1 => (0..PORTS).prop_map(PortStep::Drop),
        1 => any::<bool>().prop_map(|crash| PortStep::Reopen { crash }),
    ]
}

proptest! {
    #![proptest_config(cases(500))]
    #[test]
    fn replies_state_and_what_each_port_shows_are_what_the_naive_model_says(
        keys in prop::array::uniform::<_, PORTS>(port_key()),
        limit_bytes in select(vec![u64::MAX, 2000]),
        steps in vec(port_step(), 1..200),
    ) {
        let mut home = Home::new(limit_bytes);
        let mut model = naive::Store::new();
        let mut number = 0..;
        let mut ports = keys.map(|key| Followed::new(number.next().unwrap_or(0), key));
        for step in steps {
            match step {
                PortStep::Commit(wanted) => {
                    let (batch, wanted) = build(&model, wanted)?;
                    commit(home.store(), &mut model, batch, &wanted)?;
                }
                PortStep::Plain(write) => write_plain(home.store(), &mut model, &write)?,
                PortStep::Read(reads) => read(home.store(), &model, &reads)?,
                PortStep::Open(port) => ports[port].open(home.store(), &model)?,
                PortStep::Get(port) => ports[port].get(&model, limit_bytes)?,
                PortStep::Acknowledge(port, which) => ports[port].acknowledge(&model, which)?,
                PortStep::AcknowledgeWith(port, which, wanted) => {
                    let (batch, wanted) = build(&model, wanted)?;
                    ports[port].acknowledge_with(&mut model, which, batch, &wanted)?;
                }
                PortStep::Resync(port) => ports[port].resync(&model)?,
                PortStep::Rewind(port) => ports[port].rewind()?,
                PortStep::Drop(port) => ports[port].drop()?,
                PortStep::Reopen { crash } => {
                    // A port keeps its store open, and saves its cursor when it is dropped: a crash comes before that.
                    let copy = crash.then(|| home.copy());
                    ports.iter_mut().try_for_each(Followed::drop)?;
                    home.reopen_from(copy);
                    prop_assert_eq!(contents(home.store()), model.dump());
                }
            }
        }
        prop_assert_eq!(committed(&home.store().log(1..=u64::MAX).unwrap()), &model.log[..]);
        for port in &mut ports {
            port.check_listed(home.store(), &model)?;
            port.drop()?;
        }
        drop(home);
        for given in ports.iter().flat_map(|port| &port.past) {
            given.check()?;
        }
    }
}

/// A port, and what the specification says of it.
struct Followed {
    name: String,
    key: String,
    port: Option<Port>,
    /// Everything up to here is acknowledged; none as long as the port was never opened.
    acknowledged: Option<u64>,
    /// Everything up to here was got.
    position: u64,
    /// Got and not yet acknowledged together with all before it.
    outstanding: VecDeque<Given>,
    /// Kept to see that they stay valid.
    past: Vec<Given>,
}

struct Given {
    key: String,
    given: Out,
    expected: Vec<Committed>,
    upto: u64,
    is_acknowledged: bool,
}

/// What a port gives out.
enum Out {
    Notification(Notification),
    Contents(Contents, Vec<DumpLine>),
}

impl Given {
    fn acknowledge(&self) -> clusdb::Result<()> {
        match &self.given {
            Out::Notification(notification) => notification.acknowledge(),
            Out::Contents(contents, _) => contents.acknowledge(),
        }
    }

    fn acknowledge_with(&self, batch: Batch) -> clusdb::Result<Commit> {
        match &self.given {
            Out::Notification(notification) => notification.acknowledge_with(batch),
            Out::Contents(contents, _) => contents.acknowledge_with(batch),
        }
    }

    fn check(&self) -> TestCaseResult {
        let notification = match &self.given {
            Out::Notification(notification) => notification,
            Out::Contents(contents, expected) => {
                prop_assert_eq!(contents.sequence(), self.upto);
                prop_assert_eq!(&dump(contents.entries().to_vec()), expected);
                return Ok(());
            }
        };
        prop_assert_eq!(committed(notification), &self.expected[..]);
        for (batch, expected) in notification.batches().zip(&self.expected) {
            let lines: Vec<_> = batch.commands().map(line).collect();
            let expected = naive::Store::commands(&expected.shown);
            prop_assert_eq!(&lines, &expected);
            check_wire(&batch.to_wire().unwrap(), &self.key, &expected)?;
        }
        Ok(())
    }
}

/// Section 7, as a reader of the protocol's bytes goes through them: CREATE_KEY makes its path the current key, relative to
/// the port's, and every other command is the next of those expected.
fn check_wire(bytes: &[u8], port_key: &str, expected: &[naive::Line]) -> TestCaseResult {
    let commands = clusdb::wire::decode_notification(bytes).unwrap();
    prop_assert_eq!(clusdb::wire::encode_commands(&commands).unwrap(), bytes);
    let mut expected = expected.iter();
    let mut current = Some(String::new());
    let mut next = expected.next();
    for command in commands {
        let number = command.kind as u32;
        let path_of = |relative: &str| match (port_key, relative) {
            ("", relative) => relative.to_owned(),
            (port_key, "") => port_key.to_owned(),
            (port_key, relative) => format!("{port_key}\\{relative}"),
        };
        let at = match number {
            2 | 3 => path_of(&command.name),
            _ => path_of(current.as_ref().expect("a current key")),
        };
        let Some(line) = next else {
            return Err(TestCaseError::fail("more commands than lines"));
        };
        let names = [
            "",
            "set_value",
            "create_key",
            "delete_key",
            "delete_value",
            "",
            "value_deleted",
        ];
        let same_key = naive::same_name(&line.key, &at)
            // The loss of an ancestor is that of the port's key.
            || number == 3 && command.name.is_empty() && line.command == "delete_key";
        let is_line = names[number as usize] == line.command && same_key;
        current = match number {
            2 => Some(command.name.clone()),
            3 => None,
            _ => current,
        };
        if number == 2 && !is_line {
            // It only says which key comes next.
            continue;
        }
        prop_assert!(is_line, "{command:?} for {line:?}");
        if let Some(name) = &line.name {
            prop_assert_eq!(&command.name, name);
        }
        let value = command
            .value
            .map(|value| (value.value_type().0, value.data().to_vec()));
        prop_assert_eq!(&value, &line.value);
        next = expected.next();
    }
    prop_assert!(next.is_none(), "fewer commands than lines");
    Ok(())
}

impl Followed {
    fn new(number: usize, key: String) -> Followed {
        Followed {
            name: format!("port{number}"),
            key,
            port: None,
            acknowledged: None,
            position: 0,
            outstanding: VecDeque::new(),
            past: Vec::new(),
        }
    }

    fn open(&mut self, store: &Store, model: &naive::Store) -> TestCaseResult {
        let opened = store.port(&self.name, &path(&self.key));
        if self.port.is_some() {
            prop_assert_eq!(opened.unwrap_err().word(), "port_in_use");
            return Ok(());
        }
        self.port = Some(opened.unwrap());
        self.position = *self.acknowledged.get_or_insert_with(|| model.last_sequence());
        Ok(())
    }

    fn get(&mut self, model: &naive::Store, limit_bytes: u64) -> TestCaseResult {
        let Some(port) = &self.port else {
            return Ok(());
        };
        let last = model.last_sequence();
        let mut expected = model.notification(&self.key, self.position, last);
        let Some(notification) = port.try_get().unwrap() else {
            prop_assert_eq!(expected, []);
            return Ok(());
        };
        self.position = last;
        // How many batches fit is not ours to say, but one always does.
        if limit_bytes < u64::MAX && (1..expected.len()).contains(&notification.len()) {
            expected.truncate(notification.len());
            self.position = expected[notification.len() - 1].sequence;
        }
        let given = Given {
            key: self.key.clone(),
            given: Out::Notification(notification),
            expected,
            upto: self.position,
            is_acknowledged: false,
        };
        given.check()?;
        self.outstanding.push_back(given);
        Ok(())
    }

    fn acknowledge(&mut self, model: &naive::Store, which: Index) -> TestCaseResult {
        let (Some(port), false) = (self.port.clone(), self.outstanding.is_empty()) else {
            return Ok(());
        };
        let which = which.index(self.outstanding.len());
        self.outstanding[which].acknowledge().unwrap();
        self.outstanding[which].is_acknowledged = true;
        self.settle();
        self.check_cursor(port.acknowledged(), model)
    }

    fn settle(&mut self) {
        let in_order = self.outstanding.iter();
        let done = in_order.take_while(|given| given.is_acknowledged).count();
        for given in self.outstanding.drain(..done) {
            self.acknowledged = Some(given.upto);
            self.past.push(given);
        }
    }

    /// The batch commits with the acknowledgement of the oldest that is out, or not at all.
    fn acknowledge_with(
        &mut self,
        model: &mut naive::Store,
        which: Index,
        batch: Batch,
        wanted: &naive::Batch,
    ) -> TestCaseResult {
        let (Some(port), false) = (self.port.clone(), self.outstanding.is_empty()) else {
            return Ok(());
        };
        // Mostly the oldest, which is the one that can be.
        let which = which
            .index(self.outstanding.len() * 4)
            .saturating_sub(self.outstanding.len() * 3);
        let answered = self.outstanding[which].acknowledge_with(batch);
        if which > 0 {
            prop_assert_eq!(answered.unwrap_err().word(), "acknowledgement_refused");
            return Ok(());
        }
        let expected = model.commit_acknowledging(wanted);
        prop_assert_eq!(answer(answered), expected);
        if expected.is_ok() {
            self.outstanding[0].is_acknowledged = true;
            self.settle();
            let again = self.past[self.past.len() - 1].acknowledge_with(Batch::at(&path("")));
            prop_assert_eq!(again.unwrap_err().word(), "acknowledgement_refused");
        }
        self.check_cursor(port.acknowledged(), model)
    }

    fn resync(&mut self, model: &naive::Store) -> TestCaseResult {
        let Some(port) = self.port.clone() else {
            return Ok(());
        };
        let contents = port.resync().unwrap();
        for given in self.outstanding.drain(..) {
            let refused = given.acknowledge();
            prop_assert_eq!(refused.unwrap_err().word(), "acknowledgement_refused");
            self.past.push(given);
        }
        self.position = model.last_sequence();
        let given = Given {
            key: self.key.clone(),
            given: Out::Contents(contents, model.contents(&self.key)),
            expected: Vec::new(),
            upto: self.position,
            is_acknowledged: false,
        };
        given.check()?;
        self.outstanding.push_back(given);
        Ok(())
    }

    /// The cursor may stand behind records that the port does not show, and behind no other.
    fn check_cursor(&self, cursor: u64, model: &naive::Store) -> TestCaseResult {
        let acknowledged = self.acknowledged.expect("the port was opened");
        prop_assert!(cursor >= acknowledged);
        prop_assert_eq!(model.notification(&self.key, acknowledged, cursor), []);
        Ok(())
    }

    fn rewind(&mut self) -> TestCaseResult {
        if let (Some(port), Some(acknowledged)) = (&self.port, self.acknowledged) {
            port.rewind().unwrap();
            self.position = acknowledged;
            for given in self.outstanding.drain(..) {
                let refused = given.acknowledge();
                prop_assert_eq!(refused.unwrap_err().word(), "acknowledgement_refused");
                self.past.push(given);
            }
        }
        Ok(())
    }

    fn drop(&mut self) -> TestCaseResult {
        self.port = None;
        for given in self.outstanding.drain(..) {
            let refused = given.acknowledge();
            prop_assert_eq!(refused.unwrap_err().word(), "port_closed");
            self.past.push(given);
        }
        Ok(())
    }

    fn check_listed(&self, store: &Store, model: &naive::Store) -> TestCaseResult {
        let infos = store.ports().unwrap();
        let info = infos.iter().find(|info| info.name == self.name);
        prop_assert_eq!(info.is_some(), self.acknowledged.is_some());
        if let (Some(info), Some(acknowledged)) = (info, self.acknowledged) {
            prop_assert_eq!(info.key.as_str(), &self.key);
            self.check_cursor(info.acknowledged, model)?;
            let pending = model.notification(&self.key, acknowledged, model.last_sequence());
            prop_assert_eq!(info.pending, pending.len() as u64);
        }
        Ok(())
    }
}

const THREADS: usize = 4;

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn group_commit_gives_some_sequential_order(
        wanted in prop::array::uniform::<_, THREADS>(vec(batch(), 1..10)),
    ) {
        let mut batches = Vec::new();
        for (thread, wanted) in wanted.into_iter().enumerate() {
            let built = wanted.into_iter().enumerate().map(|(nth, wanted)| {
                let (mut batch, wanted) = build(&naive::Store::new(), wanted)?;
                let request_id = [thread as u8 + 1, nth as u8].repeat(8);
                batch.set_request_id(request_id.try_into().expect("16 bytes"));
                Ok((batch, wanted))
            });
            batches.push(built.collect::<Checked<Vec<_>>>()?);
        }
        let mut home = Home::new(u64::MAX);
        let answers = commit_concurrently(home.store(), &batches);

        // Whose batch each record says it is, and who was answered with its sequence number.
        let mut answered = BTreeMap::new();
        for (own, answers) in batches.iter().zip(&answers) {
            for ((batch, wanted), answer) in own.iter().zip(answers) {
                // For nothing to commit, or a refusal, see `check_moments`.
                if let Ok(Some(sequence)) = answer {
                    let twice = answered.insert(*sequence, (batch.request_id(), wanted));
                    prop_assert!(twice.is_none(), "two batches were answered {sequence}");
                }
            }
        }
        let mut moments = vec![naive::Store::new()];
        let log = home.store().log(1..=u64::MAX).unwrap();
        for record in &log {
            let mut model = moments[moments.len() - 1].clone();
            let Some((request_id, wanted)) = answered.remove(&record.sequence()) else {
                return Err(TestCaseError::fail(format!("nobody was answered {record:?}")));
            };
            prop_assert_eq!(record.request_id(), request_id);
            prop_assert_eq!(model.commit(wanted), Ok(Some(record.sequence())));
            moments.push(model);
        }
        prop_assert!(answered.is_empty(), "acknowledged and not in the log: {answered:?}");
        let model = &moments[moments.len() - 1];
        prop_assert_eq!(committed(&log), &model.log[..]);
        prop_assert_eq!(contents(home.store()), model.dump());
        for (own, answers) in batches.iter().zip(&answers) {
            check_moments(own, answers, &moments)?;
        }
        home.reopen(true);
        prop_assert_eq!(contents(home.store()), model.dump());
    }
}

fn commit_concurrently(store: &Store, batches: &[Vec<(Batch, naive::Batch)>]) -> Vec<Vec<Answer>> {
    let start = Barrier::new(batches.len());
    let commit_all = |own: &[(Batch, naive::Batch)]| -> Vec<Answer> {
        start.wait();
        own.iter()
            .map(|(batch, _)| answer(store.commit(batch.clone())))
            .collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = batches
            .iter()
            .map(|own| scope.spawn(|| commit_all(own)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A thread's commits take effect in its order, and a batch is refused, or its conditions hold, by what was so at some
/// moment in between.
fn check_moments(
    own: &[(Batch, naive::Batch)],
    answers: &[Answer],
    moments: &[naive::Store],
) -> TestCaseResult {
    let mut before = 0;
    for (nth, ((_, wanted), answer)) in own.iter().zip(answers).enumerate() {
        match answer {
            Ok(Some(sequence)) => {
                prop_assert!(*sequence > before);
                before = *sequence;
            }
            Ok(None) | Err(_) => {
                let next = answers[nth..].iter().find_map(|later| later.ok().flatten());
                let upto = next.unwrap_or(moments.len() as u64);
                let mut between = moments[before as usize..upto as usize].iter();
                let is_explained = between.any(|model| model.clone().commit(wanted) == *answer);
                prop_assert!(
                    is_explained,
                    "{answer:?} for {wanted:?} at no moment in {before}..{upto}"
                );
            }
        }
    }
    Ok(())
}
