//! Positions that were read ahead, before the first lane was opened: what they say of a root that is met for the first
//! time. Pure.
//!
//! They spare a start one read for every hundred roots. They are only as good as what was written since: nobody else
//! may write positions of this handler's roots meanwhile, and once a course was dropped, whose position may have
//! moved, they are forgotten.

use std::collections::HashMap;

use crate::event::Root;
use crate::storage::Standing;

/// What the positions table held of one handler.
#[derive(Debug, Clone, Default)]
pub struct KnownPositions {
    positions: HashMap<Root, Standing>,
    complete: bool,
}

impl KnownPositions {
    /// These positions; `complete`: a root that is not among them has none.
    #[must_use]
    pub fn new(positions: HashMap<Root, Standing>, complete: bool) -> Self {
        Self { positions, complete }
    }

    /// What is known of a root; none when nothing is.
    pub(crate) fn standing(&self, root: &Root) -> Option<Standing> {
        self.positions.get(root).cloned().or_else(|| self.complete.then(Standing::default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Sequence;

    #[test]
    fn absence_is_known_only_when_all_was_read() {
        let root = |id| Root::new("d", "", id).unwrap();
        let standing = Standing { position: Some(Sequence(7)), ..Standing::default() };
        let positions = HashMap::from([(root("1"), standing.clone())]);
        for (complete, absent) in [(true, Some(Standing::default())), (false, None)] {
            let known = KnownPositions::new(positions.clone(), complete);
            assert_eq!(known.standing(&root("1")), Some(standing.clone()));
            assert_eq!(known.standing(&root("2")), absent);
        }
        assert_eq!(KnownPositions::default().standing(&root("1")), None);
    }
}
