//! `[storage]`: where events and positions are kept.

use std::ops::RangeInclusive;

use super::HttpUrl;
use super::reader::Section;
use crate::storage::CHUNK_BYTES_DEFAULT;

/// The backends there are.
const BACKENDS: &str = "\"dynamo\", the only storage backend there is";

/// The longest suffix a table name gets is `-snapshots`, and DynamoDB takes names of 3 to 255 characters.
const TABLE_PREFIX_CHARS_MAX: usize = 245;

/// The sizes of a chunk: below, rows would be many; above, a row could not hold it with its key.
const CHUNK_SIZE: RangeInclusive<usize> = 25_000..=CHUNK_BYTES_DEFAULT;

/// Where events and positions are kept. `backend` is always `dynamo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// `[storage.dynamo]`.
    pub dynamo: DynamoConfig,
}

/// `[storage.dynamo]`: how DynamoDB is reached and what the tables are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamoConfig {
    /// The AWS region, Kinesis' too; by the SDK's standard chain when it is not set.
    pub region: Option<String>,
    /// What the names of all tables begin with; default `angzarr`. At most 245 characters of `a-z A-Z 0-9 _ . -`.
    pub table_prefix: String,
    /// DynamoDB's endpoint; AWS' own when it is not set.
    pub endpoint: Option<HttpUrl>,
    /// The endpoint of DynamoDB Streams; `endpoint` when it is not set.
    pub streams_endpoint: Option<HttpUrl>,
    /// A payload larger than this is stored in chunks of this size, in bytes; default 350 KiB, 25 KB to 350 KiB.
    pub chunk_size: usize,
}

impl Default for DynamoConfig {
    fn default() -> Self {
        Self {
            region: None,
            table_prefix: "angzarr".to_owned(),
            endpoint: None,
            streams_endpoint: None,
            chunk_size: CHUNK_BYTES_DEFAULT,
        }
    }
}

impl StorageConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        section.parsed("backend", BACKENDS, |text| (text == "dynamo").then_some(()));
        let dynamo = DynamoConfig::read(section.section("dynamo"));
        section.finish();
        Self { dynamo }
    }
}

impl DynamoConfig {
    fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let region = section.parsed("region", "a region such as \"us-east-1\"", |text| {
            let named = !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '-');
            named.then(|| text.to_owned())
        });
        let expected = format!("1 to {TABLE_PREFIX_CHARS_MAX} characters of a-z A-Z 0-9 _ . -");
        let table_prefix = section.parsed("table_prefix", &expected, |text| {
            let usable = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.' | '-');
            let named = (1..=TABLE_PREFIX_CHARS_MAX).contains(&text.len()) && text.chars().all(usable);
            named.then(|| text.to_owned())
        });
        let endpoint = section.parsed("endpoint", HttpUrl::EXPECTED, HttpUrl::parse);
        let streams_endpoint = section.parsed("streams_endpoint", HttpUrl::EXPECTED, HttpUrl::parse);
        let chunk_size = section.bytes("chunk_size", defaults.chunk_size, &CHUNK_SIZE);
        section.finish();
        let table_prefix = table_prefix.unwrap_or(defaults.table_prefix);
        Self { region, table_prefix, endpoint, streams_endpoint, chunk_size }
    }
}
