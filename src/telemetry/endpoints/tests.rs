//! The endpoint over a real socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::server::{CONNECTION_TIME_MAX, CONNECTIONS_MAX};
use super::{AdminPages, AdminToken, EndpointError, EndpointServer, Pages, ProbePages, StatusSource};
use crate::secret::Secret;
use crate::telemetry::{Health, Recorder, names};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Endpoint {
    address: SocketAddr,
    health: Health,
    renders: Arc<AtomicUsize>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn pages(health: &Health, renders: &Arc<AtomicUsize>) -> ProbePages {
    let renders = Arc::clone(renders);
    let before_render = Arc::new(move || {
        renders.fetch_add(1, Ordering::SeqCst);
    });
    ProbePages { recorder: Recorder::install(), health: health.clone(), before_render }
}

async fn start() -> Endpoint {
    let (health, renders, cancel) = (Health::default(), Arc::default(), CancellationToken::new());
    let server = EndpointServer::bind(("telemetry.listen", ANY_PORT), pages(&health, &renders)).await.unwrap();
    let address = server.address();
    let task = tokio::spawn(server.serve(cancel.clone()));
    Endpoint { address, health, renders, cancel, task }
}

/// Sends a head as it stands and answers all that comes back.
async fn exchange(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(endpoint: &Endpoint, path: &str) -> (String, String) {
    let answer = exchange(endpoint.address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn metrics_are_refreshed_and_rendered() {
    let endpoint = start().await;
    ::metrics::counter!(names::HOLES, "handler" => "admin-test").increment(3);
    let (status, body) = get(&endpoint, "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains(r#"angzarr_relay_holes_total{handler="admin-test"} 3"#), "{body}");
    assert_eq!(endpoint.renders.load(Ordering::SeqCst), 1);
    let head = exchange(endpoint.address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
}

#[tokio::test]
async fn ready_says_what_is_in_the_way() {
    let endpoint = start().await;
    assert_eq!(get(&endpoint, "/readyz").await.0, "HTTP/1.1 503 Service Unavailable");
    endpoint.health.started();
    assert_eq!(get(&endpoint, "/readyz").await, ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    endpoint.health.problem("a", "one");
    endpoint.health.problem("b", "two");
    let expected = ("HTTP/1.1 503 Service Unavailable".to_owned(), "a: one\nb: two\n".to_owned());
    assert_eq!(get(&endpoint, "/readyz").await, expected);
    assert_eq!(get(&endpoint, "/livez").await.0, "HTTP/1.1 200 OK", "an obstacle is no reason to restart");
}

async fn livez(pages: &ProbePages) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    pages.answer(http::Request::get("/livez").body(bytes::Bytes::new()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn live_names_the_stuck_loops() {
    let health = Health::default();
    let pages = pages(&health, &Arc::default());
    let beat = health.register("reader");
    assert_eq!(livez(&pages).await.status(), 200);
    tokio::time::advance(Duration::from_mins(2)).await;
    let stuck = livez(&pages).await;
    assert_eq!(stuck.status(), 503);
    let body = http_body_util::BodyExt::collect(stuck.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "stuck: reader\n");
    beat.beat();
    assert_eq!(livez(&pages).await.status(), 200);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let endpoint = start().await;
    assert_eq!(get(&endpoint, "/").await.0, "HTTP/1.1 404 Not Found");
    let refused = exchange(endpoint.address, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"), "{refused}");
    assert_eq!(endpoint.renders.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_says_what_to_set() {
    let endpoint = start().await;
    let error =
        EndpointServer::bind(("telemetry.listen", endpoint.address), pages(&endpoint.health, &endpoint.renders))
            .await
            .err()
            .unwrap();
    assert!(matches!(error, EndpointError::AddressInUse { .. }));
    assert_eq!(
        error.to_string(),
        format!("the address {} is in use: set telemetry.listen to another one", endpoint.address)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_head_is_hung_up_on() {
    let endpoint = start().await;
    let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let (mut answer, since) = (Vec::new(), tokio::time::Instant::now());
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(since.elapsed() < CONNECTION_TIME_MAX, "the head has a shorter time than the connection");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_are_bounded_and_wait_their_turn() {
    let endpoint = start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        idle.push(TcpStream::connect(endpoint.address).await.unwrap());
    }
    let waiting = get(&endpoint, "/livez");
    tokio::pin!(waiting);
    // Turns enough for the server to have answered, were there room.
    for _ in 0..200 {
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("served beyond the bound: {answer:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(idle);
    assert_eq!(waiting.await.0, "HTTP/1.1 200 OK");
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_the_socket_and_joins_everything() {
    let endpoint = start().await;
    let mut unfinished = TcpStream::connect(endpoint.address).await.unwrap();
    unfinished.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    endpoint.cancel.cancel();
    endpoint.task.await.unwrap();
    assert!(TcpStream::connect(endpoint.address).await.is_err(), "the socket is closed");
}

/// The admin pages over a socket; how often the status was looked at.
async fn admin(token: Option<&str>, local: bool) -> (SocketAddr, Arc<AtomicUsize>, CancellationToken) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let status: StatusSource = Arc::new(move || {
        let look = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { if look < 2 { Ok(format!("{{\"look\":{look}}}")) } else { Err("no table".to_owned()) } })
    });
    let token = token.map(|token| AdminToken(Secret::Literal(token.to_owned())));
    let server =
        EndpointServer::bind(("telemetry.admin_listen", ANY_PORT), AdminPages::new(status, None, token, local));
    let (server, cancel) = (server.await.unwrap(), CancellationToken::new());
    let address = server.address();
    tokio::spawn(server.serve(cancel.clone()));
    (address, looks, cancel)
}

fn request((host, method, path): (&str, &str, &str), token: &str) -> String {
    let authorization = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}content-length: 5\r\n\r\ndebug")
}

#[tokio::test]
async fn one_look_at_the_fleet_answers_all_who_ask_within_its_time() {
    let (address, looks, _cancel) = admin(None, true).await;
    let get = "GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (one, other) = tokio::join!(exchange(address, get), exchange(address, get));
    assert!(one.starts_with("HTTP/1.1 200 ") && one.contains("content-type: application/json"), "{one}");
    assert!(one.ends_with("{\"look\":0}") && other.ends_with("{\"look\":0}"), "{one} {other}");
    assert_eq!(looks.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_is_made_anew_after_its_time_and_why_it_fails_is_said() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let status: StatusSource = Arc::new(move || {
        let look = counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match look {
                0 => Ok("{}".to_owned()),
                1 => Err("no table".to_owned()),
                _ => std::future::pending().await,
            }
        })
    });
    let pages = AdminPages::new(status, None, None, true);
    let ask = || pages.answer(http::Request::get("/status").body(bytes::Bytes::new()).unwrap());
    let body = async |answer: http::Response<http_body_util::Full<bytes::Bytes>>| {
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes()
    };
    assert_eq!(ask().await.status(), 200);
    assert_eq!((ask().await.status().as_u16(), looks.load(Ordering::SeqCst)), (200, 1));
    tokio::time::advance(Duration::from_secs(3)).await;
    let failed = ask().await;
    assert_eq!(failed.status(), 503);
    assert_eq!(body(failed).await, "no table\n");
    tokio::time::advance(Duration::from_secs(3)).await;
    // What takes too long is given up before the connections are, of all who wait for it.
    let began = tokio::time::Instant::now();
    let (one, other) = tokio::join!(ask(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ask().await
    });
    assert!(began.elapsed() < CONNECTION_TIME_MAX, "{:?}", began.elapsed());
    assert_eq!((one.status().as_u16(), other.status().as_u16()), (503, 503));
    assert_eq!(body(one).await, "the tables did not answer within 8s\n");
}

#[tokio::test]
async fn a_name_that_only_leads_here_is_shown_nothing() {
    let (address, looks, _cancel) = admin(None, true).await;
    for (host, expected) in [("evil.example", "403"), ("evil.example:9465", "403"), ("[::1]:9465", "200")] {
        let answer = exchange(address, &request((host, "GET", "/status"), "")).await;
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{host}: {answer}");
    }
    assert_eq!(looks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nothing_is_changed_without_the_token_and_nothing_read_from_elsewhere() {
    let status_of = |answer: String| answer.split(' ').nth(1).unwrap().to_owned();
    for (configured, local, method, path, shown, expected) in [
        (None, true, "GET", "/status", "", "200"),
        (None, true, "PUT", "/log-level", "", "403"),
        (None, true, "PUT", "/log-level", "secret", "403"),
        (Some("secret"), true, "GET", "/log-level", "", "409"),
        (Some("secret"), true, "PUT", "/log-level", "", "401"),
        (Some("secret"), true, "PUT", "/log-level", "secre", "401"),
        // There are no logs to change here; that is found only by whoever may.
        (Some("secret"), true, "PUT", "/log-level", "secret", "409"),
        (Some("secret"), false, "GET", "/status", "", "401"),
        (Some("secret"), false, "GET", "/status", "secret", "200"),
        (Some(""), true, "PUT", "/log-level", "", "401"),
        (Some("secret"), true, "POST", "/log-level", "secret", "405"),
        (Some("secret"), true, "PUT", "/status", "secret", "405"),
        (Some("secret"), true, "GET", "/metrics", "secret", "404"),
    ] {
        let (address, _, _cancel) = admin(configured, local).await;
        let answer = exchange(address, &request(("127.0.0.1:9465", method, path), shown)).await;
        assert!(!answer.contains("secret"), "{answer}");
        assert_eq!(status_of(answer), expected, "{configured:?} {local} {method} {path} {shown}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (address, _, _cancel) = admin(Some("secret"), true).await;
    let body = "x".repeat(5 << 10);
    let head = format!("PUT /log-level HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(address, &head).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
