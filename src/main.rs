//! The binary `angzarr-relay`: the library's command line, without Rust handlers of its own.

use std::process::ExitCode;

use angzarr_relay::cli::{InProcessHandlers, start};

fn main() -> ExitCode {
    start(InProcessHandlers::default())
}
