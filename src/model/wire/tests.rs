use super::*;
use crate::model::{
    Batch, CommandKind, Control, KeyPath, Limits, ReadBatch, State, Value, ValueType, evaluate,
};

/// The example of section 7.
const EXAMPLE: &str = "
    01 00 00 00 02 00 00 00 00 00 00 00 04 00 00 00
    4b 00 00 00 00 00 00 00 01 00 00 00 04 00 00 00
    04 00 00 00 41 00 00 00 04 00 00 00 01 00 00 00
    01 00 00 00 03 00 00 00 02 00 00 00 00 00 01 00
    00 00 aa 00";

fn bytes(hex: &str) -> Vec<u8> {
    let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().unwrap()
}

fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn example() -> Batch {
    let mut batch = Batch::at(&path("A"));
    batch.create_key("K").unwrap();
    batch.set_value("A", Value::dword(1)).unwrap();
    batch.set_value("", Value::binary([0xaa])).unwrap();
    batch
}

/// Every command that a batch can have.
fn whole() -> Batch {
    let mut batch = Batch::at(&KeyPath::root());
    batch
        .control(Control::Synchronous)
        .control(Control::Isolated)
        .create_key("Ключ\\𝄞")
        .unwrap()
        .set_value("a\\b", Value::new(ValueType(77), *b"odd"))
        .unwrap()
        .set_value("", Value::binary(*b""))
        .unwrap()
        .delete_value("v")
        .unwrap()
        .condition_exists("v")
        .unwrap()
        .condition_not_exists("v")
        .unwrap()
        .condition_is_equal("v", Value::sz("x"))
        .unwrap()
        .condition_is_not_equal("v", Value::qword(7))
        .unwrap()
        .condition_is_greater_than("v", Value::dword(7))
        .unwrap()
        .condition_is_less_than("", Value::binary([7]))
        .unwrap()
        .delete_key("K")
        .unwrap()
        .condition_key_exists("")
        .unwrap()
        .condition_key_not_exists("K\\L")
        .unwrap();
    batch
}

fn problem_of<T: fmt::Debug>(decoded: Result<T, WireError>) -> (usize, WireProblem) {
    let WireError { offset, problem, .. } = decoded.unwrap_err();
    (offset, problem)
}

fn read(bytes: &[u8]) -> Result<Batch, WireError> {
    Batch::from_wire(&path("A"), bytes)
}

/// Section 7: the example, both ways.
#[test]
fn the_example_of_the_specification_is_what_is_written_and_read() {
    assert_eq!(example().to_wire().unwrap(), bytes(EXAMPLE));
    let batch = read(&bytes(EXAMPLE)).unwrap();
    assert_eq!(format!("{batch:?}"), format!("{:?}", example()));
}

#[test]
fn a_batch_with_every_command_is_read_as_it_was_written_wherever_it_stands_in_memory() {
    let encoded = whole().to_wire().unwrap();
    for shift in 0..4 {
        let mut buffer = vec![0x55; shift];
        buffer.extend(&encoded);
        let batch = Batch::from_wire(&KeyPath::root(), &buffer[shift..]).unwrap();
        assert_eq!(format!("{batch:?}"), format!("{:?}", whole()));
        assert_eq!(batch.to_wire().unwrap(), encoded);
    }
    let empty = Batch::at(&KeyPath::root()).to_wire().unwrap();
    assert_eq!(empty, 1_u32.to_le_bytes());
    assert!(read(&empty).unwrap().is_empty());
}

/// Any buffer that is accepted would be written as the same bytes; the others are refused, at a place inside of them.
#[test]
fn every_cut_and_every_flipped_bit_is_refused_with_its_place_or_read_as_just_these_bytes() {
    let encoded = whole().to_wire().unwrap();
    for cut in 0..encoded.len() {
        if let Err(error) = read(&encoded[..cut]) {
            assert!(error.offset <= cut, "{error}");
        } else {
            assert_eq!(read(&encoded[..cut]).unwrap().to_wire().unwrap(), encoded[..cut]);
        }
    }
    let mut accepted = 0;
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let mut flipped = encoded.clone();
            flipped[at] ^= 1 << bit;
            match read(&flipped) {
                Ok(batch) => {
                    accepted += 1;
                    assert_eq!(batch.to_wire().unwrap(), flipped, "{at}.{bit}");
                }
                Err(error) => assert!(error.offset <= flipped.len(), "{error}"),
            }
        }
    }
    assert!(accepted > 100, "names and data may be others");
}

/// A command by hand.
fn command(number: u32, value_type: u32, name: &[u16], data: &[u8]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for field in [number, value_type, name.len() as u32 * 2] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    if data.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes
}

#[test]
fn each_malformed_buffer_has_its_problem_and_its_offset() {
    let a = [u16::from(b'a'), 0];
    let cases: Vec<(Vec<u8>, usize, WireProblem)> = vec![
        (vec![1, 0, 0], 0, WireProblem::CutShort { needed: 4, left: 3 }),
        (vec![2, 0, 0, 0], 0, WireProblem::Version { found: 2 }),
        (
            vec![1, 0, 0, 0, 2, 0],
            4,
            WireProblem::CutShort { needed: 4, left: 2 },
        ),
        (command(2, 0, &[], &[]), 12, WireProblem::NameLength { found: 0 }),
        (
            {
                let mut odd = command(2, 0, &a, &[]);
                odd[12] = 3;
                odd
            },
            12,
            WireProblem::NameLength { found: 3 },
        ),
        (
            {
                let mut long = command(2, 0, &a, &[]);
                long[12..16].copy_from_slice(&u32::MAX.wrapping_sub(1).to_le_bytes());
                long
            },
            16,
            WireProblem::CutShort {
                needed: u64::from(u32::MAX) - 1,
                left: 8,
            },
        ),
        (command(2, 0, &a[..1], &[]), 16, WireProblem::NameNul),
        (command(2, 0, &[97, 0, 97, 0], &[]), 18, WireProblem::NameNul),
        (
            command(1, 1, &[97, 0xd800, 97, 0], &[]),
            18,
            WireProblem::LoneSurrogate { unit: 0xd800 },
        ),
        (
            command(4, 0, &[0xd834, 0xdd1e, 0xdc00, 0], &[]),
            20,
            WireProblem::LoneSurrogate { unit: 0xdc00 },
        ),
        (
            {
                let mut long = command(1, 3, &a, &[7, 7]);
                long[20..24].copy_from_slice(&3_u32.to_le_bytes());
                long
            },
            24,
            WireProblem::CutShort { needed: 3, left: 2 },
        ),
        (
            {
                let mut padded = command(1, 3, &a, &[7]);
                *padded.last_mut().unwrap() = 9;
                padded
            },
            25,
            WireProblem::Padding { found: 9 },
        ),
        (
            {
                let mut cut = command(1, 3, &a, &[7]);
                cut.pop();
                cut
            },
            25,
            WireProblem::CutShort { needed: 1, left: 0 },
        ),
        (
            command(0, 0, &a, &[]),
            4,
            WireProblem::UnknownCommand { number: 0 },
        ),
        (
            command(19, 0, &a, &[]),
            4,
            WireProblem::UnknownCommand { number: 19 },
        ),
        (
            command(77, 0, &a, &[]),
            4,
            WireProblem::UnknownCommand { number: 77 },
        ),
        (command(5, 0, &a, &[]), 4, WireProblem::Unsupported { number: 5 }),
        (
            command(4, 3, &a, &[]),
            4,
            WireProblem::UnexpectedType { number: 4, found: 3 },
        ),
        (
            command(17, 0, &a, &[1, 2]),
            4,
            WireProblem::UnexpectedData { number: 17, found: 2 },
        ),
        (
            command(10, 1, &a, &[]),
            4,
            WireProblem::UnexpectedName { number: 10 },
        ),
        (command(10, 3, &[0], &[]), 4, WireProblem::Control { found: 3 }),
        (command(10, 0, &[0], &[]), 4, WireProblem::Control { found: 0 }),
    ];
    for (buffer, offset, problem) in cases {
        assert!(!problem.to_string().is_empty());
        assert_eq!(problem_of(read(&buffer)), (offset, problem), "{buffer:02x?}");
    }
    for number in 6..10 {
        let place = "a batch";
        let expected = (4, WireProblem::Misplaced { number, place });
        assert_eq!(problem_of(read(&command(number, 0, &a, &[]))), expected);
    }
    assert_eq!(length(7), Ok(7));
    let found = 1 << 32;
    assert_eq!(length(found), Err(WireProblem::TooLarge { found }));
}

/// Section 2: checked again for batches that came as bytes.
#[test]
fn what_a_batch_refuses_is_refused_as_bytes_too() {
    let mut orphan = command(3, 0, &[97, 0], &[]);
    let second = orphan.len();
    orphan.extend(&command(1, 3, &[97, 0], &[7, 7])[4..]);
    let expected = WireError {
        offset: second,
        index: Some(1),
        problem: WireProblem::Refused(CommandError::NoCurrentKey),
    };
    assert_eq!(read(&orphan).unwrap_err(), expected);
    assert_eq!(read(&[2, 0, 0, 0]).unwrap_err().index, None, "the version");
    let root = Batch::from_wire(&KeyPath::root(), &command(3, 0, &[0], &[]));
    assert_eq!(problem_of(root), (4, WireProblem::Refused(CommandError::Root)));
    let slash = u16::from(b'\\');
    let (_, problem) = problem_of(read(&command(2, 0, &[97, slash, 0], &[])));
    assert!(matches!(problem, WireProblem::Refused(CommandError::Name(_))));
}

/// Section 7: READ_KEY makes its path the current key, READ_VALUE reads there; the reply has one command each, in order.
#[test]
fn a_read_batch_and_its_replies_are_read_as_they_were_written() {
    let mut state = State::new();
    state.apply(
        evaluate(&state, &example(), &Limits::default())
            .unwrap_or_else(|error| panic!("{error}"))
            .view(),
        1,
    );
    let key = path("a");
    let mut batch = ReadBatch::at(&key);
    batch
        .add("", "v")
        .unwrap()
        .add("k", "a")
        .unwrap()
        .add("k", "")
        .unwrap();
    batch.add("", "A").unwrap();
    let encoded = batch.to_wire().unwrap();
    let expected = [
        &command(8, 0, &[118, 0], &[])[..],
        &command(7, 0, &[107, 0], &[])[4..],
        &command(8, 0, &[97, 0], &[])[4..],
        &command(8, 0, &[0], &[])[4..],
        &command(7, 0, &[0], &[])[4..],
        &command(8, 0, &[65, 0], &[])[4..],
    ]
    .concat();
    assert_eq!(encoded, expected);
    let decoded = ReadBatch::from_wire(&key, &encoded).unwrap();
    assert_eq!(decoded.to_wire().unwrap(), encoded);
    assert_eq!(decoded.len(), 4);
    assert_eq!(state.read(&decoded), state.read(&batch));

    let replies: Vec<_> = state.read(&decoded).iter().map(WireReply::from).collect();
    let reply = |name: &str, result| WireReply {
        name: name.to_owned(),
        result,
    };
    let expected = [
        reply("v", Err(2)),
        reply("A", Ok(Value::dword(1))),
        reply("", Ok(Value::binary([0xaa]))),
        reply("A", Err(2)),
    ];
    assert_eq!(replies, expected);
    let encoded = encode_replies(&replies).unwrap();
    let by_hand = [
        &command(9, 2, &[118, 0], &[])[..],
        &command(8, 4, &[65, 0], &[1, 0, 0, 0])[4..],
        &command(8, 3, &[0], &[0xaa])[4..],
        &command(9, 2, &[65, 0], &[])[4..],
    ]
    .concat();
    assert_eq!(encoded, by_hand);
    assert_eq!(decode_replies(&encoded).unwrap(), expected);
}

#[test]
fn a_read_batch_or_replies_that_cannot_be_are_refused() {
    let key = path("a");
    let read = |bytes: &[u8]| problem_of(ReadBatch::from_wire(&key, bytes));
    let a = [97, 0];
    let misplaced = |number, place| (4, WireProblem::Misplaced { number, place });
    assert_eq!(read(&command(1, 0, &a, &[])), misplaced(1, "a read batch"));
    assert_eq!(
        read(&command(8, 1, &a, &[])),
        (4, WireProblem::UnexpectedType { number: 8, found: 1 })
    );
    assert!(matches!(
        read(&command(7, 0, &[92, 0], &[])),
        (4, WireProblem::Refused(_))
    ));
    let replies = |bytes: &[u8]| problem_of(decode_replies(bytes));
    assert_eq!(replies(&command(7, 0, &a, &[])), misplaced(7, "replies"));
    assert_eq!(replies(&command(9, 0, &a, &[])), (4, WireProblem::NoError));
    assert_eq!(
        replies(&command(9, 2, &a, &[1])),
        (4, WireProblem::UnexpectedData { number: 9, found: 1 })
    );
    let name: Vec<_> = [97].repeat(16_384).into_iter().chain([0]).collect();
    assert!(matches!(
        replies(&command(8, 0, &name, &[])),
        (4, WireProblem::Refused(_))
    ));
    let none = [WireReply {
        name: String::new(),
        result: Err(0),
    }];
    assert_eq!(problem_of(encode_replies(&none)), (4, WireProblem::NoError));
}

/// Section 3: the example of the protocol's document, as bytes; no CREATE_KEY, since the port's key is the current one.
#[test]
fn the_worked_example_of_a_notification_has_the_bytes_that_it_should() {
    let mut state = State::new();
    let mut made = Batch::at(&path("K"));
    made.create_key("").unwrap();
    state.apply(evaluate(&state, &made, &Limits::default()).unwrap().view(), 1);
    let (world, universe) = (Value::sz("hello world"), Value::sz("hello universe"));
    let mut batch = Batch::at(&path("K"));
    batch
        .delete_value("v")
        .unwrap()
        .set_value("v", world.clone())
        .unwrap();
    batch
        .set_value("v", universe.clone())
        .unwrap()
        .delete_value("v")
        .unwrap();
    let record = evaluate(&state, &batch, &Limits::default()).unwrap();
    let stream = || record.view().changes().flat_map(|change| change.commands());
    let v = [118, 0];
    let expected = [
        &command(4, 0, &v, &[])[..],
        &command(1, 1, &v, world.data())[4..],
        &command(6, 1, &v, world.data())[4..],
        &command(1, 1, &v, universe.data())[4..],
        &command(6, 1, &v, universe.data())[4..],
        &command(4, 0, &v, &[])[4..],
    ]
    .concat();
    let encoded = encode_changes("K", stream()).unwrap();
    assert_eq!(encoded, expected);
    let commands = decode_notification(&encoded).unwrap();
    assert_eq!(encode_commands(&commands).unwrap(), encoded);
    assert_eq!(commands[2].kind, CommandKind::ValueDeleted);
    assert_eq!(commands[2].value, Some(world));
}

/// Section 3: a CREATE_KEY with the path relative to the port's key whenever the key changes, then value names.
#[test]
fn paths_are_relative_to_the_port_key_and_a_change_of_key_is_a_create_key() {
    let mut state = State::new();
    let mut batch = Batch::at(&path("Ä\\B"));
    batch
        .create_key("")
        .unwrap()
        .set_value("p", Value::dword(1))
        .unwrap();
    batch
        .create_key("C")
        .unwrap()
        .set_value("q", Value::dword(2))
        .unwrap();
    batch.set_value("r", Value::dword(3)).unwrap();
    batch.delete_key("C").unwrap();
    state.apply(evaluate(&state, &batch, &Limits::default()).unwrap().view(), 1);
    let record = evaluate(&State::new(), &batch, &Limits::default()).unwrap();
    let shown = |base: &str| {
        let stream = record.view().changes().flat_map(|change| change.commands());
        let bytes = encode_changes(base, stream).unwrap();
        let commands = decode_notification(&bytes).unwrap();
        let shown = commands
            .iter()
            .map(|command| format!("{} {}", command.kind as u32, command.name));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(shown("Ä\\B"), ["2 ", "1 p", "2 C", "1 q", "1 r", "3 C"]);
    assert_eq!(shown("Ä"), ["2 B", "1 p", "2 B\\C", "1 q", "1 r", "3 B\\C"]);
    assert_eq!(
        shown(""),
        ["2 Ä\\B", "1 p", "2 Ä\\B\\C", "1 q", "1 r", "3 Ä\\B\\C"]
    );

    // Values alone: the key is named before them; and the loss of an ancestor is the loss of the port's key.
    let mut batch = Batch::at(&path("ä\\b"));
    batch
        .set_value("p", Value::dword(1))
        .unwrap()
        .delete_value("x")
        .unwrap();
    let record = evaluate(&state, &batch, &Limits::default()).unwrap();
    let stream = || record.view().changes().flat_map(|change| change.commands());
    let names = |base: &str| {
        let commands = decode_notification(&encode_changes(base, stream()).unwrap()).unwrap();
        let shown = commands
            .iter()
            .map(|command| format!("{} {}", command.kind as u32, command.name));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(names("Ä"), ["2 B", "6 p", "1 p", "4 x"]);
    assert_eq!(names("Ä\\B"), ["6 p", "1 p", "4 x"]);
    let mut batch = Batch::at(&KeyPath::root());
    batch.delete_key("Ä").unwrap();
    let record = evaluate(&state, &batch, &Limits::default()).unwrap();
    let bytes = encode_changes("Ä\\B", record.view().changes()).unwrap();
    assert_eq!(bytes, command(3, 0, &[0], &[]));
}

/// Section 2: DELETE_KEY clears the current key, also for the batch behind it in the same bytes.
#[test]
fn behind_a_deleted_key_its_name_comes_again() {
    let mut state = State::new();
    let decide = |state: &State, commands: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::at(&path("K"));
        commands(&mut batch);
        evaluate(state, &batch, &Limits::default()).unwrap()
    };
    let made = decide(&state, &|batch| _ = batch.create_key("").unwrap());
    let deleted = decide(&state, &|batch| {
        _ = batch.create_key("").unwrap().delete_key("").unwrap()
    });
    state.apply(made.view(), 1);
    let set = decide(&state, &|batch| {
        _ = batch.set_value("v", Value::dword(1)).unwrap()
    });
    // As if the key had been made again outside of any batch.
    let stream = deleted.view().changes().chain(set.view().changes());
    let commands = decode_notification(&encode_changes("K", stream).unwrap()).unwrap();
    let numbers: Vec<_> = commands.iter().map(|command| command.kind as u32).collect();
    assert_eq!(numbers, [2, 3, 2, 1]);
}

#[test]
fn a_notification_that_cannot_be_is_refused() {
    let read = |bytes: &[u8]| problem_of(decode_notification(bytes));
    let a = [97, 0];
    let place = "a notification";
    assert_eq!(
        read(&command(11, 0, &a, &[])),
        (4, WireProblem::Misplaced { number: 11, place })
    );
    assert_eq!(
        read(&command(4, 0, &a, &[1])),
        (4, WireProblem::UnexpectedData { number: 4, found: 1 })
    );
    assert!(matches!(
        read(&command(3, 0, &[92, 0], &[])),
        (4, WireProblem::Refused(_))
    ));
    assert_eq!(
        read(&command(5, 0, &a, &[])),
        (4, WireProblem::Unsupported { number: 5 })
    );
}
