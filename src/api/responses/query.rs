//! What the queries and the paths of history's routes say: read, checked, and refused by name where it is not known.

use http::Request;
use http::Uri;
use serde_json::Value;
use serde_json::json;

use crate::dialects::responses::Object;
use crate::dialects::responses::Refused as Unfit;
use crate::dialects::responses::included;
use crate::history::Id;
use crate::history::machine::read::Page;

use super::super::error::ApiError;
use super::super::segment;

/// Items of a page, where it is not said.
const LIMIT: usize = 20;
/// Most of them.
const LIMIT_MAX: usize = 100;

/// The id at this place of a path, counted from 0. What is no id is of nothing that there is.
pub(in crate::api) fn id<B>(request: &Request<B>, place: usize, what: &'static str) -> Result<Id, ApiError> {
    let text = segment(request.uri().path(), place);
    Id::parse(&text).map_err(|_no_id| ApiError::NoRecord {
        what,
        id: text.chars().take(Id::LEN_MAX).collect(),
        param: None,
    })
}

/// Names and values, unescaped.
fn pairs(uri: &Uri) -> Vec<(String, String)> {
    let query = uri.query().unwrap_or_default();
    let pair = |it: &str| {
        let (name, value) = it.split_once('=').unwrap_or((it, ""));
        (unescaped(name), unescaped(value))
    };
    query.split('&').filter(|it| !it.is_empty()).map(pair).collect()
}

fn unescaped(text: &str) -> String {
    super::super::unescaped(&text.replace('+', " "))
}

fn invalid(field: &str, expected: &'static str) -> ApiError {
    Unfit::invalid(field, expected).into()
}

fn unknown(field: String) -> ApiError {
    let short: String = field.chars().take(64).collect();
    Unfit::unsupported(short, "leave it out").into()
}

/// A page that is asked for. `includes`: whether this list has an `include`.
pub(in crate::api) fn page(uri: &Uri) -> Result<Page, ApiError> {
    let mut page = Page { after: None, is_back: true, most: LIMIT };
    for (name, value) in pairs(uri) {
        match (name.as_str(), value.as_str()) {
            ("limit", value) => {
                let limit = value.parse().ok().filter(|it| (1..=LIMIT_MAX).contains(it));
                page.most = limit.ok_or_else(|| invalid("limit", "a whole number from 1 to 100"))?;
            }
            ("order", "asc") => page.is_back = false,
            ("order", "desc") => page.is_back = true,
            ("order", _) => return Err(invalid("order", "asc or desc")),
            ("after", value) => {
                page.after =
                    Some(Id::parse(value).map_err(|_no_id| invalid("after", "the id of an item of this list"))?);
            }
            ("include" | "include[]", value) => included(value)?,
            _ => return Err(unknown(name)),
        }
    }
    Ok(page)
}

/// How a response is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Showing {
    /// Event by event.
    pub is_stream: bool,
    /// Events after this one.
    pub after: Option<u64>,
}

pub(super) fn showing(uri: &Uri) -> Result<Showing, ApiError> {
    let mut showing = Showing::default();
    for (name, value) in pairs(uri) {
        match (name.as_str(), value.as_str()) {
            ("stream", "true" | "True") => showing.is_stream = true,
            ("stream", "false" | "False") => showing.is_stream = false,
            ("stream", _) => return Err(invalid("stream", "true or false")),
            ("starting_after", value) => {
                let number = value.parse().map_err(|_no_number| invalid("starting_after", "the number of an event"))?;
                showing.after = Some(number);
            }
            // Nothing is obfuscated here, which is allowed.
            ("include_obfuscation", _) => {}
            ("include" | "include[]", value) => included(value)?,
            _ => return Err(unknown(name)),
        }
    }
    if showing.after.is_some() && !showing.is_stream {
        return Err(invalid("starting_after", "left out where `stream` is not true"));
    }
    Ok(showing)
}

/// Nothing but what every route takes.
pub(in crate::api) fn none(uri: &Uri) -> Result<(), ApiError> {
    match pairs(uri).into_iter().find(|it| !matches!(it.0.as_str(), "include" | "include[]")) {
        Some((name, _)) => Err(unknown(name)),
        None => pairs(uri).iter().try_for_each(|it| Ok(included(&it.1)?)),
    }
}

/// A list as clients read it. `items`: one more than the page has, if there are more.
pub(in crate::api) fn list(mut items: Vec<Object>, most: usize) -> Value {
    let has_more = items.len() > most;
    items.truncate(most);
    let id = |it: Option<&Object>| it.and_then(|it| it.get("id")).cloned().unwrap_or_default();
    let (first, last) = (id(items.first()), id(items.last()));
    json!({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more})
}

/// A page of a list that is there as a whole, oldest first.
pub(super) fn paged(items: Vec<Object>, page: &Page) -> Result<Value, ApiError> {
    let mut items = items;
    if page.is_back {
        items.reverse();
    }
    if let Some(after) = &page.after {
        let is_after = |it: &Object| it.get("id").and_then(Value::as_str) == Some(after.as_str());
        let at = items.iter().position(is_after);
        items.drain(..=at.ok_or_else(|| invalid("after", "the id of an item of this list"))?);
    }
    Ok(list(items, page.most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/v1/x?{query}").parse().unwrap()
    }

    #[test]
    fn queries_are_read_and_what_is_not_known_is_refused_by_name() {
        let asked = page(&uri("limit=7&order=asc&after=msg_1&include[]=message.output_text.logprobs")).unwrap();
        assert_eq!(asked, Page { after: Id::parse("msg_1").ok(), is_back: false, most: 7 });
        assert_eq!(page(&uri("")).unwrap(), Page { after: None, is_back: true, most: 20 });
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("order=up", "order"),
            ("after=a%20b", "after"),
            ("before=x", "before"),
            ("include=file_search_call.results", "include"),
        ] {
            assert_eq!(page(&uri(query)).unwrap_err().text().param.as_deref(), Some(field), "{query}");
        }
        let shown = showing(&uri("stream=true&starting_after=41")).unwrap();
        assert_eq!(shown, Showing { is_stream: true, after: Some(41) });
        for query in ["stream=1", "starting_after=4", "stream=true&starting_after=-1", "x=1"] {
            assert!(showing(&uri(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn a_page_begins_behind_its_cursor_and_says_whether_there_is_more() {
        let item = |n: usize| json!({"id": format!("m{n}")}).as_object().cloned().unwrap();
        let all = || (0..5).map(item).collect::<Vec<_>>();
        let ids = |page: &Value| -> Vec<String> {
            page["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
        };
        let asked = Page { after: None, is_back: true, most: 2 };
        let first = paged(all(), &asked).unwrap();
        assert_eq!((ids(&first), &first["has_more"]), (vec!["m4".to_owned(), "m3".to_owned()], &json!(true)));
        let next = Page { after: Id::parse("m3").ok(), ..asked.clone() };
        assert_eq!(ids(&paged(all(), &next).unwrap()), ["m2", "m1"]);
        let last = Page { after: Id::parse("m1").ok(), ..asked };
        let last = paged(all(), &last).unwrap();
        assert_eq!(
            (ids(&last), &last["has_more"], &last["last_id"]),
            (vec!["m0".to_owned()], &json!(false), &json!("m0"))
        );
        assert!(paged(all(), &Page { after: Id::parse("m9").ok(), is_back: true, most: 2 }).is_err());
    }
}
