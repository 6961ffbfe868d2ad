//! A limit as the configuration says it: [`LimitSpec`].
//!
//! What it says is written to the rows that everybody reads (`edits::configured`); it is no second place where limits are kept.

use super::edits::is_tenant_name;
use super::quota;
use super::quota::Scope;
use super::quota::What;
use super::quota::Whose;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::setting::Expected;
use crate::base::setting::Setting;
use crate::limits::Kind;
use crate::observability::labels::Label as _;

/// So many units a window, of one key, tenant or model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    /// Whose.
    pub whose: Whose,
    /// What is counted.
    pub what: What,
    /// How many. 0: none at all.
    pub units: u64,
}

const EXPECTED: &str = "expected `WHOSE:NAME:WHAT:PER:NUMBER`, such as `tenant:team-a:requests:minute:600` or `key:ci:streams:10`; WHOSE is tenant, key or model, WHAT requests or tokens with PER second or minute, or streams without PER";

impl LimitSpec {
    fn name(scope: Scope, name: &str) -> Result<(), Expected> {
        match scope {
            Scope::Tenant if is_tenant_name(name) => Ok(()),
            Scope::Tenant => Err(format!("no tenant can have this name: `{name}`").into()),
            Scope::Key => TenantId::parse(name).map(drop).map_err(|error| format!("the name of a key: {error}").into()),
            Scope::Model => {
                ModelId::parse(name).map(drop).map_err(|error| format!("the name of a model: {error}").into())
            }
        }
    }
}

impl Setting for LimitSpec {
    const KIND: &'static str = "limit (WHOSE:NAME:WHAT:PER:NUMBER)";
    const TABLE_KEYS: &'static [&'static str] = &["of", "name", "what", "per", "limit"];

    fn parse(text: &str) -> Result<Self, Expected> {
        // Names of models may have colons; nothing else has.
        let (scope, rest) = text.split_once(':').ok_or(EXPECTED)?;
        let (rest, number) = rest.rsplit_once(':').ok_or(EXPECTED)?;
        let (name, kind, per) = match rest.strip_suffix(':').unwrap_or(rest).rsplit_once(':').ok_or(EXPECTED)? {
            (name, kind) if kind == Kind::Streams.as_str() => (name, kind, ""),
            (rest, per) => rest.rsplit_once(':').map(|(name, kind)| (name, kind, per)).ok_or(EXPECTED)?,
        };
        let scope = Scope::ALL.iter().copied().find(|it| it.as_str() == scope).ok_or(EXPECTED)?;
        Self::name(scope, name)?;
        let what = What::parse(kind, per).ok_or(EXPECTED)?;
        let units = number.parse().ok().map(|it| quota::checked(Some(it)));
        let Some(Ok(Some(units))) = units else {
            return Err(format!("`{number}`: {}", quota::InvalidQuota).into());
        };
        Ok(Self { whose: Whose { scope, name: name.into() }, what, units })
    }

    fn render(&self) -> String {
        let Self { whose: Whose { scope, name }, what, units } = self;
        let per = what.per.map_or_else(String::new, |it| format!(":{}", it.as_str()));
        format!("{}:{name}:{}{per}:{units}", scope.as_str(), what.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_and_shown_as_it_is_written() {
        for text in [
            "tenant:team-a:requests:minute:600",
            "key:ci:tokens:second:0",
            "model:org/m:8b:tokens:minute:2147483648",
            "model:org/m:8b:streams:10",
        ] {
            assert_eq!(LimitSpec::parse(text).expect("reads").render(), text);
        }
        let spec = LimitSpec::parse("model:org/m:8b:requests:second:7").expect("reads");
        assert_eq!((&*spec.whose.name, spec.units), ("org/m:8b", 7));
        let table = LimitSpec::parse("key:ci:streams::3").expect("a table without `per`");
        assert_eq!(table.render(), "key:ci:streams:3");
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_is_one() {
        let number = "a limit is a whole number from 0 to 2147483648";
        for (text, says) in [
            ("tenant:t:requests:minute:-1", number),
            ("tenant:t:requests:minute:1.5", number),
            ("tenant:t:requests:minute:2147483649", number),
            ("tenant:t:requests:minute:99999999999999999999999", number),
            ("tenant:t:requests:minute:many", number),
            ("tenant:t:requests:minute:", number),
            ("tenant:anonymous:requests:minute:1", "no tenant can have this name"),
            ("tenant::requests:minute:1", "no tenant can have this name"),
            ("key::requests:minute:1", "the name of a key"),
            ("model::requests:minute:1", "the name of a model"),
            ("user:t:requests:minute:1", "WHOSE is tenant, key or model"),
            ("tenant:t:bytes:minute:1", "WHAT requests or tokens"),
            ("tenant:t:streams:minute:1", "streams without PER"),
            ("tenant:t:requests::1", "PER second or minute"),
            ("tenant:t:streams:-1", number),
            ("tenant:t:requests:hour:1", "PER second or minute"),
            ("tenant:t:requests:1", "such as `tenant:team-a"),
            ("", "such as `tenant:team-a"),
        ] {
            let error = LimitSpec::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
