//! The bytes of a request: head and JSON around the prompt are made once, the prompt is written between them.

use std::io::Write as _;

use super::plan::Arrival;
use super::prompt::Pool;
use super::prompt::length;
use crate::bench::options::Endpoint;
use crate::bench::options::Options;

/// Makes requests to one server.
pub struct Template {
    pool: Pool,
    head: String,
    before: String,
    after: String,
}

impl Template {
    /// For `host` (as in the `Host` header) and the path in front of the API's own.
    #[must_use]
    pub fn new(options: &Options, host: &str, base: &str) -> Self {
        let key = options.key.as_ref().map(|it| format!("authorization: Bearer {}\r\n", it.expose()));
        let path = options.endpoint.path();
        // The key and the host are the caller's; a line break in them would end the header.
        let head = format!(
            "POST {base}{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\naccept: */*\r\n{}content-length: ",
            key.unwrap_or_default()
        );
        let model = serde_json::Value::from(options.model.as_str());
        let stream = if options.stream { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" };
        let (before, after) = match options.endpoint {
            Endpoint::Chat => (r#""messages":[{"role":"user","content":""#, r#""}]}"#),
            Endpoint::Completions => (r#""prompt":""#, r#""}"#),
        };
        let before = format!(r#"{{"model":{model}{stream},{before}"#);
        Self { pool: Pool::new(options.seed), head, before, after: after.to_owned() }
    }

    /// Replaces what is in `to` by the request of `arrival`.
    pub fn write(&self, arrival: &Arrival, to: &mut Vec<u8>) {
        let end = match (arrival.max_tokens, self.after.as_str()) {
            (0, after) => after.to_owned(),
            (tokens, after) => format!("{},\"max_tokens\":{tokens}}}", &after[..after.len() - 1]),
        };
        let body = self.before.len() + length(&arrival.prompt) + end.len();
        to.clear();
        to.extend_from_slice(self.head.as_bytes());
        let _ = write!(to, "{body}\r\n\r\n"); // a Vec takes everything
        to.extend_from_slice(self.before.as_bytes());
        for run in &arrival.prompt {
            self.pool.write(*run, to);
        }
        to.extend_from_slice(end.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::base::secret::Secret;
    use crate::bench::core::prompt::Run;

    fn request(options: &Options, max_tokens: u64) -> (String, Value) {
        let prompt = vec![Run { space: 1, first: 1, count: 2, bytes: 30 }];
        let mut bytes = b"what was there before".to_vec();
        Template::new(options, "host:1", "/base").write(&Arrival { due: None, prompt, max_tokens }, &mut bytes);
        let text = String::from_utf8(bytes).expect("is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("has a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).expect("is JSON"))
    }

    #[test]
    fn a_chat_request_says_what_was_asked() {
        let options = Options { model: "a \"b\"".to_owned(), stream: true, ..Options::default() };
        let (head, mut body) = request(&options, 5);
        assert!(head.starts_with("POST /base/v1/chat/completions HTTP/1.1\r\nhost: host:1\r\n"), "{head}");
        assert!(!head.contains("authorization"));
        assert_eq!(body["messages"][0]["content"].take().as_str().map(str::len), Some(60));
        let expected = json!({
            "model": "a \"b\"", "stream": true, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": null }], "max_tokens": 5,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_completion_request_carries_the_key() {
        let key = Some(Secret::new("k"));
        let options = Options { endpoint: Endpoint::Completions, key, ..Options::default() };
        let (head, body) = request(&options, 0);
        assert!(head.contains("\r\nauthorization: Bearer k\r\n"), "{head}");
        assert_eq!(body.as_object().expect("an object").len(), 2);
        assert_eq!(body["prompt"].as_str().map(str::len), Some(60));
    }
}
