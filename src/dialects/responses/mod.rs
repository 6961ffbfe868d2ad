//! The Responses API, translated to what any worker that speaks chat completions does, and back.
//!
//! ```text
//!  create request ──▶ Create ──▶ chat request (with the context that history has)
//!                        └─────▶ the response object ◀── items ◀── Translator ◀── chat chunks, or a whole answer
//! ```
//! Pure. *Invariants.* 1. What a client asks and this cannot do is refused by name; nothing is dropped. 2. Events are numbered without a gap; each item is added, then grows, then is done, and is in the
//! final response as it was when it was done. 3. The same answer makes the same items, streamed or whole. Source: OpenAI's API reference for Responses.

mod chat;
#[cfg(test)]
pub mod checker;
mod create;
mod input;
mod object;
mod replay;
mod stream;
#[cfg(test)]
mod tests;

pub use chat::request;
pub use create::Create;
pub use create::Refused;
pub use create::included;
pub use create::is_metadata;
pub use input::Given;
pub use input::Reference;
pub use input::named;
pub use input::read as items;
pub use object::Body;
pub use object::Finished;
pub use object::event;
pub use object::shown;
pub use replay::replayed;
pub use replay::terminal;
pub use stream::Broken;
pub use stream::Translator;

use serde_json::Map;
use serde_json::Value;

/// A JSON object.
pub type Object = Map<String, Value>;

/// Makes ids: of `msg`, `fc`, `rs`, …
pub type Draw<'a> = &'a mut dyn FnMut(&'static str) -> String;
