//! Comparing the events table with what handlers have durably done: the operator's proof that nothing was lost.
//!
//! `keys` reads the table's keys and `grouping` puts them together, a root at a time, in bounded memory; `judge` says,
//! purely, what is wrong with one root for one handler, and `payloads` what is wrong with a payload in chunks. Printing
//! and mending are left to `cli`.

mod grouping;
mod judge;
mod keys;
mod payloads;

pub use grouping::{KeyBatch, PayloadKeys, RootKeys};
pub use judge::{Ahead, Finding, Judged, Open, PassedHoles, judge};
pub use keys::KeyScan;
pub use payloads::{PayloadFinding, judge_payload};
