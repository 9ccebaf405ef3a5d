//! The commands that talk to the tables, as an operator meets them: the built binary against the embedded pair.
//!
//! What each prints when something is wrong is a promise: one line on stderr that says what and what to do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use angzarr_relay::aws::DYNAMODB_ATTEMPTS_MAX;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedKinesis, KinesisOptions};
use angzarr_relay::storage::{Advance, DynamoPositions, PositionStore as _};
use angzarr_relay::time::Clock;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::embedded::{clients, root, tables};
use crate::support::free_port;

/// The environment that could point a command anywhere else.
const AWS_VARIABLES: [&str; 8] = [
    "STORAGE_BACKEND",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "DYNAMO_TABLE_PREFIX",
    "DYNAMO_ENDPOINT",
    "KINESIS_ENDPOINT",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
];

/// A configuration in a folder of its own, and commands under it.
struct Operator {
    folder: TempDir,
    config: PathBuf,
    /// Over the dummy credentials; an empty value takes a variable away.
    environment: Vec<(&'static str, &'static str)>,
}

#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Operator {
    fn new(dynamodb: &str, kinesis: &str, handlers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("relay config.toml");
        let text = format!(
            "[storage.dynamo]\nregion = \"us-east-1\"\ntable_prefix = \"shop\"\nendpoint = \"{dynamodb}\"\n\
             [kinesis]\nendpoint = \"{kinesis}\"\n{handlers}"
        );
        std::fs::write(&config, text).unwrap();
        Self { folder, config, environment: vec![] }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_angzarr-relay"));
        for variable in AWS_VARIABLES {
            command.env_remove(variable);
        }
        let nowhere = self.folder.path().join("none");
        command
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", &nowhere)
            .env("AWS_SHARED_CREDENTIALS_FILE", &nowhere);
        for (variable, value) in &self.environment {
            if value.is_empty() {
                command.env_remove(variable)
            } else {
                command.env(variable, value)
            };
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        self.feed(arguments, b"")
    }

    /// Runs a command with so much on its standard input.
    fn feed(&self, arguments: &[&str], input: &[u8]) -> Answer {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(&self.config);
        answer(command, input)
    }

    /// Runs a command line as it was printed, by a shell that knows this program under its name.
    fn paste(&self, line: &str) -> Answer {
        let binary = Path::new(env!("CARGO_BIN_EXE_angzarr-relay"));
        let environment: Vec<_> =
            self.command().get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
        let mut shell = Command::new("bash");
        for (variable, value) in environment {
            match value {
                Some(value) => shell.env(variable, value),
                None => shell.env_remove(variable),
            };
        }
        let path = std::env::join_paths(
            [binary.parent().unwrap().to_owned()]
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        );
        shell.env("PATH", path.unwrap()).args(["-c", line]);
        answer(shell, b"")
    }

    fn doctor(&self) -> (Option<i32>, Value) {
        let answer = self.run(&["doctor", "--json"]);
        let report = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        (answer.code, report)
    }
}

fn answer(mut command: Command, input: &[u8]) -> Answer {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that fails before it reads closes its end.
    child.stdin.take().unwrap().write_all(input).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Answer {
    /// It worked; what it printed.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// It failed with one line, which holds all of `parts`; the line.
    #[track_caller]
    fn failed(self, parts: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing in {self:?}");
        }
        self.stderr
    }
}

/// The findings of one check.
fn findings<'r>(report: &'r Value, check: &str) -> Vec<&'r Value> {
    let all = report["findings"].as_array().unwrap();
    all.iter().filter(|finding| finding["check"] == check).collect()
}

/// The only finding of one check: its verdict, and the command that mends it.
#[track_caller]
fn verdict<'r>(report: &'r Value, check: &str) -> (&'r str, Option<&'r str>) {
    let found = findings(report, check);
    assert_eq!(found.len(), 1, "{check}: {report:#}");
    (found[0]["verdict"].as_str().unwrap(), found[0]["mend"].as_str())
}

struct Services {
    dynamodb: EmbeddedDynamo,
    kinesis: EmbeddedKinesis,
}

impl Services {
    fn start() -> Self {
        let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
        Self { dynamodb: EmbeddedDynamo::start(None).unwrap(), kinesis }
    }

    fn operator(&self, handlers: &str) -> Operator {
        Operator::new(self.dynamodb.endpoint(), self.kinesis.endpoint(), handlers)
    }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn tables_are_created_once_and_described() {
    let services = Services::start();
    let operator = services.operator("");

    let missing = operator.run(&["tables", "describe"]);
    assert!(missing.stdout.contains("shop-events"), "{missing:?}");
    missing.failed(&["4 of 4 tables are not as they must be", "angzarr-relay --config '"]);

    let created = operator.run(&["tables", "create"]);
    for part in ["shop-events: creating", "shop-relay: ready"] {
        assert!(created.stderr.contains(part), "{created:?}");
    }
    assert_eq!(created.good(), "the tables `shop-*` are ready\n");

    let again = operator.run(&["tables", "create"]);
    assert!(again.stderr.contains("shop-events: is there") && !again.stderr.contains("creating"), "{again:?}");
    again.good();

    let table = operator.run(&["tables", "describe"]).good();
    assert_eq!(table.lines().count(), 5, "{table}");
    let described = json_lines(&operator.run(&["tables", "describe", "--json"]).good());
    let events = described.iter().find(|table| table["table"] == "shop-events").unwrap();
    assert_eq!((&events["status"], &events["stream"]["view_type"]), (&json!("ACTIVE"), &json!("NEW_IMAGE")));
}

/// A table with a key of one attribute, `pk` N: no table of this program.
async fn create_other(aws: &aws_sdk_dynamodb::Client, name: &str) {
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash).build().unwrap();
    let attribute = AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::N).build();
    let request = aws.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    request.key_schema(key).attribute_definitions(attribute.unwrap()).send().await.unwrap();
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused() {
    let services = Services::start();
    let operator = services.operator("");
    let aws = clients(Some(services.dynamodb.endpoint()), None).await;
    create_other(&aws.dynamodb, "shop-positions").await;

    let differs = "the partition key is pk (N), not pk (S)";
    operator.run(&["tables", "create"]).failed(&["shop-positions", differs]);
    let described = operator.run(&["tables", "describe"]);
    assert!(described.stdout.contains(differs), "{described:?}");
    assert_eq!(described.code, Some(1));
    let (code, report) = operator.doctor();
    assert_eq!(code, Some(1));
    assert_eq!(verdict(&report, "table `shop-positions`"), ("wrong", None));
}

#[test]
fn an_event_is_appended_and_read() {
    let services = Services::start();
    let operator = services.operator("");
    operator.run(&["tables", "create"]).good();

    let arguments = ["append", "orders", "o 1", "--type", "OrderPlaced", "--correlation-id", "c-1", "--expected", "0"];
    let appended = operator.feed(&arguments, b"{\"total\": 12}\n").good();
    assert_eq!(appended, "appended sequence 0 to orders#angzarr#o 1\n");
    let file = operator.folder.path().join("payload");
    std::fs::write(&file, b"\x00\xff").unwrap();
    let file = file.to_str().unwrap();
    operator.run(&["append", "orders", "o 1", "--type", "OrderShipped", "--next", "--file", file]).good();

    let table = operator.run(&["read", "orders", "o 1"]).good();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for (line, parts) in [
        (lines[0], &["SEQUENCE", "PAYLOAD"][..]),
        (lines[1], &["0  ", "OrderPlaced", "c-1", "{\"total\": 12}"]),
        (lines[2], &["1  ", "OrderShipped", "(binary)"]),
    ] {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }

    let events = json_lines(&operator.run(&["read", "orders", "o 1", "--json", "--consistent"]).good());
    let first = events[0].as_object().unwrap();
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let expected =
        ["correlation_id", "created_at", "domain", "edition", "event_type", "payload_base64", "root", "sequence"];
    assert_eq!(names, expected);
    assert_eq!((&first["sequence"], &first["root"]), (&json!(0), &json!("o 1")));
    assert_eq!(first["payload_base64"], "eyJ0b3RhbCI6IDEyfQo=");
    assert_eq!((&events[1]["payload_base64"], &events[1]["correlation_id"]), (&json!("AP8="), &Value::Null));

    let page = operator.run(&["read", "orders", "o 1", "--limit", "1", "--json"]);
    assert!(page.stderr.contains("--from 1"), "{page:?}");
    assert_eq!(json_lines(&page.good()).len(), 1);
    let rest = json_lines(&operator.run(&["read", "orders", "o 1", "--from", "1", "--json"]).good());
    assert_eq!(rest, events[1..]);
    let none = operator.run(&["read", "orders", "nobody"]);
    assert_eq!((none.stdout.as_str(), none.stderr.lines().count()), ("", 1), "{none:?}");
    none.good();
}

#[test]
fn a_lost_race_says_both_sequences_and_the_command_to_look() {
    let services = Services::start();
    let operator = services.operator("");
    operator.run(&["tables", "create"]).good();
    let append = |expected: &str| {
        let arguments = ["append", "orders", "it's 1", "--edition", "", "--type", "T", "--expected", expected];
        operator.feed(&arguments, b"first")
    };
    append("0").good();
    append("1").good();
    let line = append("1").failed(&["begin at sequence 1", "ends at 1 already", "nothing was written"]);
    let command = line.split('`').nth(1).unwrap();
    let seen = operator.paste(command).good();
    assert_eq!(seen.lines().count(), 2, "the heading, and the event that was first: {seen}");

    append("7").failed(&["begin at sequence 7", "no event 6", "nothing was written"]);
    let next = ["append", "orders", "large", "--type", "T", "--next"];
    let too_large = vec![b'x'; (64 << 20) + 1];
    operator.feed(&next, &too_large).failed(&["angzarr-relay: ", "more than 67108864"]);
    assert_eq!(operator.run(&["read", "orders", "large"]).good(), "");
    let large = vec![b'x'; 500 << 10];
    operator.feed(&next, &large).good();
    assert!(operator.run(&["read", "orders", "large"]).good().contains("512000  (in 2 chunks)"));
    let event = json_lines(&operator.run(&["read", "orders", "large", "--json"]).good()).remove(0);
    assert_eq!(STANDARD.decode(event["payload_base64"].as_str().unwrap()).unwrap(), large);
    operator
        .run(&["append", "orders", "1", "--type", "T", "--next", "--file", "no such file"])
        .failed(&["no such file"]);
}

const HANDLERS: &str = "
    [[handlers]]
    name = \"orders-view\"
    subscribe = [{ domain = \"orders\" }]
    jsonl = { path = \"-\" }
    [[handlers]]
    name = \"billing\"
    subscribe = [{ domain = \"orders\" }]
    jsonl = { path = \"-\" }";

#[tokio::test]
async fn positions_are_shown_by_handler_and_by_root() {
    let services = Services::start();
    let operator = services.operator(HANDLERS);
    operator.run(&["tables", "create"]).good();
    let by_handler = ["positions", "--handler", "orders-view"];
    let empty = operator.run(&by_handler);
    assert_eq!((empty.stdout.as_str(), empty.stderr.lines().count()), ("", 1), "{empty:?}");
    empty.good();

    let aws = clients(Some(services.dynamodb.endpoint()), None).await;
    let names = tables(&aws, "shop").await;
    let store = DynamoPositions::new(&aws, &names.positions, Clock::system());
    for (handler, id, to) in [("orders-view", "1", 4), ("orders-view", "2", 0), ("removed", "1", 9)] {
        let advance = Advance { root: root(id), from: None, to: angzarr_relay::event::Sequence(to) };
        for outcome in store.advance(&HandlerName::new(handler).unwrap(), &[advance]).await {
            outcome.unwrap();
        }
    }

    let mut rows = json_lines(&operator.run(&[&by_handler[..], &["--json"]].concat()).good());
    rows.sort_by_key(|row| row["root"].to_string());
    let shown: Vec<_> = rows.iter().map(|row| (row["root"].as_str().unwrap(), row["sequence"].as_u64())).collect();
    assert_eq!(shown, [("1", Some(4)), ("2", Some(0))]);
    assert!(rows.iter().all(|row| row["handler"] == "orders-view" && row["updated_at"].is_string()), "{rows:?}");

    let by_root = ["positions", "--root", "orders", "angzarr", "1", "--json"];
    let rows = json_lines(&operator.run(&by_root).good());
    let shown: Vec<_> = rows.iter().map(|row| (row["handler"].as_str().unwrap(), row["sequence"].as_u64())).collect();
    assert_eq!(shown, [("orders-view", Some(4)), ("billing", None)], "every configured handler");
    let rows = json_lines(&services.operator("").run(&by_root).good());
    assert_eq!(rows.len(), 2, "nothing is configured, so all handlers there are: {rows:?}");
    let both = ["positions", "--handler", "removed", "--root", "orders", "angzarr", "1"];
    let table = operator.run(&both).good();
    assert!(table.lines().count() == 2 && table.contains("removed") && table.contains(" 9 "), "{table}");

    let (code, report) = operator.doctor();
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(verdict(&report, "positions"), ("note", None));
    assert!(findings(&report, "positions")[0]["text"].as_str().unwrap().starts_with("`removed` "), "{report:#}");
}

/// Every command that needs the tables.
const COMMANDS: [&[&str]; 6] = [
    &["tables", "create"],
    &["tables", "describe"],
    &["append", "orders", "1", "--type", "T", "--next"],
    &["append", "orders", "1", "--type", "T", "--expected", "0"],
    &["read", "orders", "1"],
    &["positions", "--handler", "h"],
];

/// Those that are about configured handlers.
const HANDLER_COMMANDS: [&[&str]; 10] = [
    &["parked", "list"],
    &["parked", "show", "billing", "orders", "1"],
    &["parked", "release", "billing", "--all"],
    &["parked", "skip", "billing", "orders", "1"],
    &["pause", "billing"],
    &["rewind", "billing", "--to", "0"],
    &["versions", "list"],
    &["backfill", "status"],
    &["backfill", "plan", "--handler", "billing"],
    &["audit"],
];

#[test]
fn an_endpoint_that_is_down_is_one_clear_line() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let operator = Operator::new(&endpoint, &endpoint, HANDLERS);
    for command in COMMANDS.into_iter().chain(HANDLER_COMMANDS) {
        let line = operator.run(command).failed(&[
            &format!("cannot connect to DynamoDB at {endpoint}: connection refused"),
            "check that DynamoDB runs there, and storage.dynamo.endpoint (DYNAMO_ENDPOINT)",
        ]);
        assert!(!line.contains("tcp connect"), "the SDK's own wrapping is left out: {line}");
    }
    let (code, report) = operator.doctor();
    assert_eq!(code, Some(1));
    assert_eq!(verdict(&report, "credentials").0, "wrong");
    assert!(findings(&report, "table `shop-events`").is_empty(), "what does not answer is asked once: {report:#}");
}

/// Accepts connections, counts them and closes them: a DynamoDB that can be connected to and never answers.
async fn mute(listener: TcpListener, accepted: Arc<AtomicU32>) {
    while let Ok((connection, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        drop(connection);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_command_gives_up_after_a_few_attempts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicU32::new(0));
    let server = tokio::spawn(mute(listener, Arc::clone(&accepted)));
    let operator = Operator::new(&endpoint, &endpoint, "");
    for command in COMMANDS {
        let answer = tokio::task::block_in_place(|| operator.run(command));
        answer.failed(&[&format!("DynamoDB at {endpoint} closed the connection"), "storage.dynamo.endpoint"]);
        let attempts = accepted.swap(0, Ordering::SeqCst);
        assert!((1..=DYNAMODB_ATTEMPTS_MAX).contains(&attempts), "{command:?}: {attempts} attempts");
    }
    server.abort();
}

/// Answers every request with an error of DynamoDB's.
async fn refusing(listener: TcpListener, code: &'static str, message: &'static str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let body = json!({ "__type": format!("com.amazon.coral.service#{code}"), "message": message }).to_string();
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close\r\n";
    let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    while let Ok((mut connection, _)) = listener.accept().await {
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        // The requests of these commands are short: head and body are there when the body's last brace is.
        while !request.ends_with(b"}") {
            match connection.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(read) => request.extend_from_slice(&part[..read]),
            }
        }
        connection.write_all(answer.as_bytes()).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refused_credentials_and_permissions_are_one_clear_line() {
    for (code, message, parts) in [
        (
            "ExpiredTokenException",
            "The security token is expired",
            &["refuses the AWS credentials", "expired", "renew"][..],
        ),
        ("UnrecognizedClientException", "The security token is invalid", &["refuses the AWS credentials", "invalid"]),
        ("AccessDeniedException", "User u is not authorized", &["access denied: dynamodb:", "on shop-", "IAM policy"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(refusing(listener, code, message));
        let operator = Operator::new(&endpoint, &endpoint, "");
        for command in COMMANDS {
            tokio::task::block_in_place(|| operator.run(command)).failed(parts);
        }
        let (exit, report) = tokio::task::block_in_place(|| operator.doctor());
        assert_eq!((exit, verdict(&report, "credentials").0), (Some(1), "wrong"), "{report:#}");
        server.abort();
    }
}

#[test]
fn missing_credentials_region_and_tables_are_one_clear_line() {
    // A name that is never resolved: the credentials are asked for first. On loopback there would be dummies.
    let mut operator = Operator::new("http://dynamodb.invalid", "http://kinesis.invalid", "");
    operator.environment = vec![("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    for command in COMMANDS {
        operator.run(command).failed(&["no AWS credentials were found", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"]);
    }

    std::fs::write(&operator.config, "").unwrap();
    operator.environment = vec![];
    for command in COMMANDS {
        operator.run(command).failed(&["no AWS region is configured", "storage.dynamo.region", "AWS_REGION"]);
    }
    let (code, report) = operator.doctor();
    assert_eq!((code, verdict(&report, "region")), (Some(1), ("wrong", None)), "{report:#}");

    let services = Services::start();
    let operator = services.operator("");
    for command in &COMMANDS[2..] {
        operator.run(command).failed(&[
            "the table `shop-",
            "does not exist",
            "create it with `angzarr-relay --config '",
        ]);
    }
}

#[test]
fn doctor_finds_what_is_wrong_and_its_own_command_mends_it() {
    let services = Services::start();
    let port = free_port();
    let handlers = format!(
        r#"
        [[handlers]]
        name = "stream"
        subscribe = [{{ domain = "*" }}]
        kinesis = {{ stream = "orders" }}
        [[handlers]]
        name = "http"
        kind = "sink"
        subscribe = [{{ domain = "*" }}]
        http = {{ url = "http://127.0.0.1:{port}/?key=hidden", headers = {{ A = {{ env = "NOT_SET_ANYWHERE" }} }} }}
        [[handlers]]
        name = "file"
        subscribe = [{{ domain = "*" }}]
        jsonl = {{ path = "/no/such/folder/a.jsonl" }}"#
    );
    let operator = services.operator(&handlers);
    let (code, report) = operator.doctor();
    assert_eq!((code, &report["ok"]), (Some(1), &json!(false)));
    assert_eq!(verdict(&report, "configuration"), ("ok", None));
    assert_eq!(verdict(&report, "credentials"), ("ok", None));
    let (found, create) = verdict(&report, "table `shop-events`");
    assert_eq!(found, "wrong");
    let (found, stream) = verdict(&report, "handler `stream`");
    let expected = format!(
        "aws kinesis create-stream --stream-name orders --stream-mode-details StreamMode=ON_DEMAND --region us-east-1 \
         --endpoint-url {}",
        services.kinesis.endpoint()
    );
    assert_eq!((found, stream), ("wrong", Some(expected.as_str())));
    assert_eq!(verdict(&report, "handler `file`"), ("wrong", Some("mkdir -p /no/such/folder")));
    let http = findings(&report, "handler `http`");
    assert!(http.len() == 2 && http.iter().all(|finding| finding["verdict"] == "wrong"), "{http:#?}");
    assert!(!report.to_string().contains("hidden"), "a URL's query may be a secret");

    operator.paste(create.unwrap()).good();
    let (code, report) = operator.doctor();
    assert_eq!(code, Some(1), "the handlers are as they were");
    for check in ["table `shop-events`", "table `shop-relay`", "stream", "rows of `shop-events`"] {
        assert_eq!(verdict(&report, check).0, "ok", "{report:#}");
    }
    let text = operator.run(&["doctor"]);
    assert_eq!(text.code, Some(1));
    assert!(
        text.stdout.contains("\nWRONG  handler `stream`: ") && text.stdout.contains("mend it with: mkdir"),
        "{text:?}"
    );
    assert!(text.stderr.ends_with("4 checks are wrong\n"), "{text:?}");
}

#[tokio::test]
async fn doctor_looks_at_streams_receivers_and_rows() {
    let services = Services::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handlers = format!(
        "[[handlers]]\nname = \"stream\"\nsubscribe = [{{ domain = \"*\" }}]\nkinesis = {{ stream = \"orders\" }}\n\
         [[handlers]]\nname = \"http\"\nkind = \"sink\"\nsubscribe = [{{ domain = \"*\" }}]\n\
         http = {{ url = \"http://{}/\" }}\n",
        listener.local_addr().unwrap()
    );
    let operator = services.operator(&handlers);
    operator.run(&["tables", "create"]).good();
    let aws = clients(Some(services.dynamodb.endpoint()), Some(services.kinesis.endpoint())).await;
    aws.kinesis.create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
    let (code, report) = operator.doctor();
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    let stream = findings(&report, "handler `stream`")[0]["text"].as_str().unwrap();
    assert!(stream.contains("ACTIVE") && stream.contains("kinesis:PutRecords"), "{stream}");

    let item = [("pk", AttributeValue::S("a#b#c".into())), ("sk", AttributeValue::N("0".into()))];
    let other = ("body", AttributeValue::S("secret".into()));
    let put = item
        .into_iter()
        .chain([other])
        .fold(aws.dynamodb.put_item().table_name("shop-events"), |put, (k, v)| put.item(k, v));
    put.send().await.unwrap();
    let (code, report) = operator.doctor();
    assert_eq!(code, Some(1));
    let rows = findings(&report, "rows of `shop-events`")[0]["text"].as_str().unwrap();
    assert!(rows.contains("another schema? found: body (S), pk (S), sk (N); expected: pk (S)"), "{rows}");
    assert!(!report.to_string().contains("secret"));
    let read = operator.run(&["read", "a", "c", "--edition", "b", "--json"]).good();
    assert!(json_lines(&read)[0]["invalid"].as_str().unwrap().contains("event_type"), "{read}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let services = Services::start();
    let operator = services.operator("");
    operator.run(&["tables", "create"]).good();
    let config = operator.config.to_str().unwrap();
    // The reader is gone before the first line: `true` reads nothing.
    let line = format!("set -o pipefail; angzarr-relay tables describe --json --config '{config}' | true");
    assert_eq!(operator.paste(&line).stderr, "");
}
