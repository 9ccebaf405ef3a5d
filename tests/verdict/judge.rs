//! What is right and what is wrong, by the clauses of the contract. Pure: what was read goes in, violations come out.
//!
//! It leaves reading to `sources.rs` and holds every handler to all events of the table: a handler that subscribes to
//! less is not for this program. No payload is ever part of a violation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// An event as its row in the table has it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) event_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) created_at: String,
}

/// The events of each root, by the partition key of the events table.
pub(crate) type Table = BTreeMap<String, BTreeMap<u64, Row>>;

/// A row of the positions table, by its partition key.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) sequence: Option<u64>,
    pub(crate) is_marked: bool,
}

/// Something that a handler's receiver was given.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The shard it lies in; for a file its path.
    pub(crate) shard: String,
    /// Its CloudEvent.
    pub(crate) event: serde_json::Value,
    /// The payload, decoded; none when it could not be.
    pub(crate) payload: Option<Vec<u8>>,
    /// The key it was sent under, where there is one.
    pub(crate) partition_key: Option<String>,
}

/// Everything that a handler's receiver was given.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// In the order of each shard.
    pub(crate) arrivals: Vec<Arrival>,
    /// What could not be read.
    pub(crate) unreadable: Vec<String>,
}

/// How one root stood for one handler when something was struck.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// So many had come out, at the least.
    pub(crate) arrived: usize,
    /// The durable position, before that was counted.
    pub(crate) durable: Option<u64>,
}

/// A blow to the relay: whom it could make repeat what.
#[derive(Debug)]
pub(crate) struct Strike {
    pub(crate) what: String,
    /// By handler and root. A root that is not named had nothing, and no position.
    pub(crate) handlers: BTreeMap<String, BTreeMap<String, Standing>>,
}

/// A clause of the contract that does not hold, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    clause: &'static str,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.clause, self.text)
    }
}

pub(crate) const ORDER: &str = "clause 1 (order)";
pub(crate) const NO_LOSS: &str = "clause 2 (no loss)";
pub(crate) const REPEATS: &str = "clause 3 (repeats)";
pub(crate) const POSITIONS: &str = "clause 4 (positions)";
pub(crate) const CONTENT: &str = "content";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    /// What came again, by handler.
    pub(crate) repeats: BTreeMap<String, usize>,
}

impl Verdict {
    pub(crate) fn object(&mut self, clause: &'static str, text: String) {
        self.violations.push(Violation { clause, text });
    }
}

/// Holds what came out, by handler, and the positions to the table.
pub(crate) fn judge(
    table: &Table,
    positions: &BTreeMap<String, Position>,
    outputs: &BTreeMap<String, Output>,
    strikes: &[Strike],
) -> Verdict {
    let mut verdict = Verdict::default();
    for (handler, output) in outputs {
        for unreadable in &output.unreadable {
            verdict.object(CONTENT, format!("{handler}: {unreadable}"));
        }
        let roots = by_root(handler, table, output, &mut verdict);
        for (root, events) in table {
            let came = roots.get(root.as_str()).map_or(&[][..], Vec::as_slice);
            judge_completeness(handler, root, events, came, &mut verdict);
            judge_order(handler, root, events, came, &mut verdict);
            judge_repeats(handler, root, came, strikes, &mut verdict);
            judge_position(handler, root, events, positions, &mut verdict);
        }
        for (key, position) in positions {
            let Some(root) = key.strip_prefix(&format!("{handler}#")) else { continue };
            if !table.contains_key(root) {
                verdict.object(POSITIONS, format!("{handler}: {root} has a position and no event"));
            }
            if position.is_marked {
                verdict.object(POSITIONS, format!("{handler}: {root} is marked"));
            }
        }
    }
    verdict.violations.sort();
    verdict
}

/// The sequences of each root in the order they came, after a look at what each event says.
fn by_root<'a>(
    handler: &str,
    table: &'a Table,
    output: &'a Output,
    verdict: &mut Verdict,
) -> BTreeMap<&'a str, Vec<u64>> {
    let (mut roots, mut shards) = (BTreeMap::<&str, Vec<u64>>::new(), BTreeMap::<&str, BTreeSet<&str>>::new());
    for arrival in &output.arrivals {
        let text = |name: &str| arrival.event[name].as_str();
        let sequence = text("sequence").and_then(|digits| digits.parse().ok());
        let (Some(root), Some(sequence)) = (text("partitionkey"), sequence) else {
            verdict.object(CONTENT, format!("{handler}: {}: a CloudEvent without root or sequence", arrival.shard));
            continue;
        };
        shards.entry(root).or_default().insert(&arrival.shard);
        roots.entry(root).or_default().push(sequence);
        match table.get(root).and_then(|events| events.get(&sequence)) {
            None => verdict.object(NO_LOSS, format!("{handler}: {root} {sequence} came and is not in the table")),
            Some(row) => {
                for name in differences(root, sequence, row, arrival) {
                    verdict.object(CONTENT, format!("{handler}: {root} {sequence}: {name} is not that of the table"));
                }
            }
        }
    }
    for (root, shards) in shards.into_iter().filter(|(_, shards)| shards.len() > 1) {
        let shards: Vec<_> = shards.into_iter().collect();
        verdict.object(ORDER, format!("{handler}: {root} lies in several shards: {}", shards.join(", ")));
    }
    roots
}

/// The attributes of a CloudEvent that are not what the row says.
fn differences(root: &str, sequence: u64, row: &Row, arrival: &Arrival) -> Vec<&'static str> {
    // `%25` and `%23` stand for `%` and `#` in domain and edition; the root id comes last and as it is.
    let plain = |text: &str| text.replace("%23", "#").replace("%25", "%");
    let mut parts = root.splitn(3, '#');
    let mut part = || parts.next().unwrap_or_default();
    let (domain, edition, id) = (plain(part()), plain(part()), part());
    let said = |name: &str| arrival.event[name].as_str();
    let is_wrong = [
        ("id", said("id") != Some(&format!("{domain}:{edition}:{id}:{sequence}"))),
        ("source", said("source") != Some(&format!("angzarr/{domain}/{edition}/{id}"))),
        ("subject", said("subject") != Some(id)),
        ("type", said("type") != Some(&row.event_type)),
        ("time", said("time") != Some(&row.created_at)),
        ("correlationid", said("correlationid") != row.correlation_id.as_deref()),
        ("the partition key", arrival.partition_key.as_deref().is_some_and(|key| key != root)),
        ("the payload", arrival.payload.as_ref() != Some(&row.payload)),
    ];
    is_wrong.into_iter().filter(|(_, is_wrong)| *is_wrong).map(|(name, _)| name).collect()
}

fn judge_completeness(handler: &str, root: &str, events: &BTreeMap<u64, Row>, came: &[u64], verdict: &mut Verdict) {
    let came: BTreeSet<_> = came.iter().collect();
    for sequence in events.keys().filter(|sequence| !came.contains(sequence)) {
        verdict.object(NO_LOSS, format!("{handler}: {root} {sequence} is in the table and never came"));
    }
}

/// First occurrences are the sequences from the root's first on, one after the other.
fn judge_order(handler: &str, root: &str, events: &BTreeMap<u64, Row>, came: &[u64], verdict: &mut Verdict) {
    let (mut seen, mut last) = (BTreeSet::new(), None);
    for sequence in came.iter().filter(|sequence| seen.insert(**sequence)) {
        let expected = last.map_or_else(|| events.keys().next().copied(), |last| Some(last + 1));
        if expected != Some(*sequence) {
            let behind = last.map_or_else(|| "as the first".to_owned(), |last| format!("behind {last}"));
            verdict.object(ORDER, format!("{handler}: {root} {sequence} came {behind}"));
        }
        last = Some(*sequence);
    }
}

/// What came again came after a blow, and was not durable then.
fn judge_repeats(handler: &str, root: &str, came: &[u64], strikes: &[Strike], verdict: &mut Verdict) {
    let nothing = Standing { arrived: 0, durable: None };
    let standing =
        |strike: &Strike| strike.handlers.get(handler).map(|roots| roots.get(root).copied().unwrap_or(nothing));
    let mut seen = BTreeSet::new();
    for (index, sequence) in came.iter().enumerate() {
        if seen.insert(*sequence) {
            continue;
        }
        *verdict.repeats.entry(handler.to_owned()).or_default() += 1;
        let before = strikes.iter().rev().find_map(|strike| {
            standing(strike).filter(|standing| standing.arrived <= index).map(|standing| (strike, standing))
        });
        match before {
            None => verdict.object(REPEATS, format!("{handler}: {root} {sequence} came again, and nothing was struck")),
            Some((strike, Standing { durable: Some(durable), .. })) if *sequence <= durable => {
                let struck = &strike.what;
                let text = format!("{handler}: {root} {sequence} came again after {struck}, and {durable} was durable");
                verdict.object(REPEATS, text);
            }
            Some(_) => {}
        }
    }
}

/// The position is the root's last sequence.
fn judge_position(
    handler: &str,
    root: &str,
    events: &BTreeMap<u64, Row>,
    positions: &BTreeMap<String, Position>,
    verdict: &mut Verdict,
) {
    let last = events.keys().next_back().copied();
    let position = positions.get(&format!("{handler}#{root}")).and_then(|position| position.sequence);
    if position != last {
        let shown = |sequence: Option<u64>| sequence.map_or_else(|| "none".to_owned(), |sequence| sequence.to_string());
        let text = format!("{handler}: {root} has position {}, its last event is {}", shown(position), shown(last));
        verdict.object(POSITIONS, text);
    }
}
