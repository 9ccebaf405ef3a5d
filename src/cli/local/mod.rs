//! `angzarr-relay local`: everything on one machine, for a first look and for development.
//!
//! Starts the embedded services, makes tables and streams, and runs the same relay as `run` over them. `sample` writes
//! events, `resharding` changes the stream's shards, `view` is a handler in Rust, `screen` shows what goes on.

mod resharding;
mod sample;
mod screen;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use aws_sdk_kinesis::operation::create_stream::CreateStreamError;
use aws_sdk_kinesis::types::StreamStatus;
use clap::Args;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::resharding::Resharding;
use self::sample::Sample;
use self::screen::Screen;
use self::view::OrdersView;
use super::run::until_stopped;
use super::{CliError, Context};
use crate::aws::AwsClients;
use crate::config::{Config, HttpUrl, JsonlTarget, Receiver};
use crate::local::{EmbeddedDynamo, EmbeddedKinesis, EmbeddedStreams, KinesisOptions, StreamsOptions};
use crate::relay::{Relay, clients_for};
use crate::storage::{EventStore, TableNames, create_all};
use crate::time::{Clock, Random};

/// The configuration of `local`, unless a file is named; built in, so that it works from any folder.
pub(super) const CONFIG: &str = include_str!("../../../config/local.toml");
/// What errors call it.
pub(super) const CONFIG_NAME: &str = "config/local.toml (built in)";

/// The name of the Rust handler that `local` brings along.
const VIEW: &str = "orders-view";

/// The most shards: every one is read by itself.
const SHARDS_MAX: i64 = 1000;

/// What the stream's records may take in memory; older ones are in the table.
const STREAM_BYTES_MAX: usize = 64 << 20;

/// Try everything on this machine: an embedded DynamoDB and Kinesis, sample events, and a relay between them
///
/// Starts both services on free ports of the loopback address, creates the tables and a Kinesis stream, relays by
/// config/local.toml (or --config) and shows what goes on. Whatever speaks DynamoDB can write to the endpoint shown.
/// Ctrl-C stops it with a summary.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  angzarr-relay local\n  angzarr-relay local --data ./data --no-sample\n  angzarr-relay local --shards 8"
)]
pub struct LocalArgs {
    /// Keep the tables in this folder, so that the next start goes on where this one stops
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Serve the stream as this many shards, which roll and split while it runs; with --data they stay as they are
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SHARDS_MAX))]
    pub shards: u32,

    /// Write no sample events
    #[arg(long)]
    pub no_sample: bool,
}

pub(super) async fn run(args: LocalArgs, context: Context) -> Result<(), CliError> {
    let mut config = context.config;
    let folder = Folder::open(args.data.as_deref())?;
    let dynamo = EmbeddedDynamo::start(args.data.as_deref()).context("cannot start the embedded DynamoDB")?;
    let kinesis_data = args.data.as_deref().map(|data| data.join("kinesis"));
    let kinesis = EmbeddedKinesis::start(&KinesisOptions { data: kinesis_data, ..KinesisOptions::default() })
        .context("cannot start the embedded Kinesis")?;
    config.storage.dynamo.endpoint = HttpUrl::parse(dynamo.endpoint());
    let streams = start_streams(&args, dynamo.endpoint())?;
    config.storage.dynamo.streams_endpoint = streams.as_ref().and_then(|streams| HttpUrl::parse(streams.endpoint()));
    config.kinesis.endpoint = HttpUrl::parse(kinesis.endpoint());
    folder.place_files(&mut config);

    let clients = clients_for(&config).await;
    let tables = TableNames::from_prefix(&config.storage.dynamo.table_prefix);
    create_all(&clients, &tables, &mut |_| {}).await.context("cannot create the tables")?;
    create_streams(&clients, &config).await?;

    let view = Arc::new(OrdersView::default());
    let mut builder = Relay::builder(config.clone());
    for name in context.handlers.names() {
        if let Some(handler) = context.handlers.get(name) {
            builder = builder.shared_handler(name, handler);
        }
    }
    let brings_view = |name: &str| name == VIEW && context.handlers.get(VIEW).is_none();
    let shows_view = config.handlers.iter().any(|handler| brings_view(handler.name.as_str()));
    if shows_view {
        builder = builder.shared_handler(VIEW, view.clone());
    }
    let (started, running) = oneshot::channel();
    builder = builder.watch(move |running| drop(started.send(running)));

    let stop = CancellationToken::new();
    let store = EventStore::new(&clients, &tables.events, Random::from_entropy());
    let sample = Sample::default();
    let mut beside = JoinSet::new();
    if !args.no_sample {
        beside.spawn(sample.clone().write(store, Clock::system(), stop.clone()));
    }
    let resharding = streams.as_ref().map(|streams| Resharding::new(streams.shards(&tables.events), args.shards));
    if let Some(resharding) = resharding.clone() {
        beside.spawn(resharding.go_on(stop.clone()));
    }
    let screen = Screen {
        dynamodb: dynamo.endpoint().to_owned(),
        kinesis: kinesis.endpoint().to_owned(),
        files: folder.path.clone(),
        sample: (!args.no_sample).then(|| sample.clone()),
        resharding,
        view: shows_view.then(|| view.clone()),
    };
    beside.spawn(screen.show(running, stop.clone()));
    let outcome = until_stopped(builder).await;
    stop.cancel();
    while beside.join_next().await.is_some() {}
    outcome
}

/// The server of many shards, where more than one is asked for.
fn start_streams(args: &LocalArgs, dynamodb: &str) -> Result<Option<EmbeddedStreams>, CliError> {
    let options = StreamsOptions {
        shards: args.shards,
        log_bytes_max: STREAM_BYTES_MAX,
        data: args.data.clone(),
        ..StreamsOptions::default()
    };
    let start = || EmbeddedStreams::start(dynamodb, options).context("cannot start the embedded DynamoDB Streams");
    Ok((args.shards > 1).then(start).transpose()?)
}

/// Makes the Kinesis streams that the handlers name, where they are missing, and waits until they can be written to.
async fn create_streams(clients: &AwsClients, config: &Config) -> Result<(), CliError> {
    for handler in &config.handlers {
        let Receiver::Kinesis(receiver) = &handler.receiver else { continue };
        let stream = &receiver.stream;
        let created = clients.kinesis.create_stream().stream_name(stream).shard_count(1).send().await;
        if let Err(error) = created
            && !error.as_service_error().is_some_and(CreateStreamError::is_resource_in_use_exception)
        {
            return Err(CliError::Failed(
                anyhow::Error::new(error).context(format!("cannot create the stream {stream}")),
            ));
        }
        for _ in 0..STREAM_POLLS_MAX {
            let summary = clients.kinesis.describe_stream_summary().stream_name(stream).send().await;
            let status = summary.ok().and_then(|answer| answer.stream_description_summary);
            if status.is_some_and(|summary| *summary.stream_status() == StreamStatus::Active) {
                break;
            }
            tokio::time::sleep(STREAM_POLL).await;
        }
    }
    Ok(())
}

/// How often, and how many times at most, a new stream is asked whether it can be written to; the relay waits for it
/// anyway.
const STREAM_POLL: std::time::Duration = std::time::Duration::from_millis(100);
const STREAM_POLLS_MAX: u32 = 50;

/// The folder for the files of this run: the one given, or one of its own that goes with it.
struct Folder {
    path: PathBuf,
    own: bool,
}

impl Folder {
    fn open(data: Option<&Path>) -> Result<Self, CliError> {
        let (path, own) = match data {
            Some(path) => (path.to_owned(), false),
            None => (std::env::temp_dir().join(format!("angzarr-local-{}", std::process::id())), true),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self { path, own })
    }

    /// Handlers with a relative path write into the folder.
    fn place_files(&self, config: &mut Config) {
        for handler in &mut config.handlers {
            if let Receiver::Jsonl(receiver) = &mut handler.receiver
                && let JsonlTarget::File(path) = &mut receiver.target
            {
                *path = self.path.join(&path);
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.own {
            // What cannot be removed lies in the system's folder for such things.
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}
