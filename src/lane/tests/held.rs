//! Effects of the rig that are held back, so that other things happen before their answers.

use super::super::repair::REPAIR_ROWS_MAX;
use super::super::{Effect, RepairOrder, Repaired};
use super::rig::{Kind, Rig, kind};
use crate::event::Root;
use crate::storage::Standing;

/// An effect that is held back; of a read perhaps its answer already, as of the moment it was asked.
pub(super) enum Held {
    Asked(Effect),
    Loaded(Vec<(Root, Standing)>),
    Repaired(Root, Repaired),
}

impl Held {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Asked(effect) => kind(effect),
            Self::Loaded(_) => Kind::Load,
            Self::Repaired(..) => Kind::Repair,
        }
    }
}

impl Rig {
    /// Holds effects of a kind back until [`Rig::release`].
    pub(super) fn hold(&mut self, kind: Kind) {
        self.held.insert(kind);
    }

    pub(super) fn release(&mut self, released: Kind) {
        self.held.remove(&released);
        let (now, later): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|held| held.kind() == released);
        self.waiting = later.into();
        for held in now {
            self.answer_held(held);
        }
        self.run();
    }

    /// Answers the oldest of the effects of a kind that is held back; the kind stays held.
    pub(super) fn release_one(&mut self, released: Kind) {
        let at = self.waiting.iter().position(|held| held.kind() == released).expect("an effect is held");
        let held = self.waiting.remove(at).unwrap();
        self.answer_held(held);
        self.run();
    }

    /// Answers the newest of the handler's calls that are held back.
    pub(super) fn release_newest(&mut self) {
        let at = self.waiting.iter().rposition(|held| held.kind() == Kind::Deliver).expect("a call is held");
        let held = self.waiting.remove(at).unwrap();
        self.answer_held(held);
        self.run();
    }

    pub(super) fn held(&self, asked: Kind) -> usize {
        self.waiting.iter().filter(|held| held.kind() == asked).count()
    }

    pub(super) fn answer_or_hold(&mut self, effect: Effect) {
        if !self.held.contains(&kind(&effect)) {
            return self.answer(effect);
        }
        let held = match effect {
            Effect::Load(roots) if self.reads_early => Held::Loaded(self.load(roots)),
            Effect::Repair(order) if self.reads_early => {
                let repaired = self.repair(&order);
                Held::Repaired(order.root, repaired)
            }
            effect => Held::Asked(effect),
        };
        self.waiting.push_back(held);
    }

    fn answer_held(&mut self, held: Held) {
        match held {
            Held::Asked(effect) => self.answer(effect),
            Held::Loaded(found) => self.load_answered(found),
            Held::Repaired(root, repaired) => self.lanes.repaired(&root, repaired, self.now),
        }
    }

    pub(super) fn load(&self, roots: Vec<Root>) -> Vec<(Root, Standing)> {
        let standing = |root: &Root| Standing {
            position: self.contract.positions.get(root).copied(),
            mark: self.contract.marks.get(root).cloned(),
            passed: self.contract.passed.get(root).cloned().map(Box::new),
        };
        roots.into_iter().map(|root| (root.clone(), standing(&root))).collect()
    }

    pub(super) fn load_answered(&mut self, found: Vec<(Root, Standing)>) {
        for (root, standing) in &found {
            self.tell(root, standing.position);
        }
        self.lanes.loaded(found, self.now);
    }

    pub(super) fn repair(&self, order: &RepairOrder) -> Repaired {
        let all = (order.root.clone(), order.from)..=(order.root.clone(), order.to);
        let mut found = self.contract.table.range(all).map(|(_, row)| row.clone());
        let rows = found.by_ref().take(REPAIR_ROWS_MAX).collect();
        let complete = found.next().is_none();
        Repaired { rows, complete }
    }
}
