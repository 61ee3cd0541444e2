//! Lines with places in them: what is sent, with values filled in, and what must come, with holes.
//!
//! Everything stands for itself but a `{` before a letter or a digit, so that JSON is written as it is:
//!
//! | written | stands for |
//! | --- | --- |
//! | `{client}`, `{n}` | the number of the client, and of its round |
//! | `{any}` | in what must come: any bytes, or none |
//! | `{name}` | in what must come: one byte or more, captured; from then on, here and in what is sent: what was captured |
//! | `{0xE9}` | that byte |
//! | `{1000*ab}` | `ab` a thousand times |
//! | `{{` | `{` |

use std::fmt::Write as _;

use memchr::memmem;

use super::shown::shown;

/// Bytes of the longest line that a pattern may make without what was captured.
const LONGEST: usize = 1 << 20;

/// Names of the greeting and a dialogue.
const MOST_NAMES: usize = 1000;

/// The names captured so far in a dialogue, by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Vec<String>);

impl Names {
    fn number(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known == name)
    }
}

/// What the places stand for: of one client, in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    pub(crate) client: u64,
    pub(crate) n: u64,
    captured: Vec<Vec<u8>>,
}

impl Values {
    pub(crate) fn new(client: u64, n: u64) -> Values {
        Values { client, n, captured: Vec::new() }
    }

    fn captured(&self, number: usize) -> &[u8] {
        self.captured.get(number).map_or(b"", Vec::as_slice)
    }

    fn capture(&mut self, number: usize, bytes: &[u8]) {
        if self.captured.len() <= number {
            self.captured.resize_with(number + 1, Vec::new);
        }
        bytes.clone_into(&mut self.captured[number]);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Client,
    N,
    Captured(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hole {
    Any,
    Capture(usize, String),
}

impl Hole {
    fn least(&self) -> usize {
        usize::from(matches!(self, Hole::Capture(..)))
    }
}

/// Parts in a row whose bytes are known, behind a hole or at the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Run {
    hole: Option<Hole>,
    parts: Vec<Part>,
}

impl Run {
    fn fill(&self, values: &Values) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(literal) => bytes.extend_from_slice(literal),
                Part::Client => bytes.extend_from_slice(values.client.to_string().as_bytes()),
                Part::N => bytes.extend_from_slice(values.n.to_string().as_bytes()),
                Part::Captured(number) => bytes.extend_from_slice(values.captured(*number)),
            }
        }
        bytes
    }
}

/// A line as it is written in a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// At least one; only the first may be without a hole.
    runs: Vec<Run>,
}

impl Pattern {
    /// Something to send: no holes.
    pub(crate) fn to_send(text: &str, names: &Names) -> Result<Pattern, String> {
        let pattern = Pattern::parse(text, &mut names.clone())?;
        match pattern.runs.iter().find_map(|run| run.hole.as_ref()) {
            None => Ok(pattern),
            Some(Hole::Any) => {
                Err("{any} is for what must come: write what is to be sent".to_owned())
            }
            Some(Hole::Capture(_, name)) => Err(format!(
                "nothing captured {{{name}}} before: write it into a line of expect above, or {{{{{name}}} for \
                 the text itself"
            )),
        }
    }

    /// Something that must come. The names that it captures are added.
    pub(crate) fn to_expect(text: &str, names: &mut Names) -> Result<Pattern, String> {
        let mut known = names.clone();
        let pattern = Pattern::parse(text, &mut known)?;
        *names = known;
        Ok(pattern)
    }

    fn parse(text: &str, names: &mut Names) -> Result<Pattern, String> {
        let before = names.0.len();
        let mut runs = vec![Run::default()];
        let mut length = 0;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (place, after) = match next_place(rest)? {
                Some(found) => found,
                None => {
                    let skip = if rest.starts_with("{{") { 2 } else { first.len_utf8() };
                    let literal = &rest.as_bytes()[..first.len_utf8()];
                    (Place::Literal(literal.to_vec()), &rest[skip..])
                }
            };
            rest = after;
            let part = match place {
                Place::Literal(bytes) => {
                    length += bytes.len();
                    if length > LONGEST {
                        return Err(format!("it makes more than {LONGEST} bytes: write less"));
                    }
                    Part::Bytes(bytes)
                }
                Place::Name("client") => Part::Client,
                Place::Name("n") => Part::N,
                Place::Name("any") => {
                    open_hole(&mut runs, Hole::Any, "any")?;
                    continue;
                }
                Place::Name(name) => match names.number(name) {
                    Some(number) if number < before => Part::Captured(number),
                    Some(_) => {
                        return Err(format!(
                            "{{{name}}} stands twice in it: give one another name"
                        ));
                    }
                    None if names.0.len() == MOST_NAMES => {
                        return Err(format!(
                            "{{{name}}} is one name too many: there may be {MOST_NAMES}; write {{any}}"
                        ));
                    }
                    None => {
                        open_hole(&mut runs, Hole::Capture(names.0.len(), name.to_owned()), name)?;
                        names.0.push(name.to_owned());
                        continue;
                    }
                },
            };
            push(&mut runs, part);
        }
        Ok(Pattern { runs })
    }

    /// Whether it needs what was captured.
    pub(crate) fn needs_captures(&self) -> bool {
        let mut parts = self.runs.iter().flat_map(|run| &run.parts);
        parts.any(|part| matches!(part, Part::Captured(_)))
    }

    /// The bytes of a line to send, without a line end.
    pub(crate) fn fill(&self, values: &Values) -> Vec<u8> {
        self.runs.iter().flat_map(|run| run.fill(values)).collect()
    }

    /// Bytes of the shortest line that fits.
    pub(crate) fn least(&self) -> usize {
        let of_part = |part: &Part| match part {
            Part::Bytes(literal) => literal.len(),
            Part::Client | Part::N | Part::Captured(_) => 1,
        };
        let of_run = |run: &Run| {
            let hole = run.hole.as_ref().map_or(0, Hole::least);
            hole + run.parts.iter().map(of_part).sum::<usize>()
        };
        self.runs.iter().map(of_run).sum()
    }

    /// Whether a line, without its end, is one of these. If so, what it captures is in the values.
    ///
    /// Each hole is as short as the literal behind it allows. No other choice would find more, since the
    /// holes take whatever there is; so a line is searched once.
    pub(crate) fn matches(&self, line: &[u8], values: &mut Values) -> bool {
        let mut found: Vec<(usize, usize, usize)> = Vec::new();
        let mut at = 0;
        for (place, run) in self.runs.iter().enumerate() {
            let fixed = run.fill(values);
            let last = place + 1 == self.runs.len();
            let from = at + run.hole.as_ref().map_or(0, Hole::least);
            let begin = match (&run.hole, last) {
                (None, _) => line.starts_with(&fixed).then_some(0),
                (Some(_), true) => {
                    line.len().checked_sub(fixed.len()).filter(|_| line.ends_with(&fixed))
                }
                (Some(_), false) => line
                    .get(from..)
                    .and_then(|rest| memmem::find(rest, &fixed))
                    .map(|found| from + found),
            };
            let Some(begin) = begin.filter(|begin| *begin >= from) else { return false };
            if let Some(Hole::Capture(number, _)) = &run.hole {
                found.push((*number, at, begin));
            }
            at = begin + fixed.len();
        }
        if at != line.len() {
            return false;
        }
        for (number, begin, end) in found {
            values.capture(number, &line[begin..end]);
        }
        true
    }

    /// For people: what is known is filled in, and the holes go by their names.
    pub(crate) fn describe(&self, values: &Values) -> String {
        let mut text = String::new();
        for run in &self.runs {
            match &run.hole {
                None => {}
                Some(Hole::Any) => text.push_str("{any}"),
                Some(Hole::Capture(_, name)) => {
                    let _ = write!(text, "{{{name}}}");
                }
            }
            text.push_str(&shown(&run.fill(values)));
        }
        text
    }
}

enum Place<'t> {
    Literal(Vec<u8>),
    Name(&'t str),
}

/// What stands in braces at the front, and what is behind it; none if it is no place.
fn next_place(text: &str) -> Result<Option<(Place<'_>, &str)>, String> {
    let Some(inner) =
        text.strip_prefix('{').filter(|inner| inner.starts_with(char::is_alphanumeric))
    else {
        return Ok(None);
    };
    let Some((inner, rest)) = inner.split_once('}') else {
        return Err(format!("a }} is missing after {}; write {{{{ for a {{ itself", head(text)));
    };
    let wrong = || {
        format!(
            "{{{inner}}} is no place: there are {{client}}, {{n}}, {{any}}, names in small letters, \
             {{0xE9}} and {{1000*ab}}; write {{{{ for a {{ itself"
        )
    };
    if inner.starts_with(|c: char| c.is_ascii_digit()) {
        let literal = bytes_of(inner).ok_or_else(wrong)?;
        if literal.len() > LONGEST {
            return Err(format!("{{{}}} makes more than {LONGEST} bytes: write less", head(inner)));
        }
        return Ok(Some((Place::Literal(literal), rest)));
    }
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match inner.chars().all(named) {
        true => Ok(Some((Place::Name(inner), rest))),
        false => Err(wrong()),
    }
}

/// Of `0xE9` or `1000*ab`; one byte more than allowed if it is too many.
fn bytes_of(inner: &str) -> Option<Vec<u8>> {
    if let Some(digits) = inner.strip_prefix("0x") {
        let hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return u8::from_str_radix(digits, 16).ok().filter(|_| hex).map(|byte| vec![byte]);
    }
    let (count, text) = inner.split_once('*')?;
    let count: usize = count.parse().ok().filter(|_| !text.is_empty())?;
    let fits = count.checked_mul(text.len()).is_some_and(|length| length <= LONGEST);
    Some(if fits { text.repeat(count).into_bytes() } else { vec![0; LONGEST + 1] })
}

/// How many bytes the repetitions in a text make, without making them.
pub(super) fn repeated(text: &str) -> usize {
    let places = text.split('{').filter_map(|part| part.split_once('}')).map(|(inner, _)| inner);
    let repetitions = places.filter_map(|inner| inner.split_once('*'));
    let lengths = repetitions.filter_map(|(count, text)| Some((count.parse().ok()?, text.len())));
    lengths.fold(0, |all, (count, length): (usize, _)| {
        all.saturating_add(count.saturating_mul(length))
    })
}

/// The beginning of a text, for a message.
fn head(text: &str) -> &str {
    text.char_indices().nth(20).map_or(text, |(end, _)| &text[..end])
}

fn open_hole(runs: &mut Vec<Run>, hole: Hole, name: &str) -> Result<(), String> {
    let first = runs.len() == 1 && runs[0] == Run::default();
    if !first && runs.last().is_some_and(|run| run.parts.is_empty()) {
        return Err(format!(
            "nothing stands in front of {{{name}}} but another hole: write what parts them"
        ));
    }
    if first {
        runs.clear();
    }
    runs.push(Run { hole: Some(hole), parts: Vec::new() });
    Ok(())
}

/// Literals that follow each other are one.
fn push(runs: &mut [Run], part: Part) {
    let Some(run) = runs.last_mut() else { return };
    match (run.parts.last_mut(), part) {
        (Some(Part::Bytes(all)), Part::Bytes(more)) => all.extend(more),
        (_, part) => run.parts.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(text: &str) -> Pattern {
        Pattern::to_expect(text, &mut Names::default()).unwrap()
    }

    #[test]
    fn braces_of_json_stand_for_themselves() {
        let json = r#"{"students":[{"fullname":"john doe"}],"n":{}}"#;
        let pattern = Pattern::to_send(json, &Names::default()).unwrap();
        assert_eq!(pattern.fill(&Values::default()), json.as_bytes());
        let doubled = Pattern::to_send("{{client} { {{", &Names::default()).unwrap();
        assert_eq!(doubled.fill(&Values::default()), b"{client} { {");
    }

    #[test]
    fn bytes_and_repetitions() {
        let pattern = Pattern::to_send("caf{0xE9}{0xff} {3*ab}{client}.{n}", &Names::default());
        assert_eq!(pattern.unwrap().fill(&Values::new(7, 2)), b"caf\xe9\xff ababab7.2");
    }

    #[test]
    fn holes() {
        for (text, line, fits) in [
            ("", "", true),
            ("", "x", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "ba", false),
            ("{any}", "", true),
            ("{any}", "anything {at} all", true),
            ("{name}", "", false),
            ("a{any}a", "a", false),
            ("a{any}a", "aa", true),
            ("a{x}a", "aa", false),
            ("a{x}a", "aaa", true),
            ("{any}b{any}b", "bbxb", true),
            ("{any}b{any}b", "b", false),
            ("{x}b{y}c", "abbbc", true),
            ("{x}b{y}c", "abc", false),
            ("{x}b{y}b", "abcbb", true),
            (r#"{"name":"{name}"}"#, r#"{"name":"bob"}"#, true),
        ] {
            assert_eq!(
                expect(text).matches(line.as_bytes(), &mut Values::default()),
                fits,
                "{text} {line}"
            );
        }
    }

    #[test]
    fn what_is_captured_is_the_same_ever_after() {
        let mut names = Names::default();
        let first = Pattern::to_expect("id {id}, key {key}.", &mut names).unwrap();
        let send = Pattern::to_send("get {key} of {id}", &names).unwrap();
        let again = Pattern::to_expect("{id}: {any}", &mut names).unwrap();
        let mut values = Values::default();
        assert!(first.matches(b"id 7, key \xff..", &mut values));
        assert_eq!(send.fill(&values), b"get \xff. of 7");
        assert!(again.matches(b"7: yes", &mut values) && !again.matches(b"8: yes", &mut values));
        assert_eq!(again.describe(&values), "7: {any}");
        assert!(send.needs_captures() && !first.needs_captures());
    }

    /// A line that does not fit captures nothing.
    #[test]
    fn a_failed_match_leaves_the_values() {
        let mut names = Names::default();
        let pattern = Pattern::to_expect("{a} {b} end", &mut names).unwrap();
        let send = Pattern::to_send("{a}{b}", &names).unwrap();
        let mut values = Values::default();
        assert!(!pattern.matches(b"one two", &mut values));
        assert_eq!(send.fill(&values), b"");
    }

    #[test]
    fn mistakes_are_told() {
        let said = |text: &str| Pattern::to_expect(text, &mut Names::default()).unwrap_err();
        for (text, words) in [
            ("{client", "a } is missing after {client"),
            ("{Client}", "{Client} is no place"),
            ("{a b}", "is no place"),
            ("{12}", "is no place"),
            ("{0x9}", "is no place"),
            ("{0x+9}", "is no place"),
            ("{5*}", "is no place"),
            ("{99999999*ab}", "more than 1048576 bytes"),
            ("{99999999999999999999*ab}", "is no place"),
            ("{1000000*a}{1000000*a}", "more than 1048576 bytes"),
            ("{any}{name}", "nothing stands in front of {name}"),
            ("a{x}{any}", "nothing stands in front of {any}"),
            ("{x} {x}", "{x} stands twice"),
            ("{é}", "is no place"),
        ] {
            assert!(said(text).contains(words), "{text}: {}", said(text));
        }
        let said = |text: &str| Pattern::to_send(text, &Names::default()).unwrap_err();
        assert!(said("{any}").contains("is for what must come"));
        assert!(said("a {name}").contains("nothing captured {name} before"));
    }
}
