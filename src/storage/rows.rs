//! Writing, removing and paging through rows, as every adapter does it where no condition is needed.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use super::StorageError;
use super::call::{Call, Item, text};

/// Rows, and the key behind which the next page begins; none when this was the last.
pub(crate) type ItemPage = (Vec<Item>, Option<Item>);

/// Writes one row, whatever was there.
pub(crate) async fn put_row(client: &Client, table: &str, item: Item) -> Result<(), StorageError> {
    let call = Call { operation: "PutItem", action: "dynamodb:PutItem", table };
    let request = (client.put_item())
        .table_name(table)
        .set_item(Some(item))
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let answer = call.make(request.send()).await?;
    call.consumed(answer.consumed_capacity());
    Ok(())
}

/// Takes one row away, if it is there.
pub(crate) async fn remove_row(client: &Client, table: &str, key: Item) -> Result<(), StorageError> {
    let call = Call { operation: "DeleteItem", action: "dynamodb:DeleteItem", table };
    let request = (client.delete_item())
        .table_name(table)
        .set_key(Some(key))
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let answer = call.make(request.send()).await?;
    call.consumed(answer.consumed_capacity());
    Ok(())
}

/// Reads a page of a partition, consistently: of its rows the attributes named, or all.
pub(crate) async fn read_page(
    client: &Client,
    table: &str,
    pk: &str,
    attributes: Option<&str>,
    start: Option<Item>,
) -> Result<ItemPage, StorageError> {
    let call = Call { operation: "Query", action: "dynamodb:Query", table };
    let request = (client.query())
        .table_name(table)
        .consistent_read(true)
        .set_projection_expression(attributes.map(str::to_owned))
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", text(pk))
        .set_exclusive_start_key(start)
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let answer = call.make(request.send()).await?;
    call.consumed(answer.consumed_capacity());
    Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key.filter(|key| !key.is_empty())))
}
