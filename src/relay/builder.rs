//! From a configuration to a running relay: clients, stream, handlers, endpoints.
//!
//! What is wrong with the configuration, a file or a port ends it at once; what is wrong outside (an endpoint that is
//! down, a table without a stream, a missing permission) is named in the health report and tried again, so that it
//! goes on when somebody mends it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::gauge;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::receivers::{ReceiverError, handler_spec};
use super::{HandlerSpec, Relay, RelayError, RelayPorts, RelaySettings};
use crate::aws::{AwsClients, AwsSettings, StaticCredentials};
use crate::backfill::{CapacityPace, ScanProgress, TableScan};
use crate::config::{Config, ConfigError, HttpUrl};
use crate::handler::{Handler, HandlerName};
use crate::lane::Progress;
use crate::relay_table::RelayTable;
use crate::status::{Place, Standard, Status, look};
use crate::storage::{DynamoMarks, DynamoPositions, EventStore, TableNames};
use crate::stream::{Budget, DynamoStream};
use crate::telemetry::{
    AdminPages, AdminToken, EndpointError, EndpointServer, Health, LogSwitch, ProbePages, Recorder, StatusSource,
    names, with_causes,
};
use crate::time::{Backoff, BackoffPolicy, Clock, Random};

/// The waits between attempts to find the stream.
const CONNECT_BACKOFF: BackoffPolicy =
    BackoffPolicy { initial: std::time::Duration::from_millis(200), max: std::time::Duration::from_secs(10) };

/// The subject of the search for the stream in the health report.
const STREAM: &str = "events table";

/// Why a relay did not start or stopped unasked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration does not fit the program.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A handler could not be made.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// An endpoint could not be opened.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The relay stopped unasked.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// A relay being put together.
pub struct RelayBuilder {
    config: Config,
    config_path: Option<PathBuf>,
    handlers: Vec<(String, Arc<dyn Handler>)>,
    watch: Option<Watch>,
}

/// What a running relay can be watched by, besides its metrics.
#[derive(Clone)]
pub struct Running {
    /// Where metrics and probes are served.
    pub probes: SocketAddr,
    /// Where operators are answered.
    pub admin: Option<SocketAddr>,
    /// Life and obstacles.
    pub health: Health,
    /// How far each handler is.
    pub progress: Vec<(HandlerName, Progress)>,
}

type Watch = Box<dyn FnOnce(Running) + Send>;

/// The clients for a configuration. An endpoint on this machine is an emulator: without credentials in the environment
/// it gets some.
pub async fn clients_for(config: &Config) -> AwsClients {
    let dynamo = &config.storage.dynamo;
    let url = |url: &Option<HttpUrl>| url.as_ref().map(|url| url.as_str().to_owned());
    let emulated = dynamo.endpoint.as_ref().is_some_and(is_loopback) && std::env::var_os(ACCESS_KEY).is_none();
    AwsClients::new(&AwsSettings {
        region: dynamo.region.clone(),
        dynamodb_endpoint: url(&dynamo.endpoint),
        kinesis_endpoint: url(&config.kinesis.endpoint),
        streams_endpoint: url(&dynamo.streams_endpoint),
        credentials: emulated.then(StaticCredentials::dummy),
    })
    .await
}

/// Where the SDK's standard chain looks first.
const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";

fn is_loopback(url: &HttpUrl) -> bool {
    let Ok(uri) = url.as_str().parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Relay {
    /// Begins with a configuration.
    #[must_use]
    pub fn builder(config: Config) -> RelayBuilder {
        RelayBuilder { config, config_path: None, handlers: Vec::new(), watch: None }
    }
}

impl RelayBuilder {
    /// Says which file the configuration was read from: the commands it shows name it.
    #[must_use]
    pub fn config_path(mut self, path: Option<&Path>) -> Self {
        self.config_path = path.map(Path::to_owned);
        self
    }

    /// Adds Rust code for the configuration's handler of this name.
    #[must_use]
    pub fn handler(self, name: &str, handler: impl Handler) -> Self {
        self.shared_handler(name, Arc::new(handler))
    }

    /// The same for a handler that others hold too.
    #[must_use]
    pub fn shared_handler(mut self, name: &str, handler: Arc<dyn Handler>) -> Self {
        self.handlers.push((name.to_owned(), handler));
        self
    }

    /// Calls this once the relay is about to run.
    #[must_use]
    pub fn watch(mut self, watch: impl FnOnce(Running) + Send + 'static) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Runs until `shutdown` completes, then stops cleanly within `relay.shutdown_grace`.
    ///
    /// # Errors
    /// When the configuration does not fit the registered code, a file or port cannot be opened, or the relay stops
    /// unasked.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let registered: Vec<&str> = self.handlers.iter().map(|(name, _)| name.as_str()).collect();
        self.config.validate(&registered)?;
        let recorder = Recorder::install();
        let health = Health::default();
        let clients = clients_for(&self.config).await;
        let tables = TableNames::from_prefix(&self.config.storage.dynamo.table_prefix);
        let mut specs = Vec::new();
        for handler in &self.config.handlers {
            let own = self.handlers.iter().find(|(name, _)| name == handler.name.as_str());
            let own = own.map(|(_, handler)| handler.clone());
            specs.push(handler_spec(handler, &self.config.relay, (&clients.kinesis, &tables.events), own).await?);
        }
        let settings = RelaySettings {
            memory_limit_bytes: self.config.relay.memory_limit,
            poll_interval_max: self.config.relay.poll_interval_max,
            reconcile_interval: self.config.relay.reconcile_interval,
            shutdown_grace: self.config.relay.shutdown_grace,
            lease_duration: self.config.relay.lease_duration,
            replica_name: replica_name(),
            on_trim: self.config.relay.on_trim,
            backfill_segments: self.config.backfill.segments,
            safety_alarm: self.config.relay.safety_alarm,
        };
        let progress: Vec<(HandlerName, Progress)> =
            specs.iter().map(|spec| (spec.name.clone(), Progress::default())).collect();
        let budget = Budget::new(settings.window_bytes());
        let probes = ProbePages {
            recorder: recorder.clone(),
            health: health.clone(),
            before_render: show(progress.clone(), budget.clone(), Clock::system()),
        };
        let probes = EndpointServer::bind(("telemetry.listen", self.config.telemetry.listen), probes).await?;
        info!(address = %probes.address(), "metrics and health are served");
        let admin = self.admin(&clients).await?;
        if let Some(watch) = self.watch.take() {
            watch(Running {
                probes: probes.address(),
                admin: admin.as_ref().map(EndpointServer::address),
                health: health.clone(),
                progress: progress.clone(),
            });
        }

        let cancel = CancellationToken::new();
        let served = CancellationToken::new();
        let mut services = JoinSet::new();
        services.spawn(probes.serve(served.clone()));
        if let Some(admin) = admin {
            services.spawn(admin.serve(served.clone()));
        }
        services.spawn(recorder.upkeep(served.clone()));
        let relaying = self.relay(clients, health, settings, specs, (progress, budget), cancel.clone());
        tokio::pin!(relaying, shutdown);
        let outcome = tokio::select! {
            biased;
            outcome = &mut relaying => outcome,
            () = &mut shutdown => {
                info!("stopping");
                cancel.cancel();
                relaying.await
            }
        };
        served.cancel();
        while services.join_next().await.is_some() {}
        outcome
    }

    /// The endpoint for operators; none when it is off.
    async fn admin(&self, clients: &AwsClients) -> Result<Option<EndpointServer>, EndpointError> {
        let Some(listen) = self.config.telemetry.admin_listen else { return Ok(None) };
        let (place, standard) = (
            Arc::new(Place::of(&self.config, clients)),
            Arc::new(Standard::of(&self.config, self.config_path.as_deref())),
        );
        let status: StatusSource = Arc::new(move || {
            let (place, standard) = (place.clone(), standard.clone());
            Box::pin(async move {
                let seen = look(&place).await.map_err(|error| with_causes(&error))?;
                Ok(serde_json::json!(Status::new(&seen, &standard)).to_string())
            })
        });
        let token = self.config.telemetry.admin_token.clone().map(AdminToken);
        let pages = AdminPages::new(status, LogSwitch::of_process(), token, listen.ip().is_loopback());
        let server = EndpointServer::bind(("telemetry.admin_listen", listen), pages).await?;
        info!(address = %server.address(), "operators are answered: /status and /log-level");
        Ok(Some(server))
    }

    async fn relay(
        &self,
        clients: AwsClients,
        health: Health,
        settings: RelaySettings,
        specs: Vec<HandlerSpec>,
        (progress, budget): (Vec<(HandlerName, Progress)>, Budget),
        cancel: CancellationToken,
    ) -> Result<(), RunError> {
        let (clock, random) = (Clock::system(), Random::from_entropy());
        let tables = TableNames::from_prefix(&self.config.storage.dynamo.table_prefix);
        let Some(stream) = connect(&clients, &tables.events, &health, &random, &cancel).await else { return Ok(()) };
        let table = Arc::new(RelayTable::new(&clients, &tables.relay, clock.clone()));
        let (scan_progress, pace) = (ScanProgress::default(), CapacityPace::new(self.config.backfill.max_rcu));
        let ports = RelayPorts {
            scan: Arc::new(TableScan::new(&clients, &tables.events, pace, scan_progress.clone())),
            scan_progress,
            jobs: table.clone(),
            lives: table.clone(),
            stream: Arc::new(stream),
            events: Arc::new(EventStore::new(&clients, &tables.events, random.clone())),
            positions: Arc::new(DynamoPositions::new(&clients, &tables.positions, clock.clone())),
            marks: Arc::new(DynamoMarks::new(&clients, &tables, clock.clone())),
            fleet: table.clone(),
            registry: table,
            clock,
            random,
            health,
        };
        let relay = Relay::new(ports, settings, specs)?.showing(progress, budget);
        Ok(relay.run(cancel).await?)
    }
}

/// What people know this replica by: Kubernetes sets `HOSTNAME` to the pod's name.
fn replica_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_default()
}

/// Finds the stream; none when cancelled before.
async fn connect(
    clients: &AwsClients,
    table: &str,
    health: &Health,
    random: &Random,
    cancel: &CancellationToken,
) -> Option<DynamoStream> {
    let mut backoff = Backoff::new(CONNECT_BACKOFF, random.clone());
    loop {
        let error = tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            connected = DynamoStream::connect(clients, table) => match connected {
                Ok(stream) => {
                    health.mended(STREAM);
                    info!(stream = %stream.arn(), "found the stream of the events table");
                    return Some(stream);
                }
                Err(error) => error,
            },
        };
        health.problem(STREAM, with_causes(&error));
        tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            () = sleep(backoff.next_wait()) => {}
        }
    }
}

/// Sets the gauges that follow the clock, each time the metrics are asked for.
fn show(handlers: Vec<(HandlerName, Progress)>, budget: Budget, clock: Clock) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        let mut bytes = budget.used_bytes();
        for (name, progress) in handlers.iter().filter(|(_, progress)| progress.is_known()) {
            let lag = progress.lag(clock.now()).as_secs_f64();
            gauge!(names::HANDLER_LAG, "handler" => name.as_str().to_owned()).set(lag);
            let safety = progress.safety(clock.now()).as_secs_f64();
            gauge!(names::SAFETY_CLOCK, "handler" => name.as_str().to_owned()).set(safety);
            bytes += progress.queued_bytes();
        }
        gauge!(names::BUFFERED).set(whole(bytes));
    })
}

#[expect(clippy::cast_precision_loss, reason = "a number of bytes in memory is far below 2^52")]
fn whole(bytes: usize) -> f64 {
    bytes as f64
}
