//! The signals that end a daemon: SIGTERM, and Ctrl-C's SIGINT.

use std::io;

/// Waits for the next signal to stop.
#[cfg(unix)]
pub(super) async fn stop_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Waits for the next signal to stop.
#[cfg(not(unix))]
pub(super) async fn stop_signal() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
