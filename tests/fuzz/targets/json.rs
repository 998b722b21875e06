//! The JSON comparison of compare-and-swap, checked against a second reader in the simplest form.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvs::model::json::{DEPTH_MAX, Text, check};

use super::script::{Pen, Script};

/// A value in a form in which equal values are equal.
#[derive(Debug, PartialEq, Eq)]
pub enum Tree {
    Word(&'static str),
    /// Sign, digits without zeros at either end, power of ten.
    Number(bool, String, i128),
    Text(String),
    List(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

/// Reads a text by recursion. `None`: not JSON, a duplicate member, too deep, or half of a
/// surrogate pair.
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn read(text: &'a [u8]) -> Option<Tree> {
        std::str::from_utf8(text).ok()?;
        let mut reader = Self { text, at: 0 };
        let tree = reader.value(0)?;
        reader.space();
        (reader.at == text.len()).then_some(tree)
    }

    fn next(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or_default()
    }

    fn space(&mut self) {
        while matches!(self.next(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn value(&mut self, depth: usize) -> Option<Tree> {
        self.space();
        if matches!(self.next(), b'[' | b'{') && depth == DEPTH_MAX {
            return None;
        }
        match self.next() {
            b'"' => self.string().map(Tree::Text),
            b'[' => self.list(depth + 1),
            b'{' => self.object(depth + 1),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let word = ["true", "false", "null"].into_iter().find(|word| self.take(word))?;
                Some(Tree::Word(word))
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Tree> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.take("]") {
            return Some(Tree::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            if self.take("]") {
                return Some(Tree::List(items));
            }
            self.take(",").then_some(())?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<Tree> {
        let mut members = BTreeMap::new();
        self.at += 1;
        self.space();
        if self.take("}") {
            return Some(Tree::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.take(":").then_some(())?;
            let twice = members.insert(name, self.value(depth)?).is_some();
            self.space();
            if twice {
                return None;
            }
            if self.take("}") {
                return Some(Tree::Object(members));
            }
            self.take(",").then_some(())?;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"").then_some(())?;
        let mut units: Vec<u8> = Vec::new();
        loop {
            let byte = self.next();
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(units).ok(),
                b'\\' => {
                    let mut buffer = [0; 4];
                    units.extend_from_slice(self.escape()?.encode_utf8(&mut buffer).as_bytes());
                }
                0..0x20 => return None,
                byte => units.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let letter = self.next();
        self.at += 1;
        Some(match letter {
            b'"' | b'\\' | b'/' => letter.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first);
                }
                self.take("\\u").then_some(())?;
                let second = self.hex().filter(|second| (0xdc00..0xe000).contains(second))?;
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))?
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |n, digit| Some(n << 4 | char::from(*digit).to_digit(16)?))
    }

    fn digits(&mut self) -> Option<&'a str> {
        let from = self.at;
        while self.next().is_ascii_digit() {
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.text[from..self.at]).ok()?;
        (!digits.is_empty()).then_some(digits)
    }

    fn number(&mut self) -> Option<Tree> {
        let negative = self.take("-");
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with('0') {
            return None;
        }
        let fraction = if self.take(".") { self.digits()? } else { "" };
        let mut power = 0;
        if self.take("e") || self.take("E") {
            let below = self.take("-");
            if !below {
                self.take("+");
            }
            let digits = self.digits()?.trim_start_matches('0');
            // Exponents too large for the reader count as equal, as in the product.
            let bound = 1_i128 << 96;
            let size = match digits {
                "" => 0,
                digits => digits.parse::<i128>().unwrap_or(bound).min(bound),
            };
            power = if below { -size } else { size };
        }
        let all = format!("{whole}{fraction}");
        let kept = all.trim_end_matches('0');
        power += (all.len() - kept.len()) as i128 - fraction.len() as i128;
        let digits = kept.trim_start_matches('0');
        let zero = digits.is_empty();
        Some(Tree::Number(negative && !zero, digits.to_owned(), if zero { 0 } else { power }))
    }
}

/// Reads two texts with both readers, and compares them.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let (a, b) = (script.bytes(), script.rest());
    let (tree_a, tree_b) = (Reader::read(a), Reader::read(b));
    assert_eq!(check(a).is_ok(), tree_a.is_some(), "{:?}", String::from_utf8_lossy(a));
    assert_eq!(check(b).is_ok(), tree_b.is_some(), "{:?}", String::from_utf8_lossy(b));
    let Ok(text_a) = Text::new(Bytes::copy_from_slice(a)) else { return };
    assert!(text_a.equals(a), "a text is equal to itself");
    if let Some(tree) = tree_a.as_ref().filter(|tree| !is_huge(tree)) {
        let other = written(tree);
        assert!(text_a.equals(other.as_bytes()), "{other} means the same");
        let other = Text::new(other.into()).expect("it is JSON");
        assert!(other.equals(a), "also the other way around");
    }
    assert_eq!(text_a.equals(b), tree_b.is_some() && tree_a == tree_b);
    if let Ok(text_b) = Text::new(Bytes::copy_from_slice(b)) {
        assert_eq!(text_a.equals(b), text_b.equals(a));
    }
}

/// Whether an exponent is so large that only its sign counts: written in another form, the number
/// can compare differently.
fn is_huge(tree: &Tree) -> bool {
    match tree {
        Tree::Word(_) | Tree::Text(_) => false,
        Tree::Number(_, _, power) => power.unsigned_abs() >= 1 << 95,
        Tree::List(items) => items.iter().any(is_huge),
        Tree::Object(members) => members.values().any(is_huge),
    }
}

/// The same value as another text: another order of members, and other forms of numbers and
/// strings.
fn written(tree: &Tree) -> String {
    match tree {
        Tree::Word(word) => format!(" {word}\n"),
        Tree::Number(..) if *tree == Tree::Number(false, String::new(), 0) => "-0.0e7".to_owned(),
        Tree::Number(negative, digits, power) => {
            let sign = if *negative { "-" } else { "" };
            format!("{sign}{digits}.0E{power:+}")
        }
        Tree::Text(text) => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        }
        Tree::List(items) => {
            format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(" ,"))
        }
        Tree::Object(members) => {
            let member = |(name, value): (&String, &Tree)| {
                format!("{}\t: {}", written(&Tree::Text(name.clone())), written(value))
            };
            let members: Vec<_> = members.iter().rev().map(member).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let pair = |a: &str, b: &str| Pen::default().bytes(a.as_bytes()).raw(b.as_bytes()).done();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    vec![
        pair("null", "true"),
        pair("[1,1.0,1e0,-0,0.10]", "[1.0,1,10e-1,0,1e-1]"),
        pair(r#"{"a":1,"b":[2,{"c":"\u00fc"}]}"#, r#" { "b" : [2.0,{"c":"ü"}] , "a":1 }"#),
        pair(r#"{"a":1,"\u0061":2}"#, r#""\ud83d\ude00\/\b\f\n\r\t""#),
        pair("18446744073709551617", "18446744073709551616"),
        pair("1e99999999999999999999999999999999999999", "1e-999999999999999999999999999999999999"),
        pair(r#"{"$serde_json::private::Number":"1"}"#, "1"),
        pair(&deep(128), &deep(129)),
        pair(&format!("[{}0]", "\"a longer list\",".repeat(30)), r#""\ud800""#),
        pair("[1,]", "{\"a\" 1}"),
    ]
}
