//! The events and positions tables and the registry, with faults. What takes effect is told to the checker in that
//! moment.

use std::collections::{BTreeMap, BTreeSet};

use angzarr_relay::backfill::{Job, JobKind, JobStore, Scanned, Seen};
use angzarr_relay::event::{Event, Root, Sequence, Timestamp};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{HandlerRegistry, RegisteredInterest, Registration, Start};
use angzarr_relay::storage::{
    Advance, Advanced, Commit, CommitStore, Committed, Ending, EventSource, Mark, MarkState, MarkStore, Marked,
    Marking, Pass, PositionStore, RowPage, Skip, Standing, StorageError,
};
use angzarr_relay::stream::ShardId;
use angzarr_relay::telemetry::names;
use async_trait::async_trait;
use bytes::Bytes;

use crate::faulty::{Faulty, unavailable};
use crate::ledger::sequence_of;
use crate::plan::Fault;

#[async_trait]
impl JobStore for Faulty {
    async fn job(&self, handler: &HandlerName) -> Result<Option<Job>, StorageError> {
        self.read("GetItem", self.world.table.job(handler)).await
    }

    async fn put_job(&self, handler: &HandlerName, job: &Job) -> Result<(), StorageError> {
        let (world, handler, job) = (self.world.clone(), handler.clone(), job.clone());
        self.write("PutItem", async move {
            world.note(&format!("job {handler} {} {:?} {}", job.kind.as_str(), job.finished_at, job.reason));
            world.happened(if job.kind == JobKind::Backfill { "backfill" } else { "reconcile" });
            world.table.put_job(&handler, &job).await
        })
        .await
    }

    async fn progress(&self, handler: &HandlerName) -> Result<BTreeMap<ShardId, Scanned>, StorageError> {
        self.read("Query", self.world.table.progress(handler)).await
    }

    async fn put_progress(
        &self,
        handler: &HandlerName,
        segment: &ShardId,
        scanned: &Scanned,
    ) -> Result<(), StorageError> {
        let (world, handler, segment, scanned) = (self.world.clone(), handler.clone(), segment.clone(), *scanned);
        self.write("PutItem", async move { world.table.put_progress(&handler, &segment, &scanned).await }).await
    }

    async fn forget_progress(&self, handler: &HandlerName, segment: &ShardId) -> Result<(), StorageError> {
        let (world, handler, segment) = (self.world.clone(), handler.clone(), segment.clone());
        self.write("DeleteItem", async move { world.table.forget_progress(&handler, &segment).await }).await
    }

    async fn seen(&self, handler: &HandlerName) -> Result<Option<Seen>, StorageError> {
        self.read("GetItem", self.world.table.seen(handler)).await
    }

    async fn put_seen(&self, handler: &HandlerName, seen: &Seen) -> Result<(), StorageError> {
        let (world, handler, seen) = (self.world.clone(), handler.clone(), seen.clone());
        self.write("PutItem", async move { world.table.put_seen(&handler, &seen).await }).await
    }

    async fn need(&self, handler: &HandlerName) -> Result<Option<String>, StorageError> {
        self.read("GetItem", self.world.table.need(handler)).await
    }

    async fn put_need(&self, handler: &HandlerName, reason: &str) -> Result<(), StorageError> {
        let (world, handler, reason) = (self.world.clone(), handler.clone(), reason.to_owned());
        self.write("TransactWriteItems", async move { world.table.put_need(&handler, &reason).await }).await
    }

    async fn forget_need(&self, handler: &HandlerName) -> Result<(), StorageError> {
        let (world, handler) = (self.world.clone(), handler.clone());
        self.write("DeleteItem", async move { world.table.forget_need(&handler).await }).await
    }
}

#[async_trait]
impl EventSource for Faulty {
    async fn read_consistent(
        &self,
        root: &Root,
        from: Sequence,
        to: Sequence,
        rows_max: usize,
    ) -> Result<RowPage, StorageError> {
        self.read("Query", self.world.events.read_consistent(root, from, to, rows_max)).await
    }

    async fn payload(&self, event: &Event) -> Result<Bytes, StorageError> {
        self.read("Query", self.world.events.payload(event)).await
    }
}

#[async_trait]
impl PositionStore for Faulty {
    async fn load(&self, handler: &HandlerName, roots: &[Root]) -> Result<Vec<Standing>, StorageError> {
        self.read("BatchGetItem", self.world.positions.load(handler, roots)).await
    }

    async fn advance(&self, handler: &HandlerName, advances: &[Advance]) -> Vec<Result<Advanced, StorageError>> {
        let (faulty, handler, owned) = (self.again(), handler.clone(), advances.to_vec());
        let written = self.write("BatchExecuteStatement", async move {
            let mut results = Vec::new();
            for advance in &owned {
                results.push(faulty.advance_one(&handler, advance).await);
            }
            Ok(results)
        });
        let lost = |_| advances.iter().map(|_| Err(unavailable("BatchExecuteStatement"))).collect();
        written.await.unwrap_or_else(lost)
    }
}

#[async_trait]
impl CommitStore for Faulty {
    async fn commit(&self, handler: &HandlerName, commit: &Commit) -> Result<Committed, StorageError> {
        let (world, replica) = (self.world.clone(), self.name.clone());
        let (handler, commit) = (handler.clone(), commit.clone());
        self.write("TransactWriteItems", async move {
            let repeated = world.positions.has_committed(&commit.token);
            let committed = world.positions.commit(&handler, &commit).await?;
            match committed {
                Committed::Done if repeated => world.happened("transaction repeated"),
                Committed::Done => {
                    world.note(&format!("{replica} commits {handler} {} {}", commit.root, commit.to));
                    let applied = commit.writes.iter().map(sequence_of).collect();
                    world.check(|checker| checker.applied(&handler, &replica, &commit.root, applied, commit.to));
                }
                Committed::Moved | Committed::Refused(_) => world.happened("transaction refused"),
            }
            Ok(committed)
        })
        .await
    }
}

impl Faulty {
    /// One statement of a batch: it may fail alone.
    async fn advance_one(&self, handler: &HandlerName, advance: &Advance) -> Result<Advanced, StorageError> {
        let world = &self.world;
        if self.strikes(Fault::TableUnavailable) {
            world.happened("table unavailable");
            return Err(unavailable("BatchExecuteStatement"));
        }
        let result = world.positions.advance(handler, std::slice::from_ref(advance)).await.remove(0);
        if matches!(result, Ok(Advanced::Written)) {
            world.note(&format!("position {handler} {} {}", advance.root, advance.to));
            world.check(|checker| checker.position(handler, &advance.root, advance.to));
        }
        result
    }
}

#[async_trait]
impl MarkStore for Faulty {
    async fn mark(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        mark: &Mark,
    ) -> Result<Marking, StorageError> {
        let parks = mark.state == MarkState::Parked;
        let told_of = handler;
        let (world, handler, root) = (self.world.clone(), handler.clone(), root.clone());
        let (standing, mark) = (standing.clone(), mark.clone());
        let marking = self
            .write("TransactWriteItems", async move {
                let marking = world.positions.mark(&handler, &root, &standing, &mark).await?;
                if marking == Marking::Done {
                    world.happened("root marked");
                    let (state, at) = (mark.state.as_str(), mark.sequence);
                    world.note(&format!(
                        "mark {handler} {root} {state} at {at}, covered {:?}: {}",
                        standing.position, mark.reason
                    ));
                    world.check(|checker| checker.marked(&handler, &root, &standing, &mark));
                }
                Ok(marking)
            })
            .await?;
        if parks && marking == Marking::Done {
            self.world.check(|checker| checker.did(&self.name, names::ROOTS_PARKED, told_of));
        }
        Ok(marking)
    }

    async fn unmark(&self, handler: &HandlerName, root: &Root, mark: &Mark) -> Result<Marking, StorageError> {
        let (world, handler, root, mark) = (self.world.clone(), handler.clone(), root.clone(), mark.clone());
        self.write("TransactWriteItems", async move {
            let marking = world.positions.unmark(&handler, &root, &mark).await?;
            if marking == Marking::Done {
                world.note(&format!("unmark {handler} {root}"));
                world.check(|checker| checker.unmarked(&handler, &root));
            }
            Ok(marking)
        })
        .await
    }

    async fn forget(&self, handler: &HandlerName, root: &Root, ending: &Ending) -> Result<Marking, StorageError> {
        let (world, handler, root, ending) = (self.world.clone(), handler.clone(), root.clone(), ending.clone());
        self.write("TransactWriteItems", async move {
            let marking = world.positions.forget(&handler, &root, &ending).await?;
            if marking == Marking::Done {
                world.note(&format!("forget the mark of {handler} {root}"));
                world.check(|checker| checker.forgotten(&handler, &root));
            }
            Ok(marking)
        })
        .await
    }

    async fn purge(&self, handler: &HandlerName, root: &Root) -> Result<(), StorageError> {
        let (world, handler, root) = (self.world.clone(), handler.clone(), root.clone());
        self.write("TransactWriteItems", async move { world.positions.purge(&handler, &root).await }).await
    }

    async fn pass(
        &self,
        handler: &HandlerName,
        root: &Root,
        standing: &Standing,
        pass: &Pass,
    ) -> Result<Marking, StorageError> {
        let (world, handler, root) = (self.world.clone(), handler.clone(), root.clone());
        let (standing, pass) = (standing.clone(), pass.clone());
        self.write("TransactWriteItems", async move { world.positions.pass(&handler, &root, &standing, &pass).await })
            .await
    }

    async fn record_skip(&self, handler: &HandlerName, root: &Root, skip: &Skip) -> Result<(), StorageError> {
        let told_of = handler;
        let (world, handler, root, skip) = (self.world.clone(), handler.clone(), root.clone(), skip.clone());
        self.write("PutItem", async move {
            world.happened("event skipped");
            world.note(&format!("skip {handler} {root} {}: {}", skip.sequence, skip.reason));
            world.check(|checker| checker.skipped(&handler, &root, skip.sequence));
            world.positions.record_skip(&handler, &root, &skip).await
        })
        .await?;
        self.world.check(|checker| checker.did(&self.name, names::EVENTS_SKIPPED, told_of));
        Ok(())
    }

    async fn marked(&self, handler: &HandlerName) -> Result<Marked, StorageError> {
        self.read("Query", self.world.positions.marked(handler)).await
    }

    async fn orders(&self) -> Result<u64, StorageError> {
        self.read("GetItem", self.world.positions.orders()).await
    }
}

#[async_trait]
impl HandlerRegistry for Faulty {
    async fn register(
        &self,
        handler: &HandlerName,
        start: Start,
        now: Timestamp,
    ) -> Result<Registration, StorageError> {
        let (world, handler) = (self.world.clone(), handler.clone());
        self.write("PutItem", async move {
            let registration = world.table.register(&handler, start, now).await?;
            world.check(|checker| checker.registered(&handler, &registration));
            Ok(registration)
        })
        .await
    }

    async fn interests(&self, handler: &HandlerName) -> Result<Option<Vec<RegisteredInterest>>, StorageError> {
        self.read("GetItem", self.world.table.interests(handler)).await
    }

    async fn put_interests(&self, handler: &HandlerName, interests: &[RegisteredInterest]) -> Result<(), StorageError> {
        let (world, handler, interests) = (self.world.clone(), handler.clone(), interests.to_vec());
        self.write("PutItem", async move { world.table.put_interests(&handler, &interests).await }).await
    }

    async fn paused(&self) -> Result<BTreeSet<HandlerName>, StorageError> {
        self.read("Query", self.world.table.paused()).await
    }
}
