//! Shards that roll and split while `local` runs, as those of a busy table do in hours, and what the screen says of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::local::{ShardControl, ShardsError};
use crate::stream::ShardId;
use crate::telemetry::with_causes;
use crate::time::Random;

/// One shard rolls or splits so often.
const RESHARD_INTERVAL: Duration = Duration::from_secs(10);

/// A shard splits as long as there are at most so many times the shards of the beginning; from there on shards only
/// roll, because none ever merge.
const GROWTH_MAX: usize = 2;

/// Rolls and splits the shards of one table's stream. Clones share what was done last.
#[derive(Debug, Clone)]
pub(super) struct Resharding {
    shards: ShardControl,
    open_max: usize,
    last: Arc<Mutex<Status>>,
}

/// What is shown.
#[derive(Debug, Default)]
struct Status {
    open: usize,
    last: String,
}

impl Resharding {
    /// Of a stream that begins with so many shards.
    pub(super) fn new(shards: ShardControl, count: u32) -> Self {
        let open = usize::try_from(count).unwrap_or(usize::MAX);
        let last = Status { open, last: format!("the first change is in {} s", RESHARD_INTERVAL.as_secs()) };
        Self { shards, open_max: open.saturating_mul(GROWTH_MAX), last: Arc::new(Mutex::new(last)) }
    }

    /// How many shards are open, and what happened last.
    pub(super) fn status(&self) -> String {
        let status = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:>8} open   {}", status.open, status.last)
    }

    /// Goes on until stopped.
    pub(super) async fn go_on(self, stop: CancellationToken) {
        // Of an earlier life there may be more than at the beginning.
        if let Some(Ok(open)) = stop.run_until_cancelled(self.shards.open()).await {
            self.last.lock().unwrap_or_else(PoisonError::into_inner).open = open.len();
        }
        let random = Random::from_entropy();
        let mut ticks = interval_at(Instant::now() + RESHARD_INTERVAL, RESHARD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match stop.run_until_cancelled(self.change(&random)).await {
                None => return,
                Some(Ok(status)) => *self.last.lock().unwrap_or_else(PoisonError::into_inner) = status,
                Some(Err(error)) => warn!(error = %with_causes(&error), "the shards were not changed"),
            }
        }
    }

    async fn change(&self, random: &Random) -> Result<Status, ShardsError> {
        let open = self.shards.open().await?;
        let pick = usize::try_from(random.below(open.len() as u64)).unwrap_or(0);
        let shard = open.get(pick).ok_or(ShardsError::Ended)?;
        if open.len() < self.open_max && random.percent(50) {
            let [one, other] = self.shards.split(shard).await?;
            let last = format!("{} split into {} and {}", short(shard), short(&one), short(&other));
            return Ok(Status { open: open.len() + 1, last });
        }
        let child = self.shards.roll(shard).await?;
        Ok(Status { open: open.len(), last: format!("{} rolled into {}", short(shard), short(&child)) })
    }
}

/// The end of an id: enough to tell a few shards apart.
fn short(shard: &ShardId) -> &str {
    shard.as_str().rsplit('-').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{AwsClients, AwsSettings, StaticCredentials};
    use crate::local::{EmbeddedDynamo, EmbeddedStreams, StreamsOptions};
    use crate::storage::{TableNames, create_all};

    #[tokio::test]
    async fn shards_grow_up_to_their_bound_and_then_only_roll() {
        let dynamo = EmbeddedDynamo::start(None).unwrap();
        let settings = AwsSettings {
            dynamodb_endpoint: Some(dynamo.endpoint().into()),
            credentials: Some(StaticCredentials::dummy()),
            ..AwsSettings::default()
        };
        let names = TableNames::from_prefix("resharding");
        create_all(&AwsClients::new(&settings).await, &names, &mut |_| {}).await.unwrap();
        let options = StreamsOptions { shards: 3, ..StreamsOptions::default() };
        let server = EmbeddedStreams::start(dynamo.endpoint(), options).unwrap();
        let resharding = Resharding::new(server.shards(&names.events), 3);
        assert!(resharding.status().starts_with("       3 open   the first change"), "{}", resharding.status());
        let random = Random::seeded(7);
        let mut told = Vec::new();
        for _ in 0..40 {
            let status = resharding.change(&random).await.unwrap();
            let open = server.shards(&names.events).open().await.unwrap().len();
            assert_eq!(status.open, open);
            assert!((3..=6).contains(&open));
            told.push(status.last);
        }
        assert!(told.iter().any(|text| text.contains(" rolled into ")), "{told:?}");
        assert_eq!(told.iter().filter(|text| text.contains(" split into ")).count(), 3, "{told:?}");
    }
}
