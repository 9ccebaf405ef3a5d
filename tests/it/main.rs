//! The integration tests: one binary, one module a behaviour, on real components. `README.md` says what they need.
//!
//! A missing component fails its tests with a message that says what to install; nothing is ever skipped.

mod support;

mod emulators;
mod binary;
mod tidy;
