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
use super::{AdminError, AdminPages, AdminServer};
use crate::telemetry::{Health, Recorder, names};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Endpoint {
    address: SocketAddr,
    health: Health,
    renders: Arc<AtomicUsize>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn pages(health: &Health, renders: &Arc<AtomicUsize>) -> AdminPages {
    let renders = Arc::clone(renders);
    let before_render = Arc::new(move || {
        renders.fetch_add(1, Ordering::SeqCst);
    });
    AdminPages { recorder: Recorder::install(), health: health.clone(), before_render }
}

async fn start() -> Endpoint {
    let (health, renders, cancel) = (Health::default(), Arc::default(), CancellationToken::new());
    let server = AdminServer::bind(ANY_PORT, pages(&health, &renders)).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn live_names_the_stuck_loops() {
    let health = Health::default();
    let pages = pages(&health, &Arc::default());
    let beat = health.register("reader");
    assert_eq!(pages.answer(&http::Method::GET, "/livez").status(), 200);
    tokio::time::advance(Duration::from_mins(2)).await;
    let stuck = pages.answer(&http::Method::GET, "/livez");
    assert_eq!(stuck.status(), 503);
    let body = http_body_util::BodyExt::collect(stuck.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "stuck: reader\n");
    beat.beat();
    assert_eq!(pages.answer(&http::Method::GET, "/livez").status(), 200);
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
    let error = AdminServer::bind(endpoint.address, pages(&endpoint.health, &endpoint.renders)).await.unwrap_err();
    assert!(matches!(error, AdminError::AddressInUse { .. }));
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
