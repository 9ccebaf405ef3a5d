//! The integration tests: the whole crate against real components, in one binary, one module for each behaviour.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod support;
mod binary;
mod cli;
mod emulators;
mod handlers;
mod tidy;
