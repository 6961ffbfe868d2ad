//! What a simulated worker promises, over real sockets.

mod wire;

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use self::wire::Client;
use self::wire::eventually;
use super::*;

const CHAT: &str = r#"{"model":"sim-model","messages":[{"role":"user","content":"Say hello."}]}"#;
const STREAM: &str = r#"{"model":"sim-model","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Say hello."}]}"#;
const PATH: &str = "/v1/chat/completions";

fn start(options: Options) -> (SimWorker, Tasks) {
    let tasks = Tasks::new();
    (SimWorker::start(options, &tasks).expect("starts"), tasks)
}

async fn post(worker: &SimWorker, path: &str, body: &str) -> (u16, Value) {
    let answer = Client::connect(worker).await.post(path, body).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_chat_answers_in_vllms_shape_and_counts_its_tokens() {
    let (worker, _tasks) = start(Options::default());
    let (status, answer) = post(&worker, PATH, CHAT).await;
    assert_eq!((status, &answer["object"]), (200, &json!("chat.completion")));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["message"]["content"].as_str().expect("text").len(), 16 * 4);
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let (worker, _tasks) = start(Options::default());
    let (_, whole) = post(&worker, PATH, CHAT).await;
    let answer = Client::connect(&worker).await.post(PATH, STREAM).await;
    let events = answer.events();
    let text: String =
        events.iter().filter_map(|it| it.pointer("/choices/0/delta/content")).filter_map(Value::as_str).collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().expect("text"));
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events.last().expect("usage")["usage"]["completion_tokens"], 16);
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn the_same_seed_and_requests_give_the_same_bytes() {
    let mut transcripts = Vec::new();
    for _ in 0..2 {
        let (worker, _tasks) = start(Options { seed: 7, ..Options::default() });
        let mut client = Client::connect(&worker).await;
        let mut all = String::new();
        for body in [CHAT, STREAM, CHAT] {
            let answer = client.post(PATH, body).await;
            all.push_str(&answer.head);
            all.push_str(&answer.body);
        }
        transcripts.push(all);
    }
    assert_eq!(transcripts[0], transcripts[1]);
}

#[tokio::test]
async fn a_repeated_prompt_is_found_in_the_cache_but_never_whole() {
    let (worker, _tasks) = start(Options::default());
    let prompt = "x".repeat(4 * 64);
    let body = json!({"model": "sim-model", "prompt": prompt, "max_tokens": 4}).to_string();
    let (_, first) = post(&worker, "/v1/completions", &body).await;
    let (_, second) = post(&worker, "/v1/completions", &body).await;
    let cached = |it: &Value| it["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!((cached(&first), cached(&second)), (json!(0), json!(48)));
    assert_eq!(second["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn the_next_turn_of_a_conversation_finds_the_last_one_in_the_cache() {
    let (worker, _tasks) = start(Options { output_tokens: 64, ..Options::default() });
    let (_, first) = post(&worker, PATH, CHAT).await;
    let said = &first["choices"][0]["message"]["content"];
    let body = json!({"model": "sim-model", "messages": [{"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]});
    let (_, second) = post(&worker, PATH, &body.to_string()).await;
    let before = first["usage"]["total_tokens"].as_u64().expect("number");
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], (before - 1) / 16 * 16);
}

#[tokio::test]
async fn a_tool_is_called_when_the_prompt_asks_for_it_or_it_is_required() {
    let (worker, _tasks) = start(Options::default());
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    for (content, choice, calls) in [
        ("What is the weather in Rome?", json!("auto"), true),
        ("Say hello.", json!("auto"), false),
        ("Say hello.", json!("required"), true),
        ("What is the weather in Rome?", json!("none"), false),
    ] {
        let body = json!({"messages": [{"role": "user", "content": content}], "tools": tools, "tool_choice": choice});
        let (_, answer) = post(&worker, PATH, &body.to_string()).await;
        let called = answer["choices"][0]["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
        assert_eq!(called.len(), usize::from(calls), "{content} {choice}");
        if content.contains("Rome") && calls {
            assert_eq!(called[0]["function"]["arguments"], r#"{"city":"Rome"}"#);
            assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
        }
    }
}

#[tokio::test]
async fn structured_output_fits_its_schema() {
    let (worker, _tasks) = start(Options::default());
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let body = json!({"messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    let (_, answer) = post(&worker, PATH, &body.to_string()).await;
    assert_eq!(answer["choices"][0]["message"]["content"], r#"{"n":1}"#);
}

#[tokio::test]
async fn several_choices_differ_and_a_stop_text_ends_the_answer() {
    let (worker, _tasks) = start(Options::default());
    let body = json!({"messages": [{"role": "user", "content": "say: one two three"}], "stop": " two", "n": 2});
    let (_, answer) = post(&worker, PATH, &body.to_string()).await;
    assert_eq!(answer["choices"][1]["message"]["content"], "one");
    assert_eq!(answer["choices"][0]["stop_reason"], " two");
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "n": 2});
    let (_, answer) = post(&worker, PATH, &body.to_string()).await;
    assert_ne!(answer["choices"][0]["message"]["content"], answer["choices"][1]["message"]["content"]);
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_as_vllm_refuses_it() {
    let (worker, _tasks) = start(Options { max_model_len: 64, ..Options::default() });
    let long = json!({"prompt": "x".repeat(1000)}).to_string();
    for (path, body, status, message) in [
        (
            PATH,
            r#"{"model":"nope","messages":[{"role":"user","content":"x"}]}"#,
            404,
            "The model `nope` does not exist.",
        ),
        (PATH, "{", 400, "EOF"),
        (PATH, r#"{"model":"sim-model"}"#, 400, "messages: Field required"),
        (PATH, r#"{"messages":"x"}"#, 400, "invalid type"),
        ("/v1/completions", long.as_str(), 400, "maximum context length is 64"),
    ] {
        let (given, answer) = post(&worker, path, body).await;
        assert_eq!((given, &answer["error"]["code"]), (status, &json!(status)), "{body}");
        assert!(answer["error"]["message"].as_str().expect("text").contains(message), "{answer}");
    }
    assert_eq!(post(&worker, "/nowhere", "{}").await, (404, json!({"detail": "Not Found"})));
}

#[tokio::test]
async fn texts_become_vectors_ranks_and_tokens_and_back() {
    let (worker, _tasks) = start(Options::default());
    let (_, embedded) = post(&worker, "/v1/embeddings", r#"{"input":["a","b"],"dimensions":8}"#).await;
    assert_eq!(embedded["data"][1]["embedding"].as_array().expect("floats").len(), 8);
    let (_, coded) =
        post(&worker, "/v1/embeddings", r#"{"input":"a","dimensions":8,"encoding_format":"base64"}"#).await;
    assert_eq!(coded["data"][0]["embedding"].as_str().expect("text").len(), 44);
    let body = r#"{"query":"red fox","documents":["blue sea","a red fox ran"],"top_n":1}"#;
    let (_, ranked) = post(&worker, "/v1/rerank", body).await;
    assert_eq!(
        (ranked["results"][0]["index"].clone(), ranked["results"].as_array().map(Vec::len)),
        (json!(1), Some(1))
    );
    let (_, cut) = post(&worker, "/tokenize", r#"{"prompt":"hello world"}"#).await;
    assert_eq!(cut["count"], 3);
    let (_, joined) = post(&worker, "/detokenize", &json!({"tokens": cut["tokens"]}).to_string()).await;
    assert_eq!(joined["prompt"], "hello world");
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_and_is_counted() {
    let (worker, _tasks) = start(Options { token_delay: Duration::from_secs(3600), ..Options::default() });
    for body in [STREAM, CHAT] {
        let before = worker.snapshot().aborted;
        let mut client = Client::connect(&worker).await;
        client.send(PATH, body, "").await;
        eventually(|| worker.snapshot().running == 1).await;
        drop(client);
        eventually(|| worker.snapshot().aborted == before + 1 && worker.snapshot().running == 0).await;
    }
}

#[tokio::test]
async fn time_passes_as_the_options_say() {
    let delay = Duration::from_millis(20);
    let (worker, _tasks) = start(Options { token_delay: delay, output_tokens: 4, ..Options::default() });
    let before = crate::base::clock::Clock.now();
    let (status, _) = post(&worker, PATH, CHAT).await;
    assert_eq!(status, 200);
    assert!(before.elapsed() >= 3 * delay);
}

#[tokio::test]
async fn metrics_go_by_vllms_names() {
    let (worker, _tasks) = start(Options::default());
    post(&worker, PATH, CHAT).await;
    let text = Client::connect(&worker).await.get("/metrics").await.body;
    for series in [
        "vllm:num_requests_running",
        "vllm:prefix_cache_hits_total",
        "vllm:kv_cache_usage_perc",
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"sim-model\"} 16",
        "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"sim-model\"} 1",
        "sim_aborts_total",
    ] {
        assert!(text.contains(series), "{series} is missing:\n{text}");
    }
}

#[tokio::test]
async fn every_dialect_answers_whole_and_streamed() {
    for (engine, path, body) in [
        (Personality::Vllm, "/v1/completions", r#"{"prompt":"hi"}"#),
        (Personality::Vllm, "/v1/responses", r#"{"input":"hi"}"#),
        (Personality::Vllm, "/v1/messages", r#"{"max_tokens":50,"messages":[{"role":"user","content":"hi"}]}"#),
        (Personality::Sglang, "/generate", r#"{"text":"hi","sampling_params":{"max_new_tokens":5}}"#),
        (Personality::LlamaCpp, PATH, r#"{"messages":[{"role":"user","content":"hi"}]}"#),
        (Personality::Ollama, "/api/chat", r#"{"stream":false,"messages":[{"role":"user","content":"hi"}]}"#),
        (Personality::Ollama, "/api/generate", r#"{"stream":false,"prompt":"hi"}"#),
        (Personality::TrtLlm, PATH, r#"{"messages":[{"role":"user","content":"hi"}]}"#),
    ] {
        let (worker, _tasks) = start(Options { engine, ..Options::default() });
        let (status, answer) = post(&worker, path, body).await;
        assert!(status == 200 && answer.is_object(), "{engine:?} {path}: {status} {answer}");
        let mut streamed: Value = serde_json::from_str(body).expect("json");
        streamed["stream"] = json!(true);
        let answer = Client::connect(&worker).await.post(path, &streamed.to_string()).await;
        assert!(answer.status == 200 && answer.body.lines().count() > 5, "{engine:?} {path}: {}", answer.body);
        assert_eq!(worker.snapshot().aborted, 0);
    }
}

#[tokio::test]
async fn a_worker_tells_its_state_and_what_it_saw() {
    let (worker, _tasks) = start(Options::default());
    let mut client = Client::connect(&worker).await;
    client.post(PATH, CHAT).await;
    client.post(PATH, CHAT).await;
    let state: Value = serde_json::from_str(&client.get("/sim/state").await.body).expect("json");
    assert_eq!((&state["requests"], &state["connections"], &state["running"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!(worker.requests()[1].body, CHAT);
}

#[tokio::test]
async fn a_lab_is_several_workers_that_say_different_things() {
    let lab = crate::lab::Lab::start(3, &Options { port: 0, ..Options::default() }, &Tasks::new()).expect("starts");
    let mut texts = std::collections::BTreeSet::new();
    for worker in lab.workers() {
        let (_, answer) = post(worker, PATH, CHAT).await;
        texts.insert(answer["choices"][0]["message"]["content"].to_string());
    }
    assert_eq!((texts.len(), lab.urls().len()), (3, 3));
    lab.stop();
    let address = lab.workers()[0].address();
    wire::eventually_refused(address).await;
}

mod faults;
mod vllm;
