//! The JSON scanner against serde_json, where bodies are strangest: numbers, escapes, depth, whitespace, repeats.

use proptest::prelude::*;

use crate::base::limits::JSON_DEPTH_MAX;
use crate::dialects::json;
use crate::dialects::json::Invalid;

/// Whether serde_json takes the text as one value; `RawValue` keeps numbers as they stand.
fn oracle(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok()
}

fn ours(text: &[u8]) -> bool {
    matches!(json::parse(text), Ok(_) | Err(Invalid::NotAnObject))
}

/// Values, and what is almost one.
const VALUES: &[&str] = &[
    "0",
    "-0",
    "00",
    "01",
    "-",
    "+1",
    "1.",
    ".5",
    "1.5",
    "1e",
    "1e5",
    "1E+5",
    "1e-5",
    "1e+",
    "--1",
    "1_0",
    "0x1",
    "NaN",
    "Infinity",
    "-Infinity",
    "1 2",
    "tru",
    "true",
    "trues",
    "True",
    "nul",
    "null",
    "nullnull",
    "\"",
    "\"a",
    "\"a\"\"",
    "\"\\\"",
    "\"\\u12\"",
    "\"\\u12G4\"",
    "\"\\u+123\"",
    "\"\\x\"",
    "\"\\u0000\"",
    "\"\t\"",
    "\"\u{1f}\"",
    "\"\u{7f}\"",
    "[",
    "]",
    "[]",
    "[,]",
    "[1,]",
    "[,1]",
    "[1 1]",
    "{",
    "{}",
    "{,}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{a:1}",
    "{\"a\":1 \"b\":2}",
    "{'a':1}",
    "{\"a\":1}}",
    "[1]]",
    "/**/1",
    "1//",
    "\u{feff}1",
    "\u{a0}1",
    "1\u{b}",
    "",
    " ",
    "\n\r\t 1 \n",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\/\"",
    "\"/\"",
];

#[test]
fn the_grammar_is_judged_as_serde_judges_it() {
    for value in VALUES {
        assert_eq!(ours(value.as_bytes()), oracle(value.as_bytes()), "{value:?}");
        let inside = format!("{{\"a\":{value}}}");
        assert_eq!(ours(inside.as_bytes()), oracle(inside.as_bytes()), "{inside:?}");
        let listed = format!("[0,{value}]");
        assert_eq!(ours(listed.as_bytes()), oracle(listed.as_bytes()), "{listed:?}");
    }
}

#[test]
fn the_deepest_body_is_taken_and_one_level_more_is_refused_whatever_it_is_made_of() {
    let nested = |levels: usize, open: &str, close: &str, leaf: &str| {
        format!("{{\"a\":{}{leaf}{}}}", open.repeat(levels - 1), close.repeat(levels - 1))
    };
    for (open, close, leaf) in [("[", "]", "1"), ("{\"k\":", "}", "1")] {
        assert!(json::parse(nested(JSON_DEPTH_MAX, open, close, leaf).as_bytes()).is_ok(), "{open}");
        let deep = nested(JSON_DEPTH_MAX + 1, open, close, leaf);
        assert!(matches!(json::parse(deep.as_bytes()), Err(Invalid::TooDeep(_))), "{open}");
    }
}

#[test]
fn a_syntax_error_is_told_at_the_byte_where_it_stands() {
    for (text, at) in
        [("{\"a\" 1}", 5), ("{\"a\":x}", 5), ("{\"a\":1]", 6), ("{\"a\":1}x", 7), ("{a", 1), ("{\"a\":[1,}", 8)]
    {
        assert_eq!(json::parse(text.as_bytes()).map(drop), Err(Invalid::Syntax(at)), "{text}");
    }
    assert_eq!(json::parse(b"{\"a\":\"\xff\"}").map(drop), Err(Invalid::Utf8(6)));
    for text in ["[]", "1", "\"{}\"", "null", " [ {} ] "] {
        assert_eq!(json::parse(text.as_bytes()).map(drop), Err(Invalid::NotAnObject), "{text}");
    }
}

#[test]
fn numbers_are_read_only_when_they_are_whole_and_fit() {
    for (text, expected) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-1", None),
        ("-0", None),
        ("1.0", None),
        ("1e2", None),
        ("\"1\"", None),
        ("null", None),
        ("[1]", None),
    ] {
        let body = format!("{{\"n\": {text} }}");
        let object = json::parse(body.as_bytes()).expect("valid");
        assert_eq!(object.get("n").expect("there").value.as_u64(), expected, "{text}");
    }
}

/// JSON text with whitespace, repeats and escapes that an encoder would never write.
fn odd_json() -> impl Strategy<Value = String> {
    let string = prop::collection::vec(
        prop_oneof![
            "[a-zé🚀 ]{1,3}",
            Just(r"\n".to_owned()),
            Just(r"\u0041".to_owned()),
            Just(r"\ud83d\ude00".to_owned()),
            Just(r#"\""#.to_owned()),
            Just(r"\\".to_owned()),
            Just(r"\/".to_owned()),
            Just(r"\u0000".to_owned()),
            Just("}{][,:".to_owned()),
        ],
        0..5,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        string.clone(),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("-1.5e-7".to_owned()),
        any::<u64>().prop_map(|it| it.to_string()),
    ];
    let space = "[ \n\r\t]{0,3}";
    let value = leaf.prop_recursive(4, 48, 5, move |inner| {
        let item = (space, inner.clone(), space).prop_map(|(a, it, b)| format!("{a}{it}{b}"));
        let member =
            (space, string.clone(), space, item.clone()).prop_map(|(a, key, b, it)| format!("{a}{key}{b}:{it}"));
        prop_oneof![
            prop::collection::vec(item, 1..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 1..5).prop_map(|members| format!("{{{}}}", members.join(","))),
            Just("[ ]".to_owned()),
            Just("{\n}".to_owned()),
        ]
    });
    (space, value, space).prop_map(|(a, it, b)| format!("{a}{{\"v\" :{it}}}{b}"))
}

/// What our readers say of a value, put together again.
fn reread(value: json::Value<'_>) -> serde_json::Value {
    if value.is_object() {
        let members = value
            .entries()
            .map(|it| (String::from_utf8(json::decode(it.key).into_owned()).expect("UTF-8"), reread(it.value)));
        return serde_json::Value::Object(members.collect());
    }
    if value.is_array() {
        return value.items().map(reread).collect();
    }
    if let Some(text) = value.as_str() {
        return text.into_owned().into();
    }
    value.as_bool().map_or_else(|| serde_json::from_slice(value.raw()).expect("a scalar"), Into::into)
}

proptest! {
    #[test]
    fn odd_texts_are_read_as_serde_reads_them(text in odd_json()) {
        let expected: serde_json::Value = serde_json::from_str(&text).expect("valid");
        let object = json::parse(text.as_bytes()).expect("valid");
        let member = object.get("v").expect("found");
        prop_assert_eq!(reread(member.value), expected["v"].clone());
        prop_assert_eq!(&text.as_bytes()[member.range()], member.value.raw());
    }

    #[test]
    fn compacting_takes_whitespace_alone_and_twice_is_once(text in odd_json()) {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        json::compact_into(text.as_bytes(), &mut once);
        json::compact_into(&once, &mut twice);
        prop_assert_eq!(&once, &twice);
        prop_assert!(once.len() <= text.len());
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&text).expect("valid"), serde_json::from_slice(&once).expect("valid"));
        prop_assert_eq!(before, after);
    }

    #[test]
    fn places_of_nested_members_count_from_the_start_of_their_object(text in odd_json()) {
        let object = json::parse(text.as_bytes()).expect("valid");
        let outer = object.get("v").expect("found");
        for inner in outer.value.entries() {
            let at = outer.at + inner.at;
            prop_assert_eq!(&text.as_bytes()[at..at + inner.value.raw().len()], inner.value.raw());
        }
    }

    #[test]
    fn every_cut_of_a_text_is_refused(text in odd_json(), at in any::<prop::sample::Index>()) {
        let text = text.trim_end();
        let cut = &text.as_bytes()[..at.index(text.len())];
        prop_assert!(json::parse(cut).is_err());
    }

    #[test]
    fn a_string_we_write_is_the_string_serde_reads(text in any::<String>()) {
        let mut out = Vec::new();
        json::encode_into(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("a string"), text);
    }
}
