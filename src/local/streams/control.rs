//! Orders to the shards of a table's stream while it is served, for tests and demonstrations.
//!
//! Orders are carried out one after the other, each at the head of the upstream's stream: what was written before the
//! order is in the shards as they were, what is written after its answer in those that came of it. What calls are to meet
//! is ordered here as well, of all streams of the server.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::error::ShardsError;
use super::key::{KeyPart, Point};
use super::misbehaviour::Struck;
use super::mischief::{Mischief, MischiefPlan};
use super::name::ShardName;
use super::number::Number;
use super::operation::Operation;
use super::rates::Calls;
use super::served::ServedStreams;
use super::stream::VirtualStream;
use crate::stream::{ShardId, StreamSequence};

/// Orders that may wait.
pub(super) const ORDERS_MAX: usize = 64;

type Carried = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something to be done in the server's own runtime.
pub(super) type Order = Box<dyn FnOnce(Arc<ServedStreams>) -> Carried + Send>;

/// A shard as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualShard {
    /// Its id.
    pub id: ShardId,
    /// The shard it came from; that one may be gone already.
    pub parent: Option<ShardId>,
    /// Records may still come into it.
    pub open: bool,
    /// DescribeStream tells of it.
    pub listed: bool,
    /// The records in it.
    pub records: usize,
}

/// The shards of one table's latest stream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardControl {
    pub(super) table: String,
    pub(super) orders: mpsc::Sender<Order>,
}

impl ShardControl {
    async fn order<T, F>(
        &self,
        carry_out: impl FnOnce(Arc<ServedStreams>, String) -> F + Send + 'static,
    ) -> Result<T, ShardsError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ShardsError>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let table = self.table.clone();
        let order: Order = Box::new(move |streams| {
            Box::pin(async move {
                // Whoever ordered it may have gone.
                tell.send(carry_out(streams, table).await).ok();
            })
        });
        self.orders.send(order).await.map_err(|_| ShardsError::Stopped)?;
        told.await.map_err(|_| ShardsError::Stopped)?
    }

    async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut VirtualStream, u64) -> Result<T, ShardsError> + Send + 'static,
    ) -> Result<T, ShardsError> {
        self.order(|streams, table| async move { streams.change(&table, act).await }).await
    }

    /// All shards, parents before their children.
    ///
    /// # Errors
    /// When the table has no stream.
    pub async fn all(&self) -> Result<Vec<VirtualShard>, ShardsError> {
        let shown = |stream: &VirtualStream| {
            let shards = stream.layout.behind(None).map(|(name, shard)| VirtualShard {
                id: name.id(),
                parent: shard.parent.map(ShardName::id),
                open: shard.end.is_none(),
                listed: shard.listed,
                records: stream.log.count(name),
            });
            shards.collect()
        };
        self.act(move |stream, _| Ok(shown(stream))).await
    }

    /// The open shards, in order of their hashes.
    ///
    /// # Errors
    /// When the table has no stream.
    pub async fn open(&self) -> Result<Vec<ShardId>, ShardsError> {
        self.act(|stream, _| Ok(stream.layout.open().map(ShardName::id).collect())).await
    }

    /// The open shard in which changes of an item stand.
    ///
    /// # Errors
    /// When the table has no stream, or its stream has ended.
    pub async fn of_item(&self, partition: KeyPart, sort: Option<KeyPart>) -> Result<ShardId, ShardsError> {
        let point = Point::of_item(&partition, sort.as_ref());
        self.act(move |stream, _| stream.layout.open_at(&point).map(ShardName::id).ok_or(ShardsError::Ended)).await
    }

    /// Closes a shard; answers its one child.
    ///
    /// # Errors
    /// When the shard is not open.
    pub async fn roll(&self, shard: &ShardId) -> Result<ShardId, ShardsError> {
        let shard = named(shard)?;
        self.act(move |stream, now| stream.layout.roll(shard, true, now).map(ShardName::id)).await
    }

    /// Closes a shard whose child is not listed yet; answers the child, into which records go already.
    ///
    /// # Errors
    /// When the shard is not open.
    pub async fn close(&self, shard: &ShardId) -> Result<ShardId, ShardsError> {
        let shard = named(shard)?;
        self.act(move |stream, now| stream.layout.roll(shard, false, now).map(ShardName::id)).await
    }

    /// Lists a shard that [`ShardControl::close`] has kept back.
    ///
    /// # Errors
    /// When there is no such shard.
    pub async fn list(&self, shard: &ShardId) -> Result<(), ShardsError> {
        let shard = named(shard)?;
        self.act(move |stream, _| stream.layout.list(shard)).await
    }

    /// Closes a shard; answers its two children, with half of its hashes each.
    ///
    /// # Errors
    /// When the shard is not open, or has one hash only.
    pub async fn split(&self, shard: &ShardId) -> Result<[ShardId; 2], ShardsError> {
        let shard = named(shard)?;
        self.act(move |stream, now| Ok(stream.layout.split(shard, now)?.map(ShardName::id))).await
    }

    /// Divides an item collection: closes its shard, and the second child has the items of this partition key from this
    /// sort key on, and what lies behind them.
    ///
    /// # Errors
    /// When it is divided there already.
    pub async fn split_collection(&self, partition: KeyPart, sort: KeyPart) -> Result<[ShardId; 2], ShardsError> {
        let point = Point::of_item(&partition, Some(&sort));
        self.act(move |stream, now| Ok(stream.layout.split_at(point, now)?.map(ShardName::id))).await
    }

    /// Trims a shard up to this record, itself too.
    ///
    /// # Errors
    /// When there is no such shard.
    pub async fn trim(&self, shard: &ShardId, through: &StreamSequence) -> Result<(), ShardsError> {
        let digits = through.digits();
        let (shard, through) = (named(shard)?, Number::parse(&digits).ok_or(ShardsError::NoNumber(digits))?);
        self.act(move |stream, _| stream.trim(shard, through)).await
    }

    /// Trims all that is in a shard now.
    ///
    /// # Errors
    /// When there is no such shard.
    pub async fn trim_all(&self, shard: &ShardId) -> Result<(), ShardsError> {
        let shard = named(shard)?;
        self.act(move |stream, _| stream.trim(shard, stream.layout.last())).await
    }

    /// Takes a closed shard away, as AWS does a day after it was closed: it is not listed any more, and iterators on it
    /// read what was trimmed.
    ///
    /// # Errors
    /// When the shard is open.
    pub async fn remove(&self, shard: &ShardId) -> Result<(), ShardsError> {
        let shard = named(shard)?;
        self.act(move |stream, _| stream.remove(shard)).await
    }

    /// Lets all iterators expire that were given out so far, of every stream of this server.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn expire_iterators(&self) -> Result<(), ShardsError> {
        self.order(|streams, _| async move {
            streams.expire_iterators();
            Ok(())
        })
        .await
    }

    /// The calls of each operation so far, of all clients and streams of this server.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn calls(&self) -> Result<BTreeMap<&'static str, Calls>, ShardsError> {
        self.order(|streams, _| async move { Ok(streams.rates().calls()) }).await
    }

    /// Lets the next calls of an operation go wrong, each in one of these ways, in turn. What can make no difference to a
    /// call waits for one to which it can.
    ///
    /// # Errors
    /// When the operation does not go wrong so, or more than 1000 calls are scripted.
    pub async fn next(&self, operation: Operation, mischiefs: &[Mischief]) -> Result<(), ShardsError> {
        let mischiefs = mischiefs.to_vec();
        self.order(move |streams, _| async move { streams.misbehaviour().script(operation, &mischiefs) }).await
    }

    /// Lets calls go wrong by chance from now on, in the place of an earlier plan. What is scripted comes first.
    ///
    /// # Errors
    /// When an operation does not go wrong as the plan says.
    pub async fn misbehave(&self, plan: MischiefPlan) -> Result<(), ShardsError> {
        self.order(move |streams, _| async move { streams.misbehaviour().follow(plan) }).await
    }

    /// Lets nothing go wrong any more: what was scripted and has not struck is forgotten.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn behave(&self) -> Result<(), ShardsError> {
        self.order(|streams, _| async move {
            streams.misbehaviour().behave();
            Ok(())
        })
        .await
    }

    /// How often what has gone wrong so far.
    ///
    /// # Errors
    /// When the server has stopped.
    pub async fn struck(&self) -> Result<Struck, ShardsError> {
        self.order(|streams, _| async move { Ok(streams.misbehaviour().struck()) }).await
    }
}

fn named(shard: &ShardId) -> Result<ShardName, ShardsError> {
    ShardName::parse(shard.as_str()).ok_or_else(|| ShardsError::Unknown(shard.clone()))
}
