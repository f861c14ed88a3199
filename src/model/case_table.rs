//! The upper-casing by which names compare: Unicode 15.0.0 simple upper-casing,
//! pinned here and independent of the toolchain's own Unicode tables.
//!
//! Two names are the same name when they are equal after [`fold`]. The mapping
//! is field 12 of UnicodeData.txt: one char to one char, in no locale, never one
//! to many. So `ς`, `σ` and `Σ` are equal, `µ` (micro) equals `μ` and `Μ`, `ı`
//! (dotless) equals `I`, and `ſ` (long s) equals `S`; but `ß`, with no upper case
//! of one char, is neither `SS` nor `ẞ`, and `İ` is not `i` nor the Kelvin sign
//! U+212A `k`, being their own upper case. Nothing is normalized.
//!
//! Folding twice is folding once, and keeps the number of chars and of UTF-16
//! units. It does not keep the UTF-8 length: `ı` shrinks to `I`, `ȿ` grows to `Ȿ`.
//!
//! The table must never change under its id. A newer Unicode maps chars that
//! stand for themselves here (16.0 maps U+019B to U+A7DC), so keys that are two
//! under this table could merge under that one; it would be a new id.

use std::cmp::Ordering;

/// The id of this table, for what is written down with names folded by it.
pub const CASE_TABLE_ID: u32 = 1;

/// What the table with [`CASE_TABLE_ID`] is.
pub const CASE_TABLE_NAME: &str = "Unicode 15.0.0 simple upper-casing";

/// The upper case of one char, itself if it has none. Total; never panics.
pub fn upper(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let cp = u32::from(c);
    let at = RANGES.partition_point(|&(_, last, _, _)| last < cp);
    match RANGES.get(at) {
        Some(&(first, _, step, delta)) if first <= cp && (cp - first).is_multiple_of(step) => {
            char::from_u32(cp.wrapping_add_signed(delta)).unwrap_or(c)
        }
        _ => c,
    }
}

/// The key of a name: each char upper-cased.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    let mut folded = String::with_capacity(name.len());
    folded.extend(name.chars().map(upper));
    folded
}

/// Whether `name` is its own [`fold`].
pub fn is_folded(name: &str) -> bool {
    match name.is_ascii() {
        true => !name.bytes().any(|byte| byte.is_ascii_lowercase()),
        false => name.chars().all(|c| upper(c) == c),
    }
}

/// Whether `fold(name) == folded`, without allocating.
///
/// `folded` is taken as it is: one that is not folded equals no name.
pub fn eq_folded(name: &str, folded: &str) -> bool {
    eq_folded_bytes(name.as_bytes(), folded.as_bytes())
}

/// [`eq_folded`] of names that are at hand as bytes of UTF-8.
pub(super) fn eq_folded_bytes(name: &[u8], folded: &[u8]) -> bool {
    is_same_ascii(name, folded) || cmp_folded_bytes(name, folded).is_eq()
}

/// Whether `name` is ASCII of four bytes or more, and the upper case of it is `folded`: eight at a time, the last of which may
/// have been compared before. The usual case of names that are equal, in few steps.
fn is_same_ascii(name: &[u8], folded: &[u8]) -> bool {
    if name.len() != folded.len() {
        return false;
    }
    let is_same = |a: u64, b: u64| a & NOT_ASCII == 0 && upper_ascii(a) == b;
    if let (Some(a), Some(b)) = (name.last_chunk(), folded.last_chunk()) {
        let chunks = name.as_chunks().0.iter().zip(folded.as_chunks().0);
        let is_same = |a: &[u8; 8], b: &[u8; 8]| is_same(u64::from_be_bytes(*a), u64::from_be_bytes(*b));
        return is_same(a, b) && chunks.into_iter().all(|(a, b)| is_same(a, b));
    }
    match (four_to_seven(name), four_to_seven(folded)) {
        (Some(a), Some(b)) => is_same(a, b),
        _ => false,
    }
}

/// All of four to seven bytes, some of them twice.
fn four_to_seven(bytes: &[u8]) -> Option<u64> {
    let half = |half: &[u8; 4]| u64::from(u32::from_be_bytes(*half));
    Some(half(bytes.first_chunk()?) << 32 | half(bytes.last_chunk()?))
}

/// How `fold(name)` is ordered to `folded`, without allocating.
///
/// `folded` is taken as it is: one that is not folded equals no name.
pub fn cmp_folded(name: &str, folded: &str) -> Ordering {
    cmp_folded_bytes(name.as_bytes(), folded.as_bytes())
}

/// [`cmp_folded`] of names that are at hand as bytes of UTF-8.
pub(super) fn cmp_folded_bytes(mut name: &[u8], mut folded: &[u8]) -> Ordering {
    // The order of UTF-8 bytes is that of the chars, and ASCII folds to ASCII: up to the first byte of `name` that is
    // not ASCII the two go byte by byte, eight at a time; from there on, char by char.
    while let (Some((a, name_behind)), Some((b, folded_behind))) =
        (name.split_first_chunk(), folded.split_first_chunk())
    {
        let (a, b) = (u64::from_be_bytes(*a), u64::from_be_bytes(*b));
        if a & NOT_ASCII != 0 {
            break;
        }
        match upper_ascii(a).cmp(&b) {
            Ordering::Equal => (name, folded) = (name_behind, folded_behind),
            different => return different,
        }
    }
    while let (Some((a, name_behind)), Some((b, folded_behind))) = (name.split_first(), folded.split_first())
    {
        if !a.is_ascii() {
            // What stands before is the same ASCII on both sides, so that a char begins on both.
            let chars = |bytes| str::from_utf8(bytes).unwrap_or_default().chars();
            return chars(name).map(upper).cmp(chars(folded));
        }
        match a.to_ascii_uppercase().cmp(b) {
            Ordering::Equal => (name, folded) = (name_behind, folded_behind),
            different => return different,
        }
    }
    name.len().cmp(&folded.len())
}

/// The bit of each of eight bytes that no ASCII has.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// The upper case of eight bytes that are all ASCII.
fn upper_ascii(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Sums that reach the highest bit of their byte, and never the next one.
    let from_a = bytes + EACH * (0x80 - b'a' as u64);
    let behind_z = bytes + EACH * (0x80 - b'z' as u64 - 1);
    let is_lower = from_a & !behind_z & NOT_ASCII;
    bytes ^ (is_lower >> 2)
}

// Generated by tools/generate_case_table.py from UnicodeData.txt, sha256
// 806e9aed65037197f1ec85e12be6e8cd870fc5608b4de0fffd990f689f376a73
/// `(first, last, step, delta)`, sorted and disjoint.
#[rustfmt::skip]
static RANGES: [(u32, u32, u32, i32); 200] = [
    (0x0061,0x007A,1,-32), (0x00B5,0x00B5,1,743), (0x00E0,0x00F6,1,-32), (0x00F8,0x00FE,1,-32),
    (0x00FF,0x00FF,1,121), (0x0101,0x012F,2,-1), (0x0131,0x0131,1,-232), (0x0133,0x0137,2,-1),
    (0x013A,0x0148,2,-1), (0x014B,0x0177,2,-1), (0x017A,0x017E,2,-1), (0x017F,0x017F,1,-300),
    (0x0180,0x0180,1,195), (0x0183,0x0185,2,-1), (0x0188,0x0188,1,-1), (0x018C,0x018C,1,-1),
    (0x0192,0x0192,1,-1), (0x0195,0x0195,1,97), (0x0199,0x0199,1,-1), (0x019A,0x019A,1,163),
    (0x019E,0x019E,1,130), (0x01A1,0x01A5,2,-1), (0x01A8,0x01A8,1,-1), (0x01AD,0x01AD,1,-1),
    (0x01B0,0x01B0,1,-1), (0x01B4,0x01B6,2,-1), (0x01B9,0x01B9,1,-1), (0x01BD,0x01BD,1,-1),
    (0x01BF,0x01BF,1,56), (0x01C5,0x01C5,1,-1), (0x01C6,0x01C6,1,-2), (0x01C8,0x01C8,1,-1),
    (0x01C9,0x01C9,1,-2), (0x01CB,0x01CB,1,-1), (0x01CC,0x01CC,1,-2), (0x01CE,0x01DC,2,-1),
    (0x01DD,0x01DD,1,-79), (0x01DF,0x01EF,2,-1), (0x01F2,0x01F2,1,-1), (0x01F3,0x01F3,1,-2),
    (0x01F5,0x01F5,1,-1), (0x01F9,0x021F,2,-1), (0x0223,0x0233,2,-1), (0x023C,0x023C,1,-1),
    (0x023F,0x0240,1,10815), (0x0242,0x0242,1,-1), (0x0247,0x024F,2,-1), (0x0250,0x0250,1,10783),
    (0x0251,0x0251,1,10780), (0x0252,0x0252,1,10782), (0x0253,0x0253,1,-210), (0x0254,0x0254,1,-206),
    (0x0256,0x0257,1,-205), (0x0259,0x0259,1,-202), (0x025B,0x025B,1,-203), (0x025C,0x025C,1,42319),
    (0x0260,0x0260,1,-205), (0x0261,0x0261,1,42315), (0x0263,0x0263,1,-207), (0x0265,0x0265,1,42280),
    (0x0266,0x0266,1,42308), (0x0268,0x0268,1,-209), (0x0269,0x0269,1,-211), (0x026A,0x026A,1,42308),
    (0x026B,0x026B,1,10743), (0x026C,0x026C,1,42305), (0x026F,0x026F,1,-211), (0x0271,0x0271,1,10749),
    (0x0272,0x0272,1,-213), (0x0275,0x0275,1,-214), (0x027D,0x027D,1,10727), (0x0280,0x0280,1,-218),
    (0x0282,0x0282,1,42307), (0x0283,0x0283,1,-218), (0x0287,0x0287,1,42282), (0x0288,0x0288,1,-218),
    (0x0289,0x0289,1,-69), (0x028A,0x028B,1,-217), (0x028C,0x028C,1,-71), (0x0292,0x0292,1,-219),
    (0x029D,0x029D,1,42261), (0x029E,0x029E,1,42258), (0x0345,0x0345,1,84), (0x0371,0x0373,2,-1),
    (0x0377,0x0377,1,-1), (0x037B,0x037D,1,130), (0x03AC,0x03AC,1,-38), (0x03AD,0x03AF,1,-37),
    (0x03B1,0x03C1,1,-32), (0x03C2,0x03C2,1,-31), (0x03C3,0x03CB,1,-32), (0x03CC,0x03CC,1,-64),
    (0x03CD,0x03CE,1,-63), (0x03D0,0x03D0,1,-62), (0x03D1,0x03D1,1,-57), (0x03D5,0x03D5,1,-47),
    (0x03D6,0x03D6,1,-54), (0x03D7,0x03D7,1,-8), (0x03D9,0x03EF,2,-1), (0x03F0,0x03F0,1,-86),
    (0x03F1,0x03F1,1,-80), (0x03F2,0x03F2,1,7), (0x03F3,0x03F3,1,-116), (0x03F5,0x03F5,1,-96),
    (0x03F8,0x03F8,1,-1), (0x03FB,0x03FB,1,-1), (0x0430,0x044F,1,-32), (0x0450,0x045F,1,-80),
    (0x0461,0x0481,2,-1), (0x048B,0x04BF,2,-1), (0x04C2,0x04CE,2,-1), (0x04CF,0x04CF,1,-15),
    (0x04D1,0x052F,2,-1), (0x0561,0x0586,1,-48), (0x10D0,0x10FA,1,3008), (0x10FD,0x10FF,1,3008),
    (0x13F8,0x13FD,1,-8), (0x1C80,0x1C80,1,-6254), (0x1C81,0x1C81,1,-6253), (0x1C82,0x1C82,1,-6244),
    (0x1C83,0x1C84,1,-6242), (0x1C85,0x1C85,1,-6243), (0x1C86,0x1C86,1,-6236), (0x1C87,0x1C87,1,-6181),
    (0x1C88,0x1C88,1,35266), (0x1D79,0x1D79,1,35332), (0x1D7D,0x1D7D,1,3814), (0x1D8E,0x1D8E,1,35384),
    (0x1E01,0x1E95,2,-1), (0x1E9B,0x1E9B,1,-59), (0x1EA1,0x1EFF,2,-1), (0x1F00,0x1F07,1,8),
    (0x1F10,0x1F15,1,8), (0x1F20,0x1F27,1,8), (0x1F30,0x1F37,1,8), (0x1F40,0x1F45,1,8),
    (0x1F51,0x1F57,2,8), (0x1F60,0x1F67,1,8), (0x1F70,0x1F71,1,74), (0x1F72,0x1F75,1,86),
    (0x1F76,0x1F77,1,100), (0x1F78,0x1F79,1,128), (0x1F7A,0x1F7B,1,112), (0x1F7C,0x1F7D,1,126),
    (0x1F80,0x1F87,1,8), (0x1F90,0x1F97,1,8), (0x1FA0,0x1FA7,1,8), (0x1FB0,0x1FB1,1,8),
    (0x1FB3,0x1FB3,1,9), (0x1FBE,0x1FBE,1,-7205), (0x1FC3,0x1FC3,1,9), (0x1FD0,0x1FD1,1,8),
    (0x1FE0,0x1FE1,1,8), (0x1FE5,0x1FE5,1,7), (0x1FF3,0x1FF3,1,9), (0x214E,0x214E,1,-28),
    (0x2170,0x217F,1,-16), (0x2184,0x2184,1,-1), (0x24D0,0x24E9,1,-26), (0x2C30,0x2C5F,1,-48),
    (0x2C61,0x2C61,1,-1), (0x2C65,0x2C65,1,-10795), (0x2C66,0x2C66,1,-10792), (0x2C68,0x2C6C,2,-1),
    (0x2C73,0x2C73,1,-1), (0x2C76,0x2C76,1,-1), (0x2C81,0x2CE3,2,-1), (0x2CEC,0x2CEE,2,-1),
    (0x2CF3,0x2CF3,1,-1), (0x2D00,0x2D25,1,-7264), (0x2D27,0x2D27,1,-7264), (0x2D2D,0x2D2D,1,-7264),
    (0xA641,0xA66D,2,-1), (0xA681,0xA69B,2,-1), (0xA723,0xA72F,2,-1), (0xA733,0xA76F,2,-1),
    (0xA77A,0xA77C,2,-1), (0xA77F,0xA787,2,-1), (0xA78C,0xA78C,1,-1), (0xA791,0xA793,2,-1),
    (0xA794,0xA794,1,48), (0xA797,0xA7A9,2,-1), (0xA7B5,0xA7C3,2,-1), (0xA7C8,0xA7CA,2,-1),
    (0xA7D1,0xA7D1,1,-1), (0xA7D7,0xA7D9,2,-1), (0xA7F6,0xA7F6,1,-1), (0xAB53,0xAB53,1,-928),
    (0xAB70,0xABBF,1,-38864), (0xFF41,0xFF5A,1,-32), (0x10428,0x1044F,1,-40), (0x104D8,0x104FB,1,-40),
    (0x10597,0x105A1,1,-39), (0x105A3,0x105B1,1,-39), (0x105B3,0x105B9,1,-39), (0x105BB,0x105BC,1,-39),
    (0x10CC0,0x10CF2,1,-64), (0x118C0,0x118DF,1,-32), (0x16E60,0x16E7F,1,-32), (0x1E922,0x1E943,1,-34),
];
// End of the generated part.

#[cfg(test)]
mod tests {
    use super::*;

    /// Mappings the toolchain's `to_uppercase` (Unicode 17.0 in rustc 1.95) has
    /// and 15.0 has not: `(first, last, first's upper case)`. A toolchain with a
    /// newer Unicode may need more of them here; never a change of the table.
    const AFTER_15_0: [(u32, u32, u32); 10] = [
        (0x019B, 0x019B, 0xA7DC),
        (0x0264, 0x0264, 0xA7CB),
        (0x1C8A, 0x1C8A, 0x1C89),
        (0xA7CD, 0xA7CD, 0xA7CC),
        (0xA7CF, 0xA7CF, 0xA7CE),
        (0xA7D3, 0xA7D3, 0xA7D2),
        (0xA7D5, 0xA7D5, 0xA7D4),
        (0xA7DB, 0xA7DB, 0xA7DA),
        (0x10D70, 0x10D85, 0x10D50), // Garay
        (0x16EBB, 0x16ED3, 0x16EA0), // Beria Erfe
    ];

    fn all() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    fn same(a: &str, b: &str) -> bool {
        let equal = fold(a) == fold(b);
        assert_eq!(eq_folded(a, &fold(b)), equal, "{a:?} {b:?}");
        assert_eq!(eq_folded(b, &fold(a)), equal, "{b:?} {a:?}");
        equal
    }

    #[test]
    fn the_table_is_the_one_its_id_was_given_to() {
        // FNV-1a 64 over the mapping of each code point, as a little-endian u32;
        // surrogates map to themselves. The generator prints the same number.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut mapped = 0;
        for cp in 0..0x11_0000_u32 {
            let to = char::from_u32(cp).map_or(cp, |c| u32::from(upper(c)));
            mapped += u32::from(to != cp);
            for byte in to.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!((CASE_TABLE_ID, mapped), (1, 1450));
        assert_eq!(hash, 0xa6fd_a396_d24e_c405, "a changed table is a new id");
    }

    #[test]
    fn ranges_are_sorted_and_disjoint_and_include_ascii() {
        assert!(RANGES.is_sorted_by(|a, b| a.1 < b.0));
        assert!(RANGES.iter().all(|r| r.0 <= r.1 && matches!(r.2, 1 | 2)));
        assert_eq!(RANGES[0], (0x61, 0x7A, 1, -32));
    }

    #[test]
    fn names_known_to_be_equal_are_equal() {
        for (a, b) in [
            ("readme.TXT", "ReadMe.txt"),
            ("ς", "Σ"),
            ("σ", "Σ"),
            ("ς", "σ"),
            ("µ", "Μ"), // micro sign, capital mu
            ("µ", "μ"), // micro sign, small mu
            ("ı", "I"),
            ("ı", "i"),
            ("ſ", "S"),
            ("ÿ", "Ÿ"),
            ("ȿ", "Ȿ"),
            ("ǆ", "Ǆ"),
            ("ǅ", "Ǆ"),
            ("ᾀ", "ᾈ"),
            ("ა", "Ა"),
            ("𐐨", "𐐀"),
            ("aéıx", "AÉIX"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn names_known_to_differ_differ() {
        for (a, b) in [
            ("ß", "SS"),
            ("ß", "ẞ"),
            ("İ", "i"),
            ("İ", "I"),
            ("\u{212A}", "k"), // Kelvin sign
            ("\u{2126}", "ω"), // Ohm sign
            ("\u{212B}", "å"), // Angstrom sign
            ("ŉ", "ʼN"),
            ("ﬁ", "FI"),
            ("é", "e\u{301}"),
            ("a", ""),
            ("a", "ab"),
            ("aé", "a"),
            ("ab", "é"),
            ("é", "è"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn where_std_gives_one_char_ours_is_the_same_but_for_what_came_after_15_0() {
        let mut later = 0_u32;
        for c in all().filter(|c| c.to_uppercase().len() == 1) {
            let (cp, ours) = (u32::from(c), u32::from(upper(c)));
            let std = c.to_uppercase().next().map_or(0, u32::from);
            let known = AFTER_15_0.iter().find(|r| (r.0..=r.1).contains(&cp));
            if let Some(&(first, _, to)) = known {
                assert_eq!((ours, std), (cp, to + cp - first), "U+{cp:04X}");
                later += 1;
            } else {
                assert_eq!(ours, std, "U+{cp:04X}");
            }
        }
        assert_eq!(later, AFTER_15_0.iter().map(|r| r.1 - r.0 + 1).sum::<u32>());
    }

    #[test]
    fn where_std_gives_several_chars_ours_is_the_char_or_its_title_case() {
        let mut titled = 0;
        for c in all().filter(|c| c.to_uppercase().len() > 1 && upper(*c) != *c) {
            // Greek with iota subscript: one char, whose lower case is `c`.
            assert!(('\u{1F80}'..='\u{1FFC}').contains(&c), "{c}");
            assert!(upper(c).to_lowercase().eq([c]), "{c}");
            titled += 1;
        }
        assert_eq!(titled, 27);
        assert_eq!(upper('\u{1F80}'), '\u{1F88}');
    }

    #[test]
    fn folding_twice_is_folding_once_and_keeps_the_utf16_length() {
        for c in all() {
            assert_eq!(upper(upper(c)), upper(c), "{c:?}"); // no exceptions
            assert_eq!(upper(c).len_utf16(), c.len_utf16(), "{c:?}");
        }
    }

    #[test]
    fn the_comparisons_agree_with_fold_for_every_char() {
        for c in all() {
            let name = format!("a{c}z");
            let folded = fold(&name);
            assert_eq!(folded, format!("A{}Z", upper(c)));
            assert!(eq_folded(&name, &folded) && is_folded(&folded));
            let key = format!("A{c}Z");
            assert_eq!(is_folded(&key), upper(c) == c);
            assert_eq!(eq_folded(&name, &key), upper(c) == c);
        }
        assert!(is_folded("") && eq_folded("", ""));
    }

    /// Names of every length about eight bytes, with chars of every kind at every place.
    #[test]
    fn the_order_is_that_of_what_fold_gives() {
        let chars = [
            '@', 'A', 'Z', '[', '`', 'a', 'z', '{', '\u{7f}', 'ß', 'ı', 'é', 'ȿ', 'K', '𐐨',
        ];
        let mut names = vec![String::new()];
        for length in [1, 7, 8, 9, 15, 16, 17] {
            for place in 0..length {
                for c in chars {
                    let before: String = "mN".chars().cycle().take(place).collect();
                    names.push(before + &String::from(c) + &"o".repeat(length - place - 1));
                }
            }
        }
        for a in &names {
            for b in names.iter().step_by(7) {
                let b = fold(b);
                assert_eq!(cmp_folded(a, &b), fold(a).cmp(&b), "{a:?} {b:?}");
            }
            let (folded, is_itself) = (fold(a), fold(a) == *a);
            assert_eq!(
                (cmp_folded(a, &folded), is_folded(a)),
                (Ordering::Equal, is_itself),
                "{a:?}"
            );
        }
    }

    #[test]
    fn a_key_that_is_not_folded_equals_no_name() {
        assert!(!eq_folded("a", "a") && !eq_folded("é", "é"));
    }
}
