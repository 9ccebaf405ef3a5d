//! The attributes of a lease's row in the relay's table, which is the row of the handler's checkpoint, too.
//!
//! Rows: `pk = leases#{handler}#{part}`, `sk` = shard id; `kind` S, `branch` S, `parent` S (not for the first), `owner` S
//! (while it is held), `epoch` N, `announced` BOOL, `clean` BOOL; and `sequence` S (digits: up to 40, more than a Number
//! holds) or `finished` BOOL, `updated_at` S. The parts spread the rows of one handler over several partition keys.

use aws_sdk_dynamodb::types::AttributeValue;
use md5::{Digest as _, Md5};

use super::Checkpoint;
use super::table::{SK, keyed};
use crate::event::escape;
use crate::fleet::{Epoch, Lease, LeaseKey, LeaseKind, MemberId};
use crate::handler::HandlerName;
use crate::storage::call::{Item, text, text_of};
use crate::stream::{Branch, ShardId, StreamSequence};

/// The parts of one handler's leases. One takes 1,000 writes a second: as many leases change their owner at once.
pub(super) const PARTS: u8 = 8;

pub(super) const KIND: &str = "kind";
pub(super) const BRANCH: &str = "branch";
pub(super) const PARENT: &str = "parent";
pub(super) const OWNER: &str = "owner";
pub(super) const EPOCH: &str = "epoch";
pub(super) const ANNOUNCED: &str = "announced";
pub(super) const CLEAN: &str = "clean";
pub(super) const SEQUENCE: &str = "sequence";
pub(super) const FINISHED: &str = "finished";
pub(super) const UPDATED_AT: &str = "updated_at";

/// The partition key of one part.
pub(super) fn part_key(handler: &HandlerName, part: u8) -> String {
    format!("leases#{}#{part}", escape(handler.as_str()))
}

/// The row of a lease.
pub(super) fn lease_key(key: &LeaseKey) -> Item {
    let digest: [u8; 16] = Md5::digest(key.shard.as_str().as_bytes()).into();
    keyed(&part_key(&key.handler, digest[0] % PARTS), key.shard.as_str())
}

/// A lease that nobody holds yet.
pub(super) fn encode(lease: &Lease) -> Item {
    let mut item = lease_key(&lease.key());
    item.extend([
        (KIND.to_owned(), text(kind_text(lease.kind))),
        (BRANCH.to_owned(), text(lease.branch.as_str())),
        (EPOCH.to_owned(), number(lease.epoch.0)),
        (ANNOUNCED.to_owned(), AttributeValue::Bool(lease.announced)),
        (CLEAN.to_owned(), AttributeValue::Bool(lease.clean)),
    ]);
    item.extend(lease.parent.iter().map(|parent| (PARENT.to_owned(), text(parent.as_str()))));
    item.extend(lease.owner.iter().map(|owner| (OWNER.to_owned(), text(owner.as_str()))));
    if lease.finished {
        item.insert(FINISHED.to_owned(), AttributeValue::Bool(true));
    }
    item
}

/// What a row says.
pub(super) fn decode(handler: &HandlerName, item: &Item) -> Result<Lease, &'static str> {
    let shard = ShardId::new(text_of(item, SK).ok_or("`sk` is no text (S)")?);
    let branch = text_of(item, BRANCH).ok_or("`branch` is no text (S)")?;
    Ok(Lease {
        handler: handler.clone(),
        kind: text_of(item, KIND).and_then(kind_of).ok_or("`kind` is none of shard, segment, desk")?,
        branch: Branch::of(&ShardId::new(branch)),
        parent: text_of(item, PARENT).map(ShardId::new),
        owner: text_of(item, OWNER).map(MemberId::new),
        epoch: Epoch(number_of(item, EPOCH).ok_or("`epoch` is no number (N)")?),
        announced: is_true(item, ANNOUNCED),
        clean: is_true(item, CLEAN),
        finished: is_true(item, FINISHED),
        shard,
    })
}

/// How far the handler has come; none before its first checkpoint.
pub(super) fn decode_checkpoint(item: &Item) -> Result<Option<Checkpoint>, &'static str> {
    if is_true(item, FINISHED) {
        return Ok(Some(Checkpoint::Finished));
    }
    let Some(digits) = item.get(SEQUENCE) else { return Ok(None) };
    let parsed = digits.as_s().ok().and_then(|digits| StreamSequence::parse(digits));
    parsed.map(|sequence| Some(Checkpoint::At(sequence))).ok_or("`sequence` is no text of digits (S)")
}

pub(super) fn is_true(item: &Item, name: &str) -> bool {
    item.get(name).and_then(|value| value.as_bool().ok()) == Some(&true)
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn number_of(item: &Item, name: &str) -> Option<u64> {
    item.get(name).and_then(number_in)
}

pub(super) fn number_in(value: &AttributeValue) -> Option<u64> {
    value.as_n().ok().and_then(|digits| digits.parse().ok())
}

fn kind_text(kind: LeaseKind) -> &'static str {
    match kind {
        LeaseKind::Shard => "shard",
        LeaseKind::Segment => "segment",
        LeaseKind::Desk => "desk",
    }
}

fn kind_of(text: &str) -> Option<LeaseKind> {
    [LeaseKind::Shard, LeaseKind::Segment, LeaseKind::Desk].into_iter().find(|kind| kind_text(*kind) == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::testing::any_item;
    use proptest::prelude::*;

    const COLUMNS: [&str; 10] = [SK, KIND, BRANCH, PARENT, OWNER, EPOCH, ANNOUNCED, CLEAN, SEQUENCE, FINISHED];

    proptest! {
        /// A row of a lease, spoilt or not, never gives a lease or a checkpoint that it does not hold.
        #[test]
        fn any_row_is_a_lease_or_says_what_is_wrong(spoilt in any_item(&COLUMNS), wholly: bool) {
            let (handler, shard) = (HandlerName::new("h").unwrap(), ShardId::new("s"));
            let mut item = if wholly {
                Item::new()
            } else {
                encode(&Lease::new(handler.clone(), shard.clone(), LeaseKind::Desk, Branch::of(&shard), None))
            };
            item.extend(spoilt);
            match decode(&handler, &item) {
                Ok(lease) => {
                    prop_assert_eq!(text_of(&item, SK), Some(lease.shard.as_str()));
                    prop_assert_eq!(text_of(&item, KIND), Some(kind_text(lease.kind)));
                    prop_assert_eq!(number_of(&item, EPOCH), Some(lease.epoch.0));
                    prop_assert_eq!(text_of(&item, OWNER), lease.owner.as_ref().map(MemberId::as_str));
                    prop_assert_eq!(is_true(&item, FINISHED), lease.finished);
                }
                Err(reason) => prop_assert!([SK, KIND, BRANCH, EPOCH].iter().any(|name| reason.contains(name))),
            }
            match decode_checkpoint(&item) {
                Ok(Some(Checkpoint::Finished)) => prop_assert!(is_true(&item, FINISHED)),
                Ok(Some(Checkpoint::At(sequence))) => {
                    let written = text_of(&item, SEQUENCE).unwrap();
                    prop_assert_eq!(StreamSequence::parse(written), Some(sequence));
                }
                Ok(None) => prop_assert!(!item.contains_key(SEQUENCE)),
                Err(_) => prop_assert!(item.contains_key(SEQUENCE)),
            }
        }

        #[test]
        fn a_lease_survives_its_row(
            (name, shard, branch) in ("[^@\\p{Cc}]{1,30}", ".{1,60}", ".{1,60}"),
            (parent, owner) in (proptest::option::of(".{1,60}"), proptest::option::of(".{1,60}")),
            (epoch, kind) in (0_u64..1 << 60, 0_usize..3),
            (announced, clean, finished) in (any::<bool>(), any::<bool>(), any::<bool>()),
        ) {
            let handler = HandlerName::new(&name).unwrap();
            let kind = [LeaseKind::Shard, LeaseKind::Segment, LeaseKind::Desk][kind];
            let branch = Branch::of(&ShardId::new(&branch));
            let parent = parent.map(|parent| ShardId::new(&parent));
            let lease = Lease::new(handler.clone(), ShardId::new(&shard), kind, branch, parent);
            let owner = owner.map(|owner| MemberId::new(&owner));
            let lease = Lease { owner, epoch: Epoch(epoch), announced, clean, finished, ..lease };
            prop_assert_eq!(decode(&handler, &encode(&lease)), Ok(lease));
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let handler = HandlerName::new("h").unwrap();
        let shard = ShardId::new("s");
        let lease = Lease::new(handler.clone(), shard.clone(), LeaseKind::Shard, Branch::of(&shard), None);
        for missing in [KIND, BRANCH, EPOCH] {
            let mut item = encode(&lease);
            item.remove(missing);
            assert!(decode(&handler, &item).is_err(), "{missing}");
        }
        let mut item = encode(&lease);
        assert_eq!(decode_checkpoint(&item), Ok(None));
        item.insert(SEQUENCE.into(), text("12"));
        assert_eq!(decode_checkpoint(&item), Ok(Some(Checkpoint::At(StreamSequence::new("12")))));
        item.insert(SEQUENCE.into(), text("12x"));
        assert!(decode_checkpoint(&item).is_err());
        item.insert(FINISHED.into(), AttributeValue::Bool(true));
        assert_eq!(decode_checkpoint(&item), Ok(Some(Checkpoint::Finished)));
    }

    #[test]
    fn leases_are_spread_over_the_parts() {
        let handler = HandlerName::new("h").unwrap();
        let key =
            |number: u32| LeaseKey { handler: handler.clone(), shard: ShardId::new(&format!("shardId-{number:020}")) };
        let parts: std::collections::BTreeSet<_> =
            (0..200).map(|number| text_of(&lease_key(&key(number)), "pk").unwrap().to_owned()).collect();
        assert_eq!(parts, (0..PARTS).map(|part| part_key(&handler, part)).collect());
    }
}
