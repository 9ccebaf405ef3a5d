//! How a call to the outside goes wrong: late, refused, made with the answer lost, or carried out long after whoever made
//! it has given it up. What each port does is in `faulty_stream`, `faulty_tables` and `faulty_fleet`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::storage::StorageError;
use angzarr_relay::stream::{RecordPage, ShardIterator};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::plan::{Fault, Plan};
use crate::world::World;

/// The longest a call takes to arrive: longer than a lease.
const TRAVELS_MAX: Duration = Duration::from_secs(14);

/// So long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a call answers that was not carried out, or whose answer is lost.
pub(crate) fn unavailable(operation: &'static str) -> StorageError {
    StorageError::Unavailable { operation, table: "simulated".into(), source: "simulated".into() }
}

/// All ports of one replica over one world.
pub(crate) struct Faulty {
    pub(crate) world: World,
    pub(crate) plan: Arc<Plan>,
    /// The replica.
    pub(crate) name: String,
    pub(crate) last_page: Mutex<Option<(ShardIterator, RecordPage)>>,
}

impl Faulty {
    pub(crate) fn new(world: World, plan: Arc<Plan>, name: String) -> Self {
        Self { world, plan, name, last_page: Mutex::new(None) }
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.world.clone(), self.plan.clone(), self.name.clone())
    }

    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        self.plan.has(fault) && self.world.chance.percent(self.plan.percent)
    }

    pub(crate) async fn latency(&self) {
        sleep(Duration::from_millis(1 + self.world.chance.below(20))).await;
    }

    /// A call that only reads.
    pub(crate) async fn read<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        self.latency().await;
        if self.strikes(Fault::TableUnavailable) {
            self.world.happened("table unavailable");
            return Err(unavailable(operation));
        }
        let answer = call.await?;
        self.latency().await;
        Ok(answer)
    }

    /// A call that changes something: it may fail before it is made, take effect late, or have its answer lost.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        effect: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.latency().await;
        if self.strikes(Fault::TableUnavailable) {
            self.world.happened("table unavailable");
            return Err(unavailable(operation));
        }
        let answer = if self.strikes(Fault::LateRequest) && self.world.chance.percent(30) {
            self.late(operation, effect).await?
        } else {
            effect.await?
        };
        if self.strikes(Fault::LostReply) {
            self.world.happened("write lost its reply");
            return Err(unavailable(operation));
        }
        self.latency().await;
        Ok(answer)
    }

    async fn late<T: Send + 'static>(
        &self,
        operation: &'static str,
        effect: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (tell, told) = oneshot::channel();
        let delay = self.world.chance.up_to(TRAVELS_MAX);
        let (world, name) = (self.world.clone(), self.name.clone());
        self.world.later(delay, async move {
            world.happened("call arrived late");
            world.note(&format!("{name}: a late {operation} arrives"));
            tell.send(effect.await).ok();
        });
        match timeout(PATIENCE, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unavailable(operation)),
        }
    }
}
