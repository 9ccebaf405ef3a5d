//! What is to be known of what was seen: of members, handlers and leases. Pure; what is wrong is left to `problems`.

use std::time::Duration;

use serde::Serialize;

use super::look::{HandlerRows, Seen};
use super::problems::{Problem, Standard, problems};
use crate::fleet::{LeaseKind, Member, MemberId};
use crate::handler::HandlerName;
use crate::relay_table::LeaseRow;

/// The fleet at one look.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) at: String,
    /// The version of the view, raised by every change of who is there.
    pub(crate) view: u64,
    pub(crate) problems: Vec<Problem>,
    pub(crate) members: Vec<MemberShown>,
    pub(crate) handlers: Vec<HandlerShown>,
    pub(crate) leases: Vec<LeaseShown>,
}

/// One replica.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemberShown {
    pub(crate) member: String,
    /// `joining`, `member`, `leaving`, `late` or `dead`.
    pub(crate) state: &'static str,
    pub(crate) version: String,
    pub(crate) renewed_at: Option<String>,
    pub(crate) renewed_secs_ago: Option<u64>,
    /// Shards it reads, each for one handler.
    pub(crate) shards: usize,
    /// Segments of jobs that it reads.
    pub(crate) segments: usize,
    pub(crate) handlers: Vec<String>,
}

/// One handler.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HandlerShown {
    pub(crate) handler: String,
    /// `following`, `backfill`, `reconcile`, `paused`, `unread` or `not run`.
    pub(crate) state: &'static str,
    pub(crate) replicas: usize,
    /// Shards that are not finished.
    pub(crate) shards: usize,
    /// Those among them that nobody reads.
    pub(crate) unread: usize,
    /// The age of the oldest record that it has not been given; none when it is not known.
    pub(crate) lag_secs: Option<u64>,
    pub(crate) parked: usize,
    pub(crate) deferred: usize,
    pub(crate) job: Option<JobShown>,
}

/// A handler's job under way.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct JobShown {
    pub(crate) kind: &'static str,
    pub(crate) started_at: String,
    pub(crate) rows: u64,
    /// As DynamoDB says: brought up to date every six hours.
    pub(crate) rows_in_table: u64,
    pub(crate) reason: String,
}

/// One lease.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeaseShown {
    pub(crate) handler: String,
    /// A shard's id, or the name of a segment or of the desk.
    pub(crate) shard: String,
    pub(crate) kind: &'static str,
    /// `held`, `handing over`, `free`, `abandoned` (its owner is dead or late) or `finished`.
    pub(crate) state: &'static str,
    pub(crate) owner: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) updated_at: Option<String>,
    pub(crate) updated_secs_ago: Option<u64>,
}

impl Status {
    pub(crate) fn new(seen: &Seen, standard: &Standard) -> Self {
        let mut leases: Vec<&LeaseRow> = seen.handlers.values().flat_map(|rows| &rows.leases).collect();
        leases.sort_by_key(|row| (&row.lease.handler, row.lease.kind, &row.lease.shard));
        let mut shown = Self {
            at: seen.at.to_string(),
            view: seen.roll.fleet.view.version,
            problems: Vec::new(),
            members: seen.roll.fleet.members.iter().map(|member| member_shown(seen, member)).collect(),
            handlers: seen.handlers.iter().map(|(name, rows)| handler_shown(seen, name, rows)).collect(),
            leases: leases.into_iter().map(|row| lease_shown(seen, row)).collect(),
        };
        shown.problems = problems(&shown, seen, standard);
        shown
    }
}

fn member_shown(seen: &Seen, member: &Member) -> MemberShown {
    let renewed_at = seen.roll.told.get(&member.id).and_then(|(renewed_at, _)| *renewed_at);
    let state = match () {
        () if member.dead => "dead",
        () if !seen.renews(&member.id) => "late",
        () if member.leaving => "leaving",
        () if seen.roll.fleet.view.members.contains(&member.id) => "member",
        () => "joining",
    };
    let holds = |kind: LeaseKind| {
        let leases = seen.handlers.values().flat_map(|rows| &rows.leases).map(|row| &row.lease);
        leases.filter(|lease| lease.kind == kind && !lease.finished && lease.owner.as_ref() == Some(&member.id)).count()
    };
    MemberShown {
        member: member.id.to_string(),
        state,
        version: member.version.clone(),
        renewed_at: renewed_at.map(|moment| moment.to_string()),
        renewed_secs_ago: renewed_at.map(|renewed_at| seen.at.since(renewed_at).as_secs()),
        shards: holds(LeaseKind::Shard),
        segments: holds(LeaseKind::Segment),
        handlers: member.handlers.iter().map(ToString::to_string).collect(),
    }
}

fn handler_shown(seen: &Seen, name: &HandlerName, rows: &HandlerRows) -> HandlerShown {
    let running = seen.roll.fleet.members.iter().filter(|member| member.handlers.contains(name));
    let replicas = running.filter(|member| seen.renews(&member.id)).count();
    let shards = rows.leases.iter().filter(|row| row.lease.kind == LeaseKind::Shard && !row.lease.finished).count();
    let unread = rows.leases.iter().filter(|row| seen.is_unread(row)).count();
    let job = rows.job.as_ref().filter(|(job, _)| job.finished_at.is_none());
    let state = match () {
        () if replicas == 0 => "not run",
        () if seen.paused.contains(name) => "paused",
        () if unread > 0 => "unread",
        () => job.map_or("following", |(job, _)| job.kind.as_str()),
    };
    HandlerShown {
        handler: name.to_string(),
        state,
        replicas,
        shards,
        unread,
        lag_secs: lag(seen, name, rows, unread).map(|lag| lag.as_secs()),
        parked: rows.parked,
        deferred: rows.deferred,
        job: job.map(|(job, scanned)| JobShown {
            kind: job.kind.as_str(),
            started_at: job.started_at.to_string(),
            rows: scanned.rows,
            rows_in_table: seen.rows_in_table,
            reason: job.reason.clone(),
        }),
    }
}

/// What the replicas that run the handler told, older by the time since, and what waits where nobody reads.
fn lag(seen: &Seen, name: &HandlerName, rows: &HandlerRows, unread: usize) -> Option<Duration> {
    let told = |member: &Member| -> Option<Duration> {
        let (renewed_at, report) = seen.roll.told.get(&member.id)?;
        let since = seen.at.since((*renewed_at)?);
        let lag = report.lags_secs.get(name).map(|secs| Duration::from_secs(*secs));
        Some(lag.map_or(Duration::ZERO, |lag| lag + since))
    };
    let running = seen.roll.fleet.members.iter().filter(|member| member.handlers.contains(name));
    let told = running.filter(|member| seen.renews(&member.id)).filter_map(told).max();
    // Where it was looked and nothing waits, nothing lags.
    let looked = (unread > 0 && seen.no_stream.is_none()).then_some(Duration::ZERO);
    told.max(rows.unread).max(looked)
}

fn lease_shown(seen: &Seen, row: &LeaseRow) -> LeaseShown {
    let LeaseRow { lease, updated_at, .. } = row;
    let abandoned = lease.owner.as_ref().is_some_and(|owner| !seen.renews(owner));
    let state = match &lease.owner {
        _ if lease.finished => "finished",
        None => "free",
        Some(_) if abandoned => "abandoned",
        Some(_) if lease.announced => "handing over",
        Some(_) => "held",
    };
    LeaseShown {
        handler: lease.handler.to_string(),
        shard: lease.shard.to_string(),
        kind: match lease.kind {
            LeaseKind::Shard => "shard",
            LeaseKind::Segment => "segment",
            LeaseKind::Desk => "desk",
        },
        state,
        owner: lease.owner.as_ref().map(MemberId::to_string),
        epoch: lease.epoch.0,
        updated_at: updated_at.map(|moment| moment.to_string()),
        updated_secs_ago: updated_at.map(|updated_at| seen.at.since(updated_at).as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    use crate::backfill::{Job, JobKind, Scanned};
    use crate::event::Timestamp;
    use crate::fleet::{Epoch, Fleet, Lease, Patience, Report, View};
    use crate::relay_table::RollCall;
    use crate::stream::{Branch, ShardId};

    const NOW_MILLIS: i64 = 1_700_000_000_000;

    fn handler() -> HandlerName {
        HandlerName::new("orders").unwrap()
    }

    fn secs_ago(secs: u64) -> Timestamp {
        Timestamp::from_unix_millis(NOW_MILLIS).minus(Duration::from_secs(secs))
    }

    fn member(id: &str, version: &str) -> Member {
        Member {
            id: MemberId::new(id),
            counter: 9,
            dead: false,
            leaving: false,
            view: 1,
            handlers: [handler()].into(),
            version: version.to_owned(),
            patience: Patience { expires_after: Duration::from_secs(8), ..Patience::default() },
        }
    }

    fn lease(shard: &str, kind: LeaseKind, owner: Option<&str>) -> LeaseRow {
        let shard = ShardId::new(shard);
        let lease = Lease::new(handler(), shard.clone(), kind, Branch::of(&shard), None);
        let lease = Lease { owner: owner.map(MemberId::new), epoch: Epoch(2), ..lease };
        LeaseRow { lease, checkpoint: None, updated_at: None }
    }

    /// Two replicas that share three shards, each having renewed two seconds ago.
    fn healthy() -> Seen {
        let members = vec![member("a", "1.0.0"), member("b", "1.0.0")];
        let view = View { version: 4, members: members.iter().map(|member| member.id.clone()).collect() };
        let told = |lag: Option<u64>| {
            let lags_secs = lag.map(|lag| (handler(), lag)).into_iter().collect();
            (Some(secs_ago(2)), Report { lags_secs })
        };
        let told = BTreeMap::from([(MemberId::new("a"), told(Some(7))), (MemberId::new("b"), told(None))]);
        let shard = |number: u32, owner| lease(&format!("s{number}"), LeaseKind::Shard, Some(owner));
        let leases = vec![lease("desk", LeaseKind::Desk, Some("a")), shard(1, "a"), shard(2, "b"), shard(3, "b")];
        Seen {
            at: secs_ago(0),
            roll: RollCall { fleet: Fleet { view, members, lineage: 1 }, told },
            handlers: BTreeMap::from([(handler(), HandlerRows { leases, ..HandlerRows::default() })]),
            rows_in_table: 100,
            paused: BTreeSet::new(),
            no_stream: None,
        }
    }

    fn standard() -> Standard {
        Standard { configured: vec![handler()], safety_alarm: Duration::from_hours(6), ..Standard::default() }
    }

    fn of(seen: &Seen) -> Status {
        Status::new(seen, &standard())
    }

    fn mends(status: &Status) -> Vec<&str> {
        status.problems.iter().map(|problem| problem.mend.as_str()).collect()
    }

    #[test]
    fn a_healthy_fleet_has_no_problem() {
        let status = of(&healthy());
        assert_eq!(status.problems, []);
        let shares: Vec<_> = status.members.iter().map(|member| (member.state, member.shards)).collect();
        assert_eq!(shares, [("member", 1), ("member", 2)]);
        let shown = &status.handlers[0];
        assert_eq!((shown.state, shown.replicas, shown.shards, shown.unread), ("following", 2, 3, 0));
        assert_eq!(shown.lag_secs, Some(9), "seven seconds, two seconds ago");
        assert_eq!(status.leases.iter().filter(|lease| lease.state == "held").count(), 4);
    }

    #[test]
    fn where_nobody_renews_nothing_is_delivered() {
        let mut seen = healthy();
        for (renewed_at, _) in seen.roll.told.values_mut() {
            *renewed_at = Some(secs_ago(9));
        }
        seen.handlers.get_mut(&handler()).unwrap().unread = Some(Duration::from_mins(5));
        let status = of(&seen);
        assert!(status.problems[0].problem.contains("no replica runs"));
        assert_eq!(mends(&status)[0], "angzarr-relay run");
        let shown = &status.handlers[0];
        assert_eq!((shown.state, shown.unread, shown.lag_secs), ("not run", 3, Some(300)));
        assert!(status.leases.iter().all(|lease| lease.state == "abandoned"));
        assert!(status.members.iter().all(|member| member.state == "late"));
        // Nothing waits there: the handler has everything.
        seen.handlers.get_mut(&handler()).unwrap().unread = None;
        assert_eq!(of(&seen).handlers[0].lag_secs, Some(0));
        seen.no_stream = Some("denied".to_owned());
        let blind = of(&seen);
        assert_eq!(blind.handlers[0].lag_secs, None, "it was not looked");
        assert!(mends(&blind).contains(&"angzarr-relay doctor"));
    }

    #[test]
    fn what_is_wrong_comes_with_what_mends_it() {
        let mut seen = healthy();
        seen.paused = [handler()].into();
        seen.roll.fleet.members[1].version = "1.1.0".to_owned();
        let rows = seen.handlers.get_mut(&handler()).unwrap();
        rows.parked = 3;
        rows.leases[1].lease.owner = None;
        rows.unread = Some(Duration::from_hours(19));
        let status = of(&seen);
        let mends = mends(&status);
        assert!(mends.contains(&"angzarr-relay resume orders"), "{mends:?}");
        assert!(mends.contains(&"angzarr-relay parked list --handler orders"), "{mends:?}");
        let says = |text: &str| status.problems.iter().any(|problem| problem.problem.contains(text));
        assert!(
            says("several versions") && says("1 of the 3 shards") && says("in 300 minutes"),
            "{:?}",
            status.problems
        );
        assert_eq!(status.leases[0].state, "free");
    }

    #[test]
    fn a_job_under_way_is_shown_and_one_that_is_done_is_not() {
        let mut seen = healthy();
        let mut job = Job::new(JobKind::Backfill, secs_ago(60), 4, "the handler is new", "stream");
        let scanned = Scanned { rows: 40, roots: 4, units: 1.0 };
        seen.handlers.get_mut(&handler()).unwrap().job = Some((job.clone(), scanned));
        let status = of(&seen);
        let shown = status.handlers[0].job.as_ref().unwrap();
        assert_eq!((status.handlers[0].state, shown.rows, shown.rows_in_table), ("backfill", 40, 100));
        job.finished_at = Some(secs_ago(0));
        seen.handlers.get_mut(&handler()).unwrap().job = Some((job, scanned));
        assert_eq!(of(&seen).handlers[0].job, None);
    }

    #[test]
    fn a_lease_and_a_member_are_shown_as_they_are() {
        let mut seen = healthy();
        seen.roll.fleet.members[0].leaving = true;
        seen.roll.fleet.members[1].dead = true;
        let mut joining = member("c", "1.0.0");
        joining.handlers.clear();
        seen.roll.fleet.members.push(joining);
        let rows = seen.handlers.get_mut(&handler()).unwrap();
        rows.leases[1].lease.announced = true;
        rows.leases[2].lease.finished = true;
        let status = of(&seen);
        let of_members: Vec<_> = status.members.iter().map(|member| member.state).collect();
        assert_eq!(of_members, ["leaving", "dead", "joining"]);
        let of_leases: Vec<_> = status.leases.iter().map(|lease| lease.state).collect();
        assert_eq!(of_leases, ["handing over", "finished", "abandoned", "held"]);
        assert_eq!(status.handlers[0].unread, 1);
    }
}
