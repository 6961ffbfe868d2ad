//! The OpenAI wire API.
