//! The integration tests: the whole crate against real components, in one binary.

mod cli;
mod handlers;
