//! Errors as the SDKs of each family read them, whatever is in the message.

use proptest::prelude::*;
use serde_json::Value;

use crate::dialects::ErrorText;
use crate::dialects::Family;
use crate::dialects::anthropic;
use crate::dialects::form::Event;
use crate::dialects::openai::chat;
use crate::dialects::openai::responses;
use crate::dialects::sse;
use crate::dialects::sse::Splitter;

fn error(message: &str, param: Option<&'static str>) -> ErrorText {
    ErrorText { message: message.to_owned(), kind: "overloaded_error", code: "busy", param: param.map(Into::into) }
}

#[test]
fn an_openai_error_has_all_four_fields_and_null_where_no_field_is_at_fault() {
    let body: Value = serde_json::from_slice(&Family::OpenAi.error_body(&error("no", Some("model")))).expect("JSON");
    assert_eq!(
        body,
        serde_json::json!({"error": {"message": "no", "type": "overloaded_error", "param": "model", "code": "busy"}})
    );
    let body: Value = serde_json::from_slice(&Family::OpenAi.error_body(&error("no", None))).expect("JSON");
    assert!(body["error"]["param"].is_null() && body["error"].get("param").is_some());
}

#[test]
fn an_anthropic_error_says_twice_that_it_is_one() {
    let body: Value = serde_json::from_slice(&Family::Anthropic.error_body(&error("no", Some("model")))).expect("JSON");
    assert_eq!(body, serde_json::json!({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}));
}

proptest! {
    #[test]
    fn an_error_event_is_one_event_that_its_own_family_takes_for_an_error(message in any::<String>()) {
        let families = [
            (Family::OpenAi, &chat::WIRE),
            (Family::Responses, &responses::WIRE),
            (Family::Anthropic, &anthropic::MESSAGES),
        ];
        for (family, wire) in families {
            let bytes = family.error_event(&error(&message, None), 3);
            let mut splitter = Splitter::default();
            splitter.push(bytes.clone()).expect("the grammar holds");
            let event = splitter.next().expect("one event");
            prop_assert_eq!(&event, &bytes);
            prop_assert_eq!(splitter.next(), None);
            prop_assert_eq!(splitter.unfinished(), 0);
            let data = sse::data(&event).expect("data");
            let observe = wire.observe.expect("it streams");
            prop_assert_eq!(observe(&data).event, Event::Error);
            let value: Value = serde_json::from_slice(&data).expect("JSON");
            let said = if family == Family::Responses { &value["message"] } else { &value["error"]["message"] };
            prop_assert_eq!(said.as_str(), Some(message.as_str()));
        }
    }
}
