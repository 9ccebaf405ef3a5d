//! The rows of the fleet: each change under its condition, on both DynamoDBs and in memory alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::fleet::{
    Changed, Epoch, FleetStore, JoinError, Lease, LeaseKey, LeaseKind, Member, MemberId, Patience, Report, Taken, View,
    ViewAction,
};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{Checkpoint, MemoryRelayTable, RelayTable};
use angzarr_relay::stream::{Branch, ShardId, StreamSequence};
use angzarr_relay::time::Clock;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::embedded::tables;

crate::scenarios!(
    members_come_renew_and_are_declared_dead,
    an_attempt_to_join_that_arrives_late_changes_nothing,
    a_view_follows_the_one_that_was_read,
    a_lease_changes_under_its_owner_and_epoch,
    a_shard_ends_and_its_children_begin_at_once_or_not_at_all,
    many_leases_are_added_and_read,
    a_table_of_another_schema_is_refused
);

async fn stores(aws: &AwsClients, prefix: &str) -> [Box<dyn FleetStore>; 2] {
    let table = RelayTable::new(aws, &tables(aws, prefix).await.relay, Clock::system());
    [Box::new(table), Box::new(MemoryRelayTable::default())]
}

fn handler() -> HandlerName {
    HandlerName::new("h#1").unwrap()
}

fn member(id: &str) -> Member {
    Member {
        id: MemberId::new(id),
        counter: 1,
        dead: false,
        leaving: false,
        view: 0,
        handlers: BTreeSet::from([handler(), HandlerName::new("other").unwrap()]),
        version: "0.1.0".into(),
        patience: Patience { expires_after: Duration::from_secs(8), overdue_after: Duration::from_millis(12_500) },
    }
}

fn lease(shard: &str, parent: Option<&str>) -> Lease {
    let shard = ShardId::new(shard);
    Lease::new(handler(), shard.clone(), LeaseKind::Shard, Branch::of(&shard), parent.map(ShardId::new))
}

fn taken(lease: &Lease) -> Taken {
    Taken { owner: lease.owner.clone().unwrap(), epoch: lease.epoch }
}

fn at(digits: &str) -> Checkpoint {
    Checkpoint::At(StreamSequence::new(digits))
}

async fn only(store: &dyn FleetStore) -> Lease {
    let leases = store.leases(&handler()).await.unwrap();
    assert_eq!(leases.len(), 1);
    leases.into_iter().next().unwrap()
}

async fn members_come_renew_and_are_declared_dead(aws: &AwsClients, prefix: &str) {
    for store in stores(aws, prefix).await {
        let (mut one, two) = (member("one~1"), member("two#~2"));
        store.join(&one).await.unwrap();
        store.join(&two).await.unwrap();
        (one.view, one.leaving) = (3, true);
        let report = Report { lags_secs: BTreeMap::from([(handler(), 7)]) };
        assert!(store.renew(&one, &report).await.unwrap());
        let fleet = store.fleet().await.unwrap();
        one.counter = 2;
        assert_eq!(fleet.members, [one.clone(), two.clone()]);

        let dead = |counter| ViewAction::DeclareDead(one.id.clone(), counter);
        assert!(!store.keep(&dead(1)).await.unwrap(), "it has renewed since");
        assert!(!store.keep(&ViewAction::Remove(one.id.clone())).await.unwrap(), "it lives");
        assert!(store.keep(&dead(2)).await.unwrap());
        assert!(!store.renew(&one, &report).await.unwrap(), "it was declared dead");
        assert!(!store.fleet().await.unwrap().is_alive(&one.id));
        assert!(store.keep(&ViewAction::Remove(one.id.clone())).await.unwrap());
        assert!(!store.renew(&one, &report).await.unwrap(), "its row is gone");
        store.leave(&two.id).await.unwrap();
        store.leave(&two.id).await.unwrap();
        assert_eq!(store.fleet().await.unwrap().members, []);
    }
}

async fn an_attempt_to_join_that_arrives_late_changes_nothing(aws: &AwsClients, prefix: &str) {
    for store in stores(aws, prefix).await {
        let one = member("one~1");
        store.join(&one).await.unwrap();
        let found = || async { store.fleet().await.unwrap().members.pop().unwrap() };
        assert!(store.renew(&one, &Report::default()).await.unwrap());
        store.join(&one).await.unwrap();
        assert_eq!(found().await.counter, 2, "what was renewed since stays");
        assert!(store.keep(&ViewAction::DeclareDead(one.id.clone(), 2)).await.unwrap());
        store.join(&one).await.unwrap();
        assert!(found().await.dead, "who is dead stays dead: its leases may be another's");
        assert!(!store.renew(&one, &Report::default()).await.unwrap());
    }
}

async fn a_view_follows_the_one_that_was_read(aws: &AwsClients, prefix: &str) {
    for store in stores(aws, prefix).await {
        let view = |version, ids: &[&str]| View { version, members: ids.iter().map(|id| MemberId::new(id)).collect() };
        assert_eq!(store.fleet().await.unwrap().view, View::default());
        for (put, follows) in [
            (view(2, &["a"]), false),
            (view(1, &["a"]), true),
            (view(1, &["b"]), false),
            (view(2, &["a", "b"]), true),
            (view(3, &[]), true),
            (view(3, &["b"]), false),
        ] {
            assert_eq!(store.keep(&ViewAction::Put(put.clone())).await.unwrap(), follows, "{put:?}");
            assert_eq!(store.fleet().await.unwrap().view == put, follows, "{put:?}");
        }
    }
}

async fn a_lease_changes_under_its_owner_and_epoch(aws: &AwsClients, prefix: &str) {
    let (one, two) = (MemberId::new("one~1"), MemberId::new("two~2"));
    for store in stores(aws, prefix).await {
        store.add(&[lease("s", Some("p"))]).await.unwrap();
        let free = only(&*store).await;
        assert_eq!(free, lease("s", Some("p")));

        // Two want it, one gets it.
        let first = free.taken(&one);
        assert_eq!(store.change(&free, &first).await.unwrap(), Some(Changed { checkpoint: None }));
        assert_eq!(store.change(&free, &free.taken(&two)).await.unwrap(), None);
        assert_eq!(only(&*store).await, first);

        // Its owner alone moves its checkpoint, under its epoch.
        let key = first.key();
        assert!(store.checkpoint(&key, &taken(&first), &at("1234567890123456789012345678901234567890")).await.unwrap());
        let older = Taken { epoch: Epoch(0), ..taken(&first) };
        for stranger in [Taken { owner: two.clone(), ..taken(&first) }, older] {
            assert!(!store.checkpoint(&key, &stranger, &at("9")).await.unwrap());
            assert!(!store.finish(&key, &stranger, &[]).await.unwrap());
        }

        // A hand-over: announced, released, taken with the last checkpoint.
        let announced = first.announced();
        assert!(store.change(&first, &announced).await.unwrap().is_some());
        assert!(only(&*store).await.announced);
        let released = announced.released(true);
        assert!(store.change(&announced, &released).await.unwrap().is_some());
        let second = released.taken(&two);
        let changed = store.change(&released, &second).await.unwrap().unwrap();
        assert_eq!(changed.checkpoint, Some(at("1234567890123456789012345678901234567890")));
        assert_eq!(only(&*store).await, second);
        assert!(second.clean && second.epoch == Epoch(2));
        assert!(!store.checkpoint(&key, &taken(&first), &at("9")).await.unwrap(), "a checkpoint under an old epoch");
        assert!(store.change(&announced, &released).await.unwrap().is_none(), "a release under an old epoch");

        // Taken from one that is dead.
        let third = second.taken(&one);
        assert!(store.change(&second, &third).await.unwrap().is_some());
        assert!(!only(&*store).await.clean);
        assert!(!store.forget(&second).await.unwrap());
        assert!(store.forget(&third).await.unwrap());
        assert!(store.leases(&handler()).await.unwrap().is_empty());
        assert!(store.change(&third, &third.released(true)).await.unwrap().is_none(), "nothing comes back");
        assert!(!store.checkpoint(&key, &taken(&third), &at("9")).await.unwrap());
        assert!(store.leases(&handler()).await.unwrap().is_empty());
    }
}

async fn a_shard_ends_and_its_children_begin_at_once_or_not_at_all(aws: &AwsClients, prefix: &str) {
    let owner = MemberId::new("one~1");
    for store in stores(aws, prefix).await {
        store.add(&[lease("p", None), lease("b", Some("p"))]).await.unwrap();
        let lineage = store.fleet().await.unwrap().lineage;
        let free = lease("p", None);
        let held = free.taken(&owner);
        store.change(&free, &held).await.unwrap().unwrap();
        let mut first = lease("a", Some("p"));
        (first.branch, first.owner, first.epoch) = (free.branch.clone(), Some(owner.clone()), Epoch(1));
        let children = [first.clone(), lease("b", Some("p"))];

        let late = Taken { epoch: Epoch(0), ..taken(&held) };
        assert!(!store.finish(&held.key(), &late, &children).await.unwrap());
        assert_eq!(store.leases(&handler()).await.unwrap().len(), 2, "nothing was written");
        assert_eq!(store.fleet().await.unwrap().lineage, lineage);

        assert!(store.finish(&held.key(), &taken(&held), &children).await.unwrap());
        assert!(store.fleet().await.unwrap().lineage > lineage);
        let mut leases = store.leases(&handler()).await.unwrap();
        leases.sort_by_key(Lease::key);
        let finished = Lease { finished: true, owner: None, ..held.clone() };
        assert_eq!(leases, [first, lease("b", Some("p")), finished]);
        assert!(!store.finish(&held.key(), &taken(&held), &[]).await.unwrap(), "it is finished");
    }
}

async fn many_leases_are_added_and_read(aws: &AwsClients, prefix: &str) {
    for store in stores(aws, prefix).await {
        let leases: Vec<Lease> = (0..250).map(|number| lease(&format!("shard-{number:03}"), None)).collect();
        store.add(&leases[100..101]).await.unwrap();
        store.add(&leases).await.unwrap();
        let mut found = store.leases(&handler()).await.unwrap();
        found.sort_by_key(Lease::key);
        assert_eq!(found, leases);
        let asked: Vec<LeaseKey> = leases.iter().skip(5).step_by(2).map(Lease::key).collect();
        let gone = lease("gone", None).key();
        let mut found = store.leases_of(&[&asked[..], &[gone]].concat()).await.unwrap();
        found.sort_by_key(Lease::key);
        assert_eq!(found.iter().map(Lease::key).collect::<Vec<_>>(), asked);
        assert!(store.leases(&HandlerName::new("h").unwrap()).await.unwrap().is_empty());
    }
}

async fn a_table_of_another_schema_is_refused(aws: &AwsClients, prefix: &str) {
    let tables = tables(aws, prefix).await;
    let table = RelayTable::new(aws, &tables.relay, Clock::system());
    table.check_schema().await.unwrap();
    table.check_schema().await.unwrap();
    let schema = aws.dynamodb.put_item().table_name(&tables.relay).item("pk", AttributeValue::S("fleet".into()));
    let schema = schema.item("sk", AttributeValue::S("schema".into()));
    schema.item("version", AttributeValue::N("2".into())).send().await.unwrap();
    let refused = table.check_schema().await.unwrap_err();
    assert!(matches!(refused, JoinError::Schema { found: 2, known: 1, .. }), "{refused:?}");
    assert!(refused.to_string().contains("deploy a version that knows it"), "{refused}");
}
