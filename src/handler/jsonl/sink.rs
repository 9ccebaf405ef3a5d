//! The handler: a group of roots is one append and one sync, answered as accepted afterwards.
//!
//! File work runs where blocking is allowed, one append at a time; an append that was begun ends even when the delivery
//! is given up. Every failure is an outage (a full disk, a lost mount): no event is to blame for it.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::file::{JsonlError, LineFile, write_pieces};
use crate::event::{CloudEventPieces, Event};
use crate::handler::{Accepted, GroupLimits, Handler, HandlerError, RootBatch};

/// The path that means stdout.
const STDOUT: &str = "-";

/// How much one append holds: with few bytes and many events, the 700 bytes of attributes an event has count most.
const LIMITS: GroupLimits = GroupLimits {
    roots: 200,
    events_per_root: 100,
    bytes_per_root: 1 << 20,
    bytes: 4 << 20,
    payload_bytes_max: usize::MAX,
};

/// Writes one CloudEvent a line to a file or to stdout.
#[derive(Debug, Clone)]
pub struct JsonlHandler {
    output: Arc<Mutex<Output>>,
}

#[derive(Debug)]
enum Output {
    File(LineFile),
    /// `torn`: a write failed, and part of a line may have gone out.
    Stdout {
        torn: bool,
    },
}

impl JsonlHandler {
    /// Opens or makes the file at `path`, or takes stdout for `-`. A torn last line is taken off.
    ///
    /// # Errors
    /// When the file cannot be opened or mended, another handler or process writes it, or it holds no lines of JSON.
    pub async fn open(path: &str) -> Result<Self, JsonlError> {
        let output = if path == STDOUT {
            Output::Stdout { torn: false }
        } else {
            let path = PathBuf::from(path);
            let opened = spawn_blocking({
                let path = path.clone();
                move || LineFile::open(&path)
            });
            let file =
                opened.await.map_err(|stopped| JsonlError::Io { action: "open", path, source: stopped.into() })??;
            Output::File(file)
        };
        Ok(Self { output: Arc::new(Mutex::new(output)) })
    }
}

impl Output {
    fn append(&mut self, events: Vec<Arc<Event>>) -> Result<(), HandlerError> {
        let line_end = || std::iter::once(Bytes::from_static(b"\n"));
        let pieces = events.into_iter().flat_map(|event| CloudEventPieces::new(event).chain(line_end()));
        match self {
            Self::File(file) => file.append(pieces).map_err(file_outage),
            Self::Stdout { torn } => {
                // Nothing can be taken back from a pipe: a line end keeps a torn line from spoiling the next.
                let separator = torn.then(line_end).into_iter().flatten();
                *torn = true;
                let written = write_pieces(std::io::stdout().lock(), separator.chain(pieces));
                written.map_err(|error| outage("failed to write to stdout", error))?;
                *torn = false;
                Ok(())
            }
        }
    }
}

fn file_outage(error: JsonlError) -> HandlerError {
    let reason = error.to_string();
    match error {
        JsonlError::Io { source, .. } => outage(reason, source),
        JsonlError::Locked { .. } | JsonlError::NotLines { .. } => HandlerError::unavailable(reason),
    }
}

fn outage(reason: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> HandlerError {
    HandlerError::Unavailable { reason: reason.into(), after: None, source: Some(Box::new(source)) }
}

impl JsonlHandler {
    async fn append(&self, group: &[RootBatch]) -> Result<(), HandlerError> {
        let events: Vec<Arc<Event>> = group.iter().flat_map(|batch| &batch.events).cloned().collect();
        let mut output = Arc::clone(&self.output).lock_owned().await;
        let appended = spawn_blocking(move || output.append(events)).await;
        appended.map_err(|stopped| outage("the write to the file was broken off", stopped))?
    }
}

#[async_trait]
impl Handler for JsonlHandler {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        self.append(std::slice::from_ref(batch)).await.map(|()| Accepted::all(batch))
    }

    fn limits(&self) -> GroupLimits {
        LIMITS
    }

    async fn deliver_group(&self, group: &[RootBatch]) -> Vec<Result<Accepted, HandlerError>> {
        match self.append(group).await {
            Ok(()) => group.iter().map(|batch| Ok(Accepted::all(batch))).collect(),
            Err(error) => {
                // One cause, told to every root in words.
                let text = DisplayChain(&error).to_string();
                group.iter().map(|_| Err(HandlerError::unavailable(text.clone()))).collect()
            }
        }
    }
}

/// An error with its causes on one line.
struct DisplayChain<'a>(&'a HandlerError);

impl fmt::Display for DisplayChain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(this) = cause {
            write!(formatter, ": {this}")?;
            cause = this.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::batch;

    fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_group_is_written_whole_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let handler = JsonlHandler::open(path.to_str().unwrap()).await.unwrap();
        let group = [batch("a", 0..3), batch("b", 7..9)];
        for (answer, batch) in handler.deliver_group(&group).await.into_iter().zip(&group) {
            assert_eq!(answer.unwrap(), Accepted::all(batch));
        }
        assert_eq!(handler.deliver(&batch("a", 3..4)).await.unwrap(), Accepted { events: 1 });
        let ids: Vec<_> = lines(&path).iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        let expected = ["a:0", "a:1", "a:2", "b:7", "b:8", "a:3"].map(|end| format!("orders:angzarr:{end}"));
        assert_eq!(ids, expected);
    }

    #[tokio::test]
    async fn a_second_handler_on_the_path_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let first = JsonlHandler::open(path.to_str().unwrap()).await.unwrap();
        let second = JsonlHandler::open(path.to_str().unwrap()).await;
        assert!(matches!(second, Err(JsonlError::Locked { .. })));
        drop(first);
    }

    #[tokio::test]
    async fn a_lost_directory_is_an_outage_that_ends() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("mounted");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("events.jsonl");
        let handler = JsonlHandler::open(path.to_str().unwrap()).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let answers = handler.deliver_group(&[batch("a", 0..1), batch("b", 0..1)]).await;
        assert_eq!(answers.len(), 2);
        for answer in answers {
            let Err(HandlerError::Unavailable { reason, .. }) = answer else { panic!("{answer:?}") };
            assert!(reason.contains("events.jsonl") && reason.contains("No such file"), "{reason}");
        }
        std::fs::create_dir(&folder).unwrap();
        assert!(handler.deliver(&batch("a", 0..1)).await.is_ok());
        assert_eq!(lines(&path).len(), 1);
    }
}
