//! The HTTP handler against a real server on a loopback port that answers what it was told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::event::Timestamp;
use crate::handler::testing::batch;
use crate::handler::{Accepted, Handler as _, HandlerError};
use crate::secret::Secret;
use crate::time::Clock;

/// Every answer has a body that does not come in one piece with its head.
const ANSWER_BYTES: usize = 60_000;

/// One request, as the server got it.
#[derive(Debug, Clone)]
struct Received {
    connection: usize,
    head: String,
    body: serde_json::Value,
}

/// Decides what is answered to a body: the lines of the head after `HTTP/1.1 `, or none to close the connection.
type Script = Box<dyn Fn(&serde_json::Value) -> Option<String> + Send + Sync>;

struct Server {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    async fn start(script: impl Fn(&serde_json::Value) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events?token=in-the-query", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (script, requests): (Arc<Script>, _) = (Arc::new(Box::new(script)), Arc::clone(&received));
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, connection, Arc::clone(&script), Arc::clone(&requests)));
            }
        });
        Self { url, received }
    }

    /// A server that answers everything so.
    async fn answering(head: &'static str) -> Self {
        Self::start(move |_| Some(head.to_owned())).await
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, connection: usize, script: Arc<Script>, received: Arc<Mutex<Vec<Received>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.trim().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap();
        let answer = script(&body);
        received.lock().unwrap().push(Received { connection, head, body });
        let Some(answer) = answer else { return };
        let text = format!("HTTP/1.1 {answer}\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n{:ANSWER_BYTES$}", "hello");
        stream.write_all(text.as_bytes()).await.unwrap();
    }
}

fn handler(server: &Server) -> HttpHandler {
    HttpHandler::new(&HttpSettings::new(&server.url)).unwrap()
}

#[tokio::test]
async fn posts_one_cloudevent_a_request_over_one_connection() {
    let server = Server::answering("202 Accepted").await;
    assert_eq!(handler(&server).deliver(&batch("a", 0..3)).await.unwrap(), Accepted { events: 3 });
    let received = server.received();
    let ids: Vec<_> = received.iter().map(|request| request.body["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["orders:angzarr:a:0", "orders:angzarr:a:1", "orders:angzarr:a:2"]);
    for request in received {
        assert!(request.head.starts_with("post /events?token=in-the-query http/1.1\r\n"), "{}", request.head);
        assert!(request.head.contains("content-type: application/cloudevents+json\r\n"), "{}", request.head);
        assert_eq!(request.connection, 0);
    }
}

#[tokio::test]
async fn large_payloads_are_sent_piece_by_piece_with_their_length() {
    for batched in [HttpBatch::Single, HttpBatch::CloudEventsBatch] {
        let server = Server::answering("202 Accepted").await;
        let handler = HttpHandler::new(&HttpSettings { batch: batched, ..HttpSettings::new(&server.url) }).unwrap();
        let mut large = batch("a", 0..3);
        for event in &mut large.events {
            Arc::make_mut(event).payload = vec![7; 1_000_001].into();
        }
        assert_eq!(handler.deliver(&large).await.unwrap(), Accepted { events: 3 });
        let bodies = server.received().into_iter().map(|request| request.body);
        let events: Vec<_> = bodies.flat_map(|body| body.as_array().cloned().unwrap_or_else(|| vec![body])).collect();
        let expected: Vec<_> = large.events.iter().map(|event| crate::event::cloudevent_json(event)).collect();
        assert!(events == expected, "{batched:?}");
    }
}

#[tokio::test]
async fn a_later_failure_leaves_the_prefix_accepted() {
    let server = Server::start(|event| {
        let refused = event["id"] == "orders:angzarr:a:2";
        Some(if refused { "422 Unprocessable" } else { "200 OK" }.to_owned())
    })
    .await;
    let handler = handler(&server);
    assert_eq!(handler.deliver(&batch("a", 0..5)).await.unwrap(), Accepted { events: 2 });
    assert!(matches!(handler.deliver(&batch("a", 2..5)).await, Err(HandlerError::Permanent { .. })));
    assert_eq!(server.received().len(), 4, "nothing after the failure was sent");
}

#[tokio::test]
async fn a_refused_batch_is_halved_down_to_the_event_at_fault() {
    let server = Server::start(|events| {
        let refused = events.as_array().unwrap().iter().any(|event| event["id"] == "orders:angzarr:a:5");
        Some(if refused { "400 Bad Request" } else { "204 No Content" }.to_owned())
    })
    .await;
    let settings =
        HttpSettings { batch: HttpBatch::CloudEventsBatch, events_per_request: 8, ..HttpSettings::new(&server.url) };
    let handler = HttpHandler::new(&settings).unwrap();
    assert_eq!(handler.limits().events_per_root, 8);
    assert_eq!(handler.deliver(&batch("b", 0..20)).await.unwrap(), Accepted { events: 20 });
    assert_eq!(server.received().len(), 3);
    assert!(server.received()[0].head.contains("content-type: application/cloudevents-batch+json\r\n"));
    assert_eq!(handler.deliver(&batch("a", 0..8)).await.unwrap(), Accepted { events: 5 });
    assert!(matches!(handler.deliver(&batch("a", 5..8)).await, Err(HandlerError::Permanent { .. })));
    assert_eq!(handler.deliver(&batch("a", 6..8)).await.unwrap(), Accepted { events: 2 });
}

#[tokio::test]
async fn the_kinds_of_failure_reach_the_caller() {
    type Kind = fn(&HandlerError) -> bool;
    let retry: Kind = |error| matches!(error, HandlerError::Retry { .. });
    let throttled: Kind = |error| matches!(error, HandlerError::Throttled { .. });
    let unavailable: Kind = |error| matches!(error, HandlerError::Unavailable { .. });
    let permanent: Kind = |error| matches!(error, HandlerError::Permanent { .. });
    let cases = [
        ("429 Too Many Requests", throttled),
        ("500 Internal Server Error", retry),
        ("401 Unauthorized", unavailable),
        ("404 Not Found", permanent),
        ("307 Temporary Redirect\r\nlocation: /elsewhere", permanent),
    ];
    for (head, is_kind) in cases {
        let server = Server::answering(head).await;
        let error = handler(&server).deliver(&batch("a", 0..2)).await.unwrap_err();
        assert!(is_kind(&error), "{head}: {error:?}");
        assert_eq!(server.received().len(), 1, "{head}");
        assert!(!error.to_string().contains("in-the-query"), "{error}");
    }
}

#[tokio::test]
async fn retry_after_comes_through_as_seconds_and_as_a_date() {
    let clock = Clock::starting_at(Timestamp::parse("2026-10-21T07:00:00Z").unwrap());
    for (head, least, most) in [
        ("429 Too Many Requests\r\nretry-after: 17", 17, 17),
        // The clock goes on with the test, so the wait may have become a little shorter.
        ("503 Service Unavailable\r\nretry-after: Wed, 21 Oct 2026 07:30:00 GMT", 1700, 1800),
    ] {
        let server = Server::answering(head).await;
        let error = handler(&server).with_clock(clock.clone()).deliver(&batch("a", 0..1)).await.unwrap_err();
        let (HandlerError::Retry { after: Some(after), .. } | HandlerError::Throttled { after: Some(after), .. }) =
            error
        else {
            panic!("{head}: {error:?}")
        };
        assert!((Duration::from_secs(least)..=Duration::from_secs(most)).contains(&after), "{head}: {after:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_cannot_be_reached_is_an_outage() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let no_tls = Server::answering("200 OK").await.url.replace("http:", "https:");
    for url in [refused.as_str(), "http://nowhere.invalid/", no_tls.as_str()] {
        let handler = HttpHandler::new(&HttpSettings::new(url)).unwrap();
        let error = handler.deliver(&batch("a", 0..1)).await.unwrap_err();
        assert!(matches!(error, HandlerError::Unavailable { .. }), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_breaks_off_or_stays_silent_is_tried_again() {
    let closing = Server::start(|_| None).await;
    let error = handler(&closing).deliver(&batch("a", 0..1)).await.unwrap_err();
    assert!(matches!(error, HandlerError::Retry { .. }), "{error:?}");
    // Connections wait in the listener's queue and are never served.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let settings = HttpSettings { timeout: Duration::from_millis(500), ..HttpSettings::new(url) };
    let error = HttpHandler::new(&settings).unwrap().deliver(&batch("a", 0..1)).await.unwrap_err();
    assert!(matches!(error, HandlerError::Retry { .. }), "{error:?}");
    assert!(error.to_string().contains("500ms"), "{error}");
}

#[tokio::test]
async fn a_secret_is_read_again_when_its_file_changes_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "Bearer first-secret\n").unwrap();
    let server = Server::answering("200 OK").await;
    let settings = HttpSettings {
        headers: vec![
            ("Authorization".into(), Secret::File(path.clone())),
            ("x-api-key".into(), Secret::Literal("literal-secret".into())),
            ("x-build".into(), Secret::Env("CARGO_PKG_NAME".into())),
        ],
        ..HttpSettings::new(&server.url)
    };
    let handler = HttpHandler::new(&settings).unwrap();
    handler.deliver(&batch("a", 0..1)).await.unwrap();
    std::fs::write(&path, "Bearer second-secret").unwrap();
    handler.deliver(&batch("a", 1..2)).await.unwrap();
    let heads: Vec<_> = server.received().into_iter().map(|request| request.head).collect();
    assert!(heads[0].contains("authorization: bearer first-secret\r\n"), "{}", heads[0]);
    assert!(heads[1].contains("authorization: bearer second-secret\r\n"), "{}", heads[1]);
    assert!(heads[1].contains("x-api-key: literal-secret\r\n") && heads[1].contains("x-build: angzarr-relay\r\n"));
    for shown in [format!("{settings:?}"), format!("{handler:?}"), format!("{:?}", settings.headers)] {
        assert!(!shown.contains("secret") && !shown.contains("in-the-query"), "{shown}");
    }

    std::fs::write(&path, "two\nlines-of-secret").unwrap();
    let unusable = handler.deliver(&batch("a", 2..3)).await.unwrap_err();
    std::fs::remove_file(&path).unwrap();
    let missing = handler.deliver(&batch("a", 2..3)).await.unwrap_err();
    for error in [unusable, missing] {
        assert!(matches!(error, HandlerError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("`authorization`"), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    let with = |change: fn(&mut HttpSettings)| {
        let mut settings = HttpSettings::new("http://host/path");
        change(&mut settings);
        HttpHandler::new(&settings).map(|_| ()).unwrap_err()
    };
    for url in ["", "/path", "ftp://host/", "host:80", "http://"] {
        assert!(HttpHandler::new(&HttpSettings::new(url)).is_err(), "{url}");
    }
    assert!(matches!(
        with(|settings| settings.url = "http://user:password@host/".into()),
        HttpSettingsError::UrlCredentials
    ));
    assert!(matches!(with(|settings| settings.timeout = Duration::ZERO), HttpSettingsError::Timeout));
    assert!(matches!(with(|settings| settings.events_per_request = 0), HttpSettingsError::EventsPerRequest));
    assert!(matches!(
        with(|settings| settings.headers = vec![("a b".into(), Secret::Literal(String::new()))]),
        HttpSettingsError::HeaderName { .. }
    ));
    assert!(matches!(
        with(|settings| settings.headers = vec![("Content-Type".into(), Secret::Env("X".into()))]),
        HttpSettingsError::ReservedHeader { .. }
    ));
}
