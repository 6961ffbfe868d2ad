//! One test binary: every extra one links the whole system again.

mod bad_input;
mod durable;
mod faults;
mod learned;
mod logs;
mod meters;
mod secrets;
mod service;
mod traces;
