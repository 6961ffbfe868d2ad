//! One test binary: every extra one links the whole system again.

mod bad_input;
mod faults;
mod service;
mod slow;
mod smuggling;
mod traces;
