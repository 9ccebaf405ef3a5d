//! The manners of the binary itself, as whoever starts it meets them.

use std::path::Path;

use crate::support::{RelayProcess, free_port};

#[tokio::test]
async fn a_relay_without_its_configuration_ends_by_itself() {
    let mut relay = RelayProcess::spawn(Path::new("/nowhere/relay.toml"), free_port(), &[]);
    let status = relay.exit().await;
    assert!(status.code().is_some(), "it died of a signal: {status}");
}
