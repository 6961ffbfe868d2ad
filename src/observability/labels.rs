//! Model names as metric labels, bounded: a name comes from outside, and each new one would be new series for ever.
//!
//! The first [`MODEL_LABELS_MAX`] names are shown as they are, later ones are counted under `other`. Readers take no
//! lock; only the first use of a name copies the table.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::encoding::LabelValueEncoder;

use crate::base::limits::MODEL_LABELS_MAX;

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
