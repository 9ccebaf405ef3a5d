//! The relay's own table: the handler registry.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Timestamp;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{HandlerRegistry as _, RelayTable, Start};
use angzarr_relay::time::Clock;

use crate::embedded::tables;

crate::scenarios!(the_first_registration_stays);

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
