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

    proptest! {
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

    /// Over many fleets, those that move when one member joins or leaves, against the least that must.
    #[test]
    fn few_leases_move_when_a_member_comes_or_goes() {
        for (count, size) in [(8, 3), (100, 3), (100, 10), (200, 5)] {
            let (mut moves, mut least) = (0, 0);
            for fleet in 0..20 {
                let shards = shards(fleet * 1000..fleet * 1000 + count);
                let mut members: Vec<_> = (fleet * 100..fleet * 100 + size).map(member).collect();
                let before = assigned(&members, &shards);
                members.push(member(fleet * 100 + 99));
                moves += moved(&before, &assigned(&members, &shards));
                least += count / (size + 1);
            }
            assert!(moves * 10 < least * 17, "{count} over {size}: {moves} moved, {least} must");
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
