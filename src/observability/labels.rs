//! Label values, bounded in their number: enums through one macro, and model names through one table.
//!
//! `label!` makes an enum whose values print as snake_case words; there is no other way to make one, so that no series
//! ever shows a Rust name. A model's name comes from outside and each new one would be new series for ever: the first
//! [`MODEL_LABELS_MAX`] are shown as they are, later ones are counted under `other`. Readers take no lock; only the first
//! use of a name copies the table.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::encoding::LabelValueEncoder;

use crate::base::limits::MODEL_LABELS_MAX;

/// A label whose values are those of an enum. Made by `label!`.
pub trait Label: Copy + Send + Sync + 'static {
    /// All values, in order.
    const ALL: &'static [Self];
    /// As scraped.
    fn text(self) -> &'static str;
    /// Where it stands in [`Label::ALL`].
    fn index(self) -> usize;
}

/// Whether `text` is lower-case words joined by underscores.
#[must_use]
pub const fn is_snake_case(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty()
}

/// An enum that is a label: each variant says the word it is scraped, logged and shown as.
macro_rules! label {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// As a label, in headers and in logs.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl $crate::observability::labels::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn text(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl prometheus_client::encoding::EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                std::fmt::Write::write_str(encoder, self.as_str())
            }
        }

        $(const _: () = assert!($crate::observability::labels::is_snake_case($text), "a label is snake_case");)+
    };
}
pub(crate) use label;

/// What models beyond the bound are counted under.
pub const OTHER: &str = "other";

/// A model's name that may be a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelLabel(Arc<str>);

impl ModelLabel {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelLabel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl EncodeLabelValue for ModelLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

/// The names seen. One per node, shared by every area that labels by model.
#[derive(Clone, Debug, Default)]
pub struct ModelLabels(Arc<ArcSwap<HashSet<Arc<str>>>>);

impl ModelLabels {
    /// The label of `model`. Ask only for models that a worker serves, so that clients cannot use the places up.
    #[must_use]
    pub fn label(&self, model: &str) -> ModelLabel {
        if let Some(known) = self.0.load().get(model) {
            return ModelLabel(Arc::clone(known));
        }
        let name: Arc<str> = model.into();
        // Two first uses at one time: each retries on what the other stored, so none is lost and the bound holds.
        self.0.rcu(|names| {
            let mut names = HashSet::clone(names);
            if names.len() < MODEL_LABELS_MAX {
                names.insert(Arc::clone(&name));
            }
            names
        });
        ModelLabel(if self.0.load().contains(model) { name } else { OTHER.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    label! {
        /// For this test.
        enum Fruit {
            /// One word.
            Apple = "apple",
            /// Two.
            PassionFruit = "passion_fruit",
        }
    }

    #[test]
    fn a_label_knows_all_its_values_and_their_places() {
        let all: Vec<_> = Fruit::ALL.iter().map(|it| (it.index(), it.text())).collect();
        assert_eq!(all, [(0, "apple"), (1, "passion_fruit")]);
        for bad in ["", "QueueFull", "queue-full", "queue full"] {
            assert!(!is_snake_case(bad), "{bad}");
        }
    }

    #[test]
    fn clients_cannot_grow_series_beyond_the_bound() {
        let labels = ModelLabels::default();
        for n in 0..MODEL_LABELS_MAX {
            assert_eq!(labels.label(&format!("m{n}")).as_str(), format!("m{n}"));
        }
        assert_eq!(labels.label("one-too-many").as_str(), OTHER);
        assert_eq!(labels.label("m0").as_str(), "m0");
    }
}
