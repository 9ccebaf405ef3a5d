//! Traces: what a collector is sent of a delivery, and what the receiver is told, when the event belongs to a trace.

use std::sync::{Arc, Mutex};

use angzarr_relay::aws::AwsClients;
use angzarr_relay::local::EmbeddedDynamo;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::embedded::clients;
use crate::outage::{billing, dynamo_with_tables};
use crate::support::{RelayHome, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const MADE_IN: &str = "b7ad6b7169203331";
const OTHER_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What came in: spans with the name of their service, and what the handler's service was given with which trace.
#[derive(Debug, Default)]
struct Seen {
    spans: Vec<(String, Span)>,
    given: Vec<(Value, Option<String>)>,
    refuses: bool,
}

/// A collector and a handler's service on one port.
async fn serve(seen: Arc<Mutex<Seen>>) -> String {
    let (collecting, receiving) = (seen.clone(), seen);
    let collect = move |body: Bytes| async move {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let mut seen = collecting.lock().unwrap();
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap();
            let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let service = text(service.value.clone().unwrap().value.unwrap());
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.spans.extend(spans.map(|span| (service.clone(), span)));
        }
        StatusCode::OK
    };
    let receive = move |headers: HeaderMap, body: Bytes| async move {
        let trace = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        let mut seen = receiving.lock().unwrap();
        seen.given.push((serde_json::from_slice(&body).unwrap(), trace));
        if seen.refuses { StatusCode::BAD_REQUEST } else { StatusCode::OK }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/v1/traces", post(collect)).route("/events", post(receive));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn text(value: AnyValue) -> String {
    match value {
        AnyValue::StringValue(text) => text,
        AnyValue::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(text(found.value.clone()?.value?))
}

fn hex(bytes: &[u8]) -> String {
    let number = bytes.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    format!("{number:0digits$x}", digits = bytes.len() * 2)
}

/// Tables, a collector with a handler's service, and a relay's folder.
struct Setting {
    aws: AwsClients,
    seen: Arc<Mutex<Seen>>,
    url: String,
    home: RelayHome,
    _dynamo: EmbeddedDynamo,
}

impl Setting {
    async fn build() -> Self {
        let dynamo = dynamo_with_tables().await;
        let aws = clients(Some(dynamo.endpoint()), None).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let url = serve(seen.clone()).await;
        let home = RelayHome::new();
        home.configure(dynamo.endpoint(), &billing(&format!("{url}/events"), "projector", ""));
        Self { aws, seen, url, home, _dynamo: dynamo }
    }
}

/// A row as another writer makes it, with a trace.
async fn put(aws: &AwsClients, root: &str, sequence: u64, traceparent: Option<&str>) {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let mut put = (aws.dynamodb.put_item())
        .table_name(format!("{}-events", RelayHome::PREFIX))
        .item("pk", text(&format!("orders#angzarr#{root}")))
        .item("sk", AttributeValue::N(sequence.to_string()))
        .item("event_type", text("OrderPlaced"))
        .item("payload", AttributeValue::B(Blob::new("hidden-payload")))
        .item("correlation_id", text(&format!("c-{root}")))
        .item("created_at", text("2026-01-31T12:00:00Z"));
    if let Some(traceparent) = traceparent {
        put = put.item("traceparent", text(traceparent));
    }
    put.send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_part_of_the_trace_of_its_event_and_the_receiver_is_told() {
    let Setting { aws, seen, url, home, _dynamo } = Setting::build().await;
    let mut relay = home.spawn_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_BSP_SCHEDULE_DELAY", "100")]);
    relay.wait_ready().await;
    put(&aws, "traced", 0, Some(&format!("00-{TRACE}-{MADE_IN}-01"))).await;
    put(&aws, "alone", 0, None).await;
    let span = async |root: &str, nth: usize| {
        until("the span has come", async || {
            let seen = seen.lock().unwrap();
            let mut of_root = seen.spans.iter().filter(|(_, span)| attribute(span, "root").as_deref() == Some(root));
            of_root.nth(nth).cloned()
        })
        .await
    };
    let (service, traced) = span("traced", 0).await;
    assert_eq!((service.as_str(), traced.name.as_str()), ("angzarr-relay", "deliver billing"));
    assert_eq!((hex(&traced.trace_id), hex(&traced.parent_span_id)), (TRACE.to_owned(), MADE_IN.to_owned()));
    for (key, expected) in [
        ("handler", "billing"),
        ("domain", "orders"),
        ("correlation_id", "c-traced"),
        ("first_sequence", "0"),
        ("last_sequence", "0"),
        ("events", "1"),
        ("accepted", "1"),
        ("outcome", "accepted"),
    ] {
        assert_eq!(attribute(&traced, key).as_deref(), Some(expected), "{key} of {traced:?}");
    }
    assert!(!format!("{traced:?}").contains("hidden-payload"));
    let (_, alone) = span("alone", 0).await;
    assert!(alone.parent_span_id.is_empty() && hex(&alone.trace_id) != TRACE, "{alone:?}");

    // The receiver goes on with the trace of the delivery, and is told in which one the event was made.
    let given = |root: &str| {
        let seen = seen.lock().unwrap();
        seen.given.iter().rfind(|(event, _)| event["subject"] == root).cloned().unwrap()
    };
    let (event, trace) = given("traced");
    assert_eq!(event["traceparent"], format!("00-{TRACE}-{MADE_IN}-01"));
    assert_eq!(trace, Some(format!("00-{TRACE}-{}-01", hex(&traced.span_id))));
    let (event, trace) = given("alone");
    assert!(event.get("traceparent").is_none(), "{event}");
    assert_eq!(trace, Some(format!("00-{}-{}-01", hex(&alone.trace_id), hex(&alone.span_id))));

    // A failure is one in the trace, too.
    seen.lock().unwrap().refuses = true;
    put(&aws, "refused", 0, Some(&format!("00-{OTHER_TRACE}-{MADE_IN}-01"))).await;
    let (_, refused) = span("refused", 0).await;
    assert_eq!(hex(&refused.trace_id), OTHER_TRACE);
    assert_eq!(attribute(&refused, "outcome").as_deref(), Some("permanent"));
    assert_eq!(refused.status.unwrap().code, 2, "an error");
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_at_the_end() {
    let Setting { aws, seen, url, home, _dynamo } = Setting::build().await;
    // Nothing is sent before, unless a batch is full.
    let mut relay = home.spawn_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    relay.wait_ready().await;
    put(&aws, "r", 0, None).await;
    until("the event is delivered", async || (seen.lock().unwrap().given.len() == 1).then_some(())).await;
    assert_eq!(seen.lock().unwrap().spans.len(), 0);
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(seen.lock().unwrap().spans.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_nothing_but_the_traces() {
    let Setting { aws, seen, url: _, home, _dynamo } = Setting::build().await;
    // Whatever listens on port 9 discards; here nobody does.
    let mut relay =
        home.spawn_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_BSP_SCHEDULE_DELAY", "100")]);
    relay.wait_ready().await;
    put(&aws, "r", 0, None).await;
    until("the event is delivered", async || (seen.lock().unwrap().given.len() == 1).then_some(())).await;
    until("it is told", async || relay.output().contains("traces could not be sent").then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_refused_at_the_start() {
    let home = RelayHome::new();
    home.configure("http://127.0.0.1:9", &billing("http://127.0.0.1:9", "projector", ""));
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let mut relay = home.spawn_with(&environment);
    assert_eq!(relay.exit().await.code(), Some(64));
    let output = relay.output();
    assert!(output.contains("OTEL_EXPORTER_OTLP_PROTOCOL is grpc: traces are sent by http/protobuf"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_filter_brings_a_payload_into_the_log() {
    let Setting { aws, seen, url: _, home, _dynamo } = Setting::build().await;
    let mut relay = home.spawn_with(&[("ANGZARR_RELAY_LOG", "trace,aws_smithy_runtime=trace")]);
    relay.wait_ready().await;
    put(&aws, "r", 0, None).await;
    until("the event is delivered", async || (seen.lock().unwrap().given.len() == 1).then_some(())).await;
    assert!(relay.terminate().await.success());
    let output = relay.output();
    // As it stands, in base64, as the bytes that `Debug` shows.
    for payload in ["hidden-payload", "aGlkZGVuLXBheWxvYWQ", "104, 105, 100, 100, 101, 110"] {
        assert!(!output.contains(payload), "{payload} is in the log");
    }
    assert!(output.contains("TRACE"), "the filter was taken");
}
