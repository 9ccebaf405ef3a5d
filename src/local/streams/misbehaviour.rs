//! Which call goes wrong, and how: by a script of what the next calls of an operation meet, else by chance. Pure.
//!
//! It counts what has happened, so that a test can say that its mischief struck. Invariants: what is scripted strikes in
//! turn, each once; where a kind made no difference, because there was nothing to get wrong, it is not counted, and what
//! was scripted waits for the next call; the scripts are bounded.

use std::collections::{BTreeMap, VecDeque};

use super::error::ShardsError;
use super::mischief::{Mischief, MischiefPlan};
use super::operation::Operation;
use crate::time::Random;

/// Calls of an operation that a script tells of at most.
const SCRIPT_MAX: usize = 1000;

/// How often a call of an operation went wrong in a way.
pub type Struck = BTreeMap<(Operation, Mischief), u64>;

/// What was drawn for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drawn {
    operation: Operation,
    pub(super) mischief: Mischief,
    scripted: bool,
}

/// The misbehaviour of a server.
#[derive(Debug, Default)]
pub(super) struct Misbehaviour {
    scripts: BTreeMap<Operation, VecDeque<Mischief>>,
    chance: Option<Chance>,
    struck: Struck,
}

#[derive(Debug)]
struct Chance {
    plan: MischiefPlan,
    random: Random,
}

impl Misbehaviour {
    /// The next calls of an operation go wrong so, in turn, behind what was scripted before.
    pub(super) fn script(&mut self, operation: Operation, mischiefs: &[Mischief]) -> Result<(), ShardsError> {
        fitting(mischiefs.iter().map(|mischief| (operation, *mischief)))?;
        let script = self.scripts.entry(operation).or_default();
        if script.len() + mischiefs.len() > SCRIPT_MAX {
            return Err(ShardsError::TooMuchMischief);
        }
        script.extend(mischiefs);
        Ok(())
    }

    /// Calls go wrong by chance from now on.
    pub(super) fn follow(&mut self, plan: MischiefPlan) -> Result<(), ShardsError> {
        fitting(plan.kinds.iter().copied())?;
        self.chance = Some(Chance { random: Random::seeded(plan.seed), plan });
        Ok(())
    }

    /// Nothing goes wrong from now on.
    pub(super) fn behave(&mut self) {
        self.scripts.clear();
        self.chance = None;
    }

    /// What a call meets. What cannot miss has struck with that.
    pub(super) fn draw(&mut self, operation: Operation) -> Option<Drawn> {
        let scripted = self.scripts.get_mut(&operation).and_then(VecDeque::pop_front);
        let by_chance = || self.chance.as_ref().and_then(|chance| chance.draw(operation));
        let mischief = scripted.or_else(by_chance)?;
        let drawn = Drawn { operation, mischief, scripted: scripted.is_some() };
        if !mischief.may_miss() {
            self.settle(drawn, true);
        }
        Some(drawn)
    }

    /// Whether what was drawn has made a difference.
    pub(super) fn settle(&mut self, drawn: Drawn, struck: bool) {
        let Drawn { operation, mischief, scripted } = drawn;
        if struck {
            *self.struck.entry((operation, mischief)).or_default() += 1;
        } else if scripted {
            self.scripts.entry(operation).or_default().push_front(mischief);
        }
    }

    /// What has struck so far.
    pub(super) fn struck(&self) -> Struck {
        self.struck.clone()
    }
}

impl Chance {
    fn draw(&self, operation: Operation) -> Option<Mischief> {
        let kinds = || self.plan.kinds.iter().filter(|(of, _)| *of == operation);
        let count = kinds().count() as u64;
        if count == 0 || !self.random.percent(self.plan.percent) {
            return None;
        }
        let index = usize::try_from(self.random.below(count)).unwrap_or_default();
        kinds().nth(index).map(|(_, mischief)| *mischief)
    }
}

fn fitting(mut kinds: impl Iterator<Item = (Operation, Mischief)>) -> Result<(), ShardsError> {
    match kinds.find(|(operation, mischief)| !mischief.fits(*operation)) {
        Some((operation, mischief)) => Err(ShardsError::Unfit { operation, mischief }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mischief::{Cut, Empty, Expired, Late, Throttled};
    use Operation::{DescribeStream, GetRecords, ListStreams};

    fn drawn(misbehaviour: &mut Misbehaviour, operation: Operation) -> Option<Mischief> {
        misbehaviour.draw(operation).map(|drawn| drawn.mischief)
    }

    #[test]
    fn what_is_scripted_strikes_in_turn_and_once() {
        let mut misbehaviour = Misbehaviour::default();
        misbehaviour.script(GetRecords, &[Expired, Cut]).unwrap();
        misbehaviour.script(GetRecords, &[Late]).unwrap();
        assert_eq!(drawn(&mut misbehaviour, DescribeStream), None);
        let met = [(); 4].map(|()| drawn(&mut misbehaviour, GetRecords));
        assert_eq!(met, [Some(Expired), Some(Cut), Some(Late), None]);
        assert_eq!(misbehaviour.struck(), [Late, Cut, Expired].map(|kind| ((GetRecords, kind), 1)).into());
    }

    #[test]
    fn what_made_no_difference_waits_for_the_next_call() {
        let mut misbehaviour = Misbehaviour::default();
        misbehaviour.script(GetRecords, &[Empty, Cut]).unwrap();
        let missed = misbehaviour.draw(GetRecords).unwrap();
        misbehaviour.settle(missed, false);
        assert_eq!(misbehaviour.struck(), Struck::new());
        let struck = misbehaviour.draw(GetRecords).unwrap();
        assert_eq!(struck, missed);
        misbehaviour.settle(struck, true);
        assert_eq!(drawn(&mut misbehaviour, GetRecords), Some(Cut));
        assert_eq!(misbehaviour.struck()[&(GetRecords, Empty)], 1);

        // By chance another one is drawn, soon enough.
        let plan = MischiefPlan { seed: 1, percent: 100, kinds: vec![(GetRecords, Empty)] };
        misbehaviour.follow(plan).unwrap();
        let missed = misbehaviour.draw(GetRecords).unwrap();
        misbehaviour.settle(missed, false);
        misbehaviour.behave();
        assert_eq!(misbehaviour.draw(GetRecords), None);
    }

    #[test]
    fn a_seed_draws_the_same_again_as_often_as_it_is_told() {
        let draws = |seed, percent| {
            let mut misbehaviour = Misbehaviour::default();
            misbehaviour.follow(MischiefPlan::everything(seed, percent)).unwrap();
            (0..2000).map(|_| drawn(&mut misbehaviour, GetRecords)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7, 20), draws(7, 20));
        assert_ne!(draws(7, 20), draws(8, 20));
        let struck = draws(7, 20).into_iter().flatten().count();
        assert!((300..500).contains(&struck), "{struck} of 2000");
        assert!(
            Mischief::ALL
                .into_iter()
                .filter(|kind| kind.fits(GetRecords))
                .all(|kind| draws(7, 20).contains(&Some(kind)))
        );
        assert_eq!(draws(7, 0), vec![None; 2000]);
    }

    #[test]
    fn what_does_not_fit_or_is_too_much_is_refused() {
        let mut misbehaviour = Misbehaviour::default();
        assert!(matches!(misbehaviour.script(ListStreams, &[Throttled, Expired]), Err(ShardsError::Unfit { .. })));
        let plan = MischiefPlan { seed: 1, percent: 1, kinds: vec![(DescribeStream, Empty)] };
        assert!(matches!(misbehaviour.follow(plan), Err(ShardsError::Unfit { .. })));
        misbehaviour.script(GetRecords, &[Cut; SCRIPT_MAX]).unwrap();
        assert!(matches!(misbehaviour.script(GetRecords, &[Cut]), Err(ShardsError::TooMuchMischief)));
        assert_eq!(drawn(&mut misbehaviour, ListStreams), None, "nothing of what was refused is done");
    }
}
