//! What can be wrong with a configuration, in sentences that name the key, the value and what was expected.
//!
//! All problems of all sources are reported together, so that one run tells everything there is to fix. The user's
//! fault, always; nothing was started. Values of secret options never appear.

use std::fmt;
use std::path::PathBuf;

use super::load::Origin;
use crate::base::setting::Expected;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{}`: {cause}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML. The line itself is not shown: it may hold a secret.
    #[error("`{}` line {line} is not TOML: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// A section, key or variable that does not exist.
    #[error("{origin}: there is no {what} `{name}`{}", hint(nearest.as_deref()))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// Section, key or variable.
        what: &'static str,
        /// As given.
        name: String,
        /// The valid one that is spelt most alike.
        nearest: Option<String>,
    },
    /// A value that is not of the option's kind.
    #[error("{origin}: `{name}` is `{value}`: {expected}")]
    BadValue {
        /// Where it stands.
        origin: Origin,
        /// The option as written there.
        name: String,
        /// As given, stars for secrets.
        value: String,
        /// What was expected.
        expected: Expected,
    },
    /// Values that are each fine but cannot stand together, or lie outside what makes sense.
    #[error("{rule}")]
    Rule {
        /// The rule with the values that break it.
        rule: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|it| format!("; did you mean `{it}`?")).unwrap_or_default()
}

/// Everything that is wrong, never empty.
#[derive(Debug)]
pub struct Errors(pub Vec<Problem>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\nsmg: " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
