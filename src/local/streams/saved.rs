//! The shards of streams in a file, so that they are the same after a restart and checkpoints go on fitting.
//!
//! Records are not in it: they are read from the upstream again, and fall where they were. The file is written as a
//! whole beside the old one and put in its place. Invariant: what was told to a client is in the file before.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::ShardsError;
use super::key::Point;
use super::layout::{Layout, Shard};
use super::name::ShardName;
use super::number::Number;
use super::range::Range;

/// The file in the data folder.
const FILE: &str = "streams.json";

/// Streams the file holds at most; above it those with the oldest shards go.
const STREAMS_MAX: usize = 32;

/// The shards of all streams, in a file.
#[derive(Debug)]
pub(super) struct SavedLayouts {
    path: PathBuf,
    streams: BTreeMap<String, SavedLayout>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLayout {
    last: String,
    shards: Vec<SavedShard>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedShard {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    lower: (u64, String),
    #[serde(skip_serializing_if = "Option::is_none")]
    upper: Option<(u64, String)>,
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_unix_millis: Option<u64>,
    listed: bool,
}

impl SavedLayouts {
    /// Opens the file in a folder, which is made if it is missing; without a file there are no streams yet.
    pub(super) fn open(folder: &std::path::Path) -> Result<Self, ShardsError> {
        let path = folder.join(FILE);
        let shown = || path.display().to_string();
        std::fs::create_dir_all(folder).map_err(|source| ShardsError::Save { path: shown(), source })?;
        let streams = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ShardsError::Load { path: shown(), reason: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(ShardsError::Load { path: shown(), reason: error.to_string() }),
        };
        Ok(Self { path, streams })
    }

    /// The shards of a stream, if it is in the file.
    pub(super) fn get(&self, stream: &str) -> Result<Option<Layout>, ShardsError> {
        let Some(saved) = self.streams.get(stream) else { return Ok(None) };
        let wrong = || ShardsError::Load { path: self.path.display().to_string(), reason: "a shard is wrong".into() };
        let last = Number::parse(&saved.last).ok_or_else(wrong)?;
        let shards = saved.shards.iter().map(SavedShard::read).collect::<Option<_>>().ok_or_else(wrong)?;
        Ok(Some(Layout::of_shards(shards, last)))
    }

    /// Keeps the shards of a stream.
    pub(super) fn put(&mut self, stream: &str, layout: &Layout) -> Result<(), ShardsError> {
        let shards = layout.behind(None).map(|(name, shard)| SavedShard::of(name, shard)).collect();
        self.streams.insert(stream.to_owned(), SavedLayout { last: layout.last().to_string(), shards });
        while self.streams.len() > STREAMS_MAX {
            let oldest = self.streams.iter().filter(|(other, _)| *other != stream);
            let oldest = oldest.min_by_key(|(_, saved)| saved.shards.last().map(|shard| shard.id.clone()));
            let Some(oldest) = oldest.map(|(stream, _)| stream.clone()) else { break };
            self.streams.remove(&oldest);
        }
        self.write().map_err(|source| ShardsError::Save { path: self.path.display().to_string(), source })
    }

    fn write(&self) -> std::io::Result<()> {
        let beside = self.path.with_extension("json.new");
        std::fs::write(&beside, serde_json::to_vec(&self.streams)?)?;
        std::fs::rename(&beside, &self.path)
    }
}

impl SavedShard {
    fn of(name: ShardName, shard: &Shard) -> Self {
        let written = |point: &Point| (point.hash, STANDARD.encode(&point.sort));
        Self {
            id: name.to_string(),
            parent: shard.parent.map(|parent| parent.to_string()),
            lower: written(&shard.range.lower),
            upper: shard.range.upper.as_ref().map(written),
            start: shard.start.to_string(),
            end: shard.end.map(|end| end.to_string()),
            closed_unix_millis: shard.closed_unix_millis,
            listed: shard.listed,
        }
    }

    fn read(&self) -> Option<(ShardName, Shard)> {
        let point = |(hash, sort): &(u64, String)| {
            STANDARD.decode(sort).ok().map(|sort| Point { hash: *hash, sort: sort.into() })
        };
        let (parent, end) = (self.parent.as_deref().map(ShardName::parse), self.end.as_deref().map(Number::parse));
        let (upper, some) = (self.upper.as_ref().map(point), |wrong: bool| (!wrong).then_some(()));
        some(parent == Some(None) || end == Some(None) || upper == Some(None))?;
        let shard = Shard {
            parent: parent.flatten(),
            range: Range { lower: point(&self.lower)?, upper: upper.flatten() },
            start: Number::parse(&self.start)?,
            end: end.flatten(),
            closed_unix_millis: self.closed_unix_millis,
            listed: self.listed,
        };
        Some((ShardName::parse(&self.id)?, shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::streams::key::KeyPart;

    fn layout() -> Layout {
        let mut layout = Layout::new(3, 1000);
        let first = layout.open().next().unwrap();
        layout.note_record(Number::of_upstream("100000000000000000007").unwrap());
        layout.roll(first, false, 5000).unwrap();
        let item = Point::of_item(&KeyPart::Text("orders##1".into()), Some(&KeyPart::Number("7".into())));
        layout.split_at(item, 6000).unwrap();
        layout
    }

    #[test]
    fn shards_are_the_same_when_they_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("new");
        let mut saved = SavedLayouts::open(&data).unwrap();
        saved.put("one", &layout()).unwrap();
        saved.put("two", &Layout::new(1, 7)).unwrap();
        let again = SavedLayouts::open(&data).unwrap();
        let expected = layout();
        let found = again.get("one").unwrap().unwrap();
        assert!(found.behind(None).eq(expected.behind(None)));
        assert_eq!((found.last(), found.open().len()), (expected.last(), expected.open().len()));
        assert!(again.get("three").unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_damaged_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = SavedLayouts::open(folder.path()).unwrap();
        saved.put("one", &layout()).unwrap();
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [("shardId-0", "shardId_0"), ("[0,\"\"]", "[0,\"%\"]")] {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let wrong = SavedLayouts::open(folder.path()).unwrap().get("one");
            assert!(matches!(wrong, Err(ShardsError::Load { .. })), "{from}");
        }
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(SavedLayouts::open(folder.path()), Err(ShardsError::Load { .. })));
    }

    #[test]
    fn streams_are_bounded_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = SavedLayouts::open(folder.path()).unwrap();
        for made in 0..40 {
            saved.put(&format!("s{made}"), &Layout::new(1, 100 - made)).unwrap();
        }
        assert_eq!(saved.streams.len(), STREAMS_MAX);
        assert!(saved.get("s0").unwrap().is_some() && saved.get("s39").unwrap().is_some());
    }
}
