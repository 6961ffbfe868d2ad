//! Which policy a model has: the first rule whose pattern matches its name, else the default.
//!
//! Rules are an ordered list, so that what applies can be read from top to bottom.

use crate::base::ids::ModelId;
use crate::base::setting::Expected;
use crate::base::setting::Setting;
use crate::routing::policies::PolicyName;

/// Most rules. Each model is matched against all of them once; more would be a table of models, which patterns spare.
pub const RULES_MAX: usize = 256;

/// A model's name, or part of it: `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The only way in.
    pub fn parse(text: &str) -> Result<Self, Expected> {
        ModelId::parse(text).map_err(|error| format!("expected a model's name or pattern (`llama-*`): {error}"))?;
        Ok(Self(text.to_owned()))
    }

    /// As given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a model's name fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut last = None;
        for part in parts {
            // The part before is in the middle: the leftmost place leaves most for what follows.
            if let Some(middle) = last.replace(part) {
                let Some(at) = rest.find(middle) else { return false };
                rest = &rest[at + middle.len()..];
            }
        }
        last.map_or(rest.is_empty(), |last| rest.ends_with(last))
    }
}

/// One line: models that fit have this policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which models.
    pub model: Pattern,
    /// Their policy.
    pub policy: PolicyName,
}

impl Setting for Rule {
    const KIND: &'static str = "rule (PATTERN:POLICY)";
    const TABLE_KEYS: &'static [&'static str] = &["model", "policy"];

    fn parse(text: &str) -> Result<Self, Expected> {
        // Names of models have colons, names of policies do not.
        let (model, policy) = text.rsplit_once(':').ok_or("expected `PATTERN:POLICY`, e.g. `llama-*:round_robin`")?;
        let policy = PolicyName::parse(policy).map_err(|error| error.to_string())?;
        Ok(Self { model: Pattern::parse(model)?, policy })
    }

    fn render(&self) -> String {
        format!("{}:{}", self.model.as_str(), self.policy.as_str())
    }
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Of models that no rule fits.
    pub default: PolicyName,
    /// In order; the first that fits counts.
    pub models: Vec<Rule>,
}

impl Policies {
    /// The policy of a model.
    #[must_use]
    pub fn of(&self, model: &ModelId) -> PolicyName {
        let rule = self.models.iter().find(|it| it.model.matches(model.as_str()));
        rule.map_or(self.default, |it| it.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_what_people_expect() {
        for (pattern, fits, not) in [
            ("llama", &["llama"][..], &["llama-3", "a-llama", ""][..]),
            ("llama-*", &["llama-", "llama-3"], &["llama", "a-llama-3"]),
            ("*", &["", "x"], &[]),
            ("*:latest", &["a:latest", ":latest"], &["a:latest2", "latest"]),
            ("a*b*c", &["abc", "a1b2c", "abbc", "abcbc"], &["ab", "acb", "abcd"]),
            ("a**b", &["ab", "axb"], &["a", "ba"]),
            ("ab*ba", &["abba", "abxba"], &["aba"]),
        ] {
            let pattern = Pattern::parse(pattern).expect("a pattern");
            assert!(fits.iter().all(|it| pattern.matches(it)), "{pattern:?}");
            assert!(!not.iter().any(|it| pattern.matches(it)), "{pattern:?}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_rules_survive_being_shown() {
        let rule = |text| Rule::parse(text).expect("a rule");
        let models = vec![rule("llama3:latest:random"), rule("llama*:round_robin"), rule("*:manual")];
        assert_eq!(models[0].render(), "llama3:latest:random");
        let policies = Policies { default: PolicyName::DEFAULT, models };
        let of = |name| policies.of(&ModelId::parse(name).expect("a name")).as_str();
        assert_eq!([of("llama3:latest"), of("llama-x"), of("qwen")], ["random", "round_robin", "manual"]);
        for bad in ["llama", "llama:best", ":random", ""] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
    }
}
