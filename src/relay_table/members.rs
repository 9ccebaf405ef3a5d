//! The rows of the fleet in the relay's table: members, the view, the lineage, the schema; all read in one Query.
//!
//! Rows: `pk = fleet`; `sk = schema`: `version` N; `sk = view`: `version` N, `members` SS; `sk = lineage`: `number` N; and
//! `sk = member#{id}`: `counter` N, `dead` BOOL, `leaving` BOOL, `view` N, `handlers` SS, `version` S, `joined_at` S, `renewed_at` S,
//! `expires_after_millis` N, `overdue_after_millis` N,
//! `lags_secs` M (handler to N; those without a lag are left out). A member's row stays within one write unit, so a
//! renewal costs one; with many handlers that lag it may take a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, TransactWriteItem, Update};

use super::lease_row::{is_true, number, number_of};
use super::table::{SK, keyed};
use super::{Checkpoint, RelayTable};
use crate::fleet::{
    Changed, Fleet, FleetStore, JoinError, Lease, LeaseKey, Member, MemberId, Patience, Report, SCHEMA, Taken, View,
    ViewAction,
};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, text, text_of};
use crate::stream::ShardId;

pub(super) const FLEET: &str = "fleet";
const SCHEMA_ROW: &str = "schema";
const VIEW: &str = "view";
const LINEAGE: &str = "lineage";
pub(super) const MEMBER: &str = "member#";
const VERSION: &str = "version";
const MEMBERS: &str = "members";
const NUMBER: &str = "number";
const COUNTER: &str = "counter";
const DEAD: &str = "dead";
const LEAVING: &str = "leaving";
const HANDLERS: &str = "handlers";
const JOINED_AT: &str = "joined_at";
pub(super) const RENEWED_AT: &str = "renewed_at";
pub(super) const LAGS: &str = "lags_secs";
const EXPIRES: &str = "expires_after_millis";
const OVERDUE: &str = "overdue_after_millis";

/// What the attributes that change are called in expressions.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("#counter", COUNTER),
    ("#dead", DEAD),
    ("#leaving", LEAVING),
    ("#view", VIEW),
    ("#renewed", RENEWED_AT),
    ("#lags", LAGS),
];

/// Raises the lineage: whoever goes by it reads the leases again.
pub(super) fn raise_lineage(table: &str) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(table)
        .set_key(Some(keyed(FLEET, LINEAGE)))
        .update_expression("ADD #number :one")
        .expression_attribute_names("#number", NUMBER)
        .expression_attribute_values(":one", number(1));
    TransactWriteItem::builder().update(update.build().expect("key and expression are set")).build()
}

fn member_key(id: &MemberId) -> Item {
    keyed(FLEET, &format!("{MEMBER}{id}"))
}

/// A set is never empty.
fn set<'a>(name: &str, texts: impl Iterator<Item = &'a str>) -> Option<(String, AttributeValue)> {
    let texts: Vec<String> = texts.map(str::to_owned).collect();
    (!texts.is_empty()).then(|| (name.to_owned(), AttributeValue::Ss(texts)))
}

fn texts_of<'a>(item: &'a Item, name: &str) -> &'a [String] {
    item.get(name).and_then(|value| value.as_ss().ok()).map_or(&[], Vec::as_slice)
}

fn encode_member(member: &Member) -> Item {
    let mut item = member_key(&member.id);
    item.extend([
        (COUNTER.to_owned(), number(member.counter)),
        (VIEW.to_owned(), number(member.view)),
        (VERSION.to_owned(), text(member.version.as_str())),
        (EXPIRES.to_owned(), number(millis(member.patience.expires_after))),
        (OVERDUE.to_owned(), number(millis(member.patience.overdue_after))),
    ]);
    item.extend(set(HANDLERS, member.handlers.iter().map(HandlerName::as_str)));
    item
}

fn decode_member(id: &str, item: &Item) -> Result<Member, &'static str> {
    // One whose handlers cannot be read gets nothing to hold.
    let handlers = texts_of(item, HANDLERS).iter().filter_map(|name| HandlerName::new(name).ok());
    Ok(Member {
        id: MemberId::new(id),
        counter: number_of(item, COUNTER).ok_or("`counter` is no number (N)")?,
        dead: is_true(item, DEAD),
        leaving: is_true(item, LEAVING),
        view: number_of(item, VIEW).unwrap_or(0),
        handlers: handlers.collect::<BTreeSet<_>>(),
        version: text_of(item, VERSION).unwrap_or_default().to_owned(),
        patience: Patience {
            expires_after: Duration::from_millis(number_of(item, EXPIRES).unwrap_or(0)),
            overdue_after: Duration::from_millis(number_of(item, OVERDUE).unwrap_or(0)),
        },
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn decode_fleet(rows: &[Item]) -> Result<Fleet, (String, &'static str)> {
    let mut fleet = Fleet::default();
    for row in rows {
        let sk = text_of(row, SK).unwrap_or_default();
        if let Some(id) = sk.strip_prefix(MEMBER) {
            fleet.members.push(decode_member(id, row).map_err(|reason| (sk.to_owned(), reason))?);
        } else if sk == VIEW {
            let version = number_of(row, VERSION).ok_or((sk.to_owned(), "`version` is no number (N)"))?;
            fleet.view = View { version, members: texts_of(row, MEMBERS).iter().map(|id| MemberId::new(id)).collect() };
        } else if sk == LINEAGE {
            fleet.lineage = number_of(row, NUMBER).ok_or((sk.to_owned(), "`number` is no number (N)"))?;
        }
    }
    Ok(fleet)
}

impl RelayTable {
    /// Puts a row under a condition; false when it does not hold.
    async fn put_if(
        &self,
        item: Item,
        condition: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<bool, StorageError> {
        let call = self.call("PutItem", "dynamodb:PutItem");
        let mut request = (self.client.put_item())
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(condition)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for (name, value) in values {
            request = request.expression_attribute_values(*name, value.clone());
        }
        let answer = call.make_if(request.send()).await?;
        call.consumed(answer.iter().filter_map(|answer| answer.consumed_capacity()));
        Ok(answer.is_some())
    }

    /// Changes a member's row under a condition; false when it does not hold.
    async fn change_member(
        &self,
        id: &MemberId,
        (update, condition): (&str, &str),
        values: &[(&str, AttributeValue)],
    ) -> Result<bool, StorageError> {
        let call = self.call("UpdateItem", "dynamodb:UpdateItem");
        let mut request = (self.client.update_item())
            .table_name(&self.table)
            .set_key(Some(member_key(id)))
            .update_expression(update)
            .condition_expression(condition)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let named = |(name, _): &(&str, &str)| update.contains(name) || condition.contains(name);
        for (name, attribute) in ATTRIBUTES.into_iter().filter(named) {
            request = request.expression_attribute_names(name, attribute);
        }
        for (name, value) in values {
            request = request.expression_attribute_values(*name, value.clone());
        }
        let answer = call.make_if(request.send()).await?;
        call.consumed(answer.iter().filter_map(|answer| answer.consumed_capacity()));
        Ok(answer.is_some())
    }
}

#[async_trait]
impl FleetStore for RelayTable {
    /// The first member writes which schema it is.
    async fn check_schema(&self) -> Result<(), JoinError> {
        let mut row = keyed(FLEET, SCHEMA_ROW);
        row.insert(VERSION.to_owned(), number(SCHEMA));
        if self.put_if(row, "attribute_not_exists(pk)", &[]).await? {
            return Ok(());
        }
        let found = self.get(FLEET, SCHEMA_ROW).await?.and_then(|row| number_of(&row, VERSION)).unwrap_or(0);
        if found == SCHEMA {
            return Ok(());
        }
        Err(JoinError::Schema { table: self.table.clone(), found, known: SCHEMA, version: env!("CARGO_PKG_VERSION") })
    }

    async fn join(&self, member: &Member) -> Result<(), StorageError> {
        let mut row = encode_member(member);
        row.insert(JOINED_AT.to_owned(), text(self.clock.now().to_string()));
        // An id of its own: what is there was put by an attempt whose answer was lost. It may say more by now, that this
        // member is dead above all, so an attempt that arrives late changes nothing.
        self.put_if(row, "attribute_not_exists(pk)", &[]).await.map(|_| ())
    }

    async fn renew(&self, member: &Member, report: &Report) -> Result<bool, StorageError> {
        let update =
            "SET #counter = #counter + :one, #view = :view, #leaving = :leaving, #renewed = :now, #lags = :lags";
        let condition = "attribute_exists(#counter) AND attribute_not_exists(#dead)";
        let lags = report.lags_secs.iter().map(|(handler, secs)| (handler.as_str().to_owned(), number(*secs)));
        let values = [
            (":one", number(1)),
            (":view", number(member.view)),
            (":leaving", AttributeValue::Bool(member.leaving)),
            (":now", text(self.clock.now().to_string())),
            (":lags", AttributeValue::M(lags.collect())),
        ];
        self.change_member(&member.id, (update, condition), &values).await
    }

    async fn fleet(&self) -> Result<Fleet, StorageError> {
        Ok(self.roll_call().await?.fleet)
    }

    async fn keep(&self, action: &ViewAction) -> Result<bool, StorageError> {
        match action {
            ViewAction::DeclareDead(id, counter) => {
                let values = [(":dead", AttributeValue::Bool(true)), (":seen", number(*counter))];
                self.change_member(id, ("SET #dead = :dead", "#counter = :seen"), &values).await
            }
            ViewAction::Put(view) => {
                let mut row = keyed(FLEET, VIEW);
                row.insert(VERSION.to_owned(), number(view.version));
                row.extend(set(MEMBERS, view.members.iter().map(MemberId::as_str)));
                let before = [(":before", number(view.version - 1))];
                let (condition, values) = match view.version {
                    1 => ("attribute_not_exists(pk)", &[][..]),
                    _ => ("version = :before", &before[..]),
                };
                self.put_if(row, condition, values).await
            }
            ViewAction::Remove(id) => {
                self.remove_member(id, "dead = :yes", &[(":yes", AttributeValue::Bool(true))]).await
            }
        }
    }

    async fn leave(&self, member: &MemberId) -> Result<(), StorageError> {
        self.remove_member(member, "attribute_exists(pk)", &[]).await.map(|_| ())
    }

    async fn leases(&self, handler: &HandlerName) -> Result<Vec<Lease>, StorageError> {
        Ok(self.leases_by_handler(handler).await?.into_iter().map(|(lease, _)| lease).collect())
    }

    async fn checkpoints(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Checkpoint>, StorageError> {
        let mut checkpoints = BTreeMap::new();
        for (lease, row) in self.leases_by_handler(handler).await? {
            checkpoints.extend(self.checkpoint_of(&row)?.map(|checkpoint| (lease.shard, checkpoint)));
        }
        Ok(checkpoints)
    }

    async fn leases_of(&self, keys: &[LeaseKey]) -> Result<Vec<Lease>, StorageError> {
        self.leases_by_key(keys).await
    }

    async fn add(&self, leases: &[Lease]) -> Result<(), StorageError> {
        self.add_leases(leases).await
    }

    async fn change(&self, read: &Lease, changed: &Lease) -> Result<Option<Changed>, StorageError> {
        self.change_lease(read, changed).await
    }

    async fn checkpoint(&self, key: &LeaseKey, taken: &Taken, checkpoint: &Checkpoint) -> Result<bool, StorageError> {
        self.checkpoint_lease(key, taken, checkpoint).await
    }

    async fn finish(&self, key: &LeaseKey, taken: &Taken, children: &[Lease]) -> Result<bool, StorageError> {
        self.finish_lease(key, taken, children).await
    }

    async fn forget(&self, read: &Lease) -> Result<bool, StorageError> {
        self.forget_lease(read).await
    }
}

impl RelayTable {
    async fn remove_member(
        &self,
        id: &MemberId,
        condition: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<bool, StorageError> {
        let call = self.call("DeleteItem", "dynamodb:DeleteItem");
        let mut request = (self.client.delete_item())
            .table_name(&self.table)
            .set_key(Some(member_key(id)))
            .condition_expression(condition)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for (name, value) in values {
            request = request.expression_attribute_values(*name, value.clone());
        }
        let answer = call.make_if(request.send()).await?;
        call.consumed(answer.iter().filter_map(|answer| answer.consumed_capacity()));
        Ok(answer.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::call::testing::any_item;
    use crate::storage::call::text;
    use proptest::prelude::*;

    const COLUMNS: [&str; 10] = [SK, VERSION, MEMBERS, NUMBER, COUNTER, DEAD, LEAVING, HANDLERS, EXPIRES, OVERDUE];

    proptest! {
        /// Whatever the rows hold, there is a fleet of as many members as rows of members, or one is named.
        #[test]
        fn any_rows_are_a_fleet_or_one_is_named(rows in proptest::collection::vec((any_item(&COLUMNS), 0_usize..4), 0..4)) {
            let keys = ["member#a~1", VIEW, LINEAGE, "member#"];
            let rows: Vec<Item> = (rows.into_iter())
                .map(|(mut row, key)| {
                    row.insert(SK.to_owned(), text(keys[key]));
                    row
                })
                .collect();
            let of_members = rows.iter().filter(|row| text_of(row, SK).unwrap().starts_with(MEMBER)).count();
            match decode_fleet(&rows) {
                Ok(fleet) => prop_assert_eq!(fleet.members.len(), of_members),
                Err((key, _)) => prop_assert!(keys.contains(&key.as_str())),
            }
        }
    }

    #[test]
    fn a_fleet_survives_its_rows() {
        let handlers: BTreeSet<_> = ["a", "b"].into_iter().map(|name| HandlerName::new(name).unwrap()).collect();
        let member = |id: &str, handlers: BTreeSet<HandlerName>| Member {
            id: MemberId::new(id),
            counter: 7,
            dead: false,
            leaving: false,
            view: 3,
            handlers,
            version: "0.1.0".into(),
            patience: Patience { expires_after: Duration::from_secs(8), overdue_after: Duration::from_millis(12_500) },
        };
        let members = vec![member("one~1", handlers), member("two#2", BTreeSet::new())];
        let mut view = keyed(FLEET, VIEW);
        view.insert(VERSION.to_owned(), number(3));
        view.extend(set(MEMBERS, members.iter().map(|member| member.id.as_str())));
        let mut lineage = keyed(FLEET, LINEAGE);
        lineage.insert(NUMBER.to_owned(), number(12));
        let mut rows: Vec<_> = members.iter().map(encode_member).collect();
        rows.extend([view, lineage, keyed(FLEET, SCHEMA_ROW)]);
        let agreed = View { version: 3, members: members.iter().map(|member| member.id.clone()).collect() };
        assert_eq!(decode_fleet(&rows), Ok(Fleet { view: agreed, members, lineage: 12 }));
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error() {
        for sk in ["member#x", VIEW, LINEAGE] {
            assert!(decode_fleet(&[keyed(FLEET, sk)]).is_err(), "{sk}");
        }
        assert_eq!(decode_fleet(&[]), Ok(Fleet::default()));
    }
}
