//! What was learnt from the real vLLM (`cluster-tests/sdk/sim_vs_real.py`), held here without it.

use super::*;

const COMPLETIONS: &str = "/v1/completions";

/// The value of a series without its common labels.
async fn meter(worker: &SimWorker, series: &str) -> f64 {
    let text = Client::connect(worker).await.get("/metrics").await.body;
    let line = text.lines().find(|it| it.starts_with(series)).unwrap_or_else(|| panic!("{series} is missing:\n{text}"));
    line.rsplit(' ').next().and_then(|it| it.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_token_id_counts_as_one_token() {
    let (worker, _tasks) = start(Options::default());
    let prompt: Vec<u32> = (300..350).collect();
    let body = json!({"prompt": prompt, "max_tokens": 4, "ignore_eos": true}).to_string();
    let (_, first) = post(&worker, COMPLETIONS, &body).await;
    let (_, second) = post(&worker, COMPLETIONS, &body).await;
    assert_eq!((&first["usage"]["prompt_tokens"], &first["usage"]["total_tokens"]), (&json!(50), &json!(54)));
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 48);
}

#[tokio::test]
async fn each_prompt_of_a_list_is_answered() {
    let (worker, _tasks) = start(Options::default());
    let body = json!({"prompt": [[300, 301, 302], [400, 401]], "max_tokens": 2, "ignore_eos": true}).to_string();
    let (_, answer) = post(&worker, COMPLETIONS, &body).await;
    let indexes: Vec<_> = answer["choices"].as_array().expect("list").iter().map(|it| it["index"].clone()).collect();
    assert_eq!(indexes, [0, 1]);
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&json!(5), &json!(4)));
    assert_eq!(meter(&worker, "vllm:time_to_first_token_seconds_count").await, 2.0);
}

#[tokio::test]
async fn every_choice_counts_its_prompt() {
    let (worker, _tasks) = start(Options::default());
    let body = json!({"prompt": [300, 301, 302], "n": 2, "max_tokens": 2, "ignore_eos": true}).to_string();
    let (_, answer) = post(&worker, COMPLETIONS, &body).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(meter(&worker, "vllm:prompt_tokens_total").await, 6.0);
    assert_eq!(meter(&worker, "vllm:inter_token_latency_seconds_count").await, 2.0);
}

#[tokio::test]
async fn a_salted_prompt_is_found_by_who_has_the_salt() {
    let (worker, _tasks) = start(Options::default());
    let prompt: Vec<u32> = (300..364).collect();
    for (salt, cached) in [(None, 0), (Some("a"), 0), (Some("a"), 48), (Some("b"), 0), (None, 48)] {
        let body = json!({"prompt": prompt, "max_tokens": 1, "cache_salt": salt}).to_string();
        let (_, answer) = post(&worker, COMPLETIONS, &body).await;
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], cached, "{salt:?}");
    }
}

#[tokio::test]
async fn an_answer_ends_where_the_context_does() {
    let (worker, _tasks) = start(Options { max_model_len: 64, ..Options::default() });
    for (length, max_tokens, status, tokens) in
        [(60, 8, 200, json!(4)), (64, 1, 400, json!(null)), (10, 65, 400, json!(null))]
    {
        let body = json!({"prompt": vec![300; length], "max_tokens": max_tokens, "ignore_eos": true}).to_string();
        let (given, answer) = post(&worker, COMPLETIONS, &body).await;
        assert_eq!((given, &answer["usage"]["completion_tokens"]), (status, &tokens), "{length}");
    }
}

#[tokio::test]
async fn values_out_of_range_are_refused_with_the_field_they_are_about() {
    let (worker, _tasks) = start(Options::default());
    for (field, value, param) in [
        ("temperature", json!(3), json!("temperature")),
        ("top_p", json!(0), json!("top_p")),
        ("max_tokens", json!(-5), json!("max_tokens")),
        ("presence_penalty", json!(5), json!(null)),
        ("n", json!(0), json!(null)),
        ("stream_options", json!({"include_usage": true}), json!("stream_options")),
        ("tool_choice", json!("required"), json!("tool_choice")),
        ("top_logprobs", json!(2), json!("top_logprobs")),
        ("response_format", json!({"type": "nope"}), json!("body")),
        ("tools", json!([{"type": "function", "function": {"no": 1}}]), json!("body.tools.0.function.name")),
    ] {
        let body = json!({"messages": [{"role": "user", "content": "hi"}], field: value}).to_string();
        let (status, answer) = post(&worker, PATH, &body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &param), "{field} {answer}");
    }
}

#[tokio::test]
async fn a_tool_that_was_named_ends_with_stop_and_one_chosen_with_tool_calls() {
    let (worker, _tasks) = start(Options::default());
    let tools = json!([{"type": "function", "function": {"name": "get_weather"}}]);
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    for (choice, content, finish) in [
        (named, json!(""), "stop"),
        (json!("required"), json!(""), "tool_calls"),
        (json!("auto"), json!(null), "tool_calls"),
    ] {
        let body =
            json!({"messages": [{"role": "user", "content": "the weather"}], "tools": tools, "tool_choice": choice});
        let (_, answer) = post(&worker, PATH, &body.to_string()).await;
        let told = &answer["choices"][0];
        assert_eq!((&told["message"]["content"], &told["finish_reason"]), (&content, &json!(finish)));
    }
}

#[tokio::test]
async fn the_end_of_a_stream_is_told_apart_unless_text_comes_with_it() {
    let (worker, _tasks) = start(Options::default());
    for (options, deltas) in [
        (json!({"max_tokens": 2}), json!([{"content": "one "}, {"content": "two "}])),
        (json!({"stop": "two"}), json!([{"content": "one "}, {}])),
        (json!({"stop": "wo"}), json!([{"content": "one "}, {"content": "t"}])),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "say: one two three"}], "stream": true});
        body.as_object_mut().expect("object").extend(options.as_object().expect("object").clone());
        let events = Client::connect(&worker).await.post(PATH, &body.to_string()).await.events();
        let told: Vec<_> = events[1..].iter().map(|it| it["choices"][0]["delta"].clone()).collect();
        assert_eq!(json!(told), deltas, "{options}");
        assert!(events.last().expect("an end")["system_fingerprint"].is_string());
    }
}

#[tokio::test]
async fn what_was_computed_for_a_client_that_left_is_counted() {
    let (worker, _tasks) = start(Options { token_delay: Duration::from_millis(2), ..Options::default() });
    let mut client = Client::connect(&worker).await;
    let body = json!({"prompt": [300, 301], "max_tokens": 20_000, "ignore_eos": true, "stream": true}).to_string();
    client.send(COMPLETIONS, &body, "").await;
    client.until("\"text\"").await;
    drop(client);
    eventually(|| worker.snapshot().aborted == 1).await;
    let tokens = worker.snapshot().generation_tokens;
    assert!((1..10_000).contains(&tokens), "{tokens}");
    assert_eq!(worker.snapshot().prompt_tokens, 2);
    assert_eq!(
        meter(&worker, "vllm:request_success_total{engine=\"0\",model_name=\"sim-model\",finished_reason=\"abort\"}")
            .await,
        0.0
    );
}
