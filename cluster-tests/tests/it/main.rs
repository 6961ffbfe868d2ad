//! One test binary: every extra one links the whole system again.

mod bad_input;
mod dialects;
mod drain;
mod durable;
mod faults;
mod field;
mod field_workers;
mod h2;
mod hostile_worker;
mod lab;
mod learned;
mod ledger;
mod load;
mod logs;
mod mesh;
mod meters;
mod meters_mesh;
mod secrets;
mod service;
mod sharing;
mod slow;
mod smuggling;
mod tenants;
mod timeouts;
mod tls;
mod traces;
