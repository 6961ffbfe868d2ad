//! Options as one line each: the `config!` macro makes an area's `Config` struct, its defaults, its flags, environment
//! names, file keys and reference page from the same text, so that they cannot drift apart.
//!
//! An option costs one entry in its area's `config!`; flag > environment > file is decided in `config/`, not here.

use std::borrow::Cow;
use std::time::Duration;

/// What the loader, the reference page and `smg config print` know of one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Flag without dashes; `SMG_` + upper case with underscores is the environment name.
    pub flag: &'static str,
    /// Key inside the section's table of the file.
    pub key: &'static str,
    /// What it does, from the doc comment.
    pub doc: &'static str,
    /// The kind of value, for people.
    pub kind: &'static str,
    /// Whether the flag alone means `true`.
    pub is_switch: bool,
    /// Whether several values may be given (spaces, commas, repeats).
    pub is_list: bool,
    /// Whether the value must never be printed.
    pub is_secret: bool,
    /// See [`Setting::TABLE_KEYS`].
    pub table_keys: &'static [&'static str],
}

/// Why a text is no value: what was expected instead, in words for whoever wrote it. Who reads the option adds which one it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Expected(pub Cow<'static, str>);

impl From<&'static str> for Expected {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Expected {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// A value that can be read from and shown as text.
pub trait Setting: Sized {
    /// The kind of value, for people: `duration`, `number`, ...
    const KIND: &'static str;
    /// Whether the flag alone means `true`.
    const IS_SWITCH: bool = false;
    /// Whether several values may be given.
    const IS_LIST: bool = false;
    /// Whether the value must never be printed.
    const IS_SECRET: bool = false;
    /// Keys of the table form in the file, in the order in which the text form joins them with colons. Empty: no table form.
    const TABLE_KEYS: &'static [&'static str] = &[];
    /// Reads the text form.
    fn parse(text: &str) -> Result<Self, Expected>;
    /// Reads values that were given apart (an array of the file). Only lists take other than exactly one.
    fn parse_items(items: &[String]) -> Result<Self, Expected> {
        match items {
            [item] => Self::parse(item),
            _ => Err(format!("expected one {}", Self::KIND).into()),
        }
    }
    /// The text form; stars for secrets.
    fn render(&self) -> String;
}

/// One area's options as the loader sees them.
pub trait Section: Default {
    /// The table of the file, e.g. `workers`.
    const NAME: &'static str;
    /// All options, in order.
    fn options() -> &'static [OptionSpec];
    /// Sets the option named by its file key.
    fn set(&mut self, key: &str, text: &str) -> Result<(), Expected>;
    /// The same from values that were given apart, so that none of them is split again.
    fn set_items(&mut self, key: &str, items: &[String]) -> Result<(), Expected>;
    /// Shows the option named by its file key.
    fn render(&self, key: &str) -> String;
}

macro_rules! number_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const KIND: &'static str = "number";
            fn parse(text: &str) -> Result<Self, Expected> {
                text.replace('_', "").parse().map_err(|_invalid| format!("expected a number from {} to {}", <$type>::MIN, <$type>::MAX).into())
            }
            fn render(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
number_setting!(u16, u32, u64, usize, i64, f64);

impl Setting for bool {
    const KIND: &'static str = "true or false";
    const IS_SWITCH: bool = true;
    fn parse(text: &str) -> Result<Self, Expected> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("expected `true` or `false`".into()),
        }
    }
    fn render(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<Self, Expected> {
        Ok(text.to_owned())
    }
    fn render(&self) -> String {
        self.clone()
    }
}

impl Setting for crate::base::secret::Secret {
    const KIND: &'static str = "secret";
    const IS_SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, Expected> {
        Ok(Self::new(text))
    }
    fn render(&self) -> String {
        "***".to_owned()
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const IS_SECRET: bool = T::IS_SECRET;
    fn parse(text: &str) -> Result<Self, Expected> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn render(&self) -> String {
        self.as_ref().map(T::render).unwrap_or_default()
    }
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: &'static str = T::KIND;
    const IS_LIST: bool = true;
    const IS_SECRET: bool = T::IS_SECRET;
    const TABLE_KEYS: &'static [&'static str] = T::TABLE_KEYS;
    fn parse_items(items: &[String]) -> Result<Self, Expected> {
        items.iter().map(|it| T::parse(it)).collect()
    }
    fn parse(text: &str) -> Result<Self, Expected> {
        text.split([' ', ',', '\n', '\t']).filter(|it| !it.is_empty()).map(T::parse).collect()
    }
    fn render(&self) -> String {
        self.iter().map(T::render).collect::<Vec<_>>().join(",")
    }
}

/// Longest duration that is taken: it can be added to any point in time without an overflow, and nobody waits longer.
const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Durations: `250ms`, `5s`, `2m`, `1h`, or a bare number of seconds.
impl Setting for Duration {
    const KIND: &'static str = "duration (250ms, 5s, 2m, 1h)";
    fn parse(text: &str) -> Result<Self, Expected> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: f64 = digits
            .parse()
            .map_err(|_invalid| Expected::from("expected a duration such as `250ms`, `5s`, `2m` or `1h`"))?;
        let unit = match &text[digits.len()..] {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err("expected a duration in `ms`, `s`, `m` or `h`".into()),
        };
        let read = Duration::try_from_secs_f64(number * unit)
            .map_err(|_invalid| Expected::from("expected a duration that is not negative"))?;
        match read {
            it if it > DURATION_MAX => Err("expected a duration of at most ten years".into()),
            it if it.subsec_nanos() % 1_000_000 != 0 => Err("expected a duration in whole milliseconds".into()),
            it => Ok(it),
        }
    }
    fn render(&self) -> String {
        match self.as_millis() {
            ms if ms % 1000 != 0 => format!("{ms}ms"),
            ms if ms % 3_600_000 == 0 && ms > 0 => format!("{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 && ms > 0 => format!("{}m", ms / 60_000),
            ms => format!("{}s", ms / 1000),
        }
    }
}

/// A size in bytes: `64KiB`, `32MiB`, `1GiB`, or a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

impl Setting for ByteSize {
    const KIND: &'static str = "bytes (64KiB, 32MiB, 1GiB)";
    fn parse(text: &str) -> Result<Self, Expected> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: usize = digits
            .replace('_', "")
            .parse()
            .map_err(|_invalid| Expected::from("expected a size such as `64KiB` or `32MiB`"))?;
        let shift = match &text[digits.len()..] {
            "" | "B" => 0,
            "KiB" | "K" | "k" | "KB" => 10,
            "MiB" | "M" | "MB" => 20,
            "GiB" | "G" | "GB" => 30,
            _ => return Err("expected a size in `KiB`, `MiB` or `GiB`".into()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| "expected a size below 2^64".into())
    }
    fn render(&self) -> String {
        match self.0 {
            n if n >= 1 << 30 && n % (1 << 30) == 0 => format!("{}GiB", n >> 30),
            n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
            n => n.to_string(),
        }
    }
}

/// A count that may be without limit: `0`, or `-1` as other gateways write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtMost(pub usize);

impl Setting for AtMost {
    const KIND: &'static str = "number, 0 for no limit";
    fn parse(text: &str) -> Result<Self, Expected> {
        if text == "-1" { Ok(Self(0)) } else { usize::parse(text).map(Self) }
    }
    fn render(&self) -> String {
        self.0.to_string()
    }
}

/// Declares an area's `Config`: struct, defaults and [`Section`] from one text.
///
/// ```
/// smg::config! {
///     /// How the fleet is watched.
///     pub struct Config in "workers" {
///         /// Time between two probes of a worker.
///         "probe-interval" => probe_interval: std::time::Duration = std::time::Duration::from_secs(5),
///     }
/// }
/// ```
#[macro_export]
macro_rules! config {
    (
        $(#[$meta:meta])*
        pub struct $name:ident in $section:literal {
            $( $(#[doc = $doc:literal])+ $flag:literal => $key:ident : $type:ty = $default:expr ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name { $( $(#[doc = $doc])+ pub $key: $type ),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default ),* }
            }
        }

        impl $crate::base::setting::Section for $name {
            const NAME: &'static str = $section;

            fn options() -> &'static [$crate::base::setting::OptionSpec] {
                &[ $( $crate::base::setting::OptionSpec {
                    flag: $flag,
                    key: stringify!($key),
                    doc: concat!($($doc),+),
                    kind: <$type as $crate::base::setting::Setting>::KIND,
                    is_switch: <$type as $crate::base::setting::Setting>::IS_SWITCH,
                    is_list: <$type as $crate::base::setting::Setting>::IS_LIST,
                    is_secret: <$type as $crate::base::setting::Setting>::IS_SECRET,
                    table_keys: <$type as $crate::base::setting::Setting>::TABLE_KEYS,
                } ),* ]
            }

            fn set(&mut self, key: &str, text: &str) -> Result<(), $crate::base::setting::Expected> {
                match key {
                    $( stringify!($key) => self.$key = <$type as $crate::base::setting::Setting>::parse(text)?, )*
                    other => return Err(format!("no such option: {other}").into()),
                }
                Ok(())
            }

            fn set_items(&mut self, key: &str, items: &[String]) -> Result<(), $crate::base::setting::Expected> {
                match key {
                    $( stringify!($key) => {
                        self.$key = <$type as $crate::base::setting::Setting>::parse_items(items)?;
                    } )*
                    other => return Err(format!("no such option: {other}").into()),
                }
                Ok(())
            }

            fn render(&self, key: &str) -> String {
                match key {
                    $( stringify!($key) => $crate::base::setting::Setting::render(&self.$key), )*
                    _ => String::new(),
                }
            }
        }
    };
}

/// Values of an enum option with their spelling; the first spelling is the one shown.
#[macro_export]
macro_rules! named_values {
    ($type:ty, $kind:literal, $($variant:path = $name:literal $(| $alias:literal)*),+) => {
        impl $crate::base::setting::Setting for $type {
            const KIND: &'static str = $kind;
            fn parse(text: &str) -> Result<Self, $crate::base::setting::Expected> {
                match text.to_ascii_lowercase().as_str() {
                    $($name $(| $alias)* => Ok($variant),)+
                    _ => Err(concat!("expected ", $kind).into()),
                }
            }
            fn render(&self) -> String {
                match self { $($variant => $name),+ }.to_owned()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    config! {
        /// For this test.
        pub struct Example in "example" {
            /// How long.
            "wait-for" => wait: Duration = Duration::from_millis(250),
            /// Where.
            "urls" => urls: Vec<String> = Vec::new(),
        }
    }

    #[test]
    fn an_option_is_read_shown_and_described_from_one_line() {
        let mut config = Example::default();
        assert_eq!(config.render("wait"), "250ms");
        config.set("wait", "2m").expect("parses");
        config.set("urls", "a, b c").expect("parses");
        assert_eq!((config.render("wait"), config.urls.len()), ("2m".to_owned(), 3));
        assert!(config.set("wait", "soon").expect_err("refused").0.contains("250ms"));
        assert_eq!((Example::options()[0].doc.trim(), Example::options()[1].is_list), ("How long.", true));
    }

    #[test]
    fn sizes_and_durations_survive_being_shown() {
        for text in ["64KiB", "32MiB", "1GiB", "1000"] {
            assert_eq!(ByteSize::parse(text).expect("parses").render(), text);
        }
        for text in ["250ms", "5s", "2m", "1h", "0s"] {
            assert_eq!(Duration::parse(text).expect("parses").render(), text);
        }
        for bad in ["-1s", "1e19s", "100000h", "0.5ms", "", "s", "NaN", "inf"] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
        for ms in (0..5_000).chain([59_999, 3_600_000, 315_360_000_000]) {
            let given = Duration::from_millis(ms);
            assert_eq!(Duration::parse(&given.render()), Ok(given));
        }
    }
}
