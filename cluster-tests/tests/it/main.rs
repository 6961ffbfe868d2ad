//! One test binary: every extra one links the whole system again.

mod bad_input;
mod faults;
mod h2;
mod service;
mod slow;
mod smuggling;
mod tls;
mod traces;
