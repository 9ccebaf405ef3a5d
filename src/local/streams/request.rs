//! The requests of the four operations, read and checked. Pure.

use serde::Deserialize;

use super::fault::Fault;
use super::log::PAGE_RECORDS_MAX;
use super::name::ShardName;
use super::number::Number;

/// Shards in a page of DescribeStream at most.
pub(super) const PAGE_SHARDS_MAX: usize = 100;

/// The only filter there is.
const CHILD_SHARDS: &str = "CHILD_SHARDS";

/// DescribeStream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeStream {
    pub(super) stream_arn: String,
    exclusive_start_shard_id: Option<String>,
    limit: Option<i64>,
    shard_filter: Option<ShardFilter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ShardFilter {
    #[serde(rename = "Type")]
    kind: Option<String>,
    shard_id: Option<String>,
}

/// GetShardIterator.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetShardIterator {
    pub(super) stream_arn: String,
    shard_id: String,
    shard_iterator_type: String,
    sequence_number: Option<String>,
}

/// GetRecords.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetRecords {
    pub(super) shard_iterator: String,
    limit: Option<i64>,
}

/// A place named in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Horizon,
    Latest,
    At(Number),
    After(Number),
}

/// Reads a request's body.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::Invalid(format!("the request cannot be read: {error}")))
}

fn shard(id: &str) -> Result<ShardName, Fault> {
    ShardName::parse(id).ok_or_else(|| Fault::NotFound(format!("Shard: {id}")))
}

impl DescribeStream {
    pub(super) fn limit(&self) -> Result<usize, Fault> {
        match self.limit {
            None => Ok(PAGE_SHARDS_MAX),
            Some(limit) => match usize::try_from(limit) {
                Ok(0) | Err(_) => Err(Fault::Invalid("Limit must be at least 1".into())),
                Ok(limit) => Ok(limit.min(PAGE_SHARDS_MAX)),
            },
        }
    }

    /// The shard behind which the page begins.
    pub(super) fn after(&self) -> Result<Option<ShardName>, Fault> {
        self.exclusive_start_shard_id.as_deref().map(shard).transpose()
    }

    /// The shard whose children are asked for.
    pub(super) fn children_of(&self) -> Result<Option<ShardName>, Fault> {
        let Some(filter) = &self.shard_filter else { return Ok(None) };
        match (filter.kind.as_deref(), filter.shard_id.as_deref()) {
            (Some(CHILD_SHARDS), Some(id)) => shard(id).map(Some),
            _ => Err(Fault::Invalid(format!("ShardFilter takes the Type {CHILD_SHARDS} and a ShardId"))),
        }
    }
}

impl GetShardIterator {
    pub(super) fn shard(&self) -> Result<ShardName, Fault> {
        shard(&self.shard_id)
    }

    pub(super) fn place(&self) -> Result<Place, Fault> {
        let number = |place: fn(Number) -> Place| {
            let text = self.sequence_number.as_deref();
            let text =
                text.ok_or_else(|| Fault::Invalid("SequenceNumber is required for this iterator type".into()))?;
            let wrong = || Fault::Invalid("SequenceNumber must have 21 to 40 digits".into());
            Number::parse(text).map(place).ok_or_else(wrong)
        };
        let place = match self.shard_iterator_type.as_str() {
            "TRIM_HORIZON" => Place::Horizon,
            "LATEST" => Place::Latest,
            "AT_SEQUENCE_NUMBER" => return number(Place::At),
            "AFTER_SEQUENCE_NUMBER" => return number(Place::After),
            other => return Err(Fault::Invalid(format!("ShardIteratorType is `{other}`"))),
        };
        if self.sequence_number.is_some() {
            return Err(Fault::Invalid("SequenceNumber is not taken for this iterator type".into()));
        }
        Ok(place)
    }
}

impl GetRecords {
    pub(super) fn limit(&self) -> Result<usize, Fault> {
        let limit = self.limit.map_or(Some(PAGE_RECORDS_MAX), |limit| usize::try_from(limit).ok());
        limit
            .filter(|limit| (1..=PAGE_RECORDS_MAX).contains(limit))
            .ok_or_else(|| Fault::Invalid(format!("Limit must be 1 to {PAGE_RECORDS_MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "shardId-00000001700000000000-0a1b2c3d";

    fn describe(request: &Value) -> DescribeStream {
        read(request.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_request_that_is_none_is_invalid() {
        assert!(matches!(read::<DescribeStream>(b"{}"), Err(Fault::Invalid(_))));
        assert!(matches!(read::<GetRecords>(b"nonsense"), Err(Fault::Invalid(_))));
    }

    #[test]
    fn the_page_of_shards_is_bounded() {
        for (limit, expected) in [
            (json!(null), Some(100)),
            (json!(7), Some(7)),
            (json!(500), Some(100)),
            (json!(0), None),
            (json!(-1), None),
        ] {
            let request = describe(&json!({ "StreamArn": "a", "Limit": limit }));
            assert_eq!(request.limit().ok(), expected, "{limit}");
        }
    }

    #[test]
    fn a_filter_names_its_type_and_a_shard() {
        let children = |filter: Value| describe(&json!({ "StreamArn": "a", "ShardFilter": filter })).children_of();
        assert_eq!(children(json!(null)), Ok(None));
        assert_eq!(children(json!({ "Type": "CHILD_SHARDS", "ShardId": ID })), Ok(ShardName::parse(ID)));
        assert!(matches!(children(json!({ "Type": "CHILD_SHARDS", "ShardId": "x" })), Err(Fault::NotFound(_))));
        for wrong in [json!({}), json!({ "Type": "CHILD_SHARDS" }), json!({ "Type": "ALL", "ShardId": ID })] {
            assert!(matches!(children(wrong.clone()), Err(Fault::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn a_place_goes_with_its_number() {
        let place = |kind: &str, number: Option<&str>| {
            let request =
                json!({ "StreamArn": "a", "ShardId": ID, "ShardIteratorType": kind, "SequenceNumber": number });
            read::<GetShardIterator>(request.to_string().as_bytes()).unwrap().place()
        };
        let digits = "000000000000000000012";
        let number = Number::parse(digits).unwrap();
        assert_eq!(place("TRIM_HORIZON", None), Ok(Place::Horizon));
        assert_eq!(place("LATEST", None), Ok(Place::Latest));
        assert_eq!(place("AT_SEQUENCE_NUMBER", Some(digits)), Ok(Place::At(number)));
        assert_eq!(place("AFTER_SEQUENCE_NUMBER", Some(digits)), Ok(Place::After(number)));
        for (kind, number) in [
            ("LATEST", Some(digits)),
            ("TRIM_HORIZON", Some(digits)),
            ("AT_SEQUENCE_NUMBER", None),
            ("AFTER_SEQUENCE_NUMBER", Some("12")),
            ("NOW", None),
        ] {
            assert!(matches!(place(kind, number), Err(Fault::Invalid(_))), "{kind} {number:?}");
        }
    }

    #[test]
    fn a_read_takes_a_thousand_records_at_most() {
        for (limit, expected) in
            [(json!(null), Some(1000)), (json!(1000), Some(1000)), (json!(1001), None), (json!(0), None)]
        {
            let request = json!({ "ShardIterator": "i", "Limit": limit }).to_string();
            assert_eq!(read::<GetRecords>(request.as_bytes()).unwrap().limit().ok(), expected, "{limit}");
        }
    }
}
