//! The admin endpoint: `/metrics` for Prometheus, `/livez` and `/readyz` for Kubernetes.
//!
//! `pages` decides what is answered, without I/O; `server` is the socket, with bounded connections and times. It only
//! reads: nothing can be changed through it, and it shows no payload.

mod pages;
mod server;

#[cfg(test)]
mod tests;

pub use pages::AdminPages;
pub use server::{AdminError, AdminServer};
