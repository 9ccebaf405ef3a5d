//! From a handler's configuration to the handler itself.

use std::sync::Arc;

use aws_sdk_kinesis::Client;

use super::HandlerSpec;
use crate::config::{
    HandlerConfig, HttpReceiver, JsonlTarget, KinesisReceiver, Receiver, RelayConfig, SubscriptionConfig,
};
use crate::handler::{
    Handler, HandlerName, HttpBatch, HttpHandler, HttpSettings, HttpSettingsError, JsonlError, JsonlHandler,
    KinesisHandler, KinesisSettings, Oversize,
};
use crate::lane::{Glob, LaneSettings, Pattern, Subscription};

/// Why a configured handler could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// Its HTTP settings contradict each other.
    #[error("handler `{handler}`: http")]
    Http {
        /// The handler.
        handler: HandlerName,
        /// Which setting.
        #[source]
        source: HttpSettingsError,
    },
    /// Its file cannot be written.
    #[error("handler `{handler}`: jsonl")]
    Jsonl {
        /// The handler.
        handler: HandlerName,
        /// Why.
        #[source]
        source: JsonlError,
    },
    /// No receiver is configured and the program registers none under the name.
    #[error(
        "handler `{handler}` has no receiver: name one of kinesis, http, jsonl, or register Rust code under its name"
    )]
    Missing {
        /// The handler.
        handler: HandlerName,
    },
}

/// Makes one handler; `in_process` is the program's own code for it, if it brought any.
pub(super) async fn handler_spec(
    config: &HandlerConfig,
    relay: &RelayConfig,
    (kinesis, events_table): (&Client, &str),
    in_process: Option<Arc<dyn Handler>>,
) -> Result<HandlerSpec, ReceiverError> {
    let name = config.name.clone();
    let handler: Arc<dyn Handler> = match &config.receiver {
        Receiver::Kinesis(receiver) => {
            Arc::new(KinesisHandler::new(kinesis.clone(), kinesis_settings(receiver, events_table)))
        }
        Receiver::Http(receiver) => Arc::new(
            HttpHandler::new(&http_settings(receiver))
                .map_err(|source| ReceiverError::Http { handler: name.clone(), source })?,
        ),
        Receiver::Jsonl(receiver) => {
            let path = match &receiver.target {
                JsonlTarget::Stdout => "-".into(),
                JsonlTarget::File(path) => path.to_string_lossy(),
            };
            let opened = JsonlHandler::open(&path).await;
            Arc::new(opened.map_err(|source| ReceiverError::Jsonl { handler: name.clone(), source })?)
        }
        Receiver::InProcess => in_process.ok_or_else(|| ReceiverError::Missing { handler: name.clone() })?,
    };
    Ok(HandlerSpec {
        name,
        handler,
        start: config.start,
        subscription: subscription(config),
        settings: lane_settings(config, relay),
    })
}

fn lane_settings(config: &HandlerConfig, relay: &RelayConfig) -> LaneSettings {
    LaneSettings {
        flush_interval: config.flush_interval,
        flush_roots: config.flush_roots,
        filtered_flush: u32::try_from(config.filtered_flush).unwrap_or(u32::MAX),
        checkpoint_interval: relay.checkpoint_interval,
        gap_wait: relay.gap_wait,
        hole_timeout: relay.hole_timeout,
        max_in_flight: config.max_in_flight,
        deliver_timeout: config.deliver_timeout,
        retry: config.retry,
        attempts_max: config.attempts,
        age_max: config.age,
        on_failure: config.on_failure,
        on_invalid: config.on_invalid,
        on_hole: config.on_hole,
        on_edition_delete: config.on_edition_delete,
        checkpoint_hold: relay.checkpoint_hold,
        ..LaneSettings::default()
    }
}

/// Which events a handler is given.
pub(crate) fn subscription(config: &HandlerConfig) -> Subscription {
    Subscription::new(config.subscribe.iter().map(pattern).collect())
}

fn pattern(config: &SubscriptionConfig) -> Pattern {
    let globs = |texts: &[String]| texts.iter().map(|text| Glob::new(text)).collect();
    Pattern { domain: Glob::new(&config.domain), types: globs(&config.types), editions: globs(&config.editions) }
}

fn kinesis_settings(receiver: &KinesisReceiver, events_table: &str) -> KinesisSettings {
    let reference = Oversize::Reference { events_table: events_table.to_owned() };
    KinesisSettings {
        oversize: if receiver.references_oversize { reference } else { Oversize::Refuse },
        format: receiver.format,
        aggregate: receiver.aggregate,
        ..KinesisSettings::new(receiver.stream.clone())
    }
}

fn http_settings(receiver: &HttpReceiver) -> HttpSettings {
    HttpSettings {
        url: receiver.url.as_str().to_owned(),
        timeout: receiver.timeout,
        headers: receiver.headers.clone(),
        batch: if receiver.batch { HttpBatch::CloudEventsBatch } else { HttpBatch::Single },
        events_per_request: receiver.events_per_request,
    }
}
