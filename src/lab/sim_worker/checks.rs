//! What vLLM refuses of what reads well, in its words; the other engines are imitated as less strict.

use serde_json::Value;
use serde_json::value::RawValue;

use super::ask::Ask;
use super::ask::Prompt;
use super::options::Personality;
use super::refusal::Refusal;
use super::shared::Shared;

/// Most alternatives told for one token (vLLM's `--max-logprobs`).
const LOGPROBS_MAX: i64 = 20;

/// Refuses values that no engine could follow.
pub(super) fn check(shared: &Shared, ask: &Ask<'_>) -> Result<(), Refusal> {
    let is_vllm = shared.options.engine == Personality::Vllm;
    let tokens = ask.max_completion_tokens.or(ask.max_tokens);
    refuse(tokens.filter(|it| *it < 1), "max_tokens must be at least 1", Some("max_tokens"))?;
    refuse(ask.temperature.filter(|it| *it < 0.0), "temperature must be non-negative", Some("temperature"))?;
    if is_vllm {
        check_ranges(shared, ask)?;
        check_forms(ask)?;
    }
    Ok(())
}

fn check_ranges(shared: &Shared, ask: &Ask<'_>) -> Result<(), Refusal> {
    let len_max = shared.options.max_model_len;
    let tokens = ask.output_max();
    let too_many = format!("max_tokens cannot be greater than max_model_len={len_max}");
    refuse(tokens.filter(|it| *it > len_max), &too_many, Some("max_tokens"))?;
    refuse(ask.temperature.filter(|it| *it > 2.0), "temperature must be in [0, 2]", Some("temperature"))?;
    refuse(ask.top_p.filter(|it| *it <= 0.0 || *it > 1.0), "top_p must be in (0, 1]", Some("top_p"))?;
    for (name, penalty) in [("presence", ask.presence_penalty), ("frequency", ask.frequency_penalty)] {
        refuse(penalty.filter(|it| it.abs() > 2.0), &format!("{name}_penalty must be in [-2, 2]"), None)?;
    }
    refuse(ask.n.filter(|it| *it == 0), "n must be at least 1", None)?;
    let least = ask.min_tokens.filter(|it| tokens.is_some_and(|most| *it > most));
    refuse(least, "min_tokens must be less than or equal to max_tokens", None)
}

fn check_forms(ask: &Ask<'_>) -> Result<(), Refusal> {
    let is_streamed = ask.stream == Some(true);
    let alone = |what: &str, needs: &str| format!("`{what}` can only be given with {needs}");
    if ask.stream_options.is_some() && !is_streamed {
        return Err(impossible(alone("stream_options", "`stream`"), Some("stream_options")));
    }
    let logprobs = ask.logprobs.map_or("null", RawValue::get);
    if ask.top_logprobs.is_some_and(|it| it > 0) && matches!(logprobs, "null" | "false") {
        return Err(impossible(alone("top_logprobs", "`logprobs`"), Some("top_logprobs")));
    }
    let asked = ask.top_logprobs.or_else(|| logprobs.parse().ok());
    refuse(asked.filter(|it| *it > LOGPROBS_MAX), "too many logprobs", Some("logprobs"))?;
    let has_tools = ask.tools.as_ref().is_some_and(|it| !it.is_empty());
    if !has_tools && ask.tool_choice.is_some_and(|it| !matches!(it.get(), "null" | "\"none\"")) {
        return Err(impossible(alone("tool_choice", "`tools`"), Some("tool_choice")));
    }
    for tool in ask.tools.iter().flatten() {
        let tool: Value = serde_json::from_str(tool.get()).unwrap_or_default();
        let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
        if is_function && tool.get("function").is_some_and(|it| it.get("name").is_none()) {
            return Err(Refusal::Missing("tools.0.function.name"));
        }
    }
    check_content(ask)
}

fn check_content(ask: &Ask<'_>) -> Result<(), Refusal> {
    let is_content = |it: &&RawValue| it.get().starts_with(['"', '[', 'n']);
    if ask.messages.iter().flatten().filter_map(|it| it.content).any(|it| !is_content(&it)) {
        return Err(Refusal::Malformed(
            "22 validation errors: body, messages: Input should be a valid string".to_owned(),
        ));
    }
    let Some(format) = ask.response_format else { return Ok(()) };
    let format: Value = serde_json::from_str(format.get()).unwrap_or_default();
    match format.get("type").and_then(Value::as_str) {
        None | Some("text" | "json_object" | "json_schema" | "structural_tag") => Ok(()),
        Some(_) => Err(Refusal::Malformed("6 validation errors: body, response_format, type".to_owned())),
    }
}

/// Gives each prompt the room that is left for its answer, which is then cut there; refuses one that leaves none.
pub(super) fn fit(shared: &Shared, prompts: &mut [Prompt]) -> Result<(), Refusal> {
    let max = shared.options.max_model_len;
    for prompt in prompts {
        if prompt.len > max {
            let message = format!(
                "This model's maximum context length is {max} tokens. However, your prompt contains {} input tokens, \
                 which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.",
                prompt.len
            );
            return Err(impossible(message, Some("input_tokens")));
        }
        prompt.room = max - prompt.len;
        refuse((prompt.room == 0).then_some(0), "max_tokens must be at least 1", Some("max_tokens"))?;
    }
    Ok(())
}

/// Refuses when there is a value to refuse.
fn refuse<T: std::fmt::Display>(bad: Option<T>, rule: &str, param: Option<&'static str>) -> Result<(), Refusal> {
    bad.map_or(Ok(()), |bad| Err(impossible(format!("{rule}, got {bad}."), param)))
}

fn impossible(message: String, param: Option<&'static str>) -> Refusal {
    Refusal::Impossible { message, param }
}
