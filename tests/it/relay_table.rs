//! The relay's own table: checkpoints and the handler registry.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Timestamp;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{Checkpoint, CheckpointStore as _, HandlerRegistry as _, RelayTable, Start};
use angzarr_relay::stream::{ShardId, StreamSequence};
use angzarr_relay::time::Clock;

use crate::embedded::tables;

crate::scenarios!(keeps_checkpoints_by_handler, the_first_registration_stays);

async fn keeps_checkpoints_by_handler(aws: &AwsClients, prefix: &str) {
    let table = RelayTable::new(aws, &tables(aws, prefix).await.relay, Clock::system());
    let (handler, other) = (HandlerName::new("h#1").unwrap(), HandlerName::new("h").unwrap());
    let (one, two) = (ShardId::new("shardId-00000001700000000000-0a1b2c3d"), ShardId::new("shardId-2"));
    let at = |digits: &str| Checkpoint::At(StreamSequence::new(digits));
    assert!(table.load(&handler).await.unwrap().is_empty());
    table.save(&handler, &one, &at("1")).await.unwrap();
    table.save(&handler, &one, &at("1234567890123456789012345678901234567890")).await.unwrap();
    table.save(&handler, &two, &Checkpoint::Finished).await.unwrap();
    table.save(&other, &one, &at("7")).await.unwrap();
    let expected = [(one.clone(), at("1234567890123456789012345678901234567890")), (two.clone(), Checkpoint::Finished)];
    assert_eq!(table.load(&handler).await.unwrap(), expected.into_iter().collect());
    table.forget(&handler, &one).await.unwrap();
    table.forget(&handler, &one).await.unwrap();
    assert_eq!(table.load(&handler).await.unwrap(), [(two, Checkpoint::Finished)].into_iter().collect());
    assert_eq!(table.load(&other).await.unwrap(), [(one, at("7"))].into_iter().collect());
}

async fn the_first_registration_stays(aws: &AwsClients, prefix: &str) {
    let table = RelayTable::new(aws, &tables(aws, prefix).await.relay, Clock::system());
    let now = Timestamp::parse("2026-01-31T12:00:00.123456789Z").unwrap();
    let later = Timestamp::parse("2026-02-01T00:00:00Z").unwrap();
    for (name, first, again, started_at) in [
        ("latest", Start::Latest, Start::Beginning, Some(now)),
        ("beginning", Start::Beginning, Start::Latest, None),
        ("moment", Start::At(later), Start::Latest, Some(later)),
    ] {
        let handler = HandlerName::new(name).unwrap();
        assert_eq!(table.register(&handler, first, now).await.unwrap().started_at, started_at, "{name}");
        assert_eq!(table.register(&handler, again, later).await.unwrap().started_at, started_at, "{name} again");
    }
}
