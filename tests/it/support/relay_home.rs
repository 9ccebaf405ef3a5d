//! What one relay under test lives in: a folder with its configuration and the files its handlers write.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::process::free_port;
use super::relay_process::RelayProcess;

/// As short as a busy machine allows.
const LEASE_DURATION: &str = "lease_duration = \"2s\"";

/// A folder for one relay; gone when dropped.
#[derive(Debug)]
pub(crate) struct RelayHome {
    folder: tempfile::TempDir,
    metrics_port: u16,
}

impl RelayHome {
    /// The prefix of the tables of every relay made here.
    pub(crate) const PREFIX: &str = "it";

    /// An empty folder, and a port for the metrics.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), metrics_port: free_port() }
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration: the DynamoDB to use, and `rest`, which begins with `[relay]` and its keys. `HOME`
    /// stands for the folder.
    pub(crate) fn configure(&self, dynamodb: &str, rest: &str) {
        self.configure_with_streams(dynamodb, dynamodb, rest);
    }

    /// The same with another endpoint for DynamoDB Streams.
    pub(crate) fn configure_with_streams(&self, dynamodb: &str, streams: &str, rest: &str) {
        let rest = rest.replace("HOME", self.folder.path().to_str().unwrap());
        // One that is killed is started again: it waits until its last life's leases have run out.
        let lease = if rest.contains("lease_duration") { "" } else { LEASE_DURATION };
        let rest = rest.replacen("[relay]", &format!("[relay]\n{lease}"), 1);
        let text = format!(
            r#"
            [storage.dynamo]
            region = "us-east-1"
            table_prefix = "{}"
            endpoint = "{dynamodb}"
            streams_endpoint = "{streams}"
            [telemetry]
            listen = "127.0.0.1:{}"
            admin_listen = "127.0.0.1:0"
            {rest}
            "#,
            Self::PREFIX,
            self.metrics_port
        );
        std::fs::write(self.path("relay.toml"), text).unwrap();
    }

    /// Starts the relay, and does not wait for it.
    pub(crate) fn spawn(&self) -> RelayProcess {
        self.spawn_with(&[])
    }

    /// The same with variables of its own.
    pub(crate) fn spawn_with(&self, environment: &[(&str, &str)]) -> RelayProcess {
        RelayProcess::spawn(&self.path("relay.toml"), self.metrics_port, environment)
    }

    /// Starts the relay and waits until it is ready.
    pub(crate) async fn start(&self) -> RelayProcess {
        let mut relay = self.spawn();
        relay.wait_ready().await;
        relay
    }

    /// Runs a command with this configuration: whether it worked, and what it printed to standard output and stderr.
    pub(crate) fn command(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_angzarr-relay"));
        let output = command.arg("--config").arg(self.path("relay.toml")).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// What a jsonl handler has written to a file: the sequences of each root, by the root's id, in the order of the
    /// lines.
    pub(crate) fn sequences(&self, file: &str) -> BTreeMap<String, Vec<u64>> {
        let text = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        // Behind the last line feed stands at most a line that is being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut roots: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in whole.lines() {
            let (root, sequence) = root_and_sequence(line.as_bytes());
            roots.entry(root).or_default().push(sequence);
        }
        roots
    }
}

/// The root's id and the sequence in a CloudEvent.
pub(crate) fn root_and_sequence(cloudevent: &[u8]) -> (String, u64) {
    let event: serde_json::Value = serde_json::from_slice(cloudevent).unwrap();
    (event["subject"].as_str().unwrap().to_owned(), event["sequence"].as_str().unwrap().parse().unwrap())
}
