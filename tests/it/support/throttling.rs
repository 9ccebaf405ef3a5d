//! A way to a DynamoDB on which some calls are throttled: what an account's limits do, and no emulator.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// What DynamoDB answers beyond a limit.
const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"The level of configured provisioned throughput for the table was exceeded"}"#;

/// Which calls are throttled: the operation, and a text in its request.
type Rule = Option<(&'static str, String)>;

/// A way to a DynamoDB; it ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct Throttling {
    /// What a client is given in the service's place.
    pub(crate) endpoint: String,
    rule: Arc<Mutex<Rule>>,
    throttled: Arc<AtomicUsize>,
}

impl Throttling {
    /// Forwards to the DynamoDB at `endpoint`.
    pub(crate) async fn before(endpoint: &str) -> Self {
        let (rule, throttled) = (Arc::new(Mutex::new(Rule::None)), Arc::new(AtomicUsize::new(0)));
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let (target, rules, count) = (endpoint.to_owned(), rule.clone(), throttled.clone());
        let forward = move |headers: HeaderMap, body: Bytes| {
            let (client, target, rules, count) = (client.clone(), target.clone(), rules.clone(), count.clone());
            async move {
                let operation = headers.get("x-amz-target").and_then(|name| name.to_str().ok()).unwrap_or_default();
                let beyond = rules.lock().unwrap().as_ref().is_some_and(|(throttled, text)| {
                    operation.ends_with(&format!(".{throttled}")) && String::from_utf8_lossy(&body).contains(text)
                });
                if beyond {
                    count.fetch_add(1, Ordering::Relaxed);
                    return Response::builder().status(StatusCode::BAD_REQUEST).body(Body::from(THROTTLED)).unwrap();
                }
                let mut request = Request::post(target).body(Full::new(body)).unwrap();
                *request.headers_mut() = headers;
                match client.request(request).await {
                    Ok(answer) => {
                        let (parts, body) = answer.into_parts();
                        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
                        Response::from_parts(parts, Body::from(body))
                    }
                    Err(_) => Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::empty()).unwrap(),
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(axum::routing::post(forward));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, rule, throttled }
    }

    /// Throttles the calls of an operation whose request holds this text; none: lets all pass again.
    pub(crate) fn throttle(&self, rule: Option<(&'static str, &str)>) {
        *self.rule.lock().unwrap() = rule.map(|(operation, text)| (operation, text.to_owned()));
    }

    /// How many calls were throttled.
    pub(crate) fn throttled(&self) -> usize {
        self.throttled.load(Ordering::Relaxed)
    }
}
