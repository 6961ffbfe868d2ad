//! What watches: logs, metrics, traces. Decides nothing.

pub mod labels;
pub mod logs;
pub mod metrics;
pub mod panics;
pub mod process;
pub mod traces;

/// Compares generated text with a file of the repository; `UPDATE_EXPECT=1` writes the file instead.
#[cfg(test)]
pub fn golden(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    expect_test::expect_file![path].assert_eq(text);
}
