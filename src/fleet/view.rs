//! The view: who the members agree to be, and what each does to keep it true. Pure.
//!
//! The view is one row, written under the condition of its version. Whoever sees that it is not true any more writes the
//! next one: at once when members are gone, after a heartbeat without change when some have come, so that replicas that
//! start together move the leases once. Invariants: a member is declared dead only under the counter that was seen, and
//! leaves the view only after that, or by itself.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Member, MemberId, Timing, Watch};

/// The members agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Raised by every change; 0 before the first.
    pub version: u64,
    /// Who is to hold leases.
    pub members: BTreeSet<MemberId>,
}

/// What one read of the fleet's rows shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Fleet {
    /// The view.
    pub view: View,
    /// Every member's row.
    pub members: Vec<Member>,
    /// Raised whenever a lease comes to be or is finished: then all are read again.
    pub lineage: u64,
}

impl Fleet {
    /// The row of a member.
    #[must_use]
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == *id)
    }

    /// Whether a member may be alive: its row is there, and nobody has declared it dead. A member puts its row before it
    /// takes anything, so an owner without one, read after its lease, is gone.
    #[must_use]
    pub fn is_alive(&self, id: &MemberId) -> bool {
        self.member(id).is_some_and(|member| !member.dead)
    }

    /// Those that are to be in the view: staying, as far as is known, and not about to leave.
    #[must_use]
    pub fn staying(&self) -> BTreeSet<MemberId> {
        let stays = |member: &&Member| !member.dead && !member.leaving;
        self.members.iter().filter(stays).map(|member| member.id.clone()).collect()
    }
}

/// A change of the fleet's rows that is due.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ViewAction {
    /// Declare a member dead, if its counter is still this.
    DeclareDead(MemberId, u64),
    /// Put this view, if the version before it is still there.
    Put(View),
    /// Remove the row of a member that is dead and in no view.
    Remove(MemberId),
}

/// One member's part in keeping the view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ViewKeeper {
    /// Who was to be in it at the last look, and since when that is so.
    staying: Option<(BTreeSet<MemberId>, Instant)>,
}

impl ViewKeeper {
    /// What is due now, by what was just read.
    pub fn decide(
        &mut self,
        me: &MemberId,
        fleet: &Fleet,
        (watch, timing): (&Watch, &Timing),
        now: Instant,
    ) -> Vec<ViewAction> {
        let staying = fleet.staying();
        if self.staying.as_ref().is_none_or(|(before, _)| *before != staying) {
            self.staying = Some((staying.clone(), now));
        }
        let expired = |member: &&Member| member.id != *me && !member.dead && watch.is_expired(member, timing, now);
        let mut due: Vec<_> = (fleet.members.iter().filter(expired))
            .map(|member| ViewAction::DeclareDead(member.id.clone(), member.counter))
            .collect();
        let forgotten = |member: &&Member| member.dead && !fleet.view.members.contains(&member.id);
        due.extend(fleet.members.iter().filter(forgotten).map(|member| ViewAction::Remove(member.id.clone())));
        if staying != fleet.view.members && self.is_stable(&staying, &fleet.view, timing, now) {
            due.push(ViewAction::Put(View { version: fleet.view.version + 1, members: staying }));
        }
        due
    }

    fn is_stable(&self, staying: &BTreeSet<MemberId>, view: &View, timing: &Timing, now: Instant) -> bool {
        let only_left = staying.is_subset(&view.members);
        let nobody_was_there = view.members.is_disjoint(staying);
        let since = self.staying.as_ref().map(|(_, since)| *since);
        only_left
            || nobody_was_there
            || since.is_some_and(|since| now.saturating_duration_since(since) >= timing.heartbeat)
    }
}

#[cfg(test)]
impl ViewKeeper {
    /// Moves what it remembers into the past, as time goes by, not further than `oldest`.
    pub(crate) fn age(&mut self, by: std::time::Duration, oldest: Instant) {
        if let Some((_, since)) = &mut self.staying {
            *since = (*since - by).max(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn timing() -> Timing {
        Timing::new(10 * SECOND, 10 * SECOND)
    }

    fn id(name: &str) -> MemberId {
        MemberId::new(name)
    }

    fn member(name: &str, counter: u64) -> Member {
        let (handlers, version, patience) = Default::default();
        Member { id: id(name), counter, dead: false, leaving: false, view: 0, handlers, version, patience }
    }

    fn fleet(version: u64, agreed: &[&str], members: Vec<Member>) -> Fleet {
        let view = View { version, members: agreed.iter().map(|name| id(name)).collect() };
        Fleet { view, members, lineage: 0 }
    }

    fn put(version: u64, agreed: &[&str]) -> ViewAction {
        ViewAction::Put(fleet(version, agreed, Vec::new()).view)
    }

    fn decide(keeper: &mut ViewKeeper, watch: &mut Watch, fleet: &Fleet, now: Instant) -> Vec<ViewAction> {
        watch.see_members(&fleet.members, now);
        keeper.decide(&id("a"), fleet, (watch, &timing()), now)
    }

    #[test]
    fn the_first_member_agrees_with_itself_at_once() {
        let (mut keeper, mut watch) = Default::default();
        let alone = fleet(0, &[], vec![member("a", 1)]);
        assert_eq!(decide(&mut keeper, &mut watch, &alone, Instant::now()), [put(1, &["a"])]);
        // All of the last life's are gone.
        let after = fleet(7, &["x", "y"], vec![member("a", 1)]);
        assert_eq!(decide(&mut keeper, &mut watch, &after, Instant::now()), [put(8, &["a"])]);
    }

    #[test]
    fn who_comes_is_waited_for_until_nobody_else_does() {
        let (mut keeper, mut watch) = Default::default();
        let began = Instant::now();
        let two = fleet(1, &["a"], vec![member("a", 1), member("b", 1)]);
        let three = fleet(1, &["a"], vec![member("a", 2), member("b", 2), member("c", 1)]);
        assert_eq!(decide(&mut keeper, &mut watch, &two, began), []);
        assert_eq!(decide(&mut keeper, &mut watch, &three, began + SECOND), []);
        assert_eq!(decide(&mut keeper, &mut watch, &three, began + 2 * SECOND), []);
        assert_eq!(decide(&mut keeper, &mut watch, &three, began + 3 * SECOND), [put(2, &["a", "b", "c"])]);
    }

    #[test]
    fn who_renews_no_more_is_declared_dead_and_then_left_out() {
        let (mut keeper, mut watch) = Default::default();
        let began = Instant::now();
        let mut both = fleet(3, &["a", "b"], vec![member("a", 1), member("b", 7)]);
        assert_eq!(decide(&mut keeper, &mut watch, &both, began), []);
        both.members[0].counter = 5;
        let expires = began + timing().expires_after;
        assert_eq!(decide(&mut keeper, &mut watch, &both, expires - SECOND / 2), []);
        assert_eq!(decide(&mut keeper, &mut watch, &both, expires), [ViewAction::DeclareDead(id("b"), 7)]);
        both.members[1].dead = true;
        assert_eq!(decide(&mut keeper, &mut watch, &both, expires), [put(4, &["a"])]);
        both.view = View { version: 4, members: [id("a")].into() };
        assert_eq!(decide(&mut keeper, &mut watch, &both, expires), [ViewAction::Remove(id("b"))]);
    }

    #[test]
    fn who_renews_late_is_alive_again_unless_it_was_declared_dead() {
        let (mut keeper, mut watch) = Default::default();
        let began = Instant::now();
        let mut both = fleet(3, &["a", "b"], vec![member("a", 1), member("b", 7)]);
        decide(&mut keeper, &mut watch, &both, began);
        both.members[1].counter = 8;
        assert_eq!(decide(&mut keeper, &mut watch, &both, began + 60 * SECOND), []);
    }

    #[test]
    fn who_leaves_is_left_out_at_once() {
        let (mut keeper, mut watch) = Default::default();
        let mut leaving = fleet(3, &["a", "b"], vec![member("a", 1), member("b", 1)]);
        leaving.members[1].leaving = true;
        assert_eq!(decide(&mut keeper, &mut watch, &leaving, Instant::now()), [put(4, &["a"])]);
        // It says so itself, too.
        leaving.members[0].leaving = true;
        assert_eq!(decide(&mut keeper, &mut watch, &leaving, Instant::now()), [put(4, &[])]);
    }
}
