//! The relay's own binary as a child process: started, watched, stopped, killed and frozen as an operator or a node
//! would.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::actions::hold_to_documents;
use super::http;
use super::process::GuardedProcess;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_angzarr-relay");
const READY_MAX: Duration = Duration::from_mins(1);
/// More than the shutdown grace of any configuration the tests use.
const EXIT_MAX: Duration = Duration::from_mins(1);
/// Enough for the SDK's standard chain to find credentials an emulator accepts, without asking a metadata service.
const CREDENTIALS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A running relay; killed when dropped.
#[derive(Debug)]
pub(crate) struct RelayProcess {
    process: GuardedProcess,
    metrics_port: u16,
    /// Another program may write events, too.
    is_relay: bool,
}

impl RelayProcess {
    /// Runs `angzarr-relay run --config {config}`; `metrics_port` is the port of the configuration's
    /// `telemetry.listen`.
    pub(crate) fn spawn(config: &Path, metrics_port: u16, environment: &[(&str, &str)]) -> Self {
        let command = [BINARY.into(), "run".into(), "--config".into(), config.as_os_str().to_owned()];
        Self { is_relay: true, ..Self::spawn_program(&command, metrics_port, environment) }
    }

    /// Runs another program in the relay's place.
    pub(crate) fn spawn_program(command: &[OsString], metrics_port: u16, environment: &[(&str, &str)]) -> Self {
        let environment: Vec<_> = CREDENTIALS.iter().chain(environment).map(|(k, v)| (*k, OsStr::new(*v))).collect();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let process = GuardedProcess::spawn("angzarr-relay", command, folder, &environment);
        Self { process, metrics_port, is_relay: false }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn wait_ready(&mut self) {
        let ready = self.process.answers(self.metrics_port, "/readyz", READY_MAX, |status| status == 200).await;
        ready.unwrap_or_else(|why| panic!("the relay did not become ready: {why:?}"));
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        match http::get(self.metrics_port, "/metrics").await {
            Ok((200, metrics)) => {
                if self.is_relay {
                    hold_to_documents(&metrics);
                }
                metrics
            }
            other => panic!("the relay does not tell its metrics: {other:?}"),
        }
    }

    /// What one series of its metrics says, such as `angzarr_relay_handler_up_ratio{handler="copy"}`; none while it
    /// has not been set.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().unwrap_or_else(|_| panic!("{series} is no number: {value}")))
    }

    /// The status and the body of `/readyz` or `/livez`; none while nobody answers.
    pub(crate) async fn health(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.metrics_port, path).await.ok()
    }

    /// Asks it to stop (SIGTERM) and waits for its end, at most so long.
    pub(crate) async fn terminate_within(&mut self, within: Duration) -> ExitStatus {
        // One that is stopped before it listens has called nothing.
        if let Ok((200, metrics)) = http::get(self.metrics_port, "/metrics").await
            && self.is_relay
        {
            hold_to_documents(&metrics);
        }
        self.process.signal("TERM");
        self.process.exit(within).await
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.terminate_within(EXIT_MAX).await
    }

    /// Waits for an end it comes to by itself.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.process.exit(EXIT_MAX).await
    }

    /// Kills it without warning (SIGKILL).
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.process.kill()
    }

    /// Freezes it (SIGSTOP), as a long pause of its node would.
    pub(crate) fn freeze(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// Lets no file that it writes to grow beyond so many bytes, its log included, as a full disk would; none: lets them
    /// grow again.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        self.process.limit_files(bytes);
    }

    /// Everything it has printed.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::super::{free_port, node};
    use super::*;

    /// Ready at the third question, says its environment as a metric, leaves politely when asked.
    const STAND_IN: &str = r#"
        let asked = 0;
        process.on("SIGTERM", () => { console.log("stopping"); process.exit(3); });
        require("http").createServer((request, response) => {
            if (request.url === "/readyz") response.statusCode = ++asked < 3 ? 503 : 200;
            response.end(request.url === "/metrics" ? process.env.SAID + " " + asked : "");
        }).listen(Number(process.argv[1]), "127.0.0.1");
    "#;

    fn stand_in() -> RelayProcess {
        let port = free_port();
        let command = [node(), "-e", STAND_IN, &port.to_string()].map(OsString::from);
        RelayProcess::spawn_program(&command, port, &[("SAID", "hello")])
    }

    #[tokio::test]
    async fn a_relay_is_ready_when_it_says_so_and_ends_when_asked() {
        let mut relay = stand_in();
        relay.wait_ready().await;
        assert_eq!(relay.metrics().await, "hello 3");
        relay.freeze();
        relay.thaw();
        assert_eq!(relay.metrics().await, "hello 3");
        assert_eq!(relay.terminate().await.code(), Some(3));
        assert_eq!(relay.output(), "stopping\n");
    }

    #[tokio::test]
    async fn a_killed_relay_says_nothing() {
        let mut relay = stand_in();
        relay.wait_ready().await;
        relay.freeze();
        assert_eq!(relay.kill().signal(), Some(9));
        assert_eq!(relay.output(), "");
    }
}
