//! The receiver of all replicas: which of them delivered which root, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// The number of a replica: none has that of another.
pub(crate) type Replica = usize;

/// A delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) by: Replica,
    pub(crate) at: Instant,
}

/// What was delivered, by root, since it was last cleared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<BTreeMap<String, Vec<Delivery>>>>);

impl Receiver {
    /// Serves for as long as the process runs; the URL of a replica is this and its number.
    pub(crate) async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/{replica}", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// Forgets all but the last delivery of each root.
    pub(crate) fn clear(&self) {
        for deliveries in self.0.lock().unwrap().values_mut() {
            deliveries.drain(..deliveries.len().saturating_sub(1));
        }
    }

    /// Everything since then.
    pub(crate) fn deliveries(&self) -> BTreeMap<String, Vec<Delivery>> {
        self.0.lock().unwrap().clone()
    }
}

async fn take(State(receiver): State<Receiver>, Path(by): Path<Replica>, body: String) -> StatusCode {
    let event: serde_json::Value = serde_json::from_str(&body).unwrap();
    let root = event["partitionkey"].as_str().unwrap().to_owned();
    let delivery = Delivery { by, at: Instant::now() };
    receiver.0.lock().unwrap().entry(root).or_default().push(delivery);
    StatusCode::OK
}
