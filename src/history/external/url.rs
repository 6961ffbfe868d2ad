//! Where a server is, as `--history-url` says it: `scheme://user:password@host:port/name?option=value&…`.

use crate::base::secret::Secret;

/// Why a URL is none. The operator's to correct; nothing was asked of any server. None of these shows the URL: a password is in it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// There is none.
    #[error(
        "`--history-backend` `postgres`, `redis` and `oracle` need `--history-url`, which says where the server is"
    )]
    Missing,
    /// It is of something else.
    #[error("`--history-url` must begin with `{0}`")]
    Scheme(&'static str),
    /// An option that has no such value.
    #[error("`--history-url` has `{name}={value}`: expected {expected}")]
    Option {
        /// Which.
        name: &'static str,
        /// What is there.
        value: String,
        /// What may be.
        expected: &'static str,
    },
    /// The rest of it is not understood.
    #[error(
        "`--history-url` is not understood: expected `{0}`; encode `@`, `:`, `/`, `?` and `%` in a password as `%40` and so on"
    )]
    Unparsed(&'static str),
    /// The file of authorities that it names.
    #[error("`--history-url` names certificates that cannot be used: `{path}`: {why}")]
    Roots {
        /// Where they are.
        path: String,
        /// What is wrong with them.
        why: NoRoots,
    },
    /// This binary was built without it.
    #[error(
        "`--history-backend` is `oracle`, and this binary was built without it: build with `--features oracle`, or choose another"
    )]
    NotBuilt,
    /// This kind has no server.
    #[error("`--history-backend` is none that has a server")]
    NoServer,
}

/// See [`InvalidUrl::Roots`].
#[derive(Debug, thiserror::Error)]
pub enum NoRoots {
    /// It cannot be read, or is not PEM.
    #[error(transparent)]
    File(#[from] rustls::pki_types::pem::Error),
    /// It has what is no authority, or nothing.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// Of nobody can be said whether he is trusted.
    #[error(transparent)]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A URL without the options that were taken out of it.
pub(super) struct Url {
    /// The rest, for a driver to read.
    pub(super) rest: String,
    options: Vec<(String, String)>,
}

impl Url {
    /// Takes these options out of it.
    pub(super) fn split(url: &Secret, names: &[&str]) -> Self {
        let (place, query) = url.expose().split_once('?').unwrap_or((url.expose(), ""));
        let (mut options, mut rest) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|it| !it.is_empty()) {
            match pair.split_once('=') {
                Some((name, value)) if names.contains(&name) => options.push((name.to_owned(), value.to_owned())),
                _ => rest.push(pair),
            }
        }
        let rest = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        Self { rest, options }
    }

    /// The last value of an option that was taken out.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|it| it.0 == name).map(|it| it.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ours_are_taken_out_and_the_rest_is_left() {
        let url = |text: &str| Url::split(&Secret::new(text), &["sslmode", "sslrootcert"]);
        let it = url("postgres://a:b@h/d?sslmode=require&application_name=x&sslrootcert=/a/b.pem");
        assert_eq!(it.rest, "postgres://a:b@h/d?application_name=x");
        assert_eq!((it.option("sslmode"), it.option("sslrootcert")), (Some("require"), Some("/a/b.pem")));
        let it = url("redis://h");
        assert_eq!((it.rest.as_str(), it.option("sslmode")), ("redis://h", None));
    }
}
