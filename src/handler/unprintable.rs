//! Which characters of a text are not safe to show, and where they are.

/// Ranges of characters, in their order.
type Table = [(u32, u32)];

/// What shows nothing, or makes what stands beside it show as something else. By the general category
/// these are Cc (C0, DEL, C1), Cf (bidirectional controls, tags), Zl, Zp and Co (private use); beside
/// them all of Default_Ignorable_Code_Point (fillers, variation selectors, what is reserved for such),
/// and the braille pattern without dots, which is as blank as a space and is none.
///
/// From the Unicode Character Database 16.0: `extracted/DerivedGeneralCategory.txt`,
/// `DerivedCoreProperties.txt`. The tests compare it with another's reading of the former.
#[rustfmt::skip]
const HIDDEN: &Table = &[
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x600, 0x605), (0x61C, 0x61C),
    (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x115F, 0x1160),
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F),
    (0x2800, 0x2800), (0x3164, 0x3164), (0xE000, 0xF8FF), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF), (0xF0000, 0xFFFFD),
    (0x100000, 0x10FFFD),
];

/// The marks (general category M) that [`char::is_alphabetic`] leaves out: accents, and the viramas
/// that a joiner stands behind in the scripts of India. A range may run on over letters and over
/// what is not assigned. From the same files.
#[rustfmt::skip]
const MARKS: &Table = &[
    (0x300, 0x34E), (0x350, 0x362), (0x483, 0x489), (0x591, 0x5AF), (0x658, 0x658), (0x6DF, 0x6E0),
    (0x6EA, 0x6EC), (0x740, 0x74A), (0x7EB, 0x7F3), (0x7FD, 0x7FD), (0x818, 0x82D), (0x859, 0x85B),
    (0x898, 0x8E1), (0x8EA, 0x954), (0x9BC, 0x9CD), (0x9FE, 0xA4D), (0xABC, 0xACD), (0xAFD, 0xB55),
    (0xBCD, 0xBCD), (0xC3C, 0xC4D), (0xCBC, 0xCCD), (0xD3B, 0xD4D), (0xDCA, 0xDCA), (0xE47, 0xE4E),
    (0xEBA, 0xECE), (0xF18, 0xF19), (0xF35, 0xF35), (0xF37, 0xF37), (0xF39, 0xF39), (0xF3E, 0xF84),
    (0xF86, 0xF87), (0xFC6, 0xFC6), (0x1037, 0x103A), (0x135D, 0x135F), (0x1714, 0x1734),
    (0x17C9, 0x17D3), (0x17DD, 0x17DD), (0x1939, 0x193B), (0x1A60, 0x1A7F), (0x1AB0, 0x1B44),
    (0x1B6B, 0x1B73), (0x1BAA, 0x1BAB), (0x1BE6, 0x1BF3), (0x1C37, 0x1C37), (0x1CD0, 0x1CD2),
    (0x1CD4, 0x1DFF), (0x20D0, 0x20F0), (0x2CEF, 0x2CF1), (0x2D7F, 0x2D7F), (0x302A, 0x302F),
    (0x3099, 0x309A), (0xA66F, 0xA672), (0xA67C, 0xA67D), (0xA6F0, 0xA6F1), (0xA806, 0xA806),
    (0xA82C, 0xA82C), (0xA8C4, 0xA8C4), (0xA8E0, 0xA8F1), (0xA92B, 0xA92D), (0xA953, 0xA953),
    (0xA9B3, 0xA9C0), (0xAABF, 0xAAC1), (0xAAF6, 0xAAF6), (0xABEC, 0xABED), (0xFE20, 0xFE2F),
    (0x101FD, 0x102E0), (0x10A38, 0x10A3F), (0x10AE5, 0x10AE6), (0x10D6A, 0x10D6D),
    (0x10EFD, 0x10EFF), (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11046, 0x11046),
    (0x11070, 0x110BA), (0x11133, 0x11134), (0x11173, 0x11173), (0x111C0, 0x111C0),
    (0x111C9, 0x111CC), (0x11235, 0x11236), (0x112E9, 0x112EA), (0x1133B, 0x113D2),
    (0x113E1, 0x11446), (0x1145E, 0x114C3), (0x115BF, 0x115C0), (0x1163F, 0x1163F),
    (0x116B6, 0x116B7), (0x1172B, 0x1172B), (0x11839, 0x1183A), (0x1193D, 0x11943),
    (0x119E0, 0x119E0), (0x11A33, 0x11A34), (0x11A47, 0x11A99), (0x11C3F, 0x11C3F),
    (0x11D42, 0x11D45), (0x11D97, 0x11D97), (0x11F41, 0x11F42), (0x11F5A, 0x11F5A),
    (0x13440, 0x1612F), (0x16AF0, 0x16AF4), (0x16B30, 0x16B36), (0x16FE4, 0x16FE4),
    (0x1BC9D, 0x1BC9D), (0x1CF00, 0x1CF46), (0x1D165, 0x1D169), (0x1D16D, 0x1D172),
    (0x1D17B, 0x1D182), (0x1D185, 0x1D18B), (0x1D1AA, 0x1D1AD), (0x1D242, 0x1D244),
    (0x1DA00, 0x1DA36), (0x1DA3B, 0x1DA6C), (0x1DA75, 0x1DA75), (0x1DA84, 0x1DA84),
    (0x1DA9B, 0x1E136), (0x1E2AE, 0x1E2EF), (0x1E4EC, 0x1E4EF), (0x1E5EE, 0x1E5EF),
    (0x1E8D0, 0x1E94A),
];

fn has(table: &Table, c: char) -> bool {
    let c = u32::from(c);
    let after = table.partition_point(|(first, _)| *first <= c);
    after > 0 && c <= table[after - 1].1
}

fn is_hidden(c: char) -> bool {
    has(HIDDEN, c)
}

/// Whether a joiner beside it does its work: it chooses the shape of letters.
fn joins(c: char) -> bool {
    (c.is_alphabetic() || has(MARKS, c)) && !is_hidden(c)
}

/// Whether there is something that a variation selector behind it can vary.
fn is_visible(c: char) -> bool {
    !c.is_whitespace() && !is_hidden(c)
}

/// The characters of a text that [`printable`](crate::text::printable) would replace, each with the place
/// where it begins: for those who would rather escape them than lose them, as a reply in JSON can.
///
/// ```
/// use reactor::text::unprintable;
///
/// let found: Vec<_> = unprintable("a\tb\u{202e}").collect();
/// assert_eq!(found, [(1, '\t'), (3, '\u{202e}')]);
/// ```
pub fn unprintable(text: &str) -> impl Iterator<Item = (usize, char)> {
    // Most text is ASCII to its end.
    let plain = text.bytes().take_while(|byte| matches!(byte, b' '..=b'~')).count();
    let mut before = text[..plain].chars().next_back();
    let mut chars = text[plain..].char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, c) = chars.next()?;
            let before = before.replace(c);
            let shows = match c {
                ' '..='~' => true,
                '\u{200c}' | '\u{200d}' => {
                    before.is_some_and(joins) && chars.peek().is_some_and(|(_, next)| joins(*next))
                }
                '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(is_visible),
                c => !is_hidden(c),
            };
            if !shows {
                return Some((plain + at, c));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use unicode_general_category::{GeneralCategory as Category, get_general_category};

    use super::*;

    /// Default_Ignorable_Code_Point, as `DerivedCoreProperties.txt` lists it.
    const IGNORABLE: &Table = &[
        (0xAD, 0xAD),
        (0x34F, 0x34F),
        (0x61C, 0x61C),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0xFFF0, 0xFFF8),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE0FFF),
    ];

    fn found(text: &str) -> String {
        unprintable(text).map(|(_, c)| c).collect()
    }

    #[test]
    fn the_tables_are_what_the_character_database_says() {
        use Category::*;
        for c in '\0'..=char::MAX {
            let category = get_general_category(c);
            let hidden =
                matches!(
                    category,
                    Control | Format | LineSeparator | ParagraphSeparator | PrivateUse
                ) || IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
                    || c == '\u{2800}';
            assert_eq!(is_hidden(c), hidden, "{c:?}, {category:?}");
            let mark = matches!(category, NonspacingMark | SpacingMark | EnclosingMark);
            let letter = c.is_alphabetic() || category == Unassigned;
            if !letter && !hidden {
                assert_eq!(joins(c), mark, "{c:?}, {category:?}");
            }
        }
    }

    #[test]
    fn each_is_found_where_it_is() {
        let text = "ab\u{1b}é\u{202e}\u{e0041}x\u{ad}";
        let places: Vec<_> = unprintable(text).map(|(at, _)| at).collect();
        assert_eq!(places, [2, 5, 8, 13]);
        assert!(places.iter().all(|at| is_hidden(text[*at..].chars().next().unwrap())));
    }

    #[test]
    fn a_joiner_is_hidden_unless_it_joins() {
        for word in ["م\u{200c}خ", "क\u{94d}\u{200d}ष", "র\u{200d}\u{9cd}য", "a\u{301}\u{200c}f"]
        {
            assert_eq!(found(word), "", "{word:?}");
        }
        for text in ["\u{200d}a", "a\u{200c}", "a\u{200d} b", "3\u{200d}a", "\u{3164}\u{200d}a"] {
            assert_eq!(found(text).chars().filter(|c| *c != '\u{3164}').count(), 1, "{text:?}");
        }
        // Two of them join each other.
        assert_eq!(found("a\u{200d}\u{200c}b"), "\u{200d}\u{200c}");
    }

    #[test]
    fn a_variation_selector_is_hidden_unless_there_is_something_to_vary() {
        assert_eq!(found("❤\u{fe0f} ☎\u{fe0e}1\u{fe0f}"), "");
        let alone = "\u{fe0f} \u{fe0f}❤\u{fe0f}\u{fe0f}\u{fe00}\u{200b}\u{fe0e}";
        assert_eq!(found(alone), "\u{fe0f}\u{fe0f}\u{fe0f}\u{fe00}\u{200b}\u{fe0e}");
    }

    #[test]
    fn what_people_write_with_shows() {
        let text = "Zoë, Łukasz, Ωμέγα, Дмитрий, 王小明, さくら, 김민준, สมชาย, देवनागरी, \
                    אבגד, محمد, e\u{301}, 👍🏽 🇨🇭 €5 ½ ~ \u{a0} \u{3000}";
        assert_eq!(found(text), "");
    }
}
