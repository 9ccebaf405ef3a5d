//! Payloads too large for one row: cut into chunks, each a row under a key that no root can have.
//!
//! `pk = #chunk#{domain}#{edition}#{root}#{sequence}#{append id}` (a root's domain is never empty), `sk` the chunk's number
//! from 0. The event's own row says how many there are, how large the whole is, its SHA-256, and the append id, so that
//! of two writers who race for one sequence neither mixes its chunks with the other's. Pure; reading and writing the
//! rows is left to `storage`.

use std::fmt;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::{Root, Sequence, escape, unescape};

/// What the partition key of every chunk begins with.
const CHUNK_PREFIX: &str = "#chunk#";

/// So many bytes of a payload's digest are part of its append id.
const DIGEST_ID_BYTES: usize = 8;

/// The largest payload there can be, in bytes: what a row claims is never taken for more.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// How a payload is stored that is not in its event's row.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunked {
    /// The bytes of the whole payload, at most [`PAYLOAD_BYTES_MAX`].
    pub bytes: usize,
    /// The number of chunks.
    pub chunks: u32,
    /// The SHA-256 of the whole payload.
    pub sha256: [u8; 32],
    /// Tells the chunks of this append from those of another that lost the race.
    pub append_id: Box<str>,
}

/// Shows sizes only.
impl fmt::Debug for Chunked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Chunked")
            .field("bytes", &self.bytes)
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl Chunked {
    /// Describes this payload, cut into pieces of `chunk_bytes`.
    #[must_use]
    pub fn new(payload: &[u8], chunk_bytes: usize, append_id: &str) -> Self {
        let chunks = payload.len().div_ceil(chunk_bytes.max(1));
        Self {
            bytes: payload.len(),
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            sha256: Sha256::digest(payload).into(),
            append_id: append_id.into(),
        }
    }

    /// The same with the beginning of the digest in its append id: an append that is made again with its token but with
    /// another payload writes chunks of its own, and not over those of an event that is there.
    #[must_use]
    pub fn with_digest_in_id(self) -> Self {
        let digest = self.sha256[..DIGEST_ID_BYTES].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Self { append_id: format!("{}-{digest:016x}", self.append_id).into(), ..self }
    }

    /// Begins to put the payload together.
    #[must_use]
    pub fn join(&self) -> Joining<'_> {
        Joining { chunked: self, payload: BytesMut::with_capacity(self.bytes), chunks: 0 }
    }
}

/// A payload that is put together, chunk by chunk.
#[derive(Debug)]
pub struct Joining<'a> {
    chunked: &'a Chunked,
    payload: BytesMut,
    chunks: u32,
}

impl Joining<'_> {
    /// Adds the chunk of this number.
    ///
    /// # Errors
    /// When one before it is missing, or it is more than belongs to the payload.
    pub fn push(&mut self, number: u64, chunk: &[u8]) -> Result<(), &'static str> {
        if number != u64::from(self.chunks) {
            return Err("a chunk of its payload is missing");
        }
        if self.payload.len() + chunk.len() > self.chunked.bytes {
            return Err("the chunks of its payload are larger than its row says");
        }
        self.payload.extend_from_slice(chunk);
        self.chunks += 1;
        Ok(())
    }

    /// The whole payload.
    ///
    /// # Errors
    /// When chunks are missing, or it is not what was stored.
    pub fn finish(self) -> Result<Bytes, &'static str> {
        if self.chunks != self.chunked.chunks || self.payload.len() != self.chunked.bytes {
            return Err("a chunk of its payload is missing");
        }
        let sha256: [u8; 32] = Sha256::digest(&self.payload).into();
        if sha256 != self.chunked.sha256 {
            return Err("the chunks of its payload have another SHA-256 than its row says");
        }
        Ok(self.payload.freeze())
    }
}

/// The partition that holds the chunks of one event as one append wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkKey {
    /// The event's root.
    pub root: Root,
    /// The event's sequence.
    pub sequence: Sequence,
    /// The append.
    pub append_id: Box<str>,
}

impl ChunkKey {
    /// Whether a partition key is one of chunks.
    #[must_use]
    pub fn is_chunk(pk: &str) -> bool {
        pk.starts_with(CHUNK_PREFIX)
    }

    /// Reads a partition key; none when it is none of chunks.
    #[must_use]
    pub fn parse(pk: &str) -> Option<Self> {
        let (rest, append_id) = pk.strip_prefix(CHUNK_PREFIX)?.rsplit_once('#')?;
        let (root, sequence) = rest.rsplit_once('#')?;
        Some(Self {
            root: Root::parse(root).ok()?,
            sequence: Sequence(sequence.parse().ok()?),
            append_id: unescape(append_id)?.into(),
        })
    }
}

/// Writes the partition key.
impl fmt::Display for ChunkKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, sequence, append_id } = self;
        write!(formatter, "{CHUNK_PREFIX}{}#{sequence}#{}", root.key(), escape(append_id))
    }
}

/// Cuts a payload into pieces of `chunk_bytes`, the last one shorter.
pub fn cut(payload: &Bytes, chunk_bytes: usize) -> impl Iterator<Item = Bytes> {
    let chunk_bytes = chunk_bytes.max(1);
    (0..payload.len()).step_by(chunk_bytes).map(move |at| payload.slice(at..payload.len().min(at + chunk_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_survives_and_is_no_roots(domain in "[^\\p{Cc}]{1,9}", edition in "[^\\p{Cc}]{0,9}", id in "[^\\p{Cc}]{1,9}", sequence: u64, append_id in "[^\\p{Cc}]{1,9}") {
            let root = Root::new(&domain, &edition, &id).unwrap();
            let key = ChunkKey { root, sequence: Sequence(sequence), append_id: append_id.as_str().into() };
            prop_assert_eq!(ChunkKey::parse(&key.to_string()), Some(key.clone()));
            prop_assert!(ChunkKey::is_chunk(&key.to_string()));
            prop_assert!(Root::parse(&key.to_string()).is_err());
            prop_assert!(!ChunkKey::is_chunk(key.root.key()) && ChunkKey::parse(key.root.key()).is_none());
        }

        #[test]
        fn no_text_panics(text in prop_oneof![any::<String>(), "#chunk#[%#23507ax]{0,12}"]) {
            if let Some(key) = ChunkKey::parse(&text) {
                prop_assert_eq!(ChunkKey::parse(&key.to_string()), Some(key));
                prop_assert!(ChunkKey::is_chunk(&text));
            }
        }

        #[test]
        fn a_payload_survives_being_cut(payload in proptest::collection::vec(any::<u8>(), 0..200), chunk_bytes in 1_usize..50) {
            let payload = Bytes::from(payload);
            let chunked = Chunked::new(&payload, chunk_bytes, "a");
            let chunks: Vec<Bytes> = cut(&payload, chunk_bytes).collect();
            prop_assert_eq!(joined(&chunked, &chunks), Ok(payload));
            if let Some((_, all_but_one)) = chunks.split_last() {
                prop_assert!(joined(&chunked, all_but_one).is_err());
            }
        }
    }

    fn joined(chunked: &Chunked, chunks: &[Bytes]) -> Result<Bytes, &'static str> {
        let mut joining = chunked.join();
        for (number, chunk) in (0..).zip(chunks) {
            joining.push(number, chunk)?;
        }
        joining.finish()
    }

    #[test]
    fn an_append_id_ends_with_the_beginning_of_the_digest() {
        let chunked = Chunked::new(b"0123456789", 4, "token").with_digest_in_id();
        // By `sha256sum`: 84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882.
        assert_eq!(&*chunked.append_id, "token-84d89877f0d4041e");
        assert_eq!((chunked.bytes, chunked.chunks), (10, 3));
        assert_eq!(PAYLOAD_BYTES_MAX, 67_108_864, "64 MiB, as the README says");
        assert_eq!(format!("{chunked:?}"), "Chunked { bytes: 10, chunks: 3, .. }");
    }

    #[test]
    fn a_damaged_chunk_is_seen() {
        let payload = Bytes::from_static(b"0123456789");
        let chunked = Chunked::new(&payload, 4, "a");
        let mut chunks: Vec<Bytes> = cut(&payload, 4).collect();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [4, 4, 2]);
        chunks[1] = Bytes::from_static(b"4x67");
        assert!(joined(&chunked, &chunks).unwrap_err().contains("SHA-256"));
        chunks[1] = Bytes::from_static(b"4");
        assert!(joined(&chunked, &chunks).unwrap_err().contains("missing"));
        chunks[1] = Bytes::from_static(b"45678");
        assert!(joined(&chunked, &chunks).unwrap_err().contains("larger"));
        assert!(chunked.join().push(1, b"4567").unwrap_err().contains("missing"), "the first was not there");
    }
}
