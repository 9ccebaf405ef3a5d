//! What is drawn for a run: its size, and which faults may strike. Everything follows from the seed; a plan that breaks
//! the contract is made smaller by taking away what it breaks without (`shrink`).

use std::collections::BTreeSet;
use std::fmt;

/// What may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A replica ends from one moment to the next.
    Crash,
    /// A replica stands still, for longer than a lease at times, and goes on.
    Pause,
    /// The clocks of replicas go faster and slower, and tell other times.
    Clocks,
    /// A call to the tables fails before it is made.
    TableUnavailable,
    /// A call is made, and its answer lost.
    LostReply,
    /// A call takes effect late, perhaps after whoever made it has given it up or is gone.
    LateRequest,
    /// The stream, or the scan, asks to be read less often.
    Throttled,
    /// An iterator has expired.
    ExpiredIterator,
    /// The stream's children of a shard are not listed yet.
    UnlistedChildren,
    /// A page comes twice.
    RepeatedPage,
    /// Records of one transaction come in another order.
    Reordered,
    /// The stream never brings a record.
    DroppedRecord,
    /// A root's records are divided over shards, as an item collection's may be.
    Divided,
    /// Shards end, and have one child or two.
    Reshard,
    /// Shards lose their oldest records, or are gone.
    Trim,
    /// A handler refuses for now.
    HandlerFails,
    /// A handler takes a part of a batch.
    HandlerTakesPart,
    /// A handler does not answer.
    HandlerHangs,
    /// A handler panics.
    HandlerPanics,
    /// A handler's receiver is down for everybody.
    HandlerDown,
    /// A handler refuses one event for good.
    Poisoned,
    /// Operators order roots back, pause handlers, release and pass parked roots.
    Operators,
}

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        Self::Crash,
        Self::Pause,
        Self::Clocks,
        Self::TableUnavailable,
        Self::LostReply,
        Self::LateRequest,
        Self::Throttled,
        Self::ExpiredIterator,
        Self::UnlistedChildren,
        Self::RepeatedPage,
        Self::Reordered,
        Self::DroppedRecord,
        Self::Divided,
        Self::Reshard,
        Self::Trim,
        Self::HandlerFails,
        Self::HandlerTakesPart,
        Self::HandlerHangs,
        Self::HandlerPanics,
        Self::HandlerDown,
        Self::Poisoned,
        Self::Operators,
    ];

    /// Those after which an event may come again that was accepted.
    fn repeats(self) -> bool {
        !matches!(self, Self::Reordered | Self::DroppedRecord | Self::ExpiredIterator | Self::RepeatedPage)
    }
}

/// What is drawn for a run.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: BTreeSet<Fault>,
    /// So many calls of a hundred are struck.
    pub(crate) percent: u64,
    /// Replicas at once, at the most. With one, another takes its place when it ends.
    pub(crate) replicas_max: usize,
    pub(crate) roots: u64,
    pub(crate) appends: u64,
    /// Little memory.
    pub(crate) tight: bool,
}

impl Plan {
    /// Everything may strike.
    pub(crate) fn faulty(seed: u64) -> Self {
        Self {
            seed,
            faults: Fault::ALL.into(),
            percent: 2 + seed % 8,
            replicas_max: usize::try_from(1 + seed % 4).unwrap(),
            roots: 3 + seed % 12,
            appends: 120,
            tight: seed.is_multiple_of(2),
        }
    }

    /// Nothing strikes but what must not repeat anything; replicas come and stop.
    pub(crate) fn calm(seed: u64) -> Self {
        let replicas_max = usize::try_from(1 + seed % 4).unwrap();
        let mut faults = BTreeSet::new();
        if replicas_max == 1 {
            // Where two replicas meet on a root what is not written yet comes again (clause 3 b).
            faults.insert(Fault::Reshard);
        }
        Self { faults, percent: 0, roots: 5, appends: 60, replicas_max, ..Self::faulty(seed) }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Nothing may come again: every end is a clean one, every root has one lane.
    pub(crate) fn repeats_nothing(&self) -> bool {
        self.faults.iter().all(|fault| !fault.repeats() || (*fault == Fault::Reshard && self.replicas_max == 1))
    }

    /// The plans that are a little smaller.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut plans = Vec::new();
        for fault in &self.faults {
            let mut plan = self.clone();
            plan.faults.remove(fault);
            plans.push(plan);
        }
        if self.replicas_max > 1 {
            plans.push(Self { replicas_max: self.replicas_max - 1, ..self.clone() });
        }
        if self.roots > 1 {
            plans.push(Self { roots: self.roots / 2, ..self.clone() });
        }
        if self.appends > 1 {
            plans.push(Self { appends: self.appends / 2, ..self.clone() });
        }
        if self.tight {
            plans.push(Self { tight: false, ..self.clone() });
        }
        plans
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, faults, percent, replicas_max, roots, appends, tight } = self;
        write!(formatter, "seed {seed}: {appends} appends to {roots} roots, {replicas_max} replicas at the most, ")?;
        write!(formatter, "{percent} % of the calls are struck{}", if *tight { ", little memory" } else { "" })?;
        write!(formatter, ", {faults:?}")
    }
}

/// The smallest plan found that breaks the contract as well, by `breaks`.
pub(crate) fn shrink(mut plan: Plan, breaks: impl Fn(&Plan) -> bool) -> Plan {
    while let Some(smaller) = plan.smaller().into_iter().find(|smaller| breaks(smaller)) {
        plan = smaller;
    }
    plan
}
