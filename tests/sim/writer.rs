//! The writer's side of the world: events into the table, and into the stream in any order or not at all; shards that
//! end, divide, lose records and vanish.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Roots with records that never came.
    dropped: BTreeSet<Root>,
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
        if plan.has(Fault::Trim) && world.chance.percent(10) {
            world.trim();
        }
    }

    /// A record that never came is found with the next event of its root: each such root gets one that arrives. The others
    /// get none, so that a loss the stream tells of must be told on.
    pub(crate) fn close_all(&self) {
        let dropped = self.world.writing.lock().unwrap().dropped.clone();
        for root in &dropped {
            self.world.append(root, &["OrderClosed"], &self.quiet());
        }
    }

    /// A shard ends, and is gone before anybody has read the last of it: nothing else shows what that was.
    pub(crate) fn lose_last(&self) {
        let begun = self.world.begun_by_all();
        let of_root = |number: &u64| {
            let mut writing = self.world.writing.lock().unwrap();
            let shard = self.world.shard_of(&root_of(*number), &mut writing, &self.quiet());
            begun.contains(&shard).then_some((root_of(*number), shard))
        };
        let Some((root, shard)) = (0..self.plan.roots).find_map(|number| of_root(&number)) else { return };
        self.world.append(&root, &["OrderPlaced", "OrderShipped"], &self.quiet());
        self.world.close(&shard, 1);
        self.world.remove(&shard);
        self.world.happened("last of a shard lost");
    }

    /// The plan without any faults.
    fn quiet(&self) -> Plan {
        Plan { faults: [].into(), ..self.plan.clone() }
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
                writing.dropped.insert(root.clone());
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
        let writing = self.writing.lock().unwrap();
        let place = usize::try_from(self.chance.below(writing.open.len() as u64)).unwrap();
        let shard = writing.open[place].clone();
        let children = if writing.open.len() < 5 && self.chance.percent(50) { 2 } else { 1 };
        self.happened(if children == 2 { "shard split" } else { "shard rolled" });
        drop(writing);
        self.close(&shard, children);
    }

    fn close(&self, shard: &ShardId, children: usize) {
        let mut writing = self.writing.lock().unwrap();
        self.note(&format!("closed {shard}, {children} children"));
        writing.open.retain(|open| open != shard);
        writing.open.extend(self.stream.close_shard(shard, children));
        writing.closed.push(shard.clone());
    }

    /// Trims a closed shard, or takes it away whole. The stream keeps its records for a day, of which a run has a minute or
    /// two: a handler that has not begun to read a shard by then knows of its loss by the time that has passed
    /// (`backfill::at_first_sight`, `at_opening`, `after_job`). So only such shards are touched as all have begun to read.
    fn trim(&self) {
        let mut writing = self.writing.lock().unwrap();
        let begun = self.begun_by_all();
        let begun: Vec<usize> =
            (0..writing.closed.len()).filter(|place| begun.contains(&writing.closed[*place])).collect();
        if begun.is_empty() {
            return;
        }
        let place = begun[usize::try_from(self.chance.below(begun.len() as u64)).unwrap()];
        let shard = writing.closed.remove(place);
        self.happened("stream trimmed");
        if self.chance.percent(50) {
            self.remove(&shard);
        } else {
            self.note(&format!("trimmed {shard}"));
            self.stream.trim(&shard, 1);
            self.check(|checker| checker.trimmed(shard.as_str(), 1));
        }
    }

    /// The shards that all handlers have a checkpoint on.
    fn begun_by_all(&self) -> BTreeSet<ShardId> {
        let handlers = self.check(|checker| checker.handlers());
        let begun = handlers.iter().map(|handler| self.checkpoints(handler).into_keys().collect::<BTreeSet<_>>());
        begun.reduce(|all, begun| &all & &begun).unwrap_or_default()
    }

    fn remove(&self, shard: &ShardId) {
        self.note(&format!("removed {shard}"));
        self.stream.remove_shard(shard);
        self.check(|checker| checker.trimmed(shard.as_str(), 0));
    }
}
