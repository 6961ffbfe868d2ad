//! What people may rely on: precedence, origins, errors that help, and secrets that stay secret.

use proptest::prelude::*;

use super::*;
use crate::base::fuzz;
use crate::observability::golden;

fn sources(flags: &[(&str, &[&str])], env: &[(&str, &str)]) -> Sources {
    let flags =
        flags.iter().map(|(flag, values)| ((*flag).to_owned(), values.iter().map(|it| (*it).to_owned()).collect()));
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sources { flags: flags.collect(), env: env.collect(), path: None }
}

fn load(flags: &[(&str, &[&str])], env: &[(&str, &str)], file: &str) -> Loaded {
    sources(flags, env).load_text(file).map_err(|it| it.to_string()).expect("loads")
}

fn refused(flags: &[(&str, &[&str])], env: &[(&str, &str)], file: &str) -> String {
    sources(flags, env).load_text(file).err().expect("refused").to_string()
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let file = "[server]\nport = 1\nhost = \"a\"\nidle_timeout = \"5s\"\n";
    let env = [("SMG_PORT", "2"), ("SMG_HOST", "b"), ("PATH", "/bin"), ("SMG_DRAIN_TIMEOUT", "")];
    let loaded = load(&[("port", &["3"])], &env, file);
    let server = &loaded.config.server;
    assert_eq!((server.port, server.host.as_str(), server.idle_timeout.as_secs()), (3, "b", 5));
    let origins = ["port", "host", "idle-timeout", "drain-timeout"].map(|it| loaded.origin(it));
    assert_eq!(origins, [Origin::Flag, Origin::Environment, Origin::File, Origin::Default]);
}

#[test]
fn what_does_not_exist_is_refused_and_names_the_nearest() {
    for (env, file, expected) in [
        (&[][..], "[sever]\nport = 1", "file: there is no section `sever`; did you mean `server`?"),
        (&[], "port = 1", "file: there is no section `port`"),
        (&[], "[server]\nprot = 1", "file: there is no key `server.prot`; did you mean `server.port`?"),
        (&[("SMG_PROT", "1")], "", "environment: there is no variable `SMG_PROT`; did you mean `SMG_PORT`?"),
        (
            &[],
            "[[tenancy.keys]]\nnaem = \"x\"\nname = \"n\"\nkey = \"sk-12\"",
            "`tenancy.keys.naem`; did you mean `tenancy.keys.name`?",
        ),
    ] {
        let error = refused(&[], env, file);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_bad_value_is_named_with_what_was_expected_and_all_are_told_at_once() {
    let error = refused(&[("port", &["http"])], &[("SMG_QUEUE_TIMEOUT", "soon")], "[node]\nlog_json = 3");
    assert!(error.contains("command line: `--port` is `http`: expected a number from 0 to 65535"), "{error}");
    assert!(error.contains("environment: `SMG_QUEUE_TIMEOUT` is `soon`: expected a duration"), "{error}");
    assert!(error.contains("file: `node.log_json` is `3`: expected `true` or `false`"), "{error}");
}

#[test]
fn a_server_that_keeps_history_is_named_and_its_password_is_not() {
    let backend = |kind, url| refused(&[("history-backend", &[kind])], &[("SMG_HISTORY_URL", url)], "");
    for kind in ["postgres", "redis", "oracle"] {
        assert!(backend(kind, "").contains("need `--history-url`"));
        assert!(!backend(kind, "http://u:canary@h").contains("canary"));
    }
    let expected =
        if cfg!(feature = "oracle") { "must begin with `oracle://`" } else { "build with `--features oracle`" };
    assert!(backend("oracle", "http://h").contains(expected));
    assert!(backend("memory", "redis://h").contains("no server"));
    load(&[("history-backend", &["postgres"])], &[("SMG_HISTORY_URL", "postgres://u:p@h/d?sslmode=verify-full")], "");
    load(&[("history-backend", &["redis"])], &[("SMG_HISTORY_URL", "rediss://u:p@h")], "");
}

#[test]
fn no_secret_is_in_an_error_or_in_what_is_printed() {
    let canary = "canary-5f3a";
    let broken = format!("[[tenancy.keys]]\nname = \"n\"\nrole = \"root\"\nkey = \"{canary}\"");
    let syntax = format!("[tenancy]\nkeys = [\"{canary}\" \"x\"]");
    let twice = format!("[tenancy]\nkeys = [\"a:{canary}\", \"b:{canary}\"]");
    let table = format!("[tenancy]\nkeys = {{ k = \"{canary}\" }}");
    for file in [broken, syntax, twice, table] {
        let error = refused(&[], &[], &file);
        assert!(!error.contains(canary), "{error}");
    }
    let loaded = load(&[("api-key", &["ci:team:admin:canary-5f3a"])], &[], "");
    let printed = render_print(&loaded);
    assert!(printed.contains("keys = [\"ci:team:admin:***\"] # --api-key") && !printed.contains(canary), "{printed}");
    assert!(!format!("{:?}", loaded.config).contains(canary));
}

#[test]
fn keys_may_be_tables_and_lists_take_spaces_commas_and_repeats() {
    let file = "[[tenancy.keys]]\nname = \"ops\"\nrole = \"admin\"\nkey = \"sk:with:colons\"\n";
    let keys = load(&[], &[], file).config.tenancy.keys;
    assert_eq!((keys[0].tenant.as_str(), keys[0].key.expose()), ("ops", "sk:with:colons"));
    let origins: &[&str] = &["https://a", "https://b,https://c"];
    let loaded = load(&[("cors-allowed-origins", origins)], &[], "");
    assert_eq!(loaded.config.server.cors_allowed_origins.len(), 3);
}

#[test]
fn rules_between_options_are_told() {
    for (flags, expected) in [
        (("tls-cert-path", "a.pem"), "`--tls-key-path`"),
        (("prometheus-port", "30000"), "both 30000"),
        (("max-payload-size", "1GiB"), "must fit `--body-budget` 512MiB"),
        (("trace-sample-ratio", "1.5"), "from 0 to 1"),
        (("log-level", "loud=="), "`--log-level` is `loud==`"),
        (("api-key", "sk-one,sk-two"), "two keys with the name `default`"),
        (("cors-allowed-origins", "app.example"), "expected `*` or an origin"),
        (("otlp-traces-endpoint", "localhost:4317"), "http://localhost:4318"),
        (("request-timeout", "0"), "above 0"),
        (("limit-share-hold", "9s"), "`--limit-share-hold` 9s must be 10s to 24h"),
    ] {
        let error = refused(&[(flags.0, &[flags.1])], &[], "");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn limits_in_the_file_are_read_shown_and_checked() {
    let mesh = "[mesh]\nha_mesh = true\n[node]\ndata_dir = \"d\"\n";
    let table = |limit: &str| {
        format!(
            "{mesh}[[tenancy.limits]]\nof = \"model\"\nname = \"org/m:8b\"\nwhat = \"tokens\"\nper = \"minute\"\nlimit = {limit}\n"
        )
    };
    let (loaded, shown) = (load(&[], &[], &table("600")), "limits = [\"model:org/m:8b:tokens:minute:600\"] # smg.toml");
    assert_eq!(loaded.config.tenancy.limits[0].units, 600);
    let printed = render_print(&loaded);
    assert!(printed.contains(shown.trim_end_matches(" # smg.toml")), "{printed}");
    assert_eq!(diff(&loaded, &load(&[], &[], &printed)), []);
    assert_eq!(load(&[], &[], &table("0")).config.tenancy.limits[0].units, 0, "nobody may");
    for limit in ["-1", "1.5", "2147483649", "99999999999", "true", "\"many\""] {
        let error = refused(&[], &[], &table(limit));
        assert!(error.contains("`tenancy.limits`") && error.contains("whole number from 0 to 2147483648"), "{error}");
    }
    let error = refused(&[], &[], &table("1").replace("per =", "pre ="));
    assert!(error.contains("did you mean `tenancy.limits.per`?"), "{error}");
    let twice = "tenant:t:requests:minute:1,tenant:t:requests:minute:2";
    let flags = |limit| [("ha-mesh", &["true"][..]), ("limit", limit)];
    assert!(refused(&flags(&[twice]), &[], "").contains("requests per minute of tenant `t` twice"));
    let keyed =
        [("ha-mesh", &["true"][..]), ("api-key", &["ci:team:sk-one"]), ("limit", &["key:ci:requests:minute:1"])];
    let error = refused(&keyed, &[], "");
    assert!(error.contains("configured key `ci`") && error.contains("limit its tenant `team`"), "{error}");
    let alone = load(&[("limit", &["tenant:t:requests:minute:1"])], &[], "");
    assert_eq!(alone.config.tenancy.limits.len(), 1, "one node is a cluster, too");
}

#[test]
fn variables_of_a_kubernetes_service_named_smg_are_not_ours() {
    let env = [
        ("SMG_PORT", "tcp://10.0.0.7:30000"),
        ("SMG_SERVICE_HOST", "10.0.0.7"),
        ("SMG_SERVICE_PORT_HTTP", "30000"),
        ("SMG_PORT_30000_TCP_ADDR", "10.0.0.7"),
        ("SMG_WORKERS_PORT", "tcp://10.0.0.8:80"),
    ];
    assert_eq!(load(&[], &env, "").config.server.port, 30_000);
}

#[test]
fn what_is_printed_is_read_back_as_the_same_configuration() {
    let flags: &[(&str, &[&str])] =
        &[("data-dir", &["/x \"y\""]), ("queue-timeout", &["90s"]), ("log-json", &["true"])];
    let loaded = load(flags, &[], "");
    let again = load(&[], &[], &render_print(&loaded));
    assert_eq!(diff(&loaded, &again), []);
}

#[test]
fn a_reload_tells_what_is_live_and_what_needs_a_restart() {
    let old = load(&[], &[], "[tenancy]\nkeys = [\"sk-one\"]\n[server]\nport = 1");
    let new = load(&[], &[], "[tenancy]\nkeys = [\"sk-two\"]\n[server]\nport = 2\n[node]\nlog_level = \"debug\"");
    let changes: Vec<_> = diff(&old, &new).into_iter().map(|it| (it.flag, it.to, it.is_live)).collect();
    let expected = [("port", "2", false), ("api-key", "default:default:admin:***", true), ("log-level", "debug", true)];
    assert_eq!(changes, expected.map(|(flag, to, live)| (flag, to.to_owned(), live)));
}

#[test]
fn flags_are_unique() {
    let mut flags: Vec<_> = Config::options().iter().map(|it| it.spec.flag).collect();
    let all = flags.len();
    flags.sort_unstable();
    flags.dedup();
    assert_eq!(flags.len(), all);
}

#[test]
fn the_reference_page_is_up_to_date() {
    golden("docs/reference/config.md", &render_reference());
}

#[test]
fn the_examples_in_the_docs_load() {
    for file in [
        include_str!("../../docs/examples/single.toml"),
        include_str!("../../docs/examples/mixed-engines.toml"),
        include_str!("../../docs/examples/three-nodes.toml"),
    ] {
        assert_eq!(load(&[], &[], file).config.server.port, 30_000);
    }
}

#[test]
fn options_of_the_mesh_that_could_do_nothing_are_refused() {
    let said = |flags: &[(&str, &[&str])]| {
        let errors = sources(flags, &[]).load_text("").map(drop).expect_err("refused");
        errors.to_string()
    };
    assert!(said(&[("seeds", &["a:1"])]).contains("needs `--ha-mesh`"));
    for seed in ["a", "a:", ":1", "a:0", "a:70000", "::1", "http://a:1"] {
        assert!(said(&[("ha-mesh", &["true"]), ("seeds", &[seed])]).contains("expected HOST:PORT"), "{seed}");
    }
    for flags in [("data-dir", "none"), ("port", "0")] {
        assert!(said(&[("ha-mesh", &["true"]), (flags.0, &[flags.1])]).contains("needs a data directory"));
    }
    assert!(said(&[("mesh-ca-file", &["x"])]).contains("need each other"));
    let refused = said(&[("mesh-secret", &["hunter2"])]);
    assert!(refused.contains("`smg mesh secret`") && !refused.contains("hunter2"), "{refused}");
    let good: [(&str, &[&str]); 2] = [("ha-mesh", &["true"]), ("seeds", &["a:1", "[::1]:2"])];
    assert!(sources(&good, &[("SMG_MESH_SECRET", "")]).load_text("").is_ok());
}

const FILE: &str = "[server]\nport = 1\nhost = \"a\"\nidle_timeout = \"5s\"\nmax_payload_size = \"64MiB\"\n[workers]\nurls = [\"http://a:1\", \"b:2\"]\nallow_cidrs = [\"10.0.0.0/8\"]\napi_key = \"canary-5f3a\"\n\
    [routing]\npolicy = \"random\"\n[mesh]\nha_mesh = true\nseeds = [\"a:30001\"]\n[[tenancy.keys]]\nname = \"n\"\nrole = \"user\"\nkey = \"canary-5f3a-canary\"\n";

/// Part of every secret of the file.
const CANARY: &str = "canary-5f3a";

/// Whether a part of the text is the name of something in a file.
fn has_key(table: &toml::Table, part: &str) -> bool {
    table.iter().any(|(key, value)| {
        key.contains(part)
            || value.as_table().is_some_and(|it| has_key(it, part))
            || value.as_array().into_iter().flatten().filter_map(toml::Value::as_table).any(|it| has_key(it, part))
    })
}

/// Every option, and whether it is secret; those as often as all others.
fn often_secret() -> Vec<(&'static str, bool)> {
    let all: Vec<_> = Config::options().iter().map(|it| (it.spec.flag, it.spec.is_secret)).collect();
    let secret: Vec<_> = all.iter().copied().filter(|it| it.1).collect();
    assert!(!secret.is_empty(), "there are some");
    let often = secret.repeat(all.len() / secret.len());
    [all, often].concat()
}

/// Any option, given something of any kind.
fn odd_options() -> impl Strategy<Value = Vec<u8>> {
    let values = [
        "1",
        "-1",
        "1e999",
        "true",
        "1979-05-27",
        "\"canary-5f3a\"",
        "[]",
        "[[1]]",
        "[\"canary-5f3a\", [1]]",
        "{}",
        "{a = \"canary-5f3a\"}",
        "[{name = \"n\", role = \"boss\", key = \"canary-5f3a\"}]",
        "[{key = []}]",
    ];
    (any::<proptest::sample::Index>(), proptest::sample::select(values.to_vec())).prop_map(|(at, value)| {
        let options: Vec<_> =
            Config::options().into_iter().filter(|it| it.spec.is_secret || !value.contains(CANARY)).collect();
        let option = &options[at.index(options.len())];
        format!("[{}]\n{} = {value}\n", option.section, option.spec.key).into_bytes()
    })
}

proptest::proptest! {
    #![proptest_config(fuzz::config())]

    /// Every option by the environment and by a flag, and the file: taken, or an error; in neither is a secret told.
    #[test]
    fn fuzz_a_damaged_configuration_is_taken_or_refused_and_no_secret_is_told(
        file in prop_oneof![fuzz::damaged(vec![FILE.as_bytes().to_vec()]), odd_options()],
        option in proptest::sample::select(often_secret()),
        value in fuzz::damaged(["5s", "64MiB", "1", "true", "10.0.0.0/8", "a:team:user:canary-5f3a", "a:team:boss:canary-5f3a", "canary-5f3a", "http://a:1,b:2", "0.5", "random", "a*=random"].map(|it| it.as_bytes().to_vec()).into()),
    ) {
        let (file, value) = (String::from_utf8_lossy(&file), String::from_utf8_lossy(&value));
        let (option, is_secret) = option;
        for (flags, env) in [(vec![], vec![(env_name(option), value.to_string())]), (vec![(option.to_owned(), vec![value.to_string()])], vec![])] {
            let sources = Sources { flags, env, path: None };
            for text in ["", &file] {
                let said = match sources.clone().load_text(text) {
                    Ok(loaded) => render_print(&loaded),
                    Err(errors) => errors.to_string(),
                };
                // What is no option's name is told, so that it is found.
                let is_name = toml::from_str::<toml::Table>(text).is_ok_and(|it| has_key(&it, CANARY));
                let is_told = said.contains(CANARY) && !is_name && (is_secret || !value.contains(CANARY));
                proptest::prop_assert!(!is_told, "{said}");
            }
        }
    }
}
