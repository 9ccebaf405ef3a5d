//! One embedded service: its thread, its runtime, its loopback port, its end.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests under way may take to finish when a service stops.
const STOP_MAX: Duration = Duration::from_secs(2);

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why an embedded service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The thread, the runtime or the port could not be had.
    #[error("failed to start the embedded {service}")]
    Start {
        /// Such as `DynamoDB`.
        service: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data directory could not be used.
    #[error("failed to open the data of the embedded {service} in `{directory}`")]
    Data {
        /// Such as `DynamoDB`.
        service: &'static str,
        /// The data directory, or the upstream.
        directory: String,
        /// What the storage said.
        #[source]
        source: Source,
    },
}

/// A service that serves until this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    endpoint: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a thread with a runtime and lets `serve` serve on a free loopback port until the token is cancelled.
    /// Returns when the port is open.
    pub(super) fn start<F>(
        service: &'static str,
        serve: impl FnOnce(TcpListener, CancellationToken) -> F + Send + 'static,
    ) -> Result<Self, LocalError>
    where
        F: Future<Output = ()>,
    {
        let failed = |source| LocalError::Start { service, source };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("local-{}", service.to_lowercase().replace(' ', "-")))
            .spawn(move || run(serve, &tell, &stopped))
            .map_err(failed)?;
        let port =
            told.recv().unwrap_or_else(|_| Err(io::Error::other("the service's thread ended"))).map_err(failed)?;
        Ok(Self { endpoint: format!("http://127.0.0.1:{port}"), stop, thread: Some(thread) })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(endpoint = self.endpoint, "an embedded service panicked");
        }
    }
}

fn run<F: Future<Output = ()>>(
    serve: impl FnOnce(TcpListener, CancellationToken) -> F,
    tell: &mpsc::Sender<io::Result<u16>>,
    stopped: &CancellationToken,
) {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(tell, Err(error)),
    };
    runtime.block_on(async {
        let listener = match TcpListener::bind(("127.0.0.1", 0)).await {
            Ok(listener) => listener,
            Err(error) => return report(tell, Err(error)),
        };
        report(tell, listener.local_addr().map(|address| address.port()));
        let cut = async {
            stopped.cancelled().await;
            tokio::time::sleep(STOP_MAX).await;
        };
        tokio::select! {
            () = serve(listener, stopped.clone()) => {}
            () = cut => {}
        }
    });
    runtime.shutdown_timeout(STOP_MAX);
}

fn report(tell: &mpsc::Sender<io::Result<u16>>, port: io::Result<u16>) {
    // Whoever started the service waits for exactly this.
    if tell.send(port).is_err() {
        tracing::debug!("nobody waits for the embedded service any more");
    }
}
