//! The integration tests: the whole crate against real components, in one binary, one module for each behaviour.
//!
//! A missing component fails its tests with a message that says what to install; nothing is ever skipped.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod support;
mod binary;
mod cli;
mod emulators;
mod handlers;
mod tidy;
