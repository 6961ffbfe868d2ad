//! Simulated workers and a whole lab on one machine.
