//! Building a handler's state from the table, and finding there what the stream lost: jobs of parallel scan segments.
//!
//! A segment is read as a shard is: it has a reader, a window and a lane, its rows come as pages, and its place is kept
//! as a checkpoint. So order, retries, marks, memory and what is repeated after a crash are the lanes' here as there.
//! Which handler needs a job, and what it holds meanwhile, is `relay`'s.

mod segment;
mod job;
mod need;
mod pace;
mod progress;
mod scan;
mod memory;

pub use job::{Job, JobKind, JobStore, Seen};
pub use memory::MemoryScan;
pub use need::{Known, Listed, Need, STREAM_KEEPS, after_job, at_first_sight, at_opening, other_stream};
pub use pace::CapacityPace;
pub use progress::{ScanProgress, Scanned, bar};
pub use scan::{TableScan, TableSize, TableSource};
pub use segment::Segment;
