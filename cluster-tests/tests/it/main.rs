//! One test binary: every extra one links the whole system again.
