//! `[[handlers]]`: who receives which events, from where on, and how patiently.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::reader::Section;
use super::receiver::{JsonlTarget, KINDS};
use super::subscription::SUBSCRIPTIONS_MAX;
use super::{Receiver, SubscriptionConfig};
use crate::event::Timestamp;
use crate::handler::{HandlerKind, HandlerName};
use crate::lane::{OnEditionDelete, OnFailure, OnHole, OnInvalid};
use crate::relay_table::Start;
use crate::time::BackoffPolicy;

/// Handlers of one relay.
pub(super) const HANDLERS_MAX: usize = 256;

pub(super) const DELIVER_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(15);
const FLUSH_INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(1);
const FLUSH_ROOTS: RangeInclusive<usize> = 1..=100_000;
const FILTERED_FLUSH: RangeInclusive<u64> = 1..=1_000_000;
const MAX_IN_FLIGHT: RangeInclusive<usize> = 1..=10_000;
const RETRY_WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

const ATTEMPTS: RangeInclusive<u32> = 1..=1_000_000;
const AGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24 * 365);

const ON_FAILURE: &str = "\"park\", \"skip\" or \"block\"";
const KIND: &str = "\"sink\", \"projector\" or \"saga\"";
const START: &str = "\"beginning\", \"latest\" or a time such as \"2026-01-31T12:00:00Z\"";

/// One handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerConfig {
    /// Unique among the handlers, and part of the keys of its positions: renamed, it is a new handler.
    pub name: HandlerName,
    /// What it is for. It may be left out for `kinesis` and `jsonl`, which are sinks then. Otherwise it has no default:
    /// it decides whether history is played to the handler, and a forgotten word must not charge customers twice.
    pub kind: HandlerKind,
    /// Where it starts when it was never seen before; default the beginning, for sagas `latest`.
    pub start: Start,
    /// Which events it is given; never empty.
    pub subscribe: Vec<SubscriptionConfig>,
    /// What takes the events.
    pub receiver: Receiver,
    /// How long accepted events may go without a durable position; default 1 s, for sagas 0: after every batch. At most
    /// 60 s.
    pub flush_interval: Duration,
    /// After how many roots positions are written even earlier; default 25,000, less when `relay.memory_limit` has no
    /// room for them.
    pub flush_roots: usize,
    /// After how many left-out events of a root its position is written; default 64.
    pub filtered_flush: u64,
    /// Roots being delivered at once; default 64, for Kinesis 1,000.
    pub max_in_flight: usize,
    /// How long one delivery may take; default 30 s, at most 15 minutes.
    pub deliver_timeout: Duration,
    /// The waits between attempts; default 100 ms, doubling up to 30 s.
    pub retry: BackoffPolicy,
    /// After so many attempts at an event it has failed for good; default 10.
    pub attempts: u32,
    /// ... or when it has failed for so long; default 10 min.
    pub age: Duration,
    /// What follows then; default: the root is parked.
    pub on_failure: OnFailure,
    /// What follows when a row cannot be read as an event; default: the root is parked.
    pub on_invalid: OnInvalid,
    /// What follows when the table lacks an event though it holds later ones; default: the root is parked.
    pub on_hole: OnHole,
    /// What follows when a diverged edition is deleted; default: its positions stay.
    pub on_edition_delete: OnEditionDelete,
}

impl HandlerConfig {
    /// A handler with the defaults of its kind and receiver.
    #[must_use]
    pub fn new(name: HandlerName, kind: HandlerKind, receiver: Receiver, subscribe: Vec<SubscriptionConfig>) -> Self {
        let saga = kind == HandlerKind::Saga;
        Self {
            name,
            kind,
            start: if saga { Start::Latest } else { Start::Beginning },
            subscribe,
            flush_interval: if saga { Duration::ZERO } else { Duration::from_secs(1) },
            flush_roots: 25_000,
            filtered_flush: 64,
            max_in_flight: if matches!(receiver, Receiver::Kinesis(_)) { 1_000 } else { 64 },
            deliver_timeout: Duration::from_secs(30),
            retry: BackoffPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(30) },
            attempts: 10,
            age: Duration::from_mins(10),
            on_failure: OnFailure::Park,
            on_invalid: OnInvalid::Park,
            on_hole: OnHole::Park,
            on_edition_delete: OnEditionDelete::Keep,
            receiver,
        }
    }

    /// Reads all handlers, and checks what must be unique among them.
    pub(super) fn read_all(root: &mut Section<'_>) -> Vec<Self> {
        let (mut handlers, mut names): (Vec<Self>, Vec<HandlerName>) = (Vec::new(), Vec::new());
        for section in root.sections("handlers", HANDLERS_MAX).unwrap_or_default() {
            let (report, path) = (section.report(), section.path().to_owned());
            let Some(handler) = Self::read(section, &mut names) else { continue };
            if let Receiver::Jsonl(receiver) = &handler.receiver
                && matches!(receiver.target, JsonlTarget::File(_))
                && let Some(other) = handlers.iter().find(|other| other.receiver == handler.receiver)
            {
                let found = format!("the file of handler {:?}", other.name.as_str());
                report.wrong(&format!("{path}.jsonl.path"), found, "a file of its own");
            }
            handlers.push(handler);
        }
        handlers
    }

    fn read(mut section: Section<'_>, names: &mut Vec<HandlerName>) -> Option<Self> {
        let name = section.required("name", "a name of 1 to 128 bytes, perhaps with a version such as @2", |text| {
            HandlerName::new(text).ok()
        });
        if let Some(name) = &name {
            if names.contains(name) {
                section.wrong("name", format!("{:?} a second time", name.as_str()), "a name of its own");
            }
            names.push(name.clone());
        }
        let kind = read_kind(&mut section);
        let subscribe = read_subscriptions(&mut section);
        let receiver = Receiver::read(&mut section);
        // Wrong parts are reported by now; with stand-ins for them the rest is read as well, so that nothing goes
        // unsaid.
        let complete = name.is_some() && kind.is_some() && receiver.is_some();
        let stand_in = HandlerName::new("unnamed").ok()?;
        let mut handler = Self::new(
            name.unwrap_or(stand_in),
            kind.unwrap_or(HandlerKind::Projector),
            receiver.unwrap_or(Receiver::InProcess),
            subscribe,
        );
        handler.read_behaviour(&mut section);
        section.finish();
        complete.then_some(handler)
    }

    fn read_behaviour(&mut self, section: &mut Section<'_>) {
        self.start = section.parsed("start", START, parse_start).unwrap_or(self.start);
        self.flush_interval = section.duration("flush_interval", self.flush_interval, &FLUSH_INTERVAL);
        self.flush_roots = section.count("flush_roots", self.flush_roots, &FLUSH_ROOTS);
        self.filtered_flush = section.count("filtered_flush", self.filtered_flush, &FILTERED_FLUSH);
        self.max_in_flight = section.count("max_in_flight", self.max_in_flight, &MAX_IN_FLIGHT);
        self.deliver_timeout = section.duration("deliver_timeout", self.deliver_timeout, &DELIVER_TIMEOUT);
        let mut retry = section.section("retry");
        self.retry.initial = retry.duration("initial", self.retry.initial, &RETRY_WAIT);
        self.retry.max = retry.duration("max", self.retry.max, &RETRY_WAIT);
        if self.retry.initial > self.retry.max {
            retry.wrong("initial", humantime::format_duration(self.retry.initial).to_string(), "at most retry.max");
        }
        self.attempts = retry.count("attempts", self.attempts, &ATTEMPTS);
        self.age = retry.duration("age", self.age, &AGE);
        retry.finish();
        self.on_failure = section.parsed("on_failure", ON_FAILURE, parse_on_failure).unwrap_or(self.on_failure);
        let on_invalid = section.parsed("on_invalid", "\"park\" or \"skip\"", |text| match text {
            "park" => Some(OnInvalid::Park),
            "skip" => Some(OnInvalid::Skip),
            _ => None,
        });
        self.on_invalid = on_invalid.unwrap_or(self.on_invalid);
        let on_hole = section.parsed("on_hole", "\"park\" or \"pass\"", |text| match text {
            "park" => Some(OnHole::Park),
            "pass" => Some(OnHole::Pass),
            _ => None,
        });
        self.on_hole = on_hole.unwrap_or(self.on_hole);
        let on_edition_delete = section.parsed("on_edition_delete", "\"keep\" or \"purge\"", |text| match text {
            "keep" => Some(OnEditionDelete::Keep),
            "purge" => Some(OnEditionDelete::Purge),
            _ => None,
        });
        self.on_edition_delete = on_edition_delete.unwrap_or(self.on_edition_delete);
    }
}

fn read_kind(section: &mut Section<'_>) -> Option<HandlerKind> {
    let copies = (section.has("kinesis") || section.has("jsonl")) && !section.has("http");
    if copies && !section.has("kind") {
        return Some(HandlerKind::Sink);
    }
    section.required("kind", KIND, |text| match text {
        "sink" => Some(HandlerKind::Sink),
        "projector" => Some(HandlerKind::Projector),
        "saga" => Some(HandlerKind::Saga),
        _ => None,
    })
}

fn read_subscriptions(section: &mut Section<'_>) -> Vec<SubscriptionConfig> {
    const EXPECTED: &str = "at least one entry such as { domain = \"orders\" }: a handler without one receives nothing";
    match section.sections("subscribe", SUBSCRIPTIONS_MAX) {
        None => {
            section.missing("subscribe", EXPECTED);
            Vec::new()
        }
        Some(entries) => {
            if entries.is_empty() {
                section.wrong("subscribe", "an empty list", EXPECTED);
            }
            entries.into_iter().map(SubscriptionConfig::read).collect()
        }
    }
}

fn parse_on_failure(text: &str) -> Option<OnFailure> {
    match text {
        "park" => Some(OnFailure::Park),
        "skip" => Some(OnFailure::Skip),
        "block" => Some(OnFailure::Block),
        _ => None,
    }
}

fn parse_start(text: &str) -> Option<Start> {
    match text {
        "beginning" => Some(Start::Beginning),
        "latest" => Some(Start::Latest),
        moment => Timestamp::parse(moment).ok().map(Start::At),
    }
}

/// The receivers a handler may name, for messages.
pub(super) fn receiver_kinds() -> String {
    KINDS.join(", ")
}
