//! From the configuration to the services a command talks to.

use super::{Context, ServiceTrouble};
use crate::aws::AwsClients;
use crate::config::HttpUrl;
use crate::relay::clients_for;
use crate::shell::own_command;
use crate::storage::{EventStore, StorageError, TableNames};
use crate::time::Random;

/// A service, as a message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// `DynamoDB`, `DynamoDB Streams` or `Kinesis`.
    pub(super) name: &'static str,
    /// The endpoint that was given; none for AWS' own.
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
    /// Where the endpoint is set.
    pub(super) setting: &'static str,
}

impl Service {
    /// What to check when it cannot be reached.
    pub(super) fn checks(&self) -> String {
        match self.endpoint {
            Some(_) => format!("check that {} runs there, and {}", self.name, self.setting),
            None => format!("check the network and the region, and whether {} is to be set", self.setting),
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.endpoint {
            Some(url) => write!(formatter, "{} at {url}", self.name),
            None => write!(formatter, "{} in {}", self.name, self.region),
        }
    }
}

/// The clients, and what they are clients of.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) clients: AwsClients,
    pub(super) tables: TableNames,
    pub(super) dynamodb: Service,
    pub(super) streams: Service,
    pub(super) kinesis: Service,
    /// The command that creates the tables.
    pub(super) create_tables: String,
    chunk_bytes: usize,
}

impl Connection {
    /// Builds the clients; nothing is called yet.
    pub(super) async fn new(context: &Context) -> Result<Self, ServiceTrouble> {
        let config = &context.config;
        let clients = clients_for(config).await;
        let region = clients.region().ok_or(ServiceTrouble::NoRegion)?.to_owned();
        let service = |name, endpoint: Option<&HttpUrl>, setting| Service {
            name,
            endpoint: endpoint.map(|url| url.as_str().to_owned()),
            region: region.clone(),
            setting,
        };
        let dynamo = &config.storage.dynamo;
        let (dynamodb, kinesis) = (dynamo.endpoint.as_ref(), config.kinesis.endpoint.as_ref());
        let streams = dynamo.streams_endpoint.as_ref().or(dynamodb);
        Ok(Self {
            dynamodb: service("DynamoDB", dynamodb, "storage.dynamo.endpoint (DYNAMO_ENDPOINT)"),
            streams: service("DynamoDB Streams", streams, "storage.dynamo.streams_endpoint"),
            kinesis: service("Kinesis", kinesis, "kinesis.endpoint (KINESIS_ENDPOINT)"),
            tables: TableNames::from_prefix(&config.storage.dynamo.table_prefix),
            chunk_bytes: dynamo.chunk_size,
            create_tables: own_command(&["tables", "create"], context.config_path.as_deref()),
            clients,
        })
    }

    pub(super) fn event_store(&self) -> EventStore {
        let store = EventStore::new(&self.clients, &self.tables.events, Random::from_entropy());
        store.with_chunk_bytes(self.chunk_bytes)
    }

    /// What a failed read or write of a table means.
    pub(super) fn trouble(&self, error: StorageError) -> ServiceTrouble {
        match error {
            StorageError::NoTable { table } => ServiceTrouble::NoTable { table, create: self.create_tables.clone() },
            error => ServiceTrouble::of_storage(&self.dynamodb, error),
        }
    }
}
