//! The rows of lives in the relay's table: `pk = lives`, `sk` = `{handler}#{member}`, `running` BOOL, and while a handler is given its
//! events carefully `suspect_root` S (its key), `suspect_sequence` N, `suspect_attempts` N.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::table::{PK, SK};
use super::{Life, Lives, LivesOfAll, RelayTable, Suspect};
use crate::event::{Root, escape};
use crate::fleet::{FleetStore as _, Member, MemberId};
use crate::handler::HandlerName;
use crate::storage::StorageError;
use crate::storage::call::{Item, number, sequence_of, text, text_of};

pub(super) const LIVES: &str = "lives";
const RUNNING: &str = "running";
const SUSPECT_ROOT: &str = "suspect_root";
const SUSPECT_SEQUENCE: &str = "suspect_sequence";
const SUSPECT_ATTEMPTS: &str = "suspect_attempts";

/// What the row said before; a suspect that cannot be read is none.
fn decode(item: &Item) -> Life {
    let suspect = || {
        let root = Root::parse(text_of(item, SUSPECT_ROOT)?).ok()?;
        let attempts = u32::try_from(sequence_of(item, SUSPECT_ATTEMPTS)?.0).ok()?;
        Some(Suspect { root, sequence: sequence_of(item, SUSPECT_SEQUENCE)?, attempts })
    };
    let running = item.get(RUNNING).and_then(|value| value.as_bool().ok()) == Some(&true);
    Life { unclean: running, suspect: suspect().filter(|_| running) }
}

/// One member's notes.
#[derive(Debug, Clone)]
struct MemberLives {
    table: RelayTable,
    member: MemberId,
}

fn row_name(member: &MemberId, handler: &HandlerName) -> String {
    format!("{}#{member}", escape(handler.as_str()))
}

impl RelayTable {
    /// Whether a relay runs a handler, or has ended without saying so: such a one until another replica has found it dead.
    ///
    /// # Errors
    /// As the call failed.
    pub async fn is_running(&self, handler: &HandlerName) -> Result<bool, StorageError> {
        let runs = |member: &Member| !member.dead && member.handlers.contains(handler);
        Ok(self.fleet().await?.members.iter().any(runs))
    }

    /// Forgets all lives of a handler.
    pub(super) async fn forget_lives(&self, handler: &HandlerName) -> Result<(), StorageError> {
        for member in LivesOfAll::members(self, handler).await? {
            LivesOfAll::forget(self, &member, handler).await?;
        }
        Ok(())
    }
}

impl MemberLives {
    async fn live(
        &self,
        handler: &HandlerName,
        expression: &str,
        values: impl IntoIterator<Item = (&'static str, AttributeValue)>,
    ) -> Result<(), StorageError> {
        let call = self.table.call("UpdateItem", "dynamodb:UpdateItem");
        let mut request = (self.table.client.update_item())
            .table_name(&self.table.table)
            .key(PK, text(LIVES))
            .key(SK, text(row_name(&self.member, handler)))
            .update_expression(expression)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for (name, value) in values {
            request = request.expression_attribute_values(name, value);
        }
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(())
    }
}

#[async_trait]
impl LivesOfAll for RelayTable {
    fn notes_of(&self, member: &MemberId) -> Arc<dyn Lives> {
        Arc::new(MemberLives { table: self.clone(), member: member.clone() })
    }

    async fn members(&self, handler: &HandlerName) -> Result<Vec<MemberId>, StorageError> {
        let prefix = format!("{}#", escape(handler.as_str()));
        let member = |row: &Item| text_of(row, SK)?.strip_prefix(&prefix).map(MemberId::new);
        Ok(self.partition(LIVES).await?.iter().filter_map(member).collect())
    }

    async fn of(&self, member: &MemberId, handler: &HandlerName) -> Result<Life, StorageError> {
        let row = self.get(LIVES, &row_name(member, handler)).await?;
        Ok(row.as_ref().map(decode).unwrap_or_default())
    }

    async fn forget(&self, member: &MemberId, handler: &HandlerName) -> Result<(), StorageError> {
        self.remove(LIVES, &row_name(member, handler)).await
    }
}

#[async_trait]
impl Lives for MemberLives {
    async fn begin(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.live(handler, "SET running = :running", [(":running", AttributeValue::Bool(true))]).await
    }

    async fn suspect(&self, handler: &HandlerName, suspect: &Suspect) -> Result<(), StorageError> {
        let values = [
            (":root", text(suspect.root.key())),
            (":sequence", number(suspect.sequence)),
            (":attempts", AttributeValue::N(suspect.attempts.to_string())),
        ];
        let set = "SET suspect_root = :root, suspect_sequence = :sequence, suspect_attempts = :attempts";
        self.live(handler, set, values).await
    }

    async fn clear(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.live(handler, "REMOVE suspect_root, suspect_sequence, suspect_attempts", []).await
    }

    async fn end(&self, handler: &HandlerName) -> Result<(), StorageError> {
        self.table.remove(LIVES, &row_name(&self.member, handler)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Sequence;

    #[test]
    fn a_suspect_counts_only_after_an_unclean_end() {
        let root = Root::new("orders", "", "1").unwrap();
        let mut item = Item::from([
            (RUNNING.to_owned(), AttributeValue::Bool(true)),
            (SUSPECT_ROOT.to_owned(), text(root.key())),
            (SUSPECT_SEQUENCE.to_owned(), number(Sequence(7))),
            (SUSPECT_ATTEMPTS.to_owned(), AttributeValue::N("2".into())),
        ]);
        let suspect = Some(Suspect { root, sequence: Sequence(7), attempts: 2 });
        assert_eq!(decode(&item), Life { unclean: true, suspect });
        item.insert(RUNNING.to_owned(), AttributeValue::Bool(false));
        assert_eq!(decode(&item), Life::default());
    }
}
