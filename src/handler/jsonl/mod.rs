//! The ready-made handler for a JSON Lines file, or stdout: one CloudEvent a line.
//!
//! - `file`: the file: its lock, its torn last line, appending and syncing
//! - `sink`: the handler: a group of roots is one append and one sync

mod file;
mod sink;

pub use file::JsonlError;
pub use sink::JsonlHandler;
