//! What the tables of the rig answer to a change of a mark: as the adapter on DynamoDB does, by condition.

use super::super::MarkOrder;
use super::rig::{Rig, Writes};
use crate::event::Sequence;
use crate::storage::{Ending, Marking, StorageError};

impl Rig {
    pub(super) fn change_mark(&mut self, order: &MarkOrder) -> Result<Marking, StorageError> {
        let lost = || Err(StorageError::Throttled { operation: "test", table: "positions".into() });
        if self.writes == Writes::Fail {
            return lost();
        }
        let contract = &mut self.contract;
        match order {
            MarkOrder::Mark { root, standing, .. }
                if contract.positions.get(root) > standing.position.as_ref()
                    || contract.marks.get(root) != standing.mark.as_ref() =>
            {
                return Ok(Marking::Refused);
            }
            MarkOrder::Mark { root, standing, mark } => {
                contract.marks.insert(root.clone(), mark.clone());
                contract.endings.remove(root);
                if let Some(covered) = &standing.position {
                    contract.positions.insert(root.clone(), *covered);
                    if self.writes == Writes::Work {
                        self.tell(root, Some(*covered));
                    }
                }
            }
            MarkOrder::Unmark { root, mark } if contract.marks.get(root) == Some(mark) => {
                contract.marks.remove(root);
                contract.endings.insert(root.clone(), Ending::of(mark));
            }
            MarkOrder::Forget { root, ending } if contract.endings.get(root) == Some(ending) => {
                contract.endings.remove(root);
            }
            MarkOrder::Forget { .. } | MarkOrder::Unmark { .. } => return Ok(Marking::Refused),
            MarkOrder::Purge { root, .. } => {
                let all = (root.clone(), Sequence(0))..=(root.clone(), Sequence(u64::MAX));
                if contract.table.range(all).next().is_some() {
                    return Ok(Marking::Refused);
                }
                contract.marks.remove(root);
                contract.positions.remove(root);
                contract.told.remove(root);
                contract.accepted.remove(root);
            }
            MarkOrder::Pass { root, standing, pass } => {
                let (before, to) = (contract.positions.get(root), pass.position(standing.position));
                if before > Some(&to)
                    || contract.marks.get(root) != standing.mark.as_ref()
                    || contract.passed.get(root) != standing.passed.as_deref()
                {
                    return Ok(Marking::Refused);
                }
                contract.positions.insert(root.clone(), to);
                contract.passed.insert(root.clone(), pass.passed.clone());
                if self.writes == Writes::Work {
                    self.tell(root, Some(to));
                }
            }
            MarkOrder::Skip { root, skip } => {
                contract.skipped.insert((root.clone(), skip.sequence));
                self.skips.push((root.clone(), skip.clone()));
            }
        }
        if self.writes == Writes::LoseReplies { lost() } else { Ok(Marking::Done) }
    }
}
