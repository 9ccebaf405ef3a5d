//! Positions that were read ahead, before the first lane was opened: what they say of a root that is met for the first
//! time. Pure.
//!
//! They spare a start one read for every hundred roots. They are only as good as what was written since: nobody else
//! may write positions of this handler's roots meanwhile, and once a course was dropped, whose position may have
//! moved, they are forgotten.

use std::collections::HashMap;

use super::course::Durable;
use crate::event::{Root, Sequence};

/// What the positions table held of one handler.
#[derive(Debug, Clone, Default)]
pub struct KnownPositions {
    positions: HashMap<Root, Sequence>,
    complete: bool,
}

impl KnownPositions {
    /// These positions; `complete`: a root that is not among them has none.
    #[must_use]
    pub fn new(positions: HashMap<Root, Sequence>, complete: bool) -> Self {
        Self { positions, complete }
    }

    /// What is known of a root.
    pub(crate) fn durable(&self, root: &Root) -> Durable {
        match self.positions.get(root) {
            Some(sequence) => Durable::At(*sequence),
            None if self.complete => Durable::Absent,
            None => Durable::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_known_only_when_all_was_read() {
        let root = |id| Root::new("d", "", id).unwrap();
        let positions = HashMap::from([(root("1"), Sequence(7))]);
        for (complete, absent) in [(true, Durable::Absent), (false, Durable::Unknown)] {
            let known = KnownPositions::new(positions.clone(), complete);
            assert_eq!(known.durable(&root("1")), Durable::At(Sequence(7)));
            assert_eq!(known.durable(&root("2")), absent);
        }
        assert_eq!(KnownPositions::default().durable(&root("1")), Durable::Unknown);
    }
}
