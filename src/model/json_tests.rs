//! Which JSON is acceptable, and which texts are equal.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Text {
    Text::new(Bytes::copy_from_slice(text.as_bytes())).expect(text)
}

fn equal_texts(a: &str, b: &str) -> bool {
    let there = text(a).equals(b.as_bytes());
    assert_eq!(there, text(b).equals(a.as_bytes()), "{a} {b}");
    there
}

#[test]
fn numbers_are_compared_exactly() {
    for (a, b) in [
        ("1", "1.0"),
        ("1e2", "100"),
        ("-0", "0"),
        ("0.10", "1E-1"),
        ("12e-1", "1.2"),
        ("1E400", "10e399"),
    ] {
        assert!(equal_texts(a, b), "{a} {b}");
    }
    for (a, b) in [
        ("9007199254740993", "9007199254740992"),
        ("18446744073709551617", "18446744073709551616"),
        ("0.1", "0.10000000000000001"),
        ("1", "-1"),
        ("1", "\"1\""),
        ("1E400", "1E401"),
    ] {
        assert!(!equal_texts(a, b), "{a} {b}");
    }
}

#[test]
fn objects_are_compared_without_order_and_arrays_with_it() {
    for (a, b) in [
        (r#"{"a":1,"b":[2]}"#, r#"{"b":[2.0],"a":1}"#),
        (r#"{"x":0,"a":1,"b":{"c":[],"d":{}}}"#, r#" { "x" : 0 , "b":{"d":{ },"c":[ ]},"a":1}"#),
        (r#"[{"a":1,"b":2},3]"#, r#"[{"b":2,"a":1},3]"#),
        (r#"{"\u0061":"\u00fc"}"#, r#"{"a":"ü"}"#),
        (r#""\"\\/""#, r#""\u0022\u005c\/""#),
        ("[true,false,null]", "[ true , false,null ]"),
    ] {
        assert!(equal_texts(a, b), "{a} {b}");
    }
    for (a, b) in [
        (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
        (r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#),
        (r#"{"a":1,"b":2}"#, r#"{"b":2,"c":1}"#),
        (r#"[{"a":1,"b":2},3]"#, r#"[{"b":2,"a":1},4]"#),
        ("[1,2]", "[2,1]"),
        ("[1]", "[1,1]"),
        ("[]", "{}"),
        ("[[]]", "[]"),
        ("null", "false"),
        (r#""a,b""#, r#""a""#),
        (r#""null""#, "null"),
    ] {
        assert!(!equal_texts(a, b), "{a} {b}");
    }
}

#[test]
fn no_object_is_taken_for_a_number() {
    let object = r#"{"$serde_json::private::Number":"1"}"#;
    assert!(equal_texts(object, object));
    assert!(!equal_texts(object, "1") && !equal_texts(object, "\"1\""));
    let raw = r#"{"$serde_json::private::RawValue":"1"}"#;
    assert!(!equal_texts(raw, "1") && !equal_texts(raw, object));
}

#[test]
fn long_containers_in_another_order_are_compared_in_little_time() {
    let long = format!("[{}1]", "1,".repeat(100_000));
    let other = format!("[{}2]", "1,".repeat(100_000));
    let first =
        |inner: &str| format!("{}{inner}{}", r#"{"a":[0],"b":"#.repeat(120), "}".repeat(120));
    let last =
        |inner: &str| format!("{}{inner}{}", r#"{"b":"#.repeat(120), r#","a":[0]}"#.repeat(120));
    assert!(equal_texts(&first(&long), &last(&long)));
    assert!(!equal_texts(&first(&long), &last(&other)));
    // If each of the 120 levels were walked again at each level around it, that would be 7,000
    // walks.
    let text = last(&long);
    let positions = long_containers(&text);
    assert_eq!(positions.len(), 121);
    let mut cursor = Cursor::new(&text);
    cursor.skip(&positions);
    assert_eq!(cursor.at, text.len());
}

#[test]
fn unacceptable_json_equals_nothing() {
    for bad in [&b""[..], b"{", b"1 1", b"\xff", br#"{"a":1,"a":1}"#] {
        assert!(!text("1").equals(bad) && !text(r#"{"a":1}"#).equals(bad));
    }
}

#[test]
fn duplicates_depth_and_rubbish_are_refused() {
    assert!(check(br#"{"a":{"b":1},"c":{"b":2}}"#).is_ok());
    for number in ["18446744073709551617", "1E400", "-0.0e-0"] {
        assert!(check(number.as_bytes()).is_ok());
    }
    for twice in [r#"{"x":[{"b":1,"b":2}]}"#, r#"{"b":1,"a":{},"\u0062":2}"#] {
        let duplicate = check(twice.as_bytes()).expect_err("a duplicate");
        assert!(duplicate.to_string().contains("duplicate member `b`"), "{duplicate}");
    }
    let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    assert!(check(nested(128).as_bytes()).is_ok());
    for n in [129, 1_000_000] {
        let deep = check(nested(n).as_bytes()).expect_err("too deep").to_string();
        assert!(deep.contains("128 deep"), "{deep}");
    }
    for bad in ["", "{", "1 2", "nan", "{\"a\":1,}", "\"\\ud800\"", "{\"\\ud800\":1}", "01"] {
        assert!(check(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(check(b"\"\xff\"").is_err());
}

/// A value as a tree, for comparison.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Word(&'static str),
    Number(i16),
    String(String),
    Array(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(Tree::Word),
        any::<i16>().prop_map(Tree::Number),
        "[a\"\\\\\n,:{}\\[\\]ü]{0,3}".prop_map(Tree::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Tree::Array),
            proptest::collection::btree_map("[ab\"\\\\]{0,2}", inner, 0..4).prop_map(Tree::Object),
        ]
    })
}

/// Writes a tree; with `other`, in another order of members and with other numbers and white space.
fn write(tree: &Tree, other: bool) -> String {
    let space = if other { " \n" } else { "" };
    let string = |text: &String| serde_json::to_string(text).unwrap();
    let join = |items: Vec<String>| items.join(&format!("{space},{space}"));
    match tree {
        Tree::Word(word) => (*word).to_owned(),
        Tree::Number(number) if other => format!("{number}.0"),
        Tree::Number(number) => number.to_string(),
        Tree::String(text) => string(text),
        Tree::Array(items) => {
            let items = items.iter().map(|item| write(item, other)).collect();
            format!("[{space}{}{space}]", join(items))
        }
        Tree::Object(members) => {
            let member = |(name, value): (&String, &Tree)| {
                format!("{}{space}:{space}{}", string(name), write(value, other))
            };
            let mut members: Vec<_> = members.iter().map(member).collect();
            if other {
                members.reverse();
            }
            format!("{{{space}{}{space}}}", join(members))
        }
    }
}

proptest! {
    #[test]
    fn texts_are_equal_exactly_when_their_trees_are(a in trees(), b in trees()) {
        prop_assert!(equal_texts(&write(&a, false), &write(&a, true)));
        prop_assert_eq!(equal_texts(&write(&a, false), &write(&b, true)), a == b);
    }
}
