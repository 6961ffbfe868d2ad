//! The HTTP edge.

pub mod config;
pub mod error;
pub mod intake;

/// The body of every response.
pub type ResponseBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>;

/// A response.
pub type Response = http::Response<ResponseBody>;

/// A body that is there already.
#[must_use]
pub fn full(bytes: bytes::Bytes) -> ResponseBody {
    use http_body_util::BodyExt as _;
    http_body_util::Full::new(bytes).boxed_unsync()
}
