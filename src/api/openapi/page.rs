//! `docs/reference/api.md`, rendered from what the document is made of. Only the golden test renders it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use serde_json::Map;
use serde_json::Value;

use super::super::serve::refusal::BadHead;
use super::ApiError;
use super::ROUTES;
use super::errors;
use super::failures;
use super::role;
use super::schemas;

const INTRODUCTION: &str = "# API

*Generated from the route table; `make bless` rewrites it. The same as an OpenAPI 3.1 document: [openapi.json](openapi.json),
which every gateway serves at `/openapi.json`.*

Who may: *anybody*; *user*: any key of `--api-key`, in `Authorization: Bearer` or `x-api-key`, everybody while there is
none; *admin*: a key with that role, callers on the same machine while there is none.

Model routes take the headers `x-smg-routing-key` and `x-smg-target-worker` (a worker's id) and answer with `x-smg-worker`,
`x-smg-route` (`POLICY; REASON`) and `x-request-id`. Once content was sent, a failure is an error event of the dialect
and the end of the stream.
";

fn render() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n## Routes\n\n| method and path | who | takes | gives | does |\n|---|---|---|---|---|\n");
    for route in ROUTES {
        let link = |name: &str| match name {
            "" => String::new(),
            name => format!("[{name}](#{})", name.to_ascii_lowercase()),
        };
        let (takes, gives) = (link(route.takes), link(route.gives));
        let _ = writeln!(
            page,
            "| `{} {}` | {} | {takes} | {gives} | {} |",
            route.method,
            route.path,
            role(route.serve),
            route.doc
        );
    }
    page.push_str(
        "\n## Errors of each route\n\nAny other path is `unknown_url`, any other method `method_not_allowed`.\n\n",
    );
    page.push_str("| method and path | status and codes |\n|---|---|\n");
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    for route in ROUTES {
        let failures = failures(route).into_iter().map(|(status, codes)| format!("{status} `{}`", codes.join("` `")));
        let failures = failures.collect::<Vec<_>>().join(" · ");
        let name = format!("`{} {}`", route.method, route.path);
        match told.iter_mut().find(|it| it.0 == failures) {
            Some((_, names)) => names.push(name),
            None => told.push((failures, vec![name])),
        }
    }
    for (failures, names) in told.iter().filter(|it| !it.0.is_empty()) {
        let _ = writeln!(page, "| {} | {failures} |", names.join("<br>"));
    }
    page.push_str(
        "\n## Error codes\n\nEvery 429 and 503 has a `Retry-After`.\n\n| code | status | type |\n|---|---|---|\n",
    );
    for (code, (status, kind)) in all_codes() {
        let _ = writeln!(page, "| `{code}` | {} | `{kind}` |", status.as_u16());
    }
    page.push_str("\n## Schemas\n");
    for (name, schema) in schemas() {
        schema_section(&mut page, &name, &schema);
    }
    page
}

fn schema_section(page: &mut String, name: &str, schema: &Value) {
    let _ = write!(page, "\n### {name}\n\n{}\n", schema["description"].as_str().unwrap_or_default());
    if let Some([base, more]) = schema["allOf"].as_array().map(Vec::as_slice) {
        let _ = write!(page, "\nAll of {}, and:\n", kind(base));
        return fields(page, more);
    }
    fields(page, schema);
}

fn fields(page: &mut String, schema: &Value) {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    if properties.is_empty() {
        return;
    }
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    page.push_str("\n| field | type | |\n|---|---|---|\n");
    for (field, value) in properties {
        let mark = if required.contains(&field.as_str()) { "" } else { "?" };
        let doc = value["description"].as_str().unwrap_or_default();
        let _ = writeln!(page, "| `{field}`{mark} | {} | {doc} |", kind(value));
    }
}

fn kind(value: &Value) -> String {
    if let Some(name) = value["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    if value["type"] == "array" {
        return format!("list of {}", kind(&value["items"]));
    }
    let one = |it: &Value| it.as_str().unwrap_or("any").to_owned();
    match &value["type"] {
        Value::Array(kinds) => kinds.iter().map(one).collect::<Vec<_>>().join(" or "),
        kind => one(kind),
    }
}

/// Errors of no route, and of requests that never became one.
fn others() -> Vec<ApiError> {
    let heads = [BadHead::Malformed, BadHead::TooLarge, BadHead::UrlTooLong, BadHead::Late(Duration::ZERO)];
    let wrong_method = ApiError::MethodNotAllowed { given: String::new(), allowed: String::new() };
    let mut others = vec![ApiError::UnknownPath(String::new()), wrong_method];
    others.extend(heads.map(ApiError::BadHead));
    others
}

/// Every error code with its status and kind, by code.
fn all_codes() -> BTreeMap<&'static str, (StatusCode, &'static str)> {
    let of_routes = ROUTES.iter().flat_map(errors);
    of_routes.chain(others()).map(|it| it.classify()).map(|(status, kind, code)| (code, (status, kind))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::observability::golden;

    #[test]
    fn the_reference_page_and_the_document_are_up_to_date() {
        golden("docs/reference/api.md", &render());
        golden("docs/reference/openapi.json", &format!("{:#}\n", super::super::document()));
    }

    #[test]
    fn every_schema_that_is_named_exists_and_every_one_that_exists_is_named() {
        let text = super::super::document().to_string();
        let named: BTreeSet<_> =
            text.split("#/components/schemas/").skip(1).filter_map(|it| it.split('"').next()).collect();
        let schemas = schemas();
        let existing: BTreeSet<_> = schemas.keys().map(String::as_str).collect();
        assert_eq!(named, existing);
    }

    #[test]
    fn every_code_of_the_error_mapping_is_told() {
        let source = include_str!("../error.rs");
        let lines = source
            .lines()
            .filter(|it| ["StatusCode::", "_timeout\")", "const TOTAL"].iter().any(|mark| it.contains(mark)));
        let literals = lines.filter_map(|it| it.rsplit('"').nth(1));
        let is_code = |it: &&str| it.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        let mapped: BTreeSet<_> = literals.filter(is_code).filter(|it| !it.ends_with("_error")).collect();
        let told: BTreeSet<_> = all_codes().into_keys().collect();
        assert!(mapped.len() > 20, "the mapping is read: {mapped:?}");
        assert_eq!(mapped.difference(&told).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn a_route_is_in_the_table_once() {
        let keys: BTreeSet<_> = ROUTES.iter().map(|it| (it.method, it.path)).collect();
        assert_eq!(keys.len(), ROUTES.len());
    }
}
