//! Deleted editions: their roots' positions go with them, where the handler says so.
//!
//! When a row of a diverged edition is removed, its root is looked at in the table; one that has no row left loses its
//! position and its mark, so that an edition of the same name begins anew. Invariants: nothing is purged of a root that has a
//! row, nor of the main timeline; the page that showed the removal is not passed before the root was looked at.

use tokio::time::Instant;
use tracing::info;

use super::{Lanes, MarkOrder, OnEditionDelete, default_editions};
use crate::event::Root;
use crate::stream::LaneId;

/// Roots that wait to be looked at before the lanes stop pulling.
pub(crate) const REMOVED_ROOTS_MAX: usize = 2_000;

/// The key of all lines about positions that are purged.
const PURGES: &str = "purges";

fn is_diverged(root: &Root) -> bool {
    let edition = root.edition();
    !default_editions().iter().any(|main| main.matches(&edition))
}

impl Lanes {
    /// Takes the roots of rows that were removed, as a page shows them.
    pub(crate) fn take_removed(&mut self, lane: LaneId, page: u64, roots: &[Root], now: Instant) {
        if self.settings.on_edition_delete == OnEditionDelete::Keep {
            return;
        }
        for root in roots.iter().filter(|root| is_diverged(root)) {
            if !self.subscription.covers(root) {
                continue;
            }
            if let Some(state) = self.by_id.get_mut(&lane) {
                state.watermark.pin(page);
                self.removed.push_back((root.clone(), lane, page));
            }
        }
        self.purge_next(now);
    }

    /// Looks at the roots that wait, as far as they are at rest; the others later.
    pub(crate) fn purge_next(&mut self, now: Instant) {
        for _ in 0..self.removed.len() {
            let Some((root, lane, page)) = self.removed.pop_front() else { return };
            let (slot, _) = self.courses.find_or_add(&root);
            let Some(course) = self.courses.get_mut(slot) else { continue };
            match course.active.as_deref() {
                None => {
                    course.activate();
                    self.courses.count_active();
                }
                Some(active) if active.is_at_rest() && !active.dirty && active.queue.is_empty() => {}
                Some(_) => {
                    self.removed.push_back((root, lane, page));
                    continue;
                }
            }
            self.order(slot, MarkOrder::Purge { root, lane, page }, now);
        }
    }

    /// A root was looked at; `purged`: it had no row left, and has no position any more.
    pub(crate) fn looked_at(&mut self, root: &Root, (lane, page): (LaneId, u64), purged: bool, now: Instant) {
        if purged {
            self.counters.purged(1);
            if let Some(left_out) = self.log.admit(PURGES, now) {
                info!(handler = %self.handler, %root, left_out, "the root's edition is deleted, and its position with it");
            }
        }
        if let Some(state) = self.by_id.get_mut(&lane) {
            state.watermark.delivered(page);
            state.watermark.unpin(page);
        }
        self.queue_checkpoint(lane, now);
        let Some(slot) = self.courses.find(root) else { return };
        if self.is_left(slot) {
            self.enter(slot, super::course::Phase::Open);
            self.leave(slot, now);
        } else {
            self.load_again(slot);
        }
    }
}
