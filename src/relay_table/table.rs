//! The relay's table on DynamoDB, and the calls on single rows and partitions that all its rows are kept by.
//!
//! Each kind of row has a file of its own: `checkpoints`, `handlers`, `jobs`, `lives`. Marks and passed events are in the
//! same table, written by `storage::mark_store` together with positions. Nothing here retries.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use crate::aws::AwsClients;
use crate::storage::StorageError;
use crate::storage::call::{Call, Item, text};
use crate::storage::rows::{ItemPage, put_row, read_page, remove_row};
use crate::time::Clock;

pub(super) const PK: &str = "pk";
pub(super) const SK: &str = "sk";

/// Pages of one partition that are read at most (1 MB each, some 5,000 rows): one with more has rows nobody forgot.
const PARTITION_PAGES_MAX: usize = 100;

/// The table `{prefix}-relay`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RelayTable {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) clock: Clock,
}

/// The key of a row, to which its attributes are added.
pub(super) fn keyed(pk: &str, sk: &str) -> Item {
    Item::from([(PK.to_owned(), text(pk)), (SK.to_owned(), text(sk))])
}

impl RelayTable {
    /// The relay's rows in `table`.
    #[must_use]
    pub fn new(clients: &AwsClients, table: &str, clock: Clock) -> Self {
        Self { client: clients.dynamodb.clone(), table: table.to_owned(), clock }
    }

    pub(super) fn call(&self, operation: &'static str, action: &'static str) -> Call<'_> {
        Call { operation, action, table: &self.table }
    }

    /// Reads one row, consistently.
    pub(super) async fn get(&self, pk: &str, sk: &str) -> Result<Option<Item>, StorageError> {
        let call = self.call("GetItem", "dynamodb:GetItem");
        let request = (self.client.get_item())
            .table_name(&self.table)
            .consistent_read(true)
            .set_key(Some(keyed(pk, sk)))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.make(request.send()).await?;
        call.consumed(answer.consumed_capacity());
        Ok(answer.item)
    }

    /// Writes one row, whatever was there.
    pub(super) async fn put(&self, item: Item) -> Result<(), StorageError> {
        put_row(&self.client, &self.table, item).await
    }

    /// Takes one row away.
    pub(super) async fn remove(&self, pk: &str, sk: &str) -> Result<(), StorageError> {
        remove_row(&self.client, &self.table, keyed(pk, sk)).await
    }

    /// Reads a page of a partition's rows, consistently, and where the next one begins.
    pub(super) async fn page(&self, pk: &str, start: Option<Item>) -> Result<ItemPage, StorageError> {
        read_page(&self.client, &self.table, pk, None, start).await
    }

    /// Reads all rows of a partition, consistently.
    pub(super) async fn partition(&self, pk: &str) -> Result<Vec<Item>, StorageError> {
        let (mut found, mut start) = (Vec::new(), None);
        for _ in 0..PARTITION_PAGES_MAX {
            let (rows, next) = self.page(pk, start).await?;
            found.extend(rows);
            start = next;
            if start.is_none() {
                return Ok(found);
            }
        }
        let reason = format!("`{}` has more than {PARTITION_PAGES_MAX} pages of rows under `{pk}`", self.table);
        Err(StorageError::Invalid { reason })
    }

    pub(super) fn unreadable(&self, pk: &str, sk: &str, reason: &'static str) -> StorageError {
        StorageError::Unreadable { table: self.table.clone(), key: format!("{pk} {sk}"), reason }
    }
}
