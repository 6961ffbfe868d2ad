//! One test binary: every extra one links the whole system again.

mod bad_input;
mod faults;
mod meters;
mod secrets;
mod service;
mod traces;
