//! Creating the tables: exactly as they must be, again and again, and never over a table of another shape.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::storage::{TableNames, TableProgress, TableState, TablesError, create_all, describe_all};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType,
};

crate::scenarios!(
    creates_the_tables_once,
    refuses_tables_of_another_shape,
    enables_a_missing_stream,
    refuses_a_stream_without_new_images,
);

async fn create(aws: &AwsClients, prefix: &str) -> Result<Vec<TableProgress>, TablesError> {
    let mut lines = Vec::new();
    create_all(aws, &TableNames::from_prefix(prefix), &mut |line| lines.push(line)).await?;
    Ok(lines)
}

async fn describe(aws: &AwsClients, prefix: &str) -> Vec<TableState> {
    describe_all(aws, &TableNames::from_prefix(prefix)).await.unwrap()
}

async fn creates_the_tables_once(aws: &AwsClients, prefix: &str) {
    let missing = describe(aws, prefix).await;
    assert!(missing.iter().all(|state| !state.exists() && !state.is_ready()), "{missing:?}");
    let lines = create(aws, prefix).await.unwrap();
    assert_eq!(lines.iter().filter(|line| matches!(line, TableProgress::Creating { .. })).count(), 4);
    let states = describe(aws, prefix).await;
    assert!(states.iter().all(TableState::is_ready), "{states:?}");
    assert!(states.iter().all(|state| state.warnings.is_empty()), "{states:?}");
    assert_eq!(states[0].stream.as_ref().map(|stream| stream.view_type.as_str()), Some("NEW_IMAGE"));
    assert!(states[0].stream.as_ref().and_then(|stream| stream.arn.as_ref()).is_some());
    let lines = create(aws, prefix).await.unwrap();
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| matches!(line, TableProgress::Present { .. })), "{lines:?}");
}

async fn make(aws: &AwsClients, table: &str, keys: &[(&str, ScalarAttributeType)], view: Option<StreamViewType>) {
    let mut request = aws.dynamodb.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for ((name, kind), role) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
        request = request
            .key_schema(KeySchemaElement::builder().attribute_name(*name).key_type(role).build().unwrap())
            .attribute_definitions(
                AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone()).build().unwrap(),
            );
    }
    let stream =
        view.map(|view| StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap());
    request.set_stream_specification(stream).send().await.unwrap();
}

async fn refuses_tables_of_another_shape(aws: &AwsClients, prefix: &str) {
    let names = TableNames::from_prefix(prefix);
    let text = ScalarAttributeType::S;
    make(aws, &names.events, &[("pk", text.clone()), ("sk", text.clone())], Some(StreamViewType::NewImage)).await;
    make(aws, &names.positions, &[("id", text.clone()), ("sk", text.clone())], None).await;
    let error = create(aws, prefix).await.unwrap_err().to_string();
    for expected in [
        &format!("`{}`", names.events),
        "the sort key is sk (S), not sk (N)",
        &format!("`{}`", names.positions),
        "the partition key is id (S), not pk (S)",
        "the sort key is sk (S), not none",
    ] {
        assert!(error.contains(expected), "{expected} in {error}");
    }
    let states = describe(aws, prefix).await;
    assert!(!states[2].exists() && !states[3].exists(), "nothing is created beside a wrong table");
    assert_eq!(states[1].differences.len(), 2);
}

async fn enables_a_missing_stream(aws: &AwsClients, prefix: &str) {
    let names = TableNames::from_prefix(prefix);
    make(aws, &names.events, &[("pk", ScalarAttributeType::S), ("sk", ScalarAttributeType::N)], None).await;
    let state = describe(aws, prefix).await.remove(0);
    assert!(!state.is_ready() && state.differences.is_empty());
    let mend = state.mend.unwrap();
    let command = format!(
        "aws dynamodb update-table --table-name {} --stream-specification StreamEnabled=true,StreamViewType=NEW_IMAGE \
         --region us-east-1 --endpoint-url http://",
        names.events
    );
    assert!(mend.starts_with(&command), "{mend}");
    let lines = create(aws, prefix).await.unwrap();
    assert!(lines.contains(&TableProgress::EnablingStream { table: names.events }), "{lines:?}");
    assert!(describe(aws, prefix).await.iter().all(TableState::is_ready));
}

async fn refuses_a_stream_without_new_images(aws: &AwsClients, prefix: &str) {
    let names = TableNames::from_prefix(prefix);
    let keys = [("pk", ScalarAttributeType::S), ("sk", ScalarAttributeType::N)];
    make(aws, &names.events, &keys, Some(StreamViewType::KeysOnly)).await;
    let error = create(aws, prefix).await.unwrap_err().to_string();
    assert!(error.contains("KEYS_ONLY") && error.contains("StreamEnabled=false --region"), "{error}");
    assert!(error.contains("StreamViewType=NEW_IMAGE"), "{error}");
}
