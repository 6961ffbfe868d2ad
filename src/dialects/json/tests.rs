//! serde_json is the oracle: what it takes we take, what it refuses we refuse, and we read the same values.

use proptest::prelude::*;

use super::*;

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<i32>().prop_map(|it| (f64::from(it) / 8.0).into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_object_is_taken_and_read_as_serde_reads_it(map in prop::collection::btree_map(any::<String>(), any_json(), 0..8), pretty: bool) {
        let value = serde_json::Value::Object(map.clone().into_iter().collect());
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.expect("encodes");
        let object = parse(&text).expect("valid");
        prop_assert_eq!(object.members().len(), map.len());
        for (key, expected) in &map {
            let member = object.get(key).expect("found");
            prop_assert_eq!(&text[member.range()], member.value.raw());
            let read: serde_json::Value = serde_json::from_slice(member.value.raw()).expect("a value");
            prop_assert_eq!(&read, expected);
            if let Some(text) = expected.as_str() {
                prop_assert_eq!(member.value.as_str().expect("a string"), text);
            }
            prop_assert_eq!(member.value.items().count(), expected.as_array().map_or(0, Vec::len));
            prop_assert_eq!(member.value.entries().count(), expected.as_object().map_or(0, serde_json::Map::len));
            let mut compact = Vec::new();
            compact_into(member.value.raw(), &mut compact);
            let again: serde_json::Value = serde_json::from_slice(&compact).expect("still JSON");
            prop_assert_eq!(&again, expected);
        }
    }

    #[test]
    fn damaged_text_is_judged_as_serde_judges_it(value in any_json(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut text = serde_json::to_vec(&serde_json::json!({"a": value, "model": "m"})).expect("encodes");
        let at = at.index(text.len());
        text[at] = byte;
        let ours = parse(&text);
        let theirs = serde_json::from_slice::<&serde_json::value::RawValue>(&text);
        prop_assert_eq!(ours.is_ok() || ours == Err(Invalid::NotAnObject), theirs.is_ok() && std::str::from_utf8(&text).is_ok());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = decode(&bytes);
        compact_into(&bytes, &mut Vec::new());
    }
}

impl PartialEq for Object<'_> {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

#[test]
fn a_hundred_thousand_brackets_are_refused_without_a_stack() {
    let bomb = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(matches!(parse(bomb.as_bytes()), Err(Invalid::TooDeep(_))));
}

#[test]
fn escapes_are_undone_and_keys_with_escapes_are_found() {
    let body = br#"{"m\u006fdel":"a\u00e9\ud83d\ude80\n\ud800x","model2":1}"#;
    let object = parse(body).expect("valid");
    assert_eq!(object.get("model").expect("found").value.as_str().expect("text"), "a\u{e9}\u{1F680}\n\u{FFFD}x");
}

#[test]
fn a_repeated_key_is_seen() {
    let object = parse(br#"{"model":"a","mod\u0065l":"b"}"#).expect("valid");
    assert!(object.repeats("model"));
}
