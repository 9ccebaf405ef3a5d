//! Reading: the tables and Kinesis by the public SDK, files line by line, strikes as a test wrote them.
//!
//! It judges nothing, but for what cannot be read at all: of a receiver that becomes a violation, of the tables an error.
//! A shard counts as read when it is closed, or answers that nothing is behind its last record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::types::{Shard, ShardIteratorType};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use serde_json::Value;

use crate::judge::{Arrival, Output, Position, Row, Standing, Strike, Table};

type Item = HashMap<String, AttributeValue>;

/// One call; an emulator on a busy machine is slow.
const CALL_MAX: Duration = Duration::from_mins(1);

/// Empty answers of a shard that says nothing about what is behind them.
const EMPTY_ANSWERS_MAX: u32 = 10;

/// The settings of a client of `endpoint`, with credentials that any emulator accepts.
pub(crate) fn sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "verdict");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .timeout_config(TimeoutConfig::builder().operation_timeout(CALL_MAX).build())
        .build()
}

async fn scan(dynamodb: &aws_sdk_dynamodb::Client, table: &str) -> Result<Vec<Item>> {
    let mut pages = dynamodb.scan().table_name(table).consistent_read(true).into_paginator().items().send();
    let mut items = Vec::new();
    while let Some(item) = pages.next().await {
        items.push(item.with_context(|| format!("failed to scan {table}"))?);
    }
    Ok(items)
}

fn text(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

fn number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn row(item: &Item) -> Option<(String, u64, Row)> {
    let row = Row {
        event_type: text(item, "event_type")?,
        payload: item.get("payload")?.as_b().ok()?.as_ref().to_vec(),
        correlation_id: text(item, "correlation_id"),
        created_at: text(item, "created_at")?,
    };
    Some((text(item, "pk")?, number(item, "sk")?, row))
}

/// All events. A payload in chunks is not for this program.
pub(crate) async fn events(dynamodb: &aws_sdk_dynamodb::Client, prefix: &str) -> Result<Table> {
    let mut table = Table::new();
    for item in scan(dynamodb, &format!("{prefix}-events")).await? {
        let key = || format!("{:?} {:?}", item.get("pk"), item.get("sk"));
        let (root, sequence, row) = row(&item).with_context(|| format!("the row {} is no event", key()))?;
        table.entry(root).or_default().insert(sequence, row);
    }
    ensure!(!table.is_empty(), "the table {prefix}-events is empty: there is nothing to judge by");
    Ok(table)
}

/// All positions.
pub(crate) async fn positions(dynamodb: &aws_sdk_dynamodb::Client, prefix: &str) -> Result<BTreeMap<String, Position>> {
    let items = scan(dynamodb, &format!("{prefix}-positions")).await?;
    let position = |item: &Item| {
        let is_marked = item.keys().any(|name| name.starts_with("mark"));
        Some((text(item, "pk")?, Position { sequence: number(item, "sequence"), is_marked }))
    };
    items.iter().map(|item| position(item).context("a row of the positions has no key")).collect()
}

/// Everything that lies in a Kinesis stream, parents before their children.
pub(crate) async fn stream(kinesis: &aws_sdk_kinesis::Client, stream: &str) -> Result<Output> {
    let mut output = Output::default();
    for shard in parents_first(shards(kinesis, stream).await?) {
        read_shard(kinesis, stream, &shard, &mut output)
            .await
            .with_context(|| format!("failed to read the shard {shard} of {stream}"))?;
    }
    Ok(output)
}

async fn shards(kinesis: &aws_sdk_kinesis::Client, stream: &str) -> Result<Vec<Shard>> {
    let (mut shards, mut next): (Vec<Shard>, Option<String>) = (Vec::new(), None);
    loop {
        let call = kinesis.list_shards();
        let call = match next.take() {
            Some(token) => call.next_token(token),
            None => call.stream_name(stream),
        };
        let mut answer = call.send().await.with_context(|| format!("failed to list the shards of {stream}"))?;
        shards.extend(answer.shards.take().unwrap_or_default());
        next = answer.next_token;
        if next.is_none() {
            return Ok(shards);
        }
    }
}

fn parents_first(mut shards: Vec<Shard>) -> Vec<String> {
    let mut ordered: Vec<String> = Vec::new();
    while !shards.is_empty() {
        let waiting: BTreeSet<String> = shards.iter().map(|shard| shard.shard_id.clone()).collect();
        let waits = |parent: &Option<String>| parent.as_ref().is_some_and(|parent| waiting.contains(parent));
        let is_ready = |shard: &Shard| !waits(&shard.parent_shard_id) && !waits(&shard.adjacent_parent_shard_id);
        let (ready, rest): (Vec<_>, Vec<_>) = shards.into_iter().partition(is_ready);
        // No shard is its own ancestor.
        if ready.is_empty() {
            ordered.extend(rest.into_iter().map(|shard| shard.shard_id));
            return ordered;
        }
        ordered.extend(ready.into_iter().map(|shard| shard.shard_id));
        shards = rest;
    }
    ordered
}

async fn read_shard(kinesis: &aws_sdk_kinesis::Client, stream: &str, shard: &str, output: &mut Output) -> Result<()> {
    let begin = kinesis.get_shard_iterator().stream_name(stream).shard_id(shard);
    let begin = begin.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
    let (mut iterator, mut empty, mut last) = (begin.shard_iterator, 0, String::new());
    while let Some(at) = iterator {
        let answer = kinesis.get_records().shard_iterator(at).limit(2000).send().await?;
        for record in &answer.records {
            // Decimal numbers of up to 56 digits.
            let is_later =
                (last.len(), last.as_str()) < (record.sequence_number.len(), record.sequence_number.as_str());
            ensure!(is_later, "the records are not in the order of their numbers");
            last.clone_from(&record.sequence_number);
            match arrival(shard, record.data.as_ref(), record.partition_key.clone()) {
                Ok(arrival) => output.arrivals.push(arrival),
                Err(why) => output.unreadable.push(format!("{shard}: record {last} {why}")),
            }
        }
        let is_at_end = answer.records.is_empty() && answer.millis_behind_latest.is_none_or(|behind| behind == 0);
        empty = if is_at_end { empty + 1 } else { 0 };
        let is_told = answer.millis_behind_latest == Some(0);
        if is_at_end && (is_told || empty >= EMPTY_ANSWERS_MAX) {
            return Ok(());
        }
        iterator = answer.next_shard_iterator;
    }
    Ok(())
}

fn arrival(shard: &str, bytes: &[u8], partition_key: Option<String>) -> Result<Arrival, &'static str> {
    let event: Value = serde_json::from_slice(bytes).map_err(|_| "is no JSON")?;
    let payload = event["data_base64"].as_str().and_then(|encoded| aws_smithy_types::base64::decode(encoded).ok());
    Ok(Arrival { shard: shard.to_owned(), event, payload, partition_key })
}

/// Everything that lies in a file of lines.
pub(crate) fn file(path: &Path) -> Result<Output> {
    let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut output = Output::default();
    let name = path.display().to_string();
    if bytes.last().is_some_and(|last| *last != b'\n') {
        output.unreadable.push(format!("{name} ends in a torn line"));
    }
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match arrival(&name, line, None) {
            Ok(arrival) => output.arrivals.push(arrival),
            Err(why) => output.unreadable.push(format!("{name}: line {} {why}", index + 1)),
        }
    }
    Ok(output)
}

/// What was struck, as `[{"what": "..", "handlers": {"copy": {"orders#angzarr#r1": {"arrived": 3, "durable": 1}}}}]`;
/// `durable` is null where there was no position.
pub(crate) fn strikes(path: &Path) -> Result<Vec<Strike>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let strikes = value.as_array().with_context(|| format!("{} is no list of strikes", path.display()))?;
    strikes.iter().map(|value| strike(value).with_context(|| format!("{}: no strike", path.display()))).collect()
}

fn strike(value: &Value) -> Result<Strike> {
    let what = value["what"].as_str().context("`what` is missing")?.to_owned();
    let handlers = value["handlers"].as_object().context("`handlers` is missing")?;
    let mut strike = Strike { what, handlers: BTreeMap::new() };
    for (handler, roots) in handlers {
        let roots = roots.as_object().with_context(|| format!("`{handler}` has no roots"))?;
        let standing = |value: &Value| {
            let arrived = usize::try_from(value["arrived"].as_u64()?).ok()?;
            Some(Standing { arrived, durable: value["durable"].as_u64() })
        };
        let roots = roots.iter().map(|(root, value)| {
            Ok((root.clone(), standing(value).with_context(|| format!("`{root}` has no `arrived`"))?))
        });
        strike.handlers.insert(handler.clone(), roots.collect::<Result<_>>()?);
    }
    Ok(strike)
}
