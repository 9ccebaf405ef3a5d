//! Comparing the events table with what handlers have durably done: the operator's proof that nothing was lost.
//!
//! `keys` reads the table's keys, a root at a time, in bounded memory; `judge` says, purely, what is wrong with one
//! root for one handler. Printing and mending are left to `cli`.

mod judge;
mod keys;

pub use judge::{Ahead, Finding, Judged, Open, judge};
pub use keys::{KeyScan, RootKeys};
