//! Every option of every area as one value: where the areas' `config!` tables meet.
//!
//! `load` decides flag > environment > file and keeps where each value came from; `check` holds what options must
//! satisfy between each other; `reload` says what a changed value needs; `reference` renders all of it for people.
//! Absent on purpose: anything an area knows about its own options. A new area costs one line below.

mod check;
mod error;
mod load;
mod reference;
mod reload;

pub use error::Errors;
pub use error::Problem;
pub use load::CONFIG_ENV;
pub use load::Loaded;
pub use load::Origin;
pub use load::Sources;
pub use load::env_name;
pub use reference::render_print;
pub use reference::render_reference;
pub(crate) use reference::sentence;
pub use reload::Change;
pub use reload::diff;

use crate::base::setting::OptionSpec;
use crate::base::setting::Section as _;

/// An option and the section it lives in.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Table of the file.
    pub section: &'static str,
    /// The option.
    pub spec: &'static OptionSpec,
}

macro_rules! sections {
    ($($(#[doc = $doc:literal])+ $field:ident : $type:ty,)+) => {
        /// Everything `smg` can be told, by area.
        #[derive(Clone, Debug, Default)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Config {
            /// All options, in the order of the areas.
            #[must_use]
            pub fn options() -> Vec<Named> {
                let mut all = Vec::new();
                $(all.extend(<$type>::options().iter().map(|spec| Named { section: <$type>::NAME, spec }));)+
                all
            }

            /// Names and purposes of the sections, in order.
            #[must_use]
            pub fn sections() -> &'static [(&'static str, &'static str)] {
                &[$((<$type>::NAME, concat!($($doc),+)),)+]
            }

            fn set(&mut self, option: Named, text: &str) -> Result<(), $crate::base::setting::Expected> {
                $(if option.section == <$type>::NAME { return self.$field.set(option.spec.key, text); })+
                Ok(())
            }

            fn set_items(&mut self, option: Named, items: &[String]) -> Result<(), $crate::base::setting::Expected> {
                $(if option.section == <$type>::NAME { return self.$field.set_items(option.spec.key, items); })+
                Ok(())
            }

            /// An option's value as text, stars for secrets.
            #[must_use]
            pub fn render(&self, option: Named) -> String {
                $(if option.section == <$type>::NAME { return self.$field.render(option.spec.key); })+
                String::new()
            }
        }
    };
}

sections! {
    /// The HTTP edge: where it listens, what it takes, how long it waits.
    server: crate::api::config::Config,
    /// Keys, and how much may be in flight.
    tenancy: crate::tenancy::config::Config,
    /// Which workers there are, and how they are watched.
    workers: crate::workers::config::Config,
    /// How a worker is chosen, and what follows when it fails.
    routing: crate::routing::Config,
    /// What is asked of other nodes before a worker is chosen.
    ledger: crate::ledger::Config,
    /// Limits that hold for the whole cluster.
    limits: crate::limits::Config,
    /// Responses and conversations: where they are kept, for how long, and who sees them.
    history: crate::history::config::Config,
    /// Other nodes: where they are, and who may be one.
    mesh: crate::node::mesh::config::Config,
    /// The process: data, logs, metrics, traces.
    node: crate::node::config::Config,
}

#[cfg(test)]
mod tests;
