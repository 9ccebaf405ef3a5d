//! Settings of the AWS SDK and the clients made from them.
//!
//! Invariant: all clients share one HTTP client (rustls on ring) and one source of credentials.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the first byte of an answer may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call may take in all, its retries included.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the SDK sends a call to DynamoDB at most; calls to Streams and Kinesis it sends once.
pub const DYNAMODB_ATTEMPTS_MAX: u32 = 2;

/// The region of requests to an endpoint that was given, when none is configured anywhere: emulators do not mind which.
const REGION_AT_ENDPOINT: &str = "us-east-1";

/// Where AWS is and as whom to call it.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// The region; none for what environment, profile or instance say.
    pub region: Option<String>,
    /// Another endpoint of DynamoDB, such as `http://localhost:8000`.
    pub dynamodb_endpoint: Option<String>,
    /// Another endpoint of Kinesis.
    pub kinesis_endpoint: Option<String>,
    /// Another endpoint of DynamoDB Streams; none for DynamoDB's when that is set.
    pub streams_endpoint: Option<String>,
    /// Fixed credentials, for emulators; none for the SDK's standard chain.
    pub credentials: Option<StaticCredentials>,
}

/// A key pair that never changes.
#[derive(Clone)]
pub struct StaticCredentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret; never shown.
    pub secret_access_key: String,
}

impl StaticCredentials {
    /// Credentials that any emulator accepts.
    #[must_use]
    pub fn dummy() -> Self {
        Self { access_key_id: "local".into(), secret_access_key: "local".into() }
    }
}

impl std::fmt::Debug for StaticCredentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StaticCredentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The clients. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct AwsClients {
    /// DynamoDB.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// DynamoDB Streams.
    pub streams: aws_sdk_dynamodbstreams::Client,
    /// Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
    /// The HTTP client under them, for the `http` handler: one HTTP stack in the process.
    pub http: SharedHttpClient,
    region: Option<String>,
    dynamodb_endpoint: Option<String>,
}

impl AwsClients {
    /// Builds the clients. Nothing is called yet but what tells the region (environment, profile, instance metadata),
    /// and that only when it is not given.
    pub async fn new(settings: &AwsSettings) -> Self {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let shared = load(settings, http.clone()).await;
        let once = RetryConfig::disabled();

        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&shared)
            .retry_config(RetryConfig::standard().with_max_attempts(DYNAMODB_ATTEMPTS_MAX));
        dynamodb.set_endpoint_url(settings.dynamodb_endpoint.clone());
        let mut streams = aws_sdk_dynamodbstreams::config::Builder::from(&shared).retry_config(once.clone());
        streams.set_endpoint_url(settings.streams_endpoint.clone().or_else(|| settings.dynamodb_endpoint.clone()));
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(&shared).retry_config(once);
        kinesis.set_endpoint_url(settings.kinesis_endpoint.clone());

        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            streams: aws_sdk_dynamodbstreams::Client::from_conf(streams.build()),
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            http,
            region: shared.region().map(ToString::to_string),
            dynamodb_endpoint: settings.dynamodb_endpoint.clone(),
        }
    }

    /// The region in use, if any source named one.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The command that gives a table the stream this program needs.
    #[must_use]
    pub fn enable_stream_command(&self, table: &str) -> String {
        self.update_stream_command(table, "StreamEnabled=true,StreamViewType=NEW_IMAGE")
    }

    /// The command that takes a table's stream away; needed to change its view type.
    #[must_use]
    pub fn disable_stream_command(&self, table: &str) -> String {
        self.update_stream_command(table, "StreamEnabled=false")
    }

    fn update_stream_command(&self, table: &str, specification: &str) -> String {
        let options = self.cli_options();
        format!("aws dynamodb update-table --table-name {table} --stream-specification {specification}{options}")
    }

    /// The options that point the AWS CLI at the same DynamoDB, with a space before each; for commands shown to an
    /// operator.
    #[must_use]
    pub fn cli_options(&self) -> String {
        let option =
            |name: &str, value: Option<&str>| value.map_or_else(String::new, |value| format!(" {name} {value}"));
        option("--region", self.region()) + &option("--endpoint-url", self.dynamodb_endpoint.as_deref())
    }
}

async fn load(settings: &AwsSettings, http: SharedHttpClient) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .timeout_config(timeouts)
        // The operation's time-out bounds a stalled answer already, without a wrapper around every body.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    } else if settings.dynamodb_endpoint.is_some() || settings.kinesis_endpoint.is_some() {
        // An endpoint was given: do not wait for the metadata service of a machine that may have none.
        loader = loader.region(
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .or_else(Region::from_static(REGION_AT_ENDPOINT)),
        );
    }
    if let Some(credentials) = &settings.credentials {
        loader = loader.credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            credentials.access_key_id.clone(),
            credentials.secret_access_key.clone(),
            None,
            None,
            "settings",
        )));
    }
    loader.load().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn points_the_cli_at_the_same_endpoint_and_hides_the_secret() {
        let settings = AwsSettings {
            dynamodb_endpoint: Some("http://localhost:8000".into()),
            region: Some("eu-central-1".into()),
            credentials: Some(StaticCredentials { access_key_id: "id".into(), secret_access_key: "hidden".into() }),
            ..AwsSettings::default()
        };
        let clients = AwsClients::new(&settings).await;
        assert_eq!(clients.cli_options(), " --region eu-central-1 --endpoint-url http://localhost:8000");
        assert!(!format!("{settings:?}").contains("hidden"));
    }

    #[tokio::test]
    async fn retries_are_the_callers() {
        let settings = AwsSettings { region: Some("eu-central-1".into()), ..AwsSettings::default() };
        let clients = AwsClients::new(&settings).await;
        assert_eq!(clients.dynamodb.config().retry_config().map(RetryConfig::max_attempts), Some(2));
        assert_eq!(clients.streams.config().retry_config().map(RetryConfig::max_attempts), Some(1));
        assert_eq!(clients.kinesis.config().retry_config().map(RetryConfig::max_attempts), Some(1));
        let timeouts = clients.streams.config().timeout_config().cloned();
        assert_eq!(timeouts.and_then(|timeouts| timeouts.operation_timeout()), Some(OPERATION_TIMEOUT));
    }
}
