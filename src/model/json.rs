//! JSON as the contract defines it: no duplicate members, bounded depth, exact equality.
//!
//! `serde_json` checks the syntax. A cursor over the text, which relies on that check, adds the
//! rest: duplicate members, depth, and an equality that compares numbers by their exact decimal
//! values instead of rounded floats, because a compare-and-swap depends on it. It builds no tree:
//! trees take many times the memory of the text, and the tree of `serde_json` reads some objects as
//! numbers. Time is linear in the text, unless two objects order their members differently; then it
//! sorts the members. Must not know what the texts are for.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

/// Arrays and objects of at least this size are skipped by their position, not walked through.
const LONG_BYTES_MIN: usize = 256;

/// The deepest nesting of arrays and objects.
pub const DEPTH_MAX: usize = 128;

/// Checks that `bytes` are one JSON text without duplicate members, nested at most [`DEPTH_MAX`]
/// deep.
///
/// # Errors
/// The first rule that the text breaks, and where if that is a rule of syntax.
pub fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(serde_json::Error::custom("longer than 4 GiB"));
    }
    let raw: &RawValue = serde_json::from_slice(bytes)?;
    Cursor { text: raw.get(), at: 0 }.check(DEPTH_MAX)
}

/// A JSON text that passed [`check`]. [`Text::equals`] compares its meaning, `==` its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text(Bytes);

impl Text {
    /// The text with these bytes.
    ///
    /// # Errors
    /// As [`check`].
    pub fn new(bytes: Bytes) -> Result<Self, serde_json::Error> {
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// A value inside a text that passed [`check`] as a whole. The caller must not pass other
    /// bytes: comparing them gives no sensible result.
    #[must_use]
    pub fn of_checked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Whether `bytes` pass [`check`] too and have the same meaning. Objects are equal in any order
    /// of their members, strings with any escapes, and numbers by their exact values: `1`, `1.0`
    /// and `1e0` are equal, two integers that round to one float are not.
    #[must_use]
    pub fn equals(&self, bytes: &[u8]) -> bool {
        // Equal bytes are the common case and cheap to find.
        self.0 == bytes
            || (check(bytes).is_ok()
                && match (std::str::from_utf8(&self.0), std::str::from_utf8(bytes)) {
                    (Ok(a), Ok(b)) => {
                        let long = (&*long_containers(a), &*long_containers(b));
                        equal(&mut Cursor::new(a), &mut Cursor::new(b), long)
                    }
                    _ => false,
                })
    }
}

/// A position in a text whose syntax was checked. On other texts the results make no sense, but all
/// methods end and stay inside the text.
#[derive(Clone)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Skips white space; returns the next byte, or zero at the end.
    fn peek(&mut self) -> u8 {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let space = rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n'));
        self.at += space.unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    /// Steps over the next byte if it is `byte`; returns whether it was.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == byte;
        self.at += usize::from(there);
        there
    }

    /// Steps over a string, a number or a word, and returns its text.
    fn scalar(&mut self) -> &'a str {
        let quoted = self.peek() == b'"';
        let from = self.at;
        let rest = self.text.as_bytes().get(from..).unwrap_or_default();
        let length = if quoted {
            let mut escaped = false;
            let end = rest.iter().skip(1).position(|b| {
                let ends = *b == b'"' && !escaped;
                escaped = *b == b'\\' && !escaped;
                ends
            });
            end.map(|end| end + 2)
        } else {
            rest.iter().position(|b| b" \t\r\n,:]}".contains(b))
        };
        self.at += length.unwrap_or(rest.len()).max(1).min(rest.len());
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// Steps over the name of a member and its colon, and returns the quoted name.
    fn name(&mut self) -> &'a str {
        let name = self.scalar();
        self.take(b':');
        name
    }

    /// Steps over a comma; returns whether another item follows, and steps over `end` if none does.
    fn more(&mut self, end: u8) -> bool {
        self.take(b',');
        !self.take(end) && self.peek() != 0
    }

    /// Steps over a value. Jumps over the containers in `long`, which is sorted.
    fn skip(&mut self, long: &[Position]) {
        let mut depth = 0_usize;
        loop {
            let next = self.peek();
            let known = matches!(next, b'[' | b'{')
                .then(|| long.binary_search_by_key(&offset(self.at), |known| known.from).ok());
            if let Some(known) = known.flatten().and_then(|at| long.get(at)) {
                self.at = known.to as usize;
                if depth == 0 {
                    return;
                }
                continue;
            }
            match next {
                0 => return,
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => drop(self.scalar()),
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Steps over a value, and checks the rules beyond syntax.
    fn check(&mut self, depth_left: usize) -> Result<(), serde_json::Error> {
        let too_deep = || serde_json::Error::custom(format!("nested more than {DEPTH_MAX} deep"));
        match self.peek() {
            b'[' => {
                let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
                self.at += 1;
                while self.more(b']') {
                    self.check(depth_left)?;
                }
            }
            b'{' => {
                let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
                self.at += 1;
                let mut members = Vec::new();
                while self.more(b'}') {
                    let name = self.name_position();
                    check_string(self.slice(name))?;
                    members.push(name);
                    self.check(depth_left)?;
                }
                self.check_names(members)?;
            }
            b'"' => check_string(self.scalar())?,
            _ => drop(self.scalar()),
        }
        Ok(())
    }

    /// Steps over the name of a member and its colon, and returns where the name is.
    fn name_position(&mut self) -> Position {
        let from = self.at;
        let length = self.name().len();
        Position { from: offset(from), to: offset(from + length) }
    }

    fn slice(&self, position: Position) -> &'a str {
        self.text.get(position.from as usize..position.to as usize).unwrap_or_default()
    }

    fn name_in(&self, name: Position) -> Cow<'a, str> {
        decoded(self.slice(name))
    }

    fn sort(&self, names: &mut [Position]) {
        names.sort_unstable_by(|a, b| self.name_in(*a).cmp(&self.name_in(*b)));
    }

    /// Refuses two members with one name.
    fn check_names(&self, mut names: Vec<Position>) -> Result<(), serde_json::Error> {
        self.sort(&mut names);
        let mut pairs = names.iter().zip(names.iter().skip(1));
        match pairs.find(|(a, b)| self.name_in(**a) == self.name_in(**b)) {
            Some((twice, _)) => {
                let name = super::shown(&self.name_in(*twice));
                Err(serde_json::Error::custom(format_args!("duplicate member `{name}`")))
            }
            None => Ok(()),
        }
    }

    /// Steps from the first member of an object over its end; returns the names of its members,
    /// sorted.
    fn members(&mut self, ends: &[Position]) -> Vec<Position> {
        let mut names = Vec::new();
        while self.more(b'}') {
            names.push(self.name_position());
            self.skip(ends);
        }
        self.sort(&mut names);
        names
    }
}

/// The range of a part of a text, in bytes.
#[derive(Clone, Copy)]
struct Position {
    from: u32,
    to: u32,
}

/// An offset in a text, which fits because [`check`] refuses longer texts.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The positions of the long arrays and objects of a text, in the order of their starts. With them
/// no container is walked to its end again at each level around it.
fn long_containers(text: &str) -> Vec<Position> {
    let mut cursor = Cursor::new(text);
    let (mut open, mut found) = (Vec::new(), Vec::new());
    loop {
        match cursor.peek() {
            0 => break,
            b'[' | b'{' => {
                open.push(cursor.at);
                cursor.at += 1;
            }
            b']' | b'}' => {
                cursor.at += 1;
                let from = open.pop().unwrap_or_default();
                if cursor.at - from >= LONG_BYTES_MIN {
                    found.push(Position { from: offset(from), to: offset(cursor.at) });
                }
            }
            b',' | b':' => cursor.at += 1,
            _ => drop(cursor.scalar()),
        }
    }
    found.sort_unstable_by_key(|container| container.from);
    found
}

/// Refuses a string with half of a surrogate pair (`\ud800`).
fn check_string(quoted: &str) -> Result<(), serde_json::Error> {
    if quoted.contains('\\') { serde_json::from_str::<String>(quoted).map(drop) } else { Ok(()) }
}

/// The string that a quoted text encodes.
fn decoded(quoted: &str) -> Cow<'_, str> {
    if quoted.contains('\\') {
        return Cow::Owned(serde_json::from_str(quoted).unwrap_or_default());
    }
    let inner = quoted.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
    Cow::Borrowed(inner.unwrap_or(quoted))
}

/// The long containers of the two texts under comparison.
type Long<'a> = (&'a [Position], &'a [Position]);

/// Compares two values. Steps over both if they are equal; else leaves the cursors anywhere.
fn equal(a: &mut Cursor<'_>, b: &mut Cursor<'_>, long: Long<'_>) -> bool {
    let (kind_a, kind_b) = (a.peek(), b.peek());
    let number = |kind: u8| kind == b'-' || kind.is_ascii_digit();
    match (kind_a, kind_b) {
        (b'[', b'[') => {
            (a.at, b.at) = (a.at + 1, b.at + 1);
            loop {
                match (a.more(b']'), b.more(b']')) {
                    (true, true) if equal(a, b, long) => {}
                    (false, false) => return true,
                    _ => return false,
                }
            }
        }
        (b'{', b'{') => {
            (a.at, b.at) = (a.at + 1, b.at + 1);
            equal_objects(a, b, long)
        }
        (b'"', b'"') => decoded(a.scalar()) == decoded(b.scalar()),
        _ if number(kind_a) && number(kind_b) => {
            let (a, b) = (a.scalar(), b.scalar());
            a == b || Decimal::parse(a) == Decimal::parse(b)
        }
        _ => kind_a == kind_b && a.scalar() == b.scalar(),
    }
}

/// Compares two objects from their first members: side by side while both have their members in one
/// order, then by sorting the rest.
fn equal_objects(a: &mut Cursor<'_>, b: &mut Cursor<'_>, long: Long<'_>) -> bool {
    loop {
        match (a.more(b'}'), b.more(b'}')) {
            (true, true) => {}
            (more_a, more_b) => return more_a == more_b,
        }
        let (from_a, from_b) = (a.at, b.at);
        if decoded(a.name()) != decoded(b.name()) {
            (a.at, b.at) = (from_a, from_b);
            break;
        }
        if !equal(a, b, long) {
            return false;
        }
    }
    let (members_a, members_b) = (a.members(long.0), b.members(long.1));
    let mut pairs = members_a.iter().zip(&members_b);
    members_a.len() == members_b.len()
        && pairs.all(|(at_a, at_b)| {
            let at = |name: &Position| name.from as usize;
            let (mut a, mut b) = (Cursor { at: at(at_a), ..*a }, Cursor { at: at(at_b), ..*b });
            decoded(a.name()) == decoded(b.name()) && equal(&mut a, &mut b, long)
        })
}

/// A JSON number in normal form: digits without leading or trailing zeros, times a power of ten.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i128,
}

impl Decimal {
    fn parse(text: &str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let kept = all.trim_end_matches('0');
        let digits = kept.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        let dropped = (all.len() - kept.len()) as i128 - fraction.len() as i128;
        Self { negative, digits, exponent: exponent.saturating_add(dropped) }
    }
}

/// Parses an exponent of any length. Clamps it to 96 bits: two numbers whose exponents differ only
/// beyond that have texts far longer than any value in use.
fn parse_exponent(text: &str) -> i128 {
    let bound = 1_i128 << 96;
    match text.strip_prefix('+').unwrap_or(text).parse::<i128>() {
        Ok(exponent) => exponent.clamp(-bound, bound),
        Err(_) if text.starts_with('-') => -bound,
        Err(_) => bound,
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
