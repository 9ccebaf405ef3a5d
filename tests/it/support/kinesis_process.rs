//! ferrokinesis as a process of its own: this test binary, started once more to serve it and nothing else.
//!
//! For bulk: it holds what it is sent in memory, and takes no time from the process that drives the test.

use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io::Write as _;
use std::path::Path;

use angzarr_relay::local::{EmbeddedKinesis, KinesisOptions};

use super::process::GuardedProcess;
use super::until;

/// Set in the process that serves.
const SERVES: &str = "ANGZARR_TEST_SERVES_KINESIS";

/// What it says before its endpoint.
const SERVED_AT: &str = "Kinesis is served at ";

/// A running ferrokinesis; gone when dropped.
#[derive(Debug)]
pub(crate) struct KinesisProcess {
    pub(crate) endpoint: String,
    _process: GuardedProcess,
}

impl KinesisProcess {
    /// Starts it with no streams.
    pub(crate) async fn start() -> Self {
        let program = std::env::current_exe().unwrap().into_os_string();
        let arguments = ["--exact", "support::kinesis_process::serves_when_it_is_asked_to", "--nocapture"];
        let command: Vec<OsString> = [program].into_iter().chain(arguments.map(OsString::from)).collect();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let process = GuardedProcess::spawn("ferrokinesis", &command, folder, &[(SERVES, OsStr::new("1"))]);
        let endpoint = until("Kinesis is served", async || {
            let said = process.output();
            let endpoint = said.lines().find_map(|line| line.split(SERVED_AT).nth(1))?;
            Some(endpoint.trim().to_owned()).filter(|_| said.contains(&format!("{endpoint}\n")))
        })
        .await;
        Self { endpoint, _process: process }
    }
}

/// The process of [`KinesisProcess`]; in a run of all tests it has nothing to serve.
#[tokio::test(flavor = "multi_thread")]
async fn serves_when_it_is_asked_to() {
    if std::env::var_os(SERVES).is_none() {
        return;
    }
    let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{SERVED_AT}{}", kinesis.endpoint()).unwrap();
    stdout.flush().unwrap();
    pending::<()>().await;
}
