//! Which member is to hold which lease: rendezvous hashing with bounded load. Pure.
//!
//! Every pair of a member and a branch has a score; the highest goes first, until a member has its share. The answer
//! depends on nothing but its input, in no order, so members that know the same agree without a word. Invariants: no
//! member has more than the even share, rounded up; a member that leaves moves what it had, and little else; shards of one
//! branch stay together, so that a shard that rolls does not move.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use md5::{Digest as _, Md5};

use super::MemberId;
use crate::stream::{Branch, ShardId};

/// Assigns shards, each with its branch, to members: to nobody when there are none.
#[must_use]
pub fn assign(members: &[&MemberId], shards: &[(&ShardId, &Branch)]) -> BTreeMap<ShardId, MemberId> {
    if members.is_empty() {
        return BTreeMap::new();
    }
    let share = shards.len().div_ceil(members.len());
    let mut pairs: Vec<_> = (members.iter().enumerate())
        .flat_map(|(index, member)| shards.iter().map(move |(shard, branch)| (index, *member, *shard, *branch)))
        .map(|(index, member, shard, branch)| (Reverse(score(member, branch)), member, shard, index))
        .collect();
    pairs.sort_unstable();
    let mut load = vec![0; members.len()];
    let mut assigned: BTreeMap<ShardId, MemberId> = BTreeMap::new();
    for (_, member, shard, index) in pairs {
        if load[index] < share && !assigned.contains_key(shard) {
            load[index] += 1;
            assigned.insert(shard.clone(), member.clone());
        }
    }
    assigned
}

/// The same on every machine and in every version: members of two versions must agree.
fn score(member: &MemberId, branch: &Branch) -> u64 {
    let mut hash = Md5::new();
    hash.update(member.as_str().as_bytes());
    hash.update([0]);
    hash.update(branch.as_str().as_bytes());
    let digest: [u8; 16] = hash.finalize().into();
    digest.iter().take(8).fold(0, |score, byte| score << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(number: usize) -> MemberId {
        MemberId::new(&format!("relay-{number}~0"))
    }

    fn shards(numbers: impl IntoIterator<Item = usize>) -> Vec<(ShardId, Branch)> {
        let shard = |number| ShardId::new(&format!("shardId-{number:020}-x"));
        numbers.into_iter().map(|number| (shard(number), Branch::of(&shard(number)))).collect()
    }

    fn assigned(members: &[MemberId], shards: &[(ShardId, Branch)]) -> BTreeMap<ShardId, MemberId> {
        let shards: Vec<_> = shards.iter().map(|(shard, branch)| (shard, branch)).collect();
        assign(&members.iter().collect::<Vec<_>>(), &shards)
    }

    fn moved(from: &BTreeMap<ShardId, MemberId>, to: &BTreeMap<ShardId, MemberId>) -> usize {
        from.iter().filter(|(shard, owner)| to.get(*shard) != Some(owner)).count()
    }

    /// What plain rendezvous hashing, without a bound, gives each shard's branch to.
    fn highest<'a>(members: &'a [MemberId], branch: &Branch) -> &'a MemberId {
        members.iter().max_by_key(|member| (score(member, branch), Reverse(*member))).unwrap()
    }

    fn load(assigned: &BTreeMap<ShardId, MemberId>, member: &MemberId) -> usize {
        assigned.values().filter(|owner| *owner == member).count()
    }

    /// Made by another implementation: members of two versions must agree.
    #[test]
    fn the_score_is_the_same_in_every_version() {
        for (member, branch, expected) in [
            ("relay-1~0", "shardId-00000000000000000001-x", 0x0c2b_5e78_598d_9014),
            ("relay-2~0", "shardId-00000000000000000001-x", 0xcba2_18ed_ca24_1aac),
            ("a", "b", 0x7035_0f60_27bc_e371),
        ] {
            assert_eq!(
                score(&MemberId::new(member), &Branch::of(&ShardId::new(branch))),
                expected,
                "{member} {branch}"
            );
        }
    }

    proptest! {
        /// The rule, stated without the way to it: nobody has more than the share, and whoever scores higher than a
        /// shard's owner is full, of shards that score as high with him at the least.
        #[test]
        fn nobody_with_room_scores_higher_than_the_owner(
            members in proptest::collection::btree_set(0_usize..40, 1..9),
            branches in proptest::collection::vec(0_usize..60, 0..60),
        ) {
            let members: Vec<_> = members.into_iter().map(member).collect();
            // Several shards of one branch: a split's children, one of which continues it.
            let mut shards = shards(0..branches.len());
            for (place, branch) in shards.iter_mut().zip(branches) {
                place.1 = Branch::of(&ShardId::new(&format!("branch-{branch}")));
            }
            let assigned = assigned(&members, &shards);
            let share = shards.len().div_ceil(members.len());
            prop_assert_eq!(assigned.keys().collect::<Vec<_>>(), shards.iter().map(|(shard, _)| shard).collect::<Vec<_>>());
            for (shard, branch) in &shards {
                let owner = &assigned[shard];
                prop_assert!(members.contains(owner) && load(&assigned, owner) <= share);
                let higher = members.iter().filter(|member| score(member, branch) > score(owner, branch));
                for member in higher {
                    prop_assert_eq!(load(&assigned, member), share, "{} has room for {}", member, shard);
                    let held = shards.iter().filter(|(held, _)| assigned[held] == *member);
                    let least = held.map(|(_, held)| score(member, held)).min();
                    prop_assert!(least >= Some(score(member, branch)), "{} is with another than {}", shard, member);
                }
            }
        }

        /// Where plain rendezvous hashing is even enough it is what is done; a member that leaves moves what it had,
        /// and nothing else.
        #[test]
        fn where_the_share_binds_nobody_only_what_must_move_moves(
            members in proptest::collection::btree_set(0_usize..40, 2..5),
            numbers in proptest::collection::btree_set(0_usize..500, 0..6),
        ) {
            let mut members: Vec<_> = members.into_iter().map(member).collect();
            let shards = shards(numbers);
            let plain = |members: &[MemberId]| -> Option<BTreeMap<ShardId, MemberId>> {
                let all = shards.iter().map(|(shard, branch)| (shard.clone(), highest(members, branch).clone()));
                let all: BTreeMap<_, _> = all.collect();
                let share = shards.len().div_ceil(members.len());
                members.iter().all(|member| load(&all, member) <= share).then_some(all)
            };
            let before = assigned(&members, &shards);
            let even = plain(&members);
            prop_assert!(even.as_ref().is_none_or(|plain| before == *plain));
            let leaving = members.pop().unwrap();
            let after = assigned(&members, &shards);
            if even.is_some() && plain(&members).is_some() {
                prop_assert_eq!(moved(&before, &after), load(&before, &leaving));
            }
        }

        #[test]
        fn everything_is_assigned_evenly_whatever_the_order(
            members in proptest::collection::btree_set(0_usize..40, 1..12),
            numbers in proptest::collection::btree_set(0_usize..500, 0..120),
            turn in 0_usize..12,
        ) {
            let mut members: Vec<_> = members.into_iter().map(member).collect();
            let mut shards = shards(numbers);
            let before = assigned(&members, &shards);
            prop_assert_eq!(before.len(), shards.len());
            for member in &members {
                let load = before.values().filter(|owner| *owner == member).count();
                prop_assert!(load * members.len() < shards.len() + members.len(), "{} of {}", load, shards.len());
            }
            let turn = turn % members.len();
            members.rotate_left(turn);
            shards.reverse();
            prop_assert_eq!(before, assigned(&members, &shards));
        }
    }

    #[test]
    fn nobody_takes_nothing() {
        assert!(assigned(&[], &shards(0..3)).is_empty());
        assert!(assigned(&[member(1)], &[]).is_empty());
    }

    /// Over many fleets, those that move when one member joins (or leaves: the two are the same), against the least that
    /// must, and against those that plain rendezvous hashing moves, which knows no bound.
    #[test]
    fn few_leases_move_when_a_member_comes_or_goes() {
        for (count, size) in [(8, 3), (100, 3), (100, 10), (200, 5)] {
            let (mut moves, mut least, mut plain) = (0, 0, 0);
            for fleet in 0..20 {
                let shards = shards(fleet * 1000..fleet * 1000 + count);
                let mut members: Vec<_> = (fleet * 100..fleet * 100 + size).map(member).collect();
                let before = assigned(&members, &shards);
                let joining = member(fleet * 100 + 99);
                members.push(joining.clone());
                moves += moved(&before, &assigned(&members, &shards));
                least += count / (size + 1);
                plain += shards.iter().filter(|(_, branch)| *highest(&members, branch) == joining).count();
            }
            assert!(moves * 10 < least * 17, "{count} over {size}: {moves} moved, {least} must");
            assert!(moves * 10 < plain * 17, "{count} over {size}: {moves} moved, without a bound {plain}");
        }
    }

    #[test]
    fn a_shard_that_rolls_stays_where_it_is() {
        let members: Vec<_> = (0..3).map(member).collect();
        let before = shards(0..9);
        let after: Vec<_> =
            before.iter().map(|(shard, branch)| (ShardId::new(&format!("{shard}-child")), branch.clone())).collect();
        let owners = |assigned: BTreeMap<ShardId, MemberId>| assigned.into_values().collect::<Vec<_>>();
        assert_eq!(owners(assigned(&members, &before)), owners(assigned(&members, &after)));
    }
}
