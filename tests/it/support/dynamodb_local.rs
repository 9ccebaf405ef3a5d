//! DynamoDB Local, Amazon's own emulator: one process, in memory, on a free port.
//!
//! Take a fresh one for each heavy test: it slows with the records in every stream it has ever held. Light ones, each
//! with tables of its own, share one. At speed 720 it rolls a stream's shard every 20 seconds and expires an iterator
//! after 1.25; connections that idle are dropped sooner, too.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::process::{GuardedProcess, NotAnswering, free_port};
use super::slots::{Slot, all_slots, slot};
use super::{needs, packages};

/// The JVM needs two or three seconds on an idle machine.
const START_MAX: Duration = Duration::from_mins(2);
/// Another process may take the port that was free.
const START_ATTEMPTS: u32 = 3;
const HEAP: &str = "-Xmx512m";

/// A running DynamoDB Local; gone when dropped.
#[derive(Debug)]
pub(crate) struct DynamoDbLocal {
    /// Serves both DynamoDB and DynamoDB Streams.
    pub(crate) endpoint: String,
    _process: GuardedProcess,
    _slot: Option<Slot>,
}

impl DynamoDbLocal {
    /// Starts it at the speed of the world.
    pub(crate) async fn start() -> Self {
        Self::start_with(Vec::new(), Some(slot().await)).await
    }

    /// The same with no other test's emulator beside it.
    pub(crate) async fn start_alone() -> Self {
        Self::start_with(Vec::new(), Some(all_slots().await)).await
    }

    /// The endpoint of the one that all light scenarios share. It lasts as long as the test process and takes nobody's
    /// slot.
    pub(crate) async fn shared() -> &'static str {
        static SHARED: OnceCell<DynamoDbLocal> = OnceCell::const_new();
        &SHARED.get_or_init(|| Self::start_with(Vec::new(), None)).await.endpoint
    }

    /// Starts it with a clock that runs `speed` times as fast.
    pub(crate) async fn start_at_speed(speed: u32) -> Self {
        let mut preload = OsString::from("LD_PRELOAD=");
        preload.push(needs::libfaketime());
        let wrapper = vec!["env".into(), preload, format!("FAKETIME=+0 x{speed}").into()];
        Self::start_with(wrapper, Some(slot().await)).await
    }

    async fn start_with(wrapper: Vec<OsString>, slot: Option<Slot>) -> Self {
        let java = needs::java();
        let emulator = packages::package("amplify-dynamodb-simulator").join("emulator");
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let mut command = wrapper.clone();
            command.push(java.into());
            command
                .extend([HEAP, "-Djava.library.path=DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar"].map(Into::into));
            command.extend(["-inMemory", "-sharedDb", "-disableTelemetry", "-port"].map(Into::into));
            command.push(port.to_string().into());
            if let Some(process) = started(&command, &emulator, port).await {
                return Self { endpoint: format!("http://127.0.0.1:{port}"), _process: process, _slot: slot };
            }
        }
        panic!("DynamoDB Local did not start in {START_ATTEMPTS} attempts");
    }
}

/// The process once it answers; nothing when it ended instead, as it does when its port is taken.
async fn started(command: &[OsString], folder: &Path, port: u16) -> Option<GuardedProcess> {
    let mut process = GuardedProcess::spawn("dynamodb-local", command, folder, &[]);
    // It answers an unsigned request with 400.
    match process.answers(port, "/", START_MAX, |_| true).await {
        Ok(()) => Some(process),
        Err(NotAnswering::Exited(_)) => None,
        Err(NotAnswering::TooLate) => panic!("DynamoDB Local does not answer after {START_MAX:?}"),
    }
}
