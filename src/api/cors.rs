//! Cross-origin requests from browsers: off unless origins are configured.

use http::HeaderMap;
use http::HeaderValue;
use http::header;

use super::Response;

/// The value for `access-control-allow-origin`, where the caller's origin is allowed.
#[must_use]
pub fn allowed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let is_allowed = |it: &String| it == "*" || it.as_bytes() == origin.as_bytes();
    origins.iter().any(is_allowed).then(|| origin.clone())
}

/// Lets the browser read an answer.
pub fn mark(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// The answer to a preflight request.
#[must_use]
pub fn preflight(origin: HeaderValue) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    mark(&mut response, origin);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PATCH, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, authorization"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_origins_are_let_in_and_none_by_default() {
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://a.example"))]);
        let origins = |text: &str| vec![text.to_owned()];
        assert!(allowed(&origins("https://a.example"), &headers).is_some());
        assert!(allowed(&origins("*"), &headers).is_some());
        assert!(allowed(&origins("https://b.example"), &headers).is_none());
        assert!(allowed(&[], &headers).is_none());
    }
}
