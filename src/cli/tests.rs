//! The command lines people use keep meaning what they meant.

use super::*;
use crate::observability::golden;

fn given(line: &str) -> args::Given {
    let matches = args::command().try_get_matches_from(line.split(' ')).expect("parses");
    args::given(matches.subcommand().map_or(&matches, |(_, matches)| matches))
}

fn flags(line: &str) -> args::Flags {
    given(line).flags
}

fn flag(name: &str, values: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), values.iter().map(|it| (*it).to_owned()).collect())
}

#[test]
fn the_command_line_is_sound() {
    args::command().debug_assert();
}

#[test]
fn serve_is_what_smg_alone_does_and_has_synonyms() {
    let expected = vec![flag("port", &["1"]), flag("worker-urls", &["http://a", "http://b,http://c", "http://d"])];
    for command in ["smg", "smg launch", "smg start", "smg serve"] {
        let line = format!("{command} --worker-urls http://a http://b,http://c --port 1 --worker-urls http://d");
        assert_eq!(flags(&line), expected);
    }
}

#[test]
fn a_switch_needs_no_value_and_a_minus_one_is_a_value() {
    assert_eq!(flags("smg --log-json"), [flag("log-json", &["true"])]);
    assert_eq!(flags("smg --log-json=false"), [flag("log-json", &["false"])]);
    assert_eq!(flags("smg --max-concurrent-requests -1"), [flag("max-concurrent-requests", &["-1"])]);
    assert_eq!(flags("smg --port 1 --port 2"), [flag("port", &["2"])]);
}

#[test]
fn flags_of_the_incumbent_are_renamed_ignored_or_refused() {
    let translate = |line: &str| incumbent::translate(given(line).incumbent);
    let renamed =
        translate("smg --request-timeout-secs 30 --control-plane-api-keys a:b:admin:key1 --tenant-api-key t:key2");
    let renamed = renamed.expect("taken");
    let expected = [flag("request-timeout", &["30s"]), flag("api-key", &["t:key2", "a:b:admin:key1"])];
    assert_eq!((renamed.flags.as_slice(), renamed.warnings.len()), (expected.as_slice(), 3));
    let half = translate("smg --retry-initial-backoff-ms 0.5 --retry-max-backoff-ms 1.5s").expect("taken");
    let expected = [flag("retry-initial-backoff", &["0.5ms"]), flag("retry-max-backoff", &["1.5s"])];
    assert_eq!(half.flags, expected, "a bare number of milliseconds is never taken for seconds");
    let ignored = translate("smg --cache-threshold 0.5 --dp-aware --backend sglang").expect("taken");
    assert!(ignored.flags.is_empty() && ignored.warnings.len() == 3);
    assert!(ignored.warnings[0].starts_with("`--cache-threshold` has no effect: "), "{:?}", ignored.warnings);
    assert!(translate("smg --jwt-issuer https://idp").expect_err("refused").to_string().contains("--api-key NAME"));
}

#[test]
fn the_mesh_has_the_names_that_people_know() {
    let translated = incumbent::translate(given("smg --enable-mesh --mesh-peer-urls a:1 b:2 --mesh-port 7").incumbent);
    let expected = [flag("ha-mesh", &["true"]), flag("seeds", &["a:1", "b:2"])];
    assert_eq!(translated.expect("taken").flags, expected);
}

#[test]
fn a_mesh_without_a_secret_is_the_users_to_fix_before_anything_starts() {
    let failure = Failure::from(crate::node::Error::from(crate::node::mesh::MeshError::NoSecret));
    let Failure::Usage(error) = &failure else { panic!("exit code 2") };
    let said = error.to_string();
    assert!(
        said.contains("\n  smg mesh secret > ") && said.contains("\n  smg --ha-mesh --mesh-secret-file "),
        "{said}"
    );
}

#[test]
fn no_flag_of_the_incumbent_hides_one_of_ours() {
    let options = crate::config::Config::options();
    for flag in incumbent::FLAGS {
        assert!(!options.iter().any(|it| it.spec.flag == flag.name), "{}", flag.name);
    }
}

#[test]
fn every_replacement_that_is_named_exists() {
    let known: Vec<_> = crate::config::Config::options().iter().map(|it| it.spec.flag).collect();
    for flag in incumbent::FLAGS {
        let (incumbent::Becomes::Renamed(text, _)
        | incumbent::Becomes::Nothing(text)
        | incumbent::Becomes::Refused(text)) = flag.becomes;
        if let incumbent::Becomes::Renamed(to, _) = flag.becomes {
            assert!(known.contains(&to), "--{}: {to}", flag.name);
        }
        for named in text.split("`--").skip(1) {
            let named = named.split(['`', ' ']).next().unwrap_or_default();
            assert!(known.contains(&named), "--{}: {named}", flag.name);
        }
    }
}

#[test]
fn a_bad_option_of_a_simulated_worker_is_named_and_nothing_starts() {
    let run = |line: &str| {
        let matches = args::command().try_get_matches_from(line.split(' ')).expect("parses");
        dispatch(&matches).expect_err("refused")
    };
    let Failure::Usage(error) = run("smg sim-worker --engine nonsense") else { panic!("the user's to fix") };
    assert!(error.to_string().starts_with("command line: `--engine` is `nonsense`: expected vllm"), "{error}");
}

#[test]
fn the_reference_page_is_up_to_date() {
    golden("docs/reference/cli.md", &reference::render());
}
