//! The writer's side of the world: events into the table, and into the stream in any order or not at all; shards that
//! end, divide, lose records and vanish.

use std::collections::BTreeMap;
use std::time::Duration;

use angzarr_relay::event::{Chunked, Event, Root, Sequence, cut};
use angzarr_relay::stream::{Change, ShardId};
use bytes::Bytes;

use crate::plan::{Fault, Plan};
use crate::world::{World, payload};

/// The size of a chunk, in bytes.
const CHUNK_BYTES: usize = 20;

/// Roots that have a past and no present.
pub(crate) const HISTORIC_ROOTS: u64 = 6;

const TYPES: [&str; 4] = ["OrderPlaced", "OrderShipped", "Noted", "Noted"];

/// What the writer keeps.
#[derive(Default)]
pub(crate) struct Writing {
    open: Vec<ShardId>,
    closed: Vec<ShardId>,
    last: BTreeMap<Root, Sequence>,
    pushed: u64,
}

impl Writing {
    pub(crate) fn over(open: Vec<ShardId>) -> Self {
        Self { open, ..Self::default() }
    }
}

pub(crate) fn root_of(number: u64) -> Root {
    let domain = if number % 5 == 4 { "stock" } else { "orders" };
    Root::new(domain, "", &format!("r{number}")).unwrap()
}

/// What is written in one run, a little at a time.
pub(crate) struct Writer {
    world: World,
    plan: Plan,
    left: u64,
    next_at: Duration,
    pause: Duration,
}

impl Writer {
    /// Writes what was there before there was a relay, or a stream; then so many appends within `trouble`.
    pub(crate) fn begin(world: &World, plan: &Plan, trouble: Duration) -> Self {
        for root in 0..plan.roots + HISTORIC_ROOTS {
            for _ in 0..world.chance.below(4) {
                world.write(
                    &root_of(root),
                    &["OrderPlaced", "Noted", "OrderShipped"],
                    &mut world.writing.lock().unwrap(),
                );
            }
        }
        let pause = trouble / u32::try_from(plan.appends).unwrap();
        Self { world: world.clone(), plan: plan.clone(), left: plan.appends, next_at: Duration::ZERO, pause }
    }

    /// Writes what is due.
    pub(crate) fn write_on(&mut self) {
        while self.left > 0 && self.world.elapsed() >= self.next_at {
            self.left -= 1;
            self.append_any();
            self.next_at += self.world.chance.up_to(self.pause * 2);
        }
    }

    fn append_any(&self) {
        let (world, plan) = (&self.world, &self.plan);
        let root = root_of(world.chance.below(plan.roots));
        let count = 1 + world.chance.below(4);
        let chosen: Vec<&str> = (0..count).map(|_| TYPES[usize::try_from(world.chance.below(4)).unwrap()]).collect();
        world.append(&root, &chosen, plan);
        if world.chance.percent(5) {
            world.push_noise();
        }
        if plan.has(Fault::Reshard) && world.chance.percent(6) {
            world.reshard();
        }
        if plan.has(Fault::Trim) && world.chance.percent(2) {
            world.trim();
        }
    }

    /// What was lost on the stream is found with the next event of its root: each gets one that arrives.
    pub(crate) fn close_all(&self) {
        let quiet = Plan { faults: [].into(), ..self.plan.clone() };
        (0..self.plan.roots).for_each(|number| self.world.append(&root_of(number), &["OrderClosed"], &quiet));
    }
}

impl World {
    fn write(&self, root: &Root, types: &[&str], writing: &mut Writing) -> Vec<Event> {
        let mut made = Vec::new();
        for event_type in types {
            let sequence = writing.last.get(root).map_or(Sequence::FIRST, |last| last.next());
            writing.last.insert(root.clone(), sequence);
            let mut event = Event {
                root: root.clone(),
                sequence,
                event_type: (*event_type).into(),
                payload: payload(root, sequence),
                chunked: None,
                correlation_id: None,
                traceparent: None,
                created_at: self.now(),
            };
            if self.chance.percent(5) {
                self.store_in_chunks(&mut event);
            }
            self.events.put(event.clone());
            self.check(|checker| checker.committed(&event));
            made.push(event);
        }
        made
    }

    /// Takes the payload out of the event's row.
    fn store_in_chunks(&self, event: &mut Event) {
        let append_id = format!("{} {}", event.root, event.sequence);
        self.events.put_chunks(&append_id, cut(&event.payload, CHUNK_BYTES).collect());
        event.chunked = Some(Box::new(Chunked::new(&event.payload, CHUNK_BYTES, &append_id)));
        event.payload = Bytes::new();
        self.happened("payload in chunks");
    }

    /// Appends events to a root: into the table at once, into the stream in any order, perhaps not all of them.
    fn append(&self, root: &Root, types: &[&str], plan: &Plan) {
        let mut writing = self.writing.lock().unwrap();
        let mut made = self.write(root, types, &mut writing);
        if made.len() > 1 && plan.has(Fault::Reordered) && self.chance.percent(40) {
            let other = usize::try_from(self.chance.below(made.len() as u64 - 1)).unwrap() + 1;
            made.swap(0, other);
            self.happened("transaction reordered");
        }
        for event in made {
            if plan.has(Fault::DroppedRecord) && self.chance.percent(4) {
                self.happened("record dropped");
                self.note(&format!("dropped {} {}", event.root, event.sequence));
                continue;
            }
            let shard = self.shard_of(root, &mut writing, plan);
            writing.pushed += 1;
            self.check(|checker| {
                checker.streamed(shard.as_str(), writing.pushed, Some((root.clone(), event.sequence)));
            });
            self.note(&format!("wrote {} {} to {shard}", event.root, event.sequence));
            self.stream.push(&shard, self.now(), Change::Inserted(event));
        }
    }

    /// A root stays in one shard but for now and then, as an item collection that is split does.
    fn shard_of(&self, root: &Root, writing: &mut Writing, plan: &Plan) -> ShardId {
        let place = if plan.has(Fault::Divided) && self.chance.percent(5) {
            self.happened("item collection divided");
            self.chance.below(1000)
        } else {
            root.key().bytes().map(u64::from).sum()
        };
        writing.open[usize::try_from(place).unwrap() % writing.open.len()].clone()
    }

    fn push_noise(&self) {
        let mut writing = self.writing.lock().unwrap();
        let place = usize::try_from(self.chance.below(writing.open.len() as u64)).unwrap();
        let change = match self.chance.below(4) {
            0 => Change::Modified,
            1 => Change::Removed(None),
            2 => Change::Chunk,
            _ => Change::ForeignKey { problem: "somebody else's".into() },
        };
        writing.pushed += 1;
        self.check(|checker| checker.streamed(writing.open[place].as_str(), writing.pushed, None));
        self.stream.push(&writing.open[place], self.now(), change);
    }

    /// Rolls or splits one of the open shards.
    fn reshard(&self) {
        let mut writing = self.writing.lock().unwrap();
        let place = usize::try_from(self.chance.below(writing.open.len() as u64)).unwrap();
        let shard = writing.open.remove(place);
        let children = if writing.open.len() < 4 && self.chance.percent(50) { 2 } else { 1 };
        self.happened(if children == 2 { "shard split" } else { "shard rolled" });
        self.note(&format!("closed {shard}, {children} children"));
        writing.open.extend(self.stream.close_shard(&shard, children));
        writing.closed.push(shard);
    }

    /// Trims a closed shard, or takes it away whole.
    fn trim(&self) {
        let mut writing = self.writing.lock().unwrap();
        if writing.closed.is_empty() {
            return;
        }
        let shard = writing.closed.remove(0);
        self.happened("stream trimmed");
        if self.chance.percent(50) {
            self.note(&format!("removed {shard}"));
            self.stream.remove_shard(&shard);
            self.check(|checker| checker.trimmed(shard.as_str(), 0));
        } else {
            self.note(&format!("trimmed {shard}"));
            self.stream.trim(&shard, 1);
            self.check(|checker| checker.trimmed(shard.as_str(), 1));
        }
    }
}
