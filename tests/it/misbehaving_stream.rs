//! The relay's own binary on a stream that misbehaves: calls that are refused, fail, come late or are cut off, iterators that
//! expire, pages that are empty or repeat, lists that are out of date, records and shards that vanish. Each kind by itself,
//! then all at once by chance; every time complete, in order, each once, and without anybody's help.
//!
//! What struck is counted by the server, so that no test passes because nothing went wrong. `ANGZARR_MISCHIEF_SEED`
//! repeats what was drawn in an earlier run, not its timing.

use angzarr_relay::local::{EmbeddedDynamo, KeyPart, Mischief, MischiefPlan, Operation, ShardControl, StreamsOptions};
use angzarr_relay::time::Random;
use std::time::Duration;

use crate::embedded::root;
use crate::sharded_relay::{Setting, reading};
use crate::support::{RelayProcess, Writer, until};

const AUDIT: &str = r#"
    [relay]
    poll_interval_max = "250ms"
    reconcile_interval = "250ms"
    [[handlers]]
    name = "audit"
    flush_interval = "100ms"
    subscribe = [{ domain = "*" }]
    jsonl = { path = "HOME/audit.jsonl" }
"#;

const SHARDS: u32 = 4;
const ROOTS: u64 = 24;

/// How often in a row each kind strikes: less often than a shard is asked for before it counts as gone.
const TIMES: usize = 4;

const TRIMMED: &str = "angzarr_relay_stream_trimmed_total";
const RECONCILES: &str = r#"angzarr_relay_jobs_begun_total{handler="audit",kind="reconcile"}"#;

/// A relay on a stream of four shards, all of which it reads.
struct Running {
    setting: Setting,
    writer: Writer,
    relay: RelayProcess,
    _dynamo: EmbeddedDynamo,
}

impl Running {
    async fn start(options: StreamsOptions) -> Self {
        let dynamo = EmbeddedDynamo::start(None).unwrap();
        let setting = Setting::build(dynamo.endpoint(), AUDIT, StreamsOptions { shards: SHARDS, ..options }).await;
        let mut writer = Writer::new(&setting.aws);
        let relay = setting.home.start().await;
        writer.append_to(0..ROOTS, 1).await;
        let running = Self { setting, writer, relay, _dynamo: dynamo };
        running.reads(SHARDS).await;
        running.setting.complete(&running.writer).await;
        running
    }

    fn shards(&self) -> &ShardControl {
        &self.setting.shards
    }

    /// Waits until it reads so many shards.
    async fn reads(&self, shards: u32) {
        let so_many = Some(f64::from(shards));
        until("so many shards are read", async || (reading(&self.relay).await == so_many).then_some(())).await;
    }

    async fn struck(&self, operation: Operation, mischief: Mischief) -> usize {
        let struck = self.shards().struck().await.unwrap();
        usize::try_from(struck.get(&(operation, mischief)).copied().unwrap_or(0)).unwrap()
    }

    /// Waits until a kind has struck so often.
    async fn strikes(&self, operation: Operation, mischief: Mischief, times: usize) {
        until(&format!("{mischief:?} has struck {operation}"), async || {
            (self.struck(operation, mischief).await >= times).then_some(())
        })
        .await;
    }

    /// What a counter says; 0 before it has counted anything.
    async fn counted(&self, series: &str) -> f64 {
        self.relay.metric(series).await.unwrap_or(0.0)
    }

    /// Lets every call of an operation go wrong so from now on.
    async fn always(&self, operation: Operation, mischief: Mischief) {
        let plan = MischiefPlan { seed: 0, percent: 100, kinds: vec![(operation, mischief)] };
        self.shards().misbehave(plan).await.unwrap();
    }

    /// Writes events that the relay is not shown, and lets it read empty pages in their place from now on.
    async fn write_unseen(&mut self) {
        self.always(Operation::GetRecords, Mischief::Empty).await;
        let before = self.setting.home.sequences("audit.jsonl");
        self.writer.append_to(0..ROOTS, 1).await;
        // More often than there are shards: none of them is taken for read to its end.
        let already = self.struck(Operation::GetRecords, Mischief::Empty).await;
        self.strikes(Operation::GetRecords, Mischief::Empty, already + 5 * SHARDS as usize).await;
        assert_eq!(self.setting.home.sequences("audit.jsonl"), before);
    }

    /// Lets calls of an operation go wrong in a way that AWS's metric tells as `outcome`, while events are written and
    /// `call` makes the relay call it; and holds the relay to having them all, once.
    async fn survives(
        &mut self,
        operation: Operation,
        mischief: Mischief,
        outcome: &str,
        call: impl AsyncFnOnce(&ShardControl),
    ) {
        let told = format!(r#"angzarr_relay_aws_calls_total{{operation="{operation}",outcome="{outcome}"}}"#);
        let before = self.counted(&told).await;
        self.shards().next(operation, &[mischief; TIMES]).await.unwrap();
        self.writer.append_to(0..ROOTS, 1).await;
        call(self.shards()).await;
        self.strikes(operation, mischief, TIMES).await;
        self.writer.append_to(0..ROOTS, 1).await;
        self.setting.complete(&self.writer).await;
        let more = self.counted(&told).await - before;
        assert!(more >= 4.0, "{mischief:?} has struck {operation}, and {told} grew by {more}");
    }

    /// One mischief after the other, each with its outcome; none of them loses anything.
    async fn survives_all(
        &mut self,
        operation: Operation,
        mischiefs: &[(Mischief, &str)],
        call: impl AsyncFn(&ShardControl),
    ) {
        for (mischief, outcome) in mischiefs {
            self.survives(operation, *mischief, outcome, &call).await;
        }
        assert_eq!((self.counted(TRIMMED).await, self.counted(RECONCILES).await), (0.0, 0.0), "nothing was lost");
    }

    /// Stops it, and holds it to having nothing twice.
    async fn stop(mut self) {
        self.setting.complete(&self.writer).await;
        assert!(self.relay.terminate().await.success(), "{}", self.relay.output());
        self.setting.complete(&self.writer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_once_however_reading_them_goes_wrong() {
    let mut running = Running::start(StreamsOptions::default()).await;
    let mischiefs = [
        (Mischief::Throttled, "throttled"),
        (Mischief::LimitExceeded, "throttled"),
        (Mischief::Failed, "failed"),
        (Mischief::Late, "ok"),
        (Mischief::Cut, "failed"),
        (Mischief::CutReply, "failed"),
        (Mischief::HalfReply, "failed"),
        (Mischief::EmptyReply, "ok"),
        (Mischief::Expired, "failed"),
        (Mischief::NotFound, "failed"),
        (Mischief::Repeated, "ok"),
        (Mischief::Empty, "ok"),
    ];
    running.survives_all(Operation::GetRecords, &mischiefs, async |_| {}).await;
    assert!(running.relay.output().contains("the iterator expired; opening another"), "{}", running.relay.output());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_read_on_however_opening_them_goes_wrong() {
    let mut running = Running::start(StreamsOptions::default()).await;
    let mischiefs = [
        (Mischief::Throttled, "throttled"),
        (Mischief::Failed, "failed"),
        (Mischief::Late, "ok"),
        (Mischief::Cut, "failed"),
        (Mischief::CutReply, "failed"),
        (Mischief::HalfReply, "failed"),
        (Mischief::EmptyReply, "ok"),
        (Mischief::NotFound, "failed"),
    ];
    let expire = async |shards: &ShardControl| shards.expire_iterators().await.unwrap();
    running.survives_all(Operation::GetShardIterator, &mischiefs, expire).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_found_however_listing_them_goes_wrong() {
    let mut running = Running::start(StreamsOptions::default()).await;
    let turns = [
        (Mischief::Throttled, "throttled"),
        (Mischief::Failed, "failed"),
        (Mischief::Late, "ok"),
        (Mischief::Cut, "failed"),
        (Mischief::CutReply, "failed"),
        (Mischief::HalfReply, "failed"),
        (Mischief::EmptyReply, "ok"),
        (Mischief::OpenParents, "ok"),
    ];
    let mut open = SHARDS;
    for (turn, (mischief, outcome)) in turns.into_iter().enumerate() {
        let change = async |shards: &ShardControl| {
            let open = shards.open().await.unwrap();
            shards.split(&open[turn % open.len()]).await.unwrap();
        };
        running.survives(Operation::DescribeStream, mischief, outcome, change).await;
        open += 1;
        running.reads(open).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_are_not_listed_for_long_are_found_when_they_are() {
    let mut running = Running::start(StreamsOptions::default()).await;
    for mischief in [Mischief::UnlistedChildren, Mischief::Outdated] {
        running.always(Operation::DescribeStream, mischief).await;
        let open = running.shards().open().await.unwrap();
        running.shards().roll(&open[0]).await.unwrap();
        running.writer.append_to(0..ROOTS, 1).await;
        // The shard has been finished, and its child was asked for in vain.
        running.reads(SHARDS - 1).await;
        assert!(running.struck(Operation::DescribeStream, mischief).await > 10, "it was asked for again and again");
        running.shards().behave().await.unwrap();
        running.setting.complete(&running.writer).await;
        running.reads(SHARDS).await;
    }
    assert_eq!((running.counted(TRIMMED).await, running.counted(RECONCILES).await), (0.0, 0.0), "nothing was lost");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_not_answered_is_given_up_and_made_again() {
    // Longer than the relay waits for an answer.
    let mut running = Running::start(StreamsOptions { lateness: Duration::from_secs(30), ..Default::default() }).await;
    let failed = r#"angzarr_relay_aws_calls_total{operation="GetRecords",outcome="failed"}"#;
    running.shards().next(Operation::GetRecords, &[Mischief::Late]).await.unwrap();
    running.strikes(Operation::GetRecords, Mischief::Late, 1).await;
    running.writer.append_to(0..ROOTS, 2).await;
    until("it was given up", async || (running.counted(failed).await >= 1.0).then_some(())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_trimmed_before_it_was_read_comes_from_the_table() {
    let mut running = Running::start(StreamsOptions::default()).await;
    running.write_unseen().await;
    running.shards().next(Operation::GetRecords, &[Mischief::Trimmed; 3]).await.unwrap();
    running.strikes(Operation::GetRecords, Mischief::Trimmed, 3).await;
    running.shards().behave().await.unwrap();
    running.setting.complete(&running.writer).await;
    assert!(running.counted(TRIMMED).await >= 3.0 && running.counted(RECONCILES).await >= 1.0);
    assert!(running.relay.output().contains("the stream was trimmed past this place"), "{}", running.relay.output());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_shards_that_vanish_comes_from_the_table() {
    let mut running = Running::start(StreamsOptions::default()).await;
    running.write_unseen().await;
    for shard in running.shards().open().await.unwrap() {
        running.shards().roll(&shard).await.unwrap();
        running.shards().remove(&shard).await.unwrap();
    }
    running.shards().behave().await.unwrap();
    running.setting.complete(&running.writer).await;
    assert!(running.counted(TRIMMED).await >= 4.0 && running.counted(RECONCILES).await >= 1.0);
    let is_told = async || running.relay.output().contains("the shard is gone").then_some(());
    until("it says that the shard is gone", is_told).await;
    running.reads(SHARDS).await;
    running.stop().await;
}

/// Turns of the run by chance.
const TURNS: u64 = 12;
/// Of a hundred calls, those that go wrong.
const PERCENT: u64 = 25;

/// Changes the shards, or takes something from them.
async fn strike(shards: &ShardControl, chance: &Random, turn: u64) {
    let pick = |count: usize| usize::try_from(chance.below(count as u64)).unwrap();
    let open = shards.open().await.unwrap();
    let one = &open[pick(open.len())];
    match chance.below(7) {
        0 => drop(shards.roll(one).await.unwrap()),
        1 => drop(shards.split(one).await.unwrap()),
        2 => {
            let child = shards.close(one).await.unwrap();
            let other = shards.open().await.unwrap();
            shards.roll(&other[pick(other.len())]).await.unwrap();
            shards.list(&child).await.unwrap();
        }
        3 => {
            let of_root = KeyPart::Text(root(&format!("r{}", chance.below(ROOTS))).key().to_owned());
            // Behind what is written by now; it is divided there already where the same was drawn before.
            shards.split_collection(of_root, KeyPart::Number((turn * 3 + 1).to_string())).await.ok();
        }
        4 => shards.trim_all(one).await.unwrap(),
        5 => {
            let mut closed = shards.all().await.unwrap();
            closed.retain(|shard| !shard.open);
            if !closed.is_empty() {
                shards.remove(&closed[pick(closed.len())].id).await.unwrap();
            }
        }
        _ => shards.expire_iterators().await.unwrap(),
    }
}

/// The kinds of a plan that have not struck. Nobody calls ListStreams.
async fn missing(shards: &ShardControl, plan: &MischiefPlan) -> Vec<(Operation, Mischief)> {
    let struck = shards.struck().await.unwrap();
    let missing = plan.kinds.iter().filter(|kind| kind.0 != Operation::ListStreams && !struck.contains_key(kind));
    missing.copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_which_everything_goes_wrong_at_once_comes_out_complete() {
    let seed = std::env::var("ANGZARR_MISCHIEF_SEED").ok().map(|text| text.parse().unwrap());
    let seed = seed.unwrap_or_else(|| Random::from_entropy().below(1 << 32));
    eprintln!("ANGZARR_MISCHIEF_SEED={seed}");
    let mut running = Running::start(StreamsOptions::default()).await;
    let (plan, chance) = (MischiefPlan::everything(seed, PERCENT), Random::seeded(seed));
    running.shards().misbehave(plan.clone()).await.unwrap();
    for turn in 0..TURNS {
        if turn == TURNS / 2 {
            // What chance has spared so far is in for it.
            for (operation, mischief) in missing(running.shards(), &plan).await {
                running.shards().next(operation, &[mischief]).await.unwrap();
            }
        }
        tokio::join!(running.writer.append_to(0..ROOTS, 3), strike(&running.setting.shards, &chance, turn));
    }
    until("each kind has struck", async || {
        running.writer.append(0).await;
        missing(running.shards(), &plan).await.is_empty().then_some(())
    })
    .await;
    running.shards().behave().await.unwrap();
    // What was trimmed younger than a day, while it was looked for what had been trimmed before, is found with what follows.
    running.writer.append_to(0..ROOTS, 1).await;
    running.setting.complete(&running.writer).await;
    until("the audit is clean", async || {
        running.setting.home.command(&["audit", "--late-after", "0s"]).0.then_some(())
    })
    .await;
    let struck: u64 = running.shards().struck().await.unwrap().values().sum();
    let reconciles = running.counted(RECONCILES).await;
    eprintln!("{struck} calls went wrong, {reconciles} searches of the table (seed {seed})");
    running.stop().await;
}
