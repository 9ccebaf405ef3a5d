//! Creating the four tables and describing them as they are. Their shape and its check are in `table_check`.
//!
//! Invariant: a table that is there is never changed, but for enabling the missing stream of the events table; and
//! nothing is created when any table that is there has another shape.

use std::time::Duration;

use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, StreamSpecification, StreamViewType, TableDescription,
};
use tokio::time::Instant;

use super::StorageError;
use super::call::Call;
pub use super::table_check::{KeyState, StreamState, TableNames, TableSpec, TableState};
use crate::aws::{AwsClients, observe};

/// How often a table in the making is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long one table may take to become ACTIVE.
const ACTIVE_WAIT_MAX: Duration = Duration::from_mins(3);

/// What happens while tables are created, for a line to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableProgress {
    /// The table was there, in the right shape.
    Present {
        /// Its name.
        table: String,
        /// What is unusual about it.
        warnings: Vec<String>,
    },
    /// Its creation was ordered.
    Creating {
        /// Its name.
        table: String,
    },
    /// It had no stream: enabling it was ordered.
    EnablingStream {
        /// Its name.
        table: String,
    },
    /// It is still not ready.
    Waiting {
        /// Its name.
        table: String,
        /// DynamoDB's status.
        status: String,
        /// How long it has been waited for.
        waited: Duration,
    },
    /// What was ordered is done.
    Ready {
        /// Its name.
        table: String,
    },
}

/// Why the tables could not be created.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// Tables of these names are there, but of another shape. Nothing was created or changed.
    #[error("{}", wrong_shape(.0))]
    WrongShape(Vec<TableState>),
    /// A table does not become ready.
    #[error("the table `{table}` is {status} after {} s", ACTIVE_WAIT_MAX.as_secs())]
    NotReady {
        /// Its name.
        table: String,
        /// DynamoDB's status.
        status: String,
    },
    /// A call failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn wrong_shape(states: &[TableState]) -> String {
    let one = |state: &TableState| {
        let mend = state.mend.as_ref().map_or_else(String::new, |mend| format!(" (mend it with `{mend}`)"));
        format!("the table `{}` has another shape: {}{mend}", state.table, state.differences.join("; "))
    };
    states.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The tables as they are; those that are missing too.
///
/// # Errors
/// As a call failed.
pub async fn describe_all(clients: &AwsClients, names: &TableNames) -> Result<Vec<TableState>, StorageError> {
    let mut states = Vec::new();
    for spec in TableSpec::all(names) {
        states.push(state(clients, &spec).await?);
    }
    Ok(states)
}

/// Creates what is missing of the tables, enables the stream of the events table, and waits until all are ACTIVE.
/// Tables that are there are left as they are, so it can be done again at any time.
///
/// # Errors [`TablesError::WrongShape`] with every difference before anything is created; [`TablesError::NotReady`]
/// when a table takes more than three minutes; otherwise as a call failed.
pub async fn create_all(
    clients: &AwsClients,
    names: &TableNames,
    progress: &mut (dyn FnMut(TableProgress) + Send),
) -> Result<(), TablesError> {
    let specs = TableSpec::all(names);
    let states = describe_all(clients, names).await?;
    let wrong: Vec<_> = states.iter().filter(|state| !state.differences.is_empty()).cloned().collect();
    if !wrong.is_empty() {
        return Err(TablesError::WrongShape(wrong));
    }
    for (spec, state) in specs.iter().zip(states) {
        if state.is_ready() {
            progress(TableProgress::Present { table: state.table, warnings: state.warnings });
            continue;
        }
        if !state.exists() {
            progress(TableProgress::Creating { table: state.table });
            create(clients, spec).await?;
        }
        wait(clients, spec, progress).await?;
        progress(TableProgress::Ready { table: spec.name.clone() });
    }
    Ok(())
}

/// Waits until a table is ACTIVE and, where it must, has its stream.
async fn wait(
    clients: &AwsClients,
    spec: &TableSpec,
    progress: &mut (dyn FnMut(TableProgress) + Send),
) -> Result<(), TablesError> {
    let began = Instant::now();
    let mut enabling = false;
    loop {
        let state = state(clients, spec).await?;
        if !state.differences.is_empty() {
            // Somebody else created it meanwhile.
            return Err(TablesError::WrongShape(vec![state]));
        }
        if state.is_ready() {
            return Ok(());
        }
        if began.elapsed() >= ACTIVE_WAIT_MAX {
            return Err(TablesError::NotReady { table: state.table, status: state.status });
        }
        if state.status == "ACTIVE" && !enabling {
            enabling = true;
            progress(TableProgress::EnablingStream { table: state.table });
            enable_stream(clients, spec).await?;
            continue;
        }
        progress(TableProgress::Waiting { table: state.table, status: state.status, waited: began.elapsed() });
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn state(clients: &AwsClients, spec: &TableSpec) -> Result<TableState, StorageError> {
    let found = describe(clients, spec).await?;
    Ok(spec.state(found.as_ref(), clients))
}

async fn describe(clients: &AwsClients, spec: &TableSpec) -> Result<Option<TableDescription>, StorageError> {
    let call = Call { operation: "DescribeTable", action: "dynamodb:DescribeTable", table: &spec.name };
    match observe(call.operation, clients.dynamodb.describe_table().table_name(&spec.name).send()).await {
        Ok(answer) => Ok(answer.table),
        Err(error) => match error.as_service_error() {
            Some(DescribeTableError::ResourceNotFoundException(_)) => Ok(None),
            _ => Err(call.failed(error)),
        },
    }
}

fn new_images() -> StreamSpecification {
    StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewImage)
        .build()
        .expect("enabled is set")
}

async fn create(clients: &AwsClients, spec: &TableSpec) -> Result<(), StorageError> {
    let call = Call { operation: "CreateTable", action: "dynamodb:CreateTable", table: &spec.name };
    let mut request = (clients.dynamodb.create_table())
        .table_name(&spec.name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_stream_specification(spec.streamed.then(new_images));
    for (role, (name, kind)) in spec.keys() {
        let key = KeySchemaElement::builder().attribute_name(*name).key_type(role).build();
        let attribute = AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone()).build();
        request = request
            .key_schema(key.expect("name and type are set"))
            .attribute_definitions(attribute.expect("name and type are set"));
    }
    match observe(call.operation, request.send()).await {
        Ok(_) => Ok(()),
        Err(error) => match error.as_service_error() {
            // Another process creates it at the same time, or the first reply was lost: what counts is what is there in
            // the end.
            Some(CreateTableError::ResourceInUseException(_)) => Ok(()),
            _ => Err(call.failed(error)),
        },
    }
}

async fn enable_stream(clients: &AwsClients, spec: &TableSpec) -> Result<(), StorageError> {
    let call = Call { operation: "UpdateTable", action: "dynamodb:UpdateTable", table: &spec.name };
    let request = clients.dynamodb.update_table().table_name(&spec.name).stream_specification(new_images());
    match observe(call.operation, request.send()).await {
        Ok(_) => Ok(()),
        Err(error) => match error.as_service_error() {
            Some(UpdateTableError::ResourceInUseException(_)) => Ok(()),
            _ => Err(call.failed(error)),
        },
    }
}
