//! What options must satisfy beyond their kind: ranges, and rules between options. The one place for them.
//!
//! Each rule states what must hold and is negated once; the sentence names the flags and the values that break it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Config;
use super::error::Problem;
use crate::base::setting::Setting as _;
use crate::history::External;
use crate::history::config::Kind;
use crate::history::external::InvalidUrl;
use crate::observability::logs;
use crate::tenancy::quota::Scope;

/// Limits that one configuration names. Each is looked up once a second.
const LIMITS_LEN_MAX: usize = 1024;

/// Every rule that is broken.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut rules = Rules(Vec::new());
    server(config, &mut rules);
    timeouts(config, &mut rules);
    keys(config, &mut rules);
    node(config, &mut rules);
    limits(config, &mut rules);
    named_limits(config, &mut rules);
    mesh(config, &mut rules);
    history(config, &mut rules);
    rules.0
}

struct Rules(Vec<Problem>);

impl Rules {
    fn must(&mut self, holds: bool, rule: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Problem::Rule { rule: rule() });
        }
    }
}

fn server(config: &Config, rules: &mut Rules) {
    let it = &config.server;
    rules.must(it.tls_cert_path.is_some() == it.tls_key_path.is_some(), || {
        "`--tls-cert-path` and `--tls-key-path` need each other".to_owned()
    });
    rules.must(!it.host.is_empty(), || "`--host` must not be empty; `0.0.0.0` listens everywhere".to_owned());
    rules.must(it.max_payload_size.0 > 0, || "`--max-payload-size` must be above 0".to_owned());
    rules.must(it.max_payload_size <= it.body_budget, || {
        let (one, all) = (it.max_payload_size.render(), it.body_budget.render());
        format!("`--max-payload-size` {one} must fit `--body-budget` {all}")
    });
    rules.must(it.max_connections > 0, || "`--max-connections` must be above 0".to_owned());
    rules.must(it.threads <= 1024, || format!("`--threads` {} must be 0 to 1024", it.threads));
    for origin in &it.cors_allowed_origins {
        let is_origin = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
        rules.must(origin == "*" || is_origin, || {
            format!("`--cors-allowed-origins` has `{origin}`: expected `*` or an origin such as `https://app.example`")
        });
    }
    for name in &it.request_id_headers {
        rules.must(http::HeaderName::try_from(name.as_str()).is_ok(), || {
            format!("`--request-id-headers` has `{name}`: expected the name of a header")
        });
    }
}

fn timeouts(config: &Config, rules: &mut Rules) {
    let it = &config.server;
    for (flag, value) in [
        ("request-timeout", it.request_timeout),
        ("first-token-timeout", it.first_token_timeout),
        ("idle-timeout", it.idle_timeout),
        ("head-timeout", it.head_timeout),
        ("keep-alive-timeout", it.keep_alive_timeout),
        ("client-write-timeout", it.client_write_timeout),
        ("body-idle-timeout", it.body_idle_timeout),
        ("body-timeout", it.body_timeout),
    ] {
        rules.must(value > Duration::ZERO, || format!("`--{flag}` must be above 0"));
    }
    // Others may be longer than the whole: then the whole ends the request, and people who only lower it are not stopped.
    rules.must(it.request_timeout <= Duration::from_secs(7 * 86_400), || {
        format!("`--request-timeout` {} must be at most 7 days", it.request_timeout.render())
    });
}

fn keys(config: &Config, rules: &mut Rules) {
    let mut names = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for spec in &config.tenancy.keys {
        rules.must(names.insert(spec.name.as_str()), || {
            format!("`--api-key` has two keys with the name `{}`: give each a name, `NAME:KEY`", spec.name)
        });
        rules.must(keys.insert(spec.key.expose()), || {
            format!("`--api-key` has the key of `{}` twice: one key stands for one name", spec.name)
        });
    }
}

fn node(config: &Config, rules: &mut Rules) {
    let it = &config.node;
    let (port, metrics) = (config.server.port, it.prometheus_port);
    rules.must(port == 0 || port != metrics, || {
        format!("`--port` and `--prometheus-port` are both {port}: they need two ports")
    });
    rules.must((0.0..=1.0).contains(&it.trace_sample_ratio), || {
        format!("`--trace-sample-ratio` {} must be from 0 to 1", it.trace_sample_ratio)
    });
    rules.must(logs::parse_level(&it.log_level).is_ok(), || {
        let expected =
            "expected `error`, `warn`, `info`, `debug`, `trace` or directives such as `info,smg::workers=debug`";
        format!("`--log-level` is `{}`: {expected}", it.log_level)
    });
    if let Some(endpoint) = &it.otlp_traces_endpoint {
        rules.must(endpoint.starts_with("http://"), || {
            format!("`--otlp-traces-endpoint` is `{endpoint}`: expected OTLP/HTTP, such as `http://localhost:4318`")
        });
    }
}

fn limits(config: &Config, rules: &mut Rules) {
    let hold = config.limits.limit_share_hold;
    // The control group is without a leader for up to four seconds when one is lost; clocks drift apart by less than the margin in a day.
    rules.must((Duration::from_secs(10)..=Duration::from_secs(86_400)).contains(&hold), || {
        format!("`--limit-share-hold` {} must be 10s to 24h", hold.render())
    });
}

fn named_limits(config: &Config, rules: &mut Rules) {
    let named = &config.tenancy.limits;
    rules.must(named.len() <= LIMITS_LEN_MAX, || {
        format!(
            "`--limit` has {} limits: expected {LIMITS_LEN_MAX} at most, set more with `smg tenants set-limit`",
            named.len()
        )
    });
    let mut seen = BTreeSet::new();
    for limit in named {
        rules.must(seen.insert((limit.whose.to_string(), limit.what)), || {
            format!("`--limit` has {} of {} twice: one of them is to go", limit.what, limit.whose)
        });
        let configured =
            config.tenancy.keys.iter().find(|it| limit.whose.scope == Scope::Key && *it.name == *limit.whose.name);
        rules.must(configured.is_none(), || {
            let tenant = configured.map(|it| it.tenant.to_string()).unwrap_or_default();
            format!("`--limit` names the configured {}: limit its tenant `{tenant}`, or make the key with `smg keys add`, since a configured key is of this node alone", limit.whose)
        });
    }
}

fn mesh(config: &Config, rules: &mut Rules) {
    let it = &config.mesh;
    rules.must(it.ha_mesh || it.seeds.is_empty(), || "`--seeds` needs `--ha-mesh`".to_owned());
    let files = [&it.mesh_ca_file, &it.mesh_cert_file, &it.mesh_key_file].map(|it| it.is_some());
    rules.must(files == [true; 3] || files == [false; 3], || {
        "`--mesh-ca-file`, `--mesh-cert-file` and `--mesh-key-file` need each other".to_owned()
    });
    let has_secret = !it.mesh_secret.is_empty() || it.mesh_secret_file.is_some();
    rules.must(files == [false; 3] || !has_secret, || {
        "a mesh has either a secret or certificate files: `--mesh-cert-file` excludes `--mesh-secret`".to_owned()
    });
    let has_place = match config.node.data_dir.as_deref() {
        Some("none") => false,
        Some(_) => true,
        None => config.server.port != 0,
    };
    rules.must(!it.ha_mesh || has_place, || {
        "`--ha-mesh` needs a data directory, which holds who this node is: name one with `--data-dir`".to_owned()
    });
    for seed in &it.seeds {
        let parts = seed.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains("://"));
        let is_host = |host: &str| !host.contains(':') || host.starts_with('[') && host.ends_with(']');
        let is_seed = parts.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|it| it > 0));
        rules.must(is_seed, || format!("`--seeds` has `{seed}`: expected HOST:PORT such as `10.0.0.2:30001`"));
    }
}

fn history(config: &Config, rules: &mut Rules) {
    let it = &config.history;
    match it.history_backend {
        kind @ (Kind::Postgres | Kind::Redis | Kind::Oracle) => {
            let url = it.history_url.as_ref().ok_or(InvalidUrl::Missing);
            let checked = url.and_then(|url| External::check(kind, url));
            if let Err(why) = checked {
                rules.must(false, || why.to_string());
            }
        }
        kind @ (Kind::Raft | Kind::Memory | Kind::None) => rules.must(it.history_url.is_none(), || {
            let kind = kind.render();
            format!("`--history-url` is set, and `--history-backend` is `{kind}`, which has no server: set one of the two otherwise")
        }),
    }
}
