//! Payloads in chunks, compared with the events they belong to.

use super::shown::Shown;
use super::{Audit, CliError};
use crate::audit::{PayloadFinding, PayloadKeys, judge_payload};
use crate::cli::output::remark;
use crate::storage::Consistency;

impl Audit {
    /// Looks at payloads that were met, and with `--repair` removes what belongs to no event.
    pub(super) async fn compare_payloads(&mut self, payloads: &[PayloadKeys]) -> Result<(), CliError> {
        for payload in payloads {
            if let Some(finding) = self.look_at_payload(payload).await? {
                self.counts.faults += 1;
                self.print(&Shown::of_payload(payload, finding))?;
                if self.args.repair && finding == PayloadFinding::Orphaned {
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
        let event = page.rows.into_iter().filter_map(Result::ok).find(|event| event.sequence == key.sequence);
        Ok(judge_payload(payload, event.as_ref(), written_at, self.clock.now()))
    }
}
