//! An answer that breaks off: its connection is cut before the first byte, or in the middle.
//!
//! Its body fails. Where that is at once, nothing of the answer is sent; where it is a turn later, what stands before has
//! been. Invariant: the head promises more than is sent, so nobody takes it for whole.

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use futures_util::{StreamExt as _, stream};
use tokio::task::yield_now;

/// The connection is cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
struct Cut;

/// Nothing is sent, not even the head.
pub(super) fn before() -> Response<Body> {
    // hyper asks for a body only where there is to be one.
    promising(1, Body::from_stream(stream::iter([Err::<Bytes, Cut>(Cut)])))
}

/// The head is sent, and half of the body.
pub(super) fn in_the_middle(body: &Bytes) -> Response<Body> {
    let half = stream::iter([Ok(body.slice(..body.len() / 2))]);
    let cut = stream::once(async {
        yield_now().await;
        Err(Cut)
    });
    promising(body.len().max(1), Body::from_stream(half.chain(cut)))
}

fn promising(length: usize, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}
