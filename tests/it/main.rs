//! The integration tests: one binary, one module for each behaviour.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod handlers;
