use super::*;

const SAMPLE: &str = r#"Windows Registry Editor Version 5.00

; a comment
[HKEY_CURRENT_USER\]
@="default"
"text" = "C:\\a \"b\"
é𝄞" ; a text on two lines
"number"=dword:1f
"bytes"=hex:01,02,\
  ; between the two
  03
"list"=hex(7):61,00,00,00,00,00
"gone"=-
[-HKEY_CURRENT_USER\Old]
[HKEY_CURRENT_USER\New]
"#;

fn under_key(entries: &str) -> String {
    format!("{VERSION_5}\n[K]\n{entries}")
}

fn entries(text: &str) -> Vec<Entry> {
    let mut sections = read(text.as_bytes()).unwrap();
    assert_eq!(sections.len(), 1);
    match sections.remove(0).kind {
        SectionKind::Create(entries) => entries,
        SectionKind::Delete => panic!("a deletion"),
    }
}

/// The data of `value`, written under a key in a version 5 file.
fn data(value: &str) -> Data {
    let mut entries = entries(&under_key(&format!("\"a\"={value}")));
    assert_eq!(entries.len(), 1);
    entries.remove(0).data.unwrap()
}

fn keys(lines: &str) -> Vec<(String, SectionKind)> {
    let sections = read(format!("{VERSION_5}\n{lines}").as_bytes()).unwrap();
    sections.into_iter().map(|s| (s.key, s.kind)).collect()
}

fn typed(value_type: u32, bytes: &[u8]) -> Data {
    let bytes = bytes.to_vec();
    Data { value_type, bytes }
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(bytes).collect()
}

#[track_caller]
fn refused(file: impl AsRef<[u8]>, line: u64, problem: Problem) {
    assert_eq!(read(file.as_ref()), Err(RegError { line, problem }));
}

/// Line 3 of a version 5 file, under a key, is refused.
#[track_caller]
fn entry_refused(entry: &str, problem: Problem) {
    refused(under_key(entry), 3, problem);
}

#[test]
fn every_form_is_read_with_its_line() {
    let entry = |line, name: &str, data| {
        let name = name.to_owned();
        Entry { line, name, data }
    };
    let utf16z = |text: &str| {
        let units = text.encode_utf16().chain([0]);
        typed(1, &units.flat_map(u16::to_le_bytes).collect::<Vec<_>>())
    };
    let section = |line, key: &str, kind| {
        let key = key.to_owned();
        Section { line, key, kind }
    };
    let expected = [
        section(
            4,
            r"HKEY_CURRENT_USER",
            SectionKind::Create(vec![
                entry(5, "", Some(utf16z("default"))),
                entry(6, "text", Some(utf16z("C:\\a \"b\"\né𝄞"))),
                entry(8, "number", Some(typed(4, &[0x1f, 0, 0, 0]))),
                entry(9, "bytes", Some(typed(3, &[1, 2, 3]))),
                entry(12, "list", Some(typed(7, &[0x61, 0, 0, 0, 0, 0]))),
                entry(13, "gone", None),
            ]),
        ),
        section(14, r"HKEY_CURRENT_USER\Old", SectionKind::Delete),
        section(15, r"HKEY_CURRENT_USER\New", SectionKind::Create(Vec::new())),
    ];
    assert_eq!(read(SAMPLE.as_bytes()).unwrap(), expected);
}

#[test]
fn every_encoding_gives_the_same_sections() {
    let expected = read(SAMPLE.as_bytes()).unwrap();
    assert_eq!(read(format!("\u{feff}{SAMPLE}").as_bytes()).unwrap(), expected);
    assert_eq!(read(&utf16(SAMPLE, u16::to_le_bytes)).unwrap(), expected);
    assert_eq!(read(&utf16(SAMPLE, u16::to_be_bytes)).unwrap(), expected);
}

#[test]
fn line_ends_may_be_mixed_and_the_last_may_be_missing() {
    let file = format!("{VERSION_5}\r\n\r\n[K]\n\"a\"=hex:01,\\\r\n02\r\n@=-");
    let entries = entries(&file);
    assert_eq!(entries[0].data, Some(typed(3, &[1, 2])));
    assert_eq!((entries[1].line, &entries[1].data), (6, &None));
}

#[test]
fn a_text_keeps_its_line_ends_as_they_are() {
    let expected: Vec<u8> = "a\r\nb\nc\0".bytes().flat_map(|b| [b, 0]).collect();
    assert_eq!(data("\"a\r\nb\nc\""), typed(1, &expected));
}

#[test]
fn lines_after_a_text_on_several_lines_keep_their_numbers() {
    let entries = entries(&under_key("@=\"1\r\n2\n3\"\n\"b\"=-"));
    assert_eq!(entries[1].line, 6);
}

#[test]
fn the_first_line_may_have_blanks_behind_it_only() {
    assert_eq!(read(b"REGEDIT4 \t\r\n").unwrap(), []);
    let header = |found: &str| Problem::Header(found.to_owned());
    refused("", 1, header("the end of the line"));
    refused("\nREGEDIT4", 1, header("the end of the line"));
    refused(" REGEDIT4", 1, header("` REGEDIT4`"));
    refused("REGEDIT5", 1, header("`REGEDIT5`"));
    refused("regedit4", 1, header("`regedit4`"));
}

#[test]
fn a_key_ends_at_the_last_bracket_and_loses_one_backslash() {
    let create = |key: &str| (key.to_owned(), SectionKind::Create(Vec::new()));
    assert_eq!(keys(r"[A\b]c] "), [create(r"A\b]c")]);
    assert_eq!(keys(r"[A\\]"), [create(r"A\")]);
    assert_eq!(keys(r"[[A ] ]"), [create("[A ] ")]);
    assert_eq!(keys(r"[-A\]"), [("A".to_owned(), SectionKind::Delete)]);
}

#[test]
fn a_key_without_its_bracket_is_refused() {
    entry_refused("[A", Problem::UnclosedKey("`[A`".to_owned()));
    entry_refused("[", Problem::UnclosedKey("`[`".to_owned()));
    entry_refused("[A] ; b", Problem::UnclosedKey("`[A] ; b`".to_owned()));
}

#[test]
fn an_empty_path_is_refused() {
    for line in ["[]", "[-]", r"[\]", r"[-\]"] {
        entry_refused(line, Problem::EmptyKey);
    }
}

#[test]
fn an_entry_needs_a_section_that_is_not_a_deletion() {
    refused(format!("{VERSION_5}\n\n@=-"), 3, Problem::EntryBeforeSection);
    refused(under_key("[-K]\n\"a\"=-"), 4, Problem::EntryInDeletedKey);
}

#[test]
fn names_know_two_escapes() {
    let entries = entries(&under_key(r#""a\\b\"c]"=-"#));
    assert_eq!(entries[0].name, r#"a\b"c]"#);
    entry_refused(r#""a\n"=-"#, Problem::Escape(r"`\n`".to_owned()));
    entry_refused("\"a\\\r\n\"=-", Problem::Escape(r"`\`".to_owned()));
}

#[test]
fn a_wrong_escape_in_a_text_names_the_line_it_is_on() {
    refused(
        under_key("@=\"a\nC:\\b\""),
        4,
        Problem::Escape(r"`\b`".to_owned()),
    );
}

#[test]
fn a_name_ends_on_its_own_line() {
    entry_refused("\"a\nb\"=-", Problem::UnclosedName("`\"a`".to_owned()));
    entry_refused("\"", Problem::UnclosedName("`\"`".to_owned()));
}

#[test]
fn a_text_without_its_closing_quote_names_the_line_where_it_began() {
    entry_refused("@=\"a\nb\n\n", Problem::UnclosedText);
    entry_refused("@=\"a\nb\\", Problem::UnclosedText);
}

#[test]
fn a_name_needs_an_equals_sign() {
    entry_refused("\"a\" dword:1", Problem::MissingEquals("`dword:1`".to_owned()));
    entry_refused("@\n=-", Problem::MissingEquals("the end of the line".to_owned()));
}

#[test]
fn an_unknown_form_of_data_is_refused() {
    let unknown = |found: &str| Problem::UnknownValue(found.to_owned());
    entry_refused("@=", unknown("the end of the line"));
    entry_refused("@=; a", unknown("`; a`"));
    entry_refused("@=DWORD:1", unknown("`DWORD:1`"));
    entry_refused("@=qword:1", unknown("`qword:1`"));
}

#[test]
fn a_dword_is_little_endian_and_has_1_to_8_digits() {
    assert_eq!(data("dword:0"), typed(4, &[0, 0, 0, 0]));
    assert_eq!(data("dword:89aBcdEf"), typed(4, &[0xef, 0xcd, 0xab, 0x89]));
    let dword = |found: &str| Problem::Dword(found.to_owned());
    entry_refused("@=dword:", dword("the end of the line"));
    entry_refused("@=dword:123456789", dword("`123456789`"));
    entry_refused("@=dword:+1", dword("`+1`"));
    entry_refused("@=dword: 1", dword("` 1`"));
}

#[test]
fn a_type_has_1_to_8_hexadecimal_digits() {
    assert_eq!(data("hex(0):"), typed(0, &[]));
    assert_eq!(data("hex(fFfF0012):01"), typed(0xffff_0012, &[1]));
    let value_type = |found: &str| Problem::ValueType(found.to_owned());
    entry_refused("@=hex():", value_type("`):`"));
    entry_refused("@=hex(123456789):", value_type("`123456789):`"));
    entry_refused("@=hex(7)00", value_type("`7)00`"));
    entry_refused("@=hex(", value_type("the end of the line"));
}

#[test]
fn bytes_may_have_blanks_folds_and_comments_between_them() {
    for value in [
        "hex:0A,fb,03",
        "hex:\t0a ,\tFB , 03 ",
        "hex:\\\n 0a,fb,\\ \t\n\t03",
        "hex:0a,\\\r\n;,\\\r\n  ; \"x\"=-\r\n  fb,03",
        "hex:0a\\\n,fb,\\\n\\\n03;c",
    ] {
        assert_eq!(data(value), typed(3, &[0x0a, 0xfb, 3]), "{value:?}");
    }
}

#[test]
fn data_may_be_empty() {
    assert_eq!(data("hex:"), typed(3, &[]));
    assert_eq!(data("hex(2): ; none"), typed(2, &[]));
    assert_eq!(data("\"\""), typed(1, &[0, 0]));
}

#[test]
fn a_byte_has_two_hexadecimal_digits() {
    for (value, found) in [
        ("hex:1", "`1`"),
        ("hex:01,2", "`2`"),
        ("hex:001", "`001`"),
        ("hex:0g", "`0g`"),
        ("hex:+1", "`+1`"),
        ("hex:é", "`é`"),
        ("hex:,01", "`,01`"),
        ("hex:01,,02", "`,02`"),
        ("hex:01,\\ ; c\n02", r"`\ ; c`"),
    ] {
        entry_refused(&format!("@={value}"), Problem::Byte(found.to_owned()));
    }
}

#[test]
fn a_faulty_byte_after_folds_names_its_own_line() {
    let file = under_key("@=hex:01,\\\n; c\n02,\\\n3");
    refused(file, 6, Problem::Byte("`3`".to_owned()));
}

#[test]
fn a_comma_at_the_end_is_refused() {
    entry_refused("@=hex:01,", Problem::TrailingComma);
    entry_refused("@=hex:01, ; 02\n", Problem::TrailingComma);
}

#[test]
fn a_fold_needs_a_line_that_goes_on() {
    for fold in [
        "@=hex:01,\\",
        "@=hex:01\\ \n",
        "@=hex:\\\n\n",
        "@=hex:01,\\\n; c\n\n02",
    ] {
        entry_refused(fold, Problem::DanglingFold);
    }
}

#[test]
fn a_fold_does_not_swallow_the_next_entry() {
    let file = under_key("@=hex:01\\\n\"b\"=-");
    let (began, found) = (3, "`\"b\"=-`".to_owned());
    refused(file, 4, Problem::AfterValue { began, found });
}

#[test]
fn a_regedit4_file_holds_8_bit_characters_that_are_widened() {
    let file = "REGEDIT4\n[K]\n\"1\"=hex(1):41,00\n\"2\"=hex(2):7f\n\"7\"=hex(7):41,00,00\n\
                \"3\"=hex:80\n\"b\"=hex(b):ff,00\n\"t\"=\"A\"";
    let found: Vec<_> = entries(file).into_iter().map(|e| e.data.unwrap()).collect();
    let expected = [
        typed(1, &[0x41, 0, 0, 0]),
        typed(2, &[0x7f, 0]),
        typed(7, &[0x41, 0, 0, 0, 0, 0]),
        typed(3, &[0x80]),
        typed(0xb, &[0xff, 0]),
        typed(1, &[0x41, 0, 0, 0]),
    ];
    assert_eq!(found, expected);
    assert_eq!(data("hex(1):80,41"), typed(1, &[0x80, 0x41]));
}

#[test]
fn a_regedit4_character_of_unknown_code_page_is_refused() {
    let file = "REGEDIT4\n[K]\n@=hex(7):41,\\\n80";
    refused(file, 4, Problem::CodePage(0x80));
}

#[test]
fn only_a_comment_may_follow_a_value() {
    for value in ["-", "dword:1", "\"a\"", "hex:01"] {
        assert_eq!(entries(&under_key(&format!("@={value}\t; c"))).len(), 1);
        assert_eq!(entries(&under_key(&format!("@={value};c"))).len(), 1);
        let (began, found) = (3, "`x`".to_owned());
        entry_refused(&format!("@={value} x"), Problem::AfterValue { began, found });
    }
}

#[test]
fn a_text_closed_by_the_next_entry_says_where_it_began() {
    let (began, found) = (3, "`b\"=\"x\"`".to_owned());
    refused(
        under_key("@=\"a\n\"b\"=\"x\""),
        4,
        Problem::AfterValue { began, found },
    );
}

#[test]
fn an_unknown_line_is_shown_shortened_and_escaped() {
    let unknown = |found: &str| Problem::UnknownLine(found.to_owned());
    entry_refused("  nonsense", unknown("`nonsense`"));
    entry_refused("a\u{1b}[2J\tb\\\u{202e}", unknown(r"`a\u{1b}[2J\tb\\u{202e}`"));
    entry_refused(&"é".repeat(40), unknown(&format!("`{}`", "é".repeat(40))));
    entry_refused(&"é".repeat(41), unknown(&format!("`{}…`", "é".repeat(39))));
    entry_refused("a\r", unknown(r"`a\r`"));
}

#[test]
fn utf16_without_a_mark_is_refused_as_such() {
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        refused(&utf16(SAMPLE, bytes)[2..], 1, Problem::Utf16WithoutMark);
    }
}

#[test]
fn invalid_utf8_names_its_line() {
    refused(b"REGEDIT4\r\n\r\n; \xe9\n", 3, Problem::InvalidUtf8);
    refused(b"REGEDIT4\n\xc3", 2, Problem::InvalidUtf8);
}

#[test]
fn faults_of_utf16_name_their_line() {
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let mut file = utf16("REGEDIT4\n\n", bytes);
        file.push(0);
        refused(&file, 3, Problem::OddUtf16);
        file.pop();
        file.extend(bytes(0xd800));
        refused(&file, 3, Problem::LoneSurrogate(0xd800));
    }
}

#[test]
fn a_nul_character_names_its_line() {
    refused("REGEDIT4\n\n; \0", 3, Problem::NulCharacter);
    refused(utf16("REGEDIT4\n\0", u16::to_le_bytes), 2, Problem::NulCharacter);
    refused(b"\0", 1, Problem::NulCharacter);
}

#[test]
fn an_error_says_what_was_expected_and_what_was_found() {
    let error = read(b"REGEDIT4\n[K]\n\"a\"=hex:0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3: expected a byte of two hexadecimal digits, found `0`; write the bytes as in `0f,a0`"
    );
}

/// A damaged file may still be valid; if it is not, the error must point into it.
fn assert_error_is_inside(file: &[u8]) {
    if let Err(error) = read(file) {
        assert!((1..=last_line(file)).contains(&error.line), "{error}");
    }
}

#[test]
fn no_damage_makes_the_reader_panic_or_name_a_line_outside_the_file() {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let version_4 = SAMPLE.replace(VERSION_5, VERSION_4);
    let samples = [
        SAMPLE.as_bytes().to_vec(),
        version_4.into_bytes(),
        SAMPLE.replace('\n', "\r\n").into_bytes(),
        utf16(SAMPLE, u16::to_le_bytes),
        utf16(SAMPLE, u16::to_be_bytes),
    ];
    for sample in &samples {
        for end in 0..sample.len() {
            assert_error_is_inside(&sample[..end]);
        }
        for _ in 0..5_000 {
            let mut file = sample.clone();
            for _ in 0..=random(3) {
                let at = random(file.len());
                match random(4) {
                    0 => file[at] ^= 1 << random(8),
                    // Its own characters damage the grammar rather than the encoding.
                    1 => file[at] = sample[random(sample.len())],
                    2 => file.insert(at, sample[random(sample.len())]),
                    _ => file.truncate(at + 1),
                }
            }
            assert_error_is_inside(&file);
        }
    }
}
