//! The shape of the four tables (design section 3), and how a table that is there differs from it. Pure.

use aws_sdk_dynamodb::types::{
    BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamViewType, TableDescription, TableStatus,
};
use serde::Serialize;

use crate::aws::AwsClients;
use crate::event::columns;

/// The status of a table that is not there.
const MISSING: &str = "MISSING";

/// The names of the four tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableNames {
    /// The events, with their stream.
    pub events: String,
    /// The positions of the handlers.
    pub positions: String,
    /// The snapshots.
    pub snapshots: String,
    /// The relay's own rows.
    pub relay: String,
}

impl TableNames {
    /// `{prefix}-events`, `{prefix}-positions`, `{prefix}-snapshots`, `{prefix}-relay`.
    #[must_use]
    pub fn from_prefix(prefix: &str) -> Self {
        let name = |part: &str| format!("{prefix}-{part}");
        Self {
            events: name("events"),
            positions: name("positions"),
            snapshots: name("snapshots"),
            relay: name("relay"),
        }
    }
}

/// A key attribute: its name and type.
pub(super) type Key = (&'static str, ScalarAttributeType);

/// What a table must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name.
    pub name: String,
    pub(super) partition: Key,
    pub(super) sort: Option<Key>,
    /// Whether it needs a stream with new images.
    pub streamed: bool,
}

impl TableSpec {
    /// The four tables.
    #[must_use]
    pub fn all(names: &TableNames) -> [Self; 4] {
        let text = |name| (name, ScalarAttributeType::S);
        let spec = |name: &String, sort| Self { name: name.clone(), partition: text("pk"), sort, streamed: false };
        [
            Self { streamed: true, ..spec(&names.events, Some((columns::SK, ScalarAttributeType::N))) },
            spec(&names.positions, None),
            spec(&names.snapshots, None),
            spec(&names.relay, Some(text("sk"))),
        ]
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (KeyType, &Key)> {
        std::iter::once((KeyType::Hash, &self.partition)).chain(self.sort.iter().map(|key| (KeyType::Range, key)))
    }

    /// The table as it was found, or missing.
    pub(super) fn state(&self, found: Option<&TableDescription>, clients: &AwsClients) -> TableState {
        let mut state = TableState {
            table: self.name.clone(),
            status: found
                .map_or(MISSING, |found| found.table_status().map_or("UNKNOWN", TableStatus::as_str))
                .to_owned(),
            keys: Vec::new(),
            billing_mode: None,
            differences: Vec::new(),
            warnings: Vec::new(),
            stream: None,
            mend: None,
        };
        let Some(found) = found else {
            state.mend = Some("angzarr-relay tables create".into());
            return state;
        };
        state.keys = found.key_schema().iter().map(|key| key_state(found, key)).collect();
        self.check_keys(&mut state);
        // A table that was never billed in another way does not say.
        let billed = found.billing_mode_summary().and_then(|billing| billing.billing_mode());
        let billed = billed.unwrap_or(&BillingMode::Provisioned);
        state.billing_mode = Some(billed.as_str().to_owned());
        if *billed != BillingMode::PayPerRequest {
            state.warnings.push("the billing mode is PROVISIONED, not PAY_PER_REQUEST: bursts may be throttled".into());
        }
        if let Some(stream) = found.stream_specification().filter(|stream| stream.stream_enabled()) {
            let view_type = stream.stream_view_type().map_or("none", StreamViewType::as_str).to_owned();
            state.stream = Some(StreamState { view_type, arn: found.latest_stream_arn().map(str::to_owned) });
        }
        if self.streamed {
            self.check_stream(&mut state, clients);
        }
        state
    }

    fn check_keys(&self, state: &mut TableState) {
        for (role, name) in [(KeyType::Hash, "partition key"), (KeyType::Range, "sort key")] {
            let wanted = self.keys().find(|(kind, _)| *kind == role);
            let wanted = wanted.map(|(_, (name, kind))| shown(name, kind.as_str()));
            let there = state.keys.iter().find(|key| key.role == role.as_str()).map(|key| shown(&key.name, &key.kind));
            if wanted != there {
                let text = |key: Option<String>| key.unwrap_or_else(|| "none".into());
                state.differences.push(format!("the {name} is {}, not {}", text(there), text(wanted)));
            }
        }
    }

    fn check_stream(&self, state: &mut TableState, clients: &AwsClients) {
        let (enable, disable) = (clients.enable_stream_command(&self.name), clients.disable_stream_command(&self.name));
        match &state.stream {
            None => state.mend = Some(enable),
            Some(stream) if stream.has_new_images() => {}
            Some(stream) => {
                state.differences.push(format!(
                    "the stream's view type is {}, not NEW_IMAGE or NEW_AND_OLD_IMAGES",
                    stream.view_type
                ));
                state.mend = Some(format!("{disable} && {enable}"));
            }
        }
    }
}

/// A table as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableState {
    /// Its name.
    pub table: String,
    /// DynamoDB's status, such as `ACTIVE`; `MISSING` when there is no such table.
    pub status: String,
    /// Its key, the partition key first; empty when there is no such table.
    pub keys: Vec<KeyState>,
    /// Such as `PAY_PER_REQUEST`; none when there is no such table.
    pub billing_mode: Option<String>,
    /// What of its shape is wrong, one sentence each; such a table cannot be used.
    pub differences: Vec<String>,
    /// What is unusual but works.
    pub warnings: Vec<String>,
    /// Its enabled stream, if it has one.
    pub stream: Option<StreamState>,
    /// The command that mends what is missing, if one does.
    pub mend: Option<String>,
}

/// One attribute of a table's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyState {
    /// Its name.
    pub name: String,
    /// `S`, `N` or `B`; `?` when the table does not say.
    #[serde(rename = "type")]
    pub kind: String,
    /// `HASH` or `RANGE`.
    pub role: String,
}

/// The enabled stream of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamState {
    /// Such as `NEW_IMAGE`.
    pub view_type: String,
    /// Its ARN.
    pub arn: Option<String>,
}

impl StreamState {
    /// Whether its records carry the new row.
    #[must_use]
    pub fn has_new_images(&self) -> bool {
        matches!(self.view_type.as_str(), "NEW_IMAGE" | "NEW_AND_OLD_IMAGES")
    }
}

impl TableState {
    /// Whether there is such a table.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.status != MISSING
    }

    /// Whether it can be used as it is.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status == "ACTIVE" && self.differences.is_empty() && self.mend.is_none()
    }
}

fn key_state(table: &TableDescription, key: &KeySchemaElement) -> KeyState {
    let definition = table.attribute_definitions().iter().find(|found| found.attribute_name() == key.attribute_name());
    let kind = definition.map_or("?", |definition| definition.attribute_type().as_str()).to_owned();
    KeyState { name: key.attribute_name().to_owned(), kind, role: key.key_type().as_str().to_owned() }
}

fn shown(name: &str, kind: &str) -> String {
    format!("{name} ({kind})")
}
