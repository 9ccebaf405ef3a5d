//! `[kinesis]`: how Kinesis is reached. Which stream a handler writes to is the handler's setting.

use super::HttpUrl;
use super::reader::Section;

/// How Kinesis is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KinesisConfig {
    /// Kinesis' endpoint; AWS' own when it is not set.
    pub endpoint: Option<HttpUrl>,
}

impl KinesisConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let endpoint = section.parsed("endpoint", HttpUrl::EXPECTED, HttpUrl::parse);
        section.finish();
        Self { endpoint }
    }
}
