//! Whole configurations, good and bad.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::event::Timestamp;
use crate::handler::HandlerKind;
use crate::handler::KinesisFormat;
use crate::relay_table::Start;
use crate::secret::Secret;
use crate::telemetry::LogFormat;

fn no_environment() -> Environment {
    Environment::default()
}

fn read(text: &str) -> Config {
    Config::parse(text, "test.toml", &no_environment()).unwrap()
}

/// Every problem as its line, in the order reported.
fn problems(text: &str, environment: &Environment) -> Vec<String> {
    match Config::parse(text, "test.toml", environment) {
        Err(ConfigError::Settings { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, not {other:?}"),
    }
}

fn handler(rest: &str) -> String {
    format!("[[handlers]]\nname = \"h\"\nkind = \"projector\"\nsubscribe = [{{ domain = \"*\" }}]\n{rest}\n")
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = read("");
    assert_eq!(config, Config::default());
    assert_eq!(config.storage.dynamo.table_prefix, "angzarr");
    assert_eq!(config.relay.memory_limit, 64 << 20);
    assert_eq!(config.telemetry.listen.to_string(), "0.0.0.0:9464");
}

#[test]
fn the_files_of_the_repository_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let config = Config::load(Some(&folder.join("relay.toml")), &no_environment()).unwrap();
    config.validate(&[]).unwrap();
    let names: Vec<_> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["orders-stream", "orders-search", "billing", "audit"]);

    let config = Config::load(Some(&folder.join("local.toml")), &no_environment()).unwrap();
    config.validate(&["orders-view"]).unwrap();
    assert_eq!(config.handlers.len(), 3);
}

#[test]
fn an_admin_endpoint_that_others_reach_needs_a_token() {
    let telemetry = |text: &str| {
        Config::parse(&format!("[telemetry]\n{text}"), "f", &no_environment()).map(|config| config.telemetry)
    };
    assert_eq!(telemetry("").unwrap().admin_listen.unwrap().to_string(), "127.0.0.1:9465");
    assert_eq!(telemetry("admin_listen = \"off\"").unwrap().admin_listen, None);
    assert!(telemetry("admin_listen = \"[::1]:1\"").is_ok());
    let open = "admin_listen = \"0.0.0.0:9465\"";
    let error = telemetry(open).unwrap_err().to_string();
    assert!(error.contains("telemetry.admin_listen") && error.contains("while admin_token is not set"), "{error}");
    let told = telemetry(&format!("{open}\nadmin_token = \"s3cret\"")).unwrap();
    assert_eq!(told.admin_token, Some(Secret::Literal("s3cret".to_owned())));
    assert!(!format!("{told:?}").contains("s3cret"));
    assert!(telemetry("admin_token = 5").is_err() && telemetry("admin_token = {}").is_err());
}

/// What `config/relay.toml` says in comments are the defaults is what an empty configuration holds.
#[test]
fn the_commented_keys_of_the_example_are_the_defaults() {
    let text = include_str!("../../config/relay.toml");
    let original = read(text);
    let uncommented: String = (text.lines())
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if is_setting(setting) && !setting.contains("left out: ") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(uncommented.matches("\nflush_roots").count() == 1, "nothing was uncommented");
    assert_eq!(read(&uncommented), original);
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|char| char.is_ascii_lowercase() || char == '_'))
}

#[test]
fn reads_handlers_with_the_defaults_of_their_kind_and_receiver() {
    let config = read(
        r#"
        [[handlers]]
        name = "sink"
        subscribe = [{ domain = "orders", types = ["Order*"], editions = ["v2"] }]
        kinesis = { stream = "s", format = "payload", aggregate = true }
        [[handlers]]
        name = "saga"
        kind = "saga"
        start = 2026-01-31T12:00:00Z
        retry = { initial = "1s", max = "2m" }
        subscribe = [{ domain = "orders" }]
        http = { url = "https://host/events", headers = { A = "literal", B = { env = "TOKEN" }, C = { file = "/f" } } }
        [[handlers]]
        name = "other-saga"
        kind = "saga"
        subscribe = [{ domain = "orders" }]
        jsonl = { path = "-" }
        "#,
    );
    let [sink, saga, other] = &config.handlers[..] else { panic!("three handlers") };
    assert_eq!((sink.kind, sink.start, sink.max_in_flight), (HandlerKind::Sink, Start::Beginning, 1_000));
    assert_eq!(sink.flush_interval, Duration::from_secs(1));
    assert_eq!(sink.subscribe[0].types, ["Order*"]);
    assert_eq!(sink.subscribe[0].editions, ["v2"]);
    let kinesis = KinesisReceiver {
        stream: "s".into(),
        format: KinesisFormat::Payload,
        aggregate: true,
        references_oversize: false,
    };
    assert_eq!(sink.receiver, Receiver::Kinesis(kinesis));

    assert_eq!(saga.start, Start::At(Timestamp::parse("2026-01-31T12:00:00Z").unwrap()));
    assert_eq!((saga.flush_interval, saga.max_in_flight), (Duration::ZERO, 64));
    assert_eq!((saga.retry.initial, saga.retry.max), (Duration::from_secs(1), Duration::from_mins(2)));
    assert_eq!(saga.subscribe[0], SubscriptionConfig::domain("orders"));
    assert_eq!(saga.subscribe[0].editions, ["angzarr", ""]);
    let Receiver::Http(http) = &saga.receiver else { panic!("an http receiver") };
    let headers = [
        ("A".to_owned(), Secret::Literal("literal".to_owned())),
        ("B".to_owned(), Secret::Env("TOKEN".to_owned())),
        ("C".to_owned(), Secret::File("/f".into())),
    ];
    assert_eq!(http.headers, headers);
    assert_eq!((http.timeout, http.events_per_request), (Duration::from_secs(5), 100));

    assert_eq!(other.start, Start::Latest);
    assert_eq!(other.receiver, Receiver::Jsonl(JsonlReceiver { target: JsonlTarget::Stdout }));
}

#[test]
fn reports_every_problem_at_once_with_its_path() {
    let text = r#"
        [storage]
        backend = "postgres"
        [storage.dynamo]
        table_prefix = "no spaces"
        endpoint = "localhost:8000"
        [relay]
        memory_limt = "64MiB"
        memory_limit = "1MiB"
        poll_interval_max = 5
        [telemetry]
        listen = "9464"
        log_level = "inof"
        [[handlers]]
        name = "a@b"
        kind = "saga"
        start = "yesterday"
        flush_roots = 0
        subscribe = []
        [[handlers]]
        name = "b"
        kind = "sink"
        subscribe = [{ domain = "", types = [], editions = [1] }]
        kinesis = { stream = "s" }
        http = { url = "ftp://x", timeout = "fast", batch = "yes" }
        [[handlers]]
        name = "b"
        [handler]
    "#;
    let expected = [
        r#"storage.backend: found "postgres", expected "dynamo", the only storage backend there is"#,
        r#"storage.dynamo.table_prefix: found "no spaces", expected 1 to 245 characters of a-z A-Z 0-9 _ . -"#,
        r#"storage.dynamo.endpoint: found "localhost:8000", expected a URL such as "http://"#,
        r#"relay.memory_limit: found "1MiB", expected a size with its unit, such as "64.0MiB", from 16.0MiB to 1.0TiB"#,
        r#"relay.poll_interval_max: found 5, expected a duration with its unit, such as "1s", from 50ms to 1m"#,
        "relay.memory_limt: unknown key, the nearest known key is relay.memory_limit",
        r#"telemetry.listen: found "9464", expected an address and port such as "0.0.0.0:9464""#,
        r#"telemetry.log_level: found "inof", expected off, error, warn, info, debug, trace, or a filter"#,
        r#"handlers[0].name: found "a@b", expected a name of 1 to 128 bytes, perhaps with a version such as @2"#,
        r#"handlers[0].subscribe: found an empty list, expected at least one entry such as { domain = "orders" }:"#,
        r#"handlers[0].start: found "yesterday", expected "beginning", "latest" or a time such"#,
        "handlers[0].flush_roots: found 0, expected a whole number from 1 to 100000",
        r#"handlers[1].subscribe[0].domain: found "", expected a name, in which * stands for any characters"#,
        "handlers[1].subscribe[0].types: found an empty list, expected at least one entry, a name",
        r"handlers[1].subscribe[0].editions[0]: found 1, expected an edition, in which *",
        "handlers[1]: found kinesis and http, expected exactly one of kinesis, http, jsonl",
        r#"handlers[1].http.url: found "ftp://x", expected a URL such as "http://"#,
        r#"handlers[1].http.timeout: found "fast", expected a duration with its unit, such as "5s", from 1ms to 15m"#,
        r#"handlers[1].http.batch: found "yes", expected true or false"#,
        r#"handlers[2].name: found "b" a second time, expected a name of its own"#,
        r#"handlers[2].kind: missing, expected "sink", "projector" or "saga""#,
        r#"handlers[2].subscribe: missing, expected at least one entry such as { domain = "orders" }:"#,
        "handler: unknown key, the nearest known key is handlers",
    ];
    let found = problems(text, &no_environment());
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn the_environment_goes_before_the_file() {
    let environment = Environment::new([
        ("AWS_REGION", "eu-central-1"),
        ("DYNAMO_ENDPOINT", "http://dynamo:8000"),
        ("KINESIS_ENDPOINT", "http://kinesis:4567"),
        ("DYNAMO_TABLE_PREFIX", "one"),
        ("ANGZARR_RELAY__STORAGE__DYNAMO__TABLE_PREFIX", "two"),
        ("ANGZARR_RELAY__RELAY__MEMORY_LIMIT", "128MiB"),
        ("ANGZARR_RELAY__TELEMETRY__LOG_FORMAT", "json"),
        ("ANGZARR_RELAY__HANDLERS__0__FLUSH_ROOTS", "7"),
        ("ANGZARR_RELAY__HANDLERS__0__KINESIS__AGGREGATE", "true"),
        ("ANGZARR_RELAY__HANDLERS__0__SUBSCRIBE__0__TYPES", "A*, B"),
        ("STORAGE_BACKEND", ""),
        ("ANGZARR_RELAY_LOG", "debug"),
        ("ANGZARR_RELAY_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ]);
    let text = handler("flush_roots = 5\nkinesis = { stream = \"s\" }") + "[storage.dynamo]\nregion = \"us-east-1\"\n";
    let config = Config::parse(&text, "test.toml", &environment).unwrap();
    let dynamo = &config.storage.dynamo;
    assert_eq!((dynamo.region.as_deref(), dynamo.table_prefix.as_str()), (Some("eu-central-1"), "two"));
    assert_eq!(dynamo.endpoint.as_ref().map(HttpUrl::as_str), Some("http://dynamo:8000"));
    assert_eq!(config.kinesis.endpoint.as_ref().map(HttpUrl::as_str), Some("http://kinesis:4567"));
    assert_eq!(config.relay.memory_limit, 128 << 20);
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    assert_eq!(config.handlers[0].flush_roots, 7);
    assert_eq!(config.handlers[0].subscribe[0].types, ["A*", "B"]);
    assert!(matches!(&config.handlers[0].receiver, Receiver::Kinesis(kinesis) if kinesis.aggregate));
}

#[test]
fn wrong_variables_are_named() {
    let environment = Environment::new([
        ("STORAGE_BACKEND", "redis"),
        ("ANGZARR_RELAY__RELAY__GAP_WIAT", "1s"),
        ("ANGZARR_RELAY__RELAY__MEMORY_LIMIT__X", "1"),
        ("ANGZARR_RELAY__HANDLERS__3__FLUSH_ROOTS", "7"),
        ("ANGZARR_RELAY__HANDLERS__0__FLUSH_ROOTS", "many"),
        ("ANGZARR_RELAY__", "x"),
    ]);
    let mut found = problems(&(handler("") + "[relay]\nmemory_limit = \"64MiB\"\n"), &environment);
    found.sort();
    let expected = [
        r" (from ANGZARR_RELAY__): found no such key, expected a name of the form ANGZARR_RELAY__SECTION__KEY",
        r"handlers.3.flush_roots (from ANGZARR_RELAY__HANDLERS__3__FLUSH_ROOTS): found no such key",
        r#"handlers[0].flush_roots (from ANGZARR_RELAY__HANDLERS__0__FLUSH_ROOTS): found "many", expected a "#,
        "relay.gap_wiat (from ANGZARR_RELAY__RELAY__GAP_WIAT): unknown key, the nearest known key is relay.gap_wait",
        r"relay.memory_limit.x (from ANGZARR_RELAY__RELAY__MEMORY_LIMIT__X): found no such key, exp",
        r#"storage.backend (from STORAGE_BACKEND): found "redis", expected "dynamo", the only"#,
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn numbers_and_truth_values_as_text_are_the_environments_only() {
    let found =
        problems(&handler("flush_roots = \"7\"\nhttp = { url = \"http://h\", batch = \"true\" }"), &no_environment());
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn code_is_registered_for_exactly_the_handlers_without_receiver() {
    let config = read(&(handler("") + &handler("jsonl = { path = \"-\" }").replace("\"h\"", "\"lines\"")));
    config.validate(&["h"]).unwrap();
    let text = config.validate(&["lines", "ghost"]).unwrap_err().to_string();
    let expected = "the handlers: 3 problems\
        \n  handlers[0]: missing, expected one of kinesis, http, jsonl, since this program registers no handler \"h\"\
        \n  handlers[1]: found a receiver, expected none, since this program registers a handler \"lines\"\
        \n  handlers: missing, expected an entry named \"ghost\", since this program registers a handler of that name";
    assert_eq!(text, expected);
    assert!(read("").validate(&[]).is_err(), "a relay without handlers does nothing");
}

#[test]
fn two_handlers_do_not_share_a_file() {
    let one = handler("jsonl = { path = \"/a\" }");
    let found = problems(&(one.clone() + &one.replace("\"h\"", "\"other\"")), &no_environment());
    assert_eq!(found, [r#"handlers[1].jsonl.path: found the file of handler "h", expected a file of its own"#]);
}

#[test]
fn secrets_are_shown_nowhere() {
    let http = r#"http = { url = "http://host/events?key=geheim", headers = { Authorization = "geheim" } }"#;
    let debug = format!("{:?}", read(&handler(http)));
    assert!(debug.contains("Authorization") && !debug.contains("geheim"), "{debug}");

    let wrong = [
        r#"http = { url = "http://host", headers = { A = "geheim\u0000", B = ["geheim"], "geheim?" = "x" } }"#,
        r#"http = { url = "http://h", headers = { A = { env = "X", file = "f" }, B = {}, C = { value = "geheim" } } }"#,
    ];
    for text in wrong {
        let found = problems(&handler(text), &no_environment());
        assert!(found.len() >= 3, "{found:?}");
        assert!(!found.iter().any(|problem| problem.contains("found \"geheim")), "{found:?}");
    }
    let error = Config::parse("a = 1\nb = \"geheim", "test.toml", &no_environment()).unwrap_err().to_string();
    assert!(error.starts_with("test.toml: line 2, column ") && !error.contains("geheim"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("no/such.toml")), &no_environment()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file no/such.toml");
}

proptest::proptest! {
    /// Whatever the file and a variable hold, the answer is a configuration or an error.
    #[test]
    fn outside_input_never_panics(text in "\\PC{0,80}", key in "[A-Z0-9_]{0,20}", value in "\\PC{0,20}") {
        let environment = Environment::new([(format!("ANGZARR_RELAY__{key}"), value.clone())]);
        drop(Config::parse(&text, "test.toml", &environment));
        for setting in ["start", "flush_interval", "retry.max", "flush_roots", "http.url"] {
            let quoted = format!("'{}'", value.replace('\'', ""));
            drop(Config::parse(&handler(&format!("{setting} = {quoted}")), "test.toml", &no_environment()));
        }
    }
}
