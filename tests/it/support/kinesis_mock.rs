//! kinesis-mock: an independent Kinesis, one Node process on two free ports.
//!
//! For small checks: it slows with what it holds (400 records a second at 20,000 records), and enforces few of the
//! service's limits.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::process::{GuardedProcess, NotAnswering, free_port};
use super::slots::{Slot, slot};
use super::{needs, packages};

/// Node needs one second on an idle machine.
const START_MAX: Duration = Duration::from_mins(2);
/// Another process may take a port that was free.
const START_ATTEMPTS: u32 = 3;

/// A running kinesis-mock; gone when dropped.
#[derive(Debug)]
pub(crate) struct KinesisMock {
    /// Plain HTTP.
    pub(crate) endpoint: String,
    /// The same service by TLS, with a certificate it signed itself.
    pub(crate) tls_endpoint: String,
    _process: GuardedProcess,
    _slot: Slot,
}

impl KinesisMock {
    /// Starts it with no streams.
    pub(crate) async fn start() -> Self {
        let slot = slot().await;
        let folder = packages::package("kinesis-local");
        let command = [needs::node(), "main.js"].map(OsString::from);
        for _ in 0..START_ATTEMPTS {
            let (port, tls_port) = (free_port(), free_port());
            let (port_text, tls_port_text) = (port.to_string(), tls_port.to_string());
            let environment = [
                ("KINESIS_MOCK_PLAIN_PORT", OsStr::new(&port_text)),
                ("KINESIS_MOCK_TLS_PORT", OsStr::new(&tls_port_text)),
                ("LOG_LEVEL", OsStr::new("ERROR")),
            ];
            let mut process = GuardedProcess::spawn("kinesis-mock", &command, &folder, &environment);
            match process.answers(port, "/healthcheck", START_MAX, |status| status == 200).await {
                Ok(()) => {
                    let endpoint = format!("http://127.0.0.1:{port}");
                    let tls_endpoint = format!("https://127.0.0.1:{tls_port}");
                    return Self { endpoint, tls_endpoint, _process: process, _slot: slot };
                }
                Err(NotAnswering::Exited(_)) => {}
                Err(NotAnswering::TooLate) => panic!("kinesis-mock does not answer after {START_MAX:?}"),
            }
        }
        panic!("kinesis-mock did not start in {START_ATTEMPTS} attempts");
    }
}
