//! The two HTTP endpoints: `/metrics`, `/livez` and `/readyz` for Prometheus and Kubernetes; `/status` and `/log-level` for
//! operators.
//!
//! `probes` and `admin` decide what is answered; `server` is the socket, with bounded connections, times and bodies. No
//! payload is shown, and nothing can be changed without the token.

mod probes;
mod admin;
mod server;

#[cfg(test)]
mod tests;

pub use admin::{AdminPages, AdminToken, StatusSource};
pub use probes::ProbePages;
pub use server::{EndpointError, EndpointServer, Pages};
