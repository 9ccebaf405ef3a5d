//! A finding as it is printed.

use serde::Serialize;

use crate::audit::{Finding, PayloadFinding, PayloadKeys, RootKeys};
use crate::event::Root;
use crate::handler::HandlerName;
use crate::storage::Standing;

/// One finding as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    handler: Option<String>,
    finding: &'static str,
    domain: String,
    edition: String,
    root: String,
    position: Option<u64>,
    newest: Option<u64>,
    what: String,
}

impl Shown {
    pub(super) fn new(handler: &HandlerName, keys: &RootKeys, standing: &Standing, finding: &Finding) -> Self {
        let (word, what) = match finding {
            Finding::Missing(open) => {
                ("missing", format!("event {} of {} is not covered; --repair delivers it", open.sequence, open.created_at))
            }
            Finding::Late(open) => ("late", format!("event {} of {} is not covered yet", open.sequence, open.created_at)),
            Finding::Ahead { .. } => (
                "ahead",
                "the position is beyond the newest event: what comes up to it is taken for delivered; set it back by hand".to_owned(),
            ),
            Finding::Marked(mark) => {
                (mark.state.as_str(), format!("before event {}: {}", mark.sequence, mark.reason))
            }
            Finding::Unexplained(mark) => (
                "unexplained",
                format!("parked before event {} without a reason; `parked release` lets it go on", mark.sequence),
            ),
            Finding::Filled => (
                "filled",
                format!(
                    "an event appeared in a hole that was passed ({}); ordered back to before it by `rewind`, the root parks there",
                    standing.passed.as_deref().map(ToString::to_string).unwrap_or_default()
                ),
            ),
            Finding::Hole => (
                "hole",
                format!("the table has {} rows from {} to {}", keys.count, keys.first, keys.last),
            ),
        };
        Self {
            handler: Some(handler.to_string()),
            position: standing.position.map(|position| position.0),
            newest: Some(keys.last.0),
            ..Self::of_root(&keys.root, word, what)
        }
    }

    /// What is wrong with a payload, whoever wants it.
    pub(super) fn of_payload(payload: &PayloadKeys, finding: PayloadFinding) -> Self {
        let (sequence, append_id) = (payload.key.sequence, &payload.key.append_id);
        let (word, what) = match finding {
            PayloadFinding::Orphaned => (
                "orphaned",
                format!(
                    "{} chunks of the append {append_id} belong to no event {sequence}; --repair removes them",
                    payload.chunks
                ),
            ),
            PayloadFinding::Incomplete => (
                "incomplete",
                format!("the payload of event {sequence} lacks chunks of the append {append_id}; restore them"),
            ),
        };
        Self::of_root(&payload.key.root, word, what)
    }

    fn of_root(root: &Root, finding: &'static str, what: String) -> Self {
        Self {
            handler: None,
            finding,
            domain: root.domain().into_owned(),
            edition: root.edition().into_owned(),
            root: root.id().to_owned(),
            position: None,
            newest: None,
            what,
        }
    }

    pub(super) fn cells(&self) -> [String; 8] {
        [
            self.handler.clone().unwrap_or_else(|| "-".to_owned()),
            self.finding.to_owned(),
            self.domain.clone(),
            self.edition.clone(),
            self.root.clone(),
            number(self.position),
            number(self.newest),
            self.what.clone(),
        ]
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}
