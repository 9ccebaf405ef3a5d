//! The rows of what handlers have subscribed to, in the relay's table.
//!
//! Rows: `pk = interests`, `sk` = handler, `interests` L of M: `domain` S, `event_type` S, `edition` S, and `since` S where it
//! was added later than the handler.

use aws_sdk_dynamodb::types::AttributeValue;

use super::RegisteredInterest;
use super::table::keyed;
use crate::event::Timestamp;
use crate::handler::HandlerName;
use crate::storage::call::{Item, text, text_of};

pub(super) const INTERESTS: &str = "interests";

pub(super) fn encode_interests(handler: &HandlerName, interests: &[RegisteredInterest]) -> Item {
    let encode = |interest: &RegisteredInterest| {
        let mut item = Item::from([
            ("domain".to_owned(), text(interest.domain.as_str())),
            ("event_type".to_owned(), text(interest.event_type.as_str())),
            ("edition".to_owned(), text(interest.edition.as_str())),
        ]);
        if let Some(since) = interest.since {
            item.insert("since".to_owned(), text(since.to_string()));
        }
        AttributeValue::M(item)
    };
    let mut item = keyed(INTERESTS, handler.as_str());
    item.insert(INTERESTS.to_owned(), AttributeValue::L(interests.iter().map(encode).collect()));
    item
}

pub(super) fn decode_interests(item: &Item) -> Result<Vec<RegisteredInterest>, &'static str> {
    let listed = item.get(INTERESTS).and_then(|value| value.as_l().ok()).ok_or("`interests` is no list (L)")?;
    let decode = |value: &AttributeValue| {
        let item = value.as_m().ok()?;
        let part = |name: &str| text_of(item, name).map(str::to_owned);
        let since = match item.get("since") {
            Some(_) => Some(text_of(item, "since").and_then(|moment| Timestamp::parse(moment).ok())?),
            None => None,
        };
        Some(RegisteredInterest {
            domain: part("domain")?,
            event_type: part("event_type")?,
            edition: part("edition")?,
            since,
        })
    };
    // To take what cannot be read for nothing would let a saga act on history, or leave out what it is to have.
    listed.iter().map(decode).collect::<Option<_>>().ok_or("an entry of `interests` is no subscription")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_subscribed_to_survives_its_row() {
        let interest = |since: Option<i64>| RegisteredInterest {
            domain: "orders".into(),
            event_type: "Order*".into(),
            edition: String::new(),
            since: since.map(Timestamp::from_unix_millis),
        };
        let all = vec![interest(None), interest(Some(1_700_000_000_123))];
        let item = encode_interests(&HandlerName::new("h").unwrap(), &all);
        assert_eq!(decode_interests(&item), Ok(all));
        assert!(decode_interests(&Item::new()).is_err());
        let broken = AttributeValue::L(vec![AttributeValue::M(Item::from([("domain".to_owned(), text("d"))]))]);
        assert!(decode_interests(&Item::from([(INTERESTS.to_owned(), broken)])).is_err());
    }
}
