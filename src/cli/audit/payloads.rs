//! Payloads in chunks, compared with the events they belong to.

use super::shown::Shown;
use super::{Audit, CliError};
use crate::audit::{PayloadFinding, PayloadKeys, judge_payload};
use crate::cli::output::remark;
use crate::event::{Row, Sequence};
use crate::storage::{Consistency, StorageError};

fn row_sequence(row: &Row) -> Sequence {
    row.as_ref().map_or_else(|invalid| invalid.sequence, |event| event.sequence)
}

impl Audit {
    /// Looks at payloads that were met, and with `--repair` removes what belongs to no event.
    pub(super) async fn compare_payloads(&mut self, payloads: &[PayloadKeys]) -> Result<(), CliError> {
        for payload in payloads {
            if let Some(finding) = self.look_at_payload(payload).await? {
                self.counts.faults += 1;
                self.print(&Shown::of_payload(payload, finding))?;
                // Once more, directly before: what is removed cannot be had back.
                let still = self.args.repair && self.look_at_payload(payload).await? == Some(finding);
                if still && finding == PayloadFinding::Orphaned {
                    let removed = self.events.remove_chunks(&payload.key, payload.last).await;
                    removed.map_err(|error| self.connection.trouble(error))?;
                    remark(format!("removed {} chunks that belonged to no event", payload.chunks));
                }
            }
        }
        Ok(())
    }

    async fn look_at_payload(&self, payload: &PayloadKeys) -> Result<Option<PayloadFinding>, CliError> {
        // The time first: an event that is written in between is seen.
        let written_at = self.events.chunks_written_at(&payload.key).await;
        let written_at = written_at.map_err(|error| self.connection.trouble(error))?;
        let key = &payload.key;
        let page = self.events.read(&key.root, key.sequence, Consistency::Strong, 1).await;
        let page = page.map_err(|error| self.connection.trouble(error))?;
        let mut rows = page.rows.into_iter().filter(|row| row_sequence(row) == key.sequence);
        let event = match rows.next() {
            // A row that cannot be read may be the one they belong to.
            Some(Err(_)) => return Ok(None),
            Some(Ok(event)) => Some(event),
            None => None,
        };
        let finding = judge_payload(payload, event.as_ref(), written_at, self.clock.now());
        match (finding, event) {
            // The scan may have met them while they were written.
            (Some(PayloadFinding::Incomplete), Some(event)) => match self.events.payload(&event).await {
                Ok(_) => Ok(None),
                Err(StorageError::Unreadable { .. }) => Ok(finding),
                Err(error) => Err(self.connection.trouble(error).into()),
            },
            (finding, _) => Ok(finding),
        }
    }
}
