//! What a view shows through decisions while they are applied, beside a state that has all of them.

use super::*;
use crate::model::state::RecordApplied;
use crate::model::{Batch, Limits, PlainWrite, State, Value, ValueName};

const KEYS: [&str; 8] = ["A", "a", r"A\B", r"a\b\C", r"A\D", "B", r"B\b", r"b\B\c"];
/// So that their order is kept.
const MANY: u64 = 2 * FEW as u64;
const NAMES: [&str; 3] = ["v", "V", "w"];

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % count
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

fn batch(numbers: &mut Numbers) -> Batch {
    let mut batch = Batch::at(&KeyPath::root());
    for number in 0..numbers.below(12) + 1 {
        let (key, name) = (numbers.pick(&KEYS), numbers.pick(&NAMES));
        // What is refused for want of a current key is left out.
        let _ = match numbers.below(5) {
            0 | 1 => batch.create_key(key).map(drop),
            2 => batch.delete_key(key).map(drop),
            3 => batch.set_value(name, Value::dword(number as u32)).map(drop),
            _ => batch.delete_value(name).map(drop),
        };
    }
    batch
}

/// All that can be asked of a view.
fn answers(view: &dyn View) -> Vec<String> {
    let mut answers = Vec::new();
    for key in KEYS.iter().chain(&[""]) {
        let key = KeyPath::parse(key).unwrap();
        let path = key.folded();
        answers.push(format!(
            "{path}: {:?} {}",
            view.find(path).map(|key| key.path()),
            view.any_subkey(path, &mut |_| true)
        ));
        for name in NAMES {
            let folded = ValueName::parse(name).unwrap();
            answers.push(format!(
                "{path} {name}: {:?}",
                view.find(path).and_then(|key| key.value(folded.folded()))
            ));
        }
    }
    answers
}

/// A group of records is decided; a second one is decided on it; the first is applied change by change.
#[test]
fn applying_what_was_decided_changes_nothing_of_what_is_seen_through_it() {
    let limits = Limits::default();
    let (mut steps, mut hidden) = (0, 0);
    for seed in 1..=200 {
        let mut numbers = Numbers(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut state = State::new();
        let before = crate::model::evaluate(&state, &batch(&mut numbers), &limits);
        before
            .into_iter()
            .for_each(|record| state.apply(record.view(), 1));
        let mut decisions = [Decisions::default(), Decisions::default()];
        let mut records = Vec::new();
        if seed % 2 == 0 {
            let [first, _] = &mut decisions;
            let mut many = Batch::at(&KeyPath::root());
            for number in 0..MANY {
                many.create_key(&format!(r"{}\x{number}", numbers.pick(&KEYS)))
                    .unwrap();
            }
            records.extend(first.evaluate(&state, &many, &limits));
        }
        for _ in 0..3 {
            let [first, _] = &mut decisions;
            records.extend(first.evaluate(&state, &batch(&mut numbers), &limits));
            let plain = PlainWrite::delete_key(&KeyPath::parse(numbers.pick(&KEYS)).unwrap());
            records.extend(first.evaluate_plain(&state, &plain, &limits));
        }
        let [first, second] = &mut decisions;
        let _ = second.evaluate(&first.over(&state), &batch(&mut numbers), &limits);
        let mut after = state.clone();
        records.iter().for_each(|record| after.apply(record.view(), 2));
        let (expected, above) = (answers(&after), answers(&second.over(&after)));
        let mut applied = records.iter().map(|record| RecordApplied::new(record.view(), 2));
        let mut record = applied.next();
        loop {
            let under = first.over(&state);
            assert_eq!(answers(&under), expected, "seed {seed}");
            for (key, name) in KEYS.iter().flat_map(|key| NAMES.map(|name| (key, name))) {
                let (path, name) = (KeyPath::parse(key).unwrap(), ValueName::parse(name).unwrap());
                let (path, name) = (path.folded(), name.folded());
                let found = under.find(path);
                assert_eq!(under.value(path, name), found.and_then(|key| key.value(name)));
            }
            assert_eq!(answers(&second.over(&under)), above, "seed {seed}");
            hidden += usize::from(answers(&state) != expected);
            let Some(current) = &mut record else { break };
            steps += 1;
            if !current.step(&mut state, 1) {
                record = applied.next();
            }
        }
        assert_eq!(state, after, "seed {seed}");
        assert_eq!(state.digest(), after.digest());
    }
    assert!(
        steps > 2_000 && hidden > 1_000,
        "{steps} steps, {hidden} of them of what is not there yet"
    );
}
