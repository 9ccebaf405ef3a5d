//! The look as text: what is wrong first, then members, handlers and leases in columns. Pure.

use std::time::Duration;

use crate::backfill::bar;
use crate::cli::output::Columns;
use crate::status::{HandlerShown, LeaseShown, MemberShown, Status};

/// Leases that are listed unasked.
const LEASES_MAX: usize = 30;

/// The whole look; `all_leases` lists them however many there are.
pub(super) fn text(status: &Status, all_leases: bool) -> String {
    let mut parts = vec![problems(status)];
    parts.extend(columns(
        ["REPLICA", "STATE", "VERSION", "RENEWED", "SHARDS", "SEGMENTS", "HANDLERS"],
        status.members.iter().map(member),
    ));
    parts.extend(columns(
        ["HANDLER", "STATE", "REPLICAS", "SHARDS", "UNREAD", "LAG", "PARKED", "DEFERRED", "JOB"],
        status.handlers.iter().map(handler),
    ));
    // Finished ones stay until their shards are gone: a day's.
    let open: Vec<&LeaseShown> = status.leases.iter().filter(|lease| lease.state != "finished").collect();
    if all_leases || open.len() <= LEASES_MAX {
        let headings = ["HANDLER", "LEASE", "STATE", "OWNER", "EPOCH", "UPDATED"];
        let listed: Vec<_> = if all_leases { status.leases.iter().collect() } else { open };
        parts.extend(columns(headings, listed.into_iter().map(lease)));
    } else {
        parts.push(format!("{} leases: --leases lists them", open.len()));
    }
    parts.join("\n\n")
}

fn problems(status: &Status) -> String {
    if status.problems.is_empty() {
        return "everything is well".to_owned();
    }
    let lines = status.problems.iter().map(|found| format!("!! {}\n   -> {}", found.problem, found.mend));
    lines.collect::<Vec<_>>().join("\n")
}

fn columns<const N: usize>(headings: [&'static str; N], rows: impl Iterator<Item = [String; N]>) -> Option<String> {
    Columns::new(headings).lines(rows.collect())
}

fn duration(secs: u64) -> String {
    humantime::format_duration(Duration::from_secs(secs)).to_string()
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn member(shown: &MemberShown) -> [String; 7] {
    [
        shown.member.clone(),
        shown.state.to_owned(),
        shown.version.clone(),
        or_none(shown.renewed_secs_ago.map(|secs| format!("{} ago", duration(secs)))),
        shown.shards.to_string(),
        shown.segments.to_string(),
        shown.handlers.join(","),
    ]
}

fn handler(shown: &HandlerShown) -> [String; 9] {
    let job = shown.job.as_ref().map(|job| format!("{} {}", job.kind, bar(job.rows, job.rows_in_table, false)));
    [
        shown.handler.clone(),
        shown.state.to_owned(),
        shown.replicas.to_string(),
        shown.shards.to_string(),
        shown.unread.to_string(),
        or_none(shown.lag_secs.map(duration)),
        shown.parked.to_string(),
        shown.deferred.to_string(),
        or_none(job),
    ]
}

fn lease(shown: &LeaseShown) -> [String; 6] {
    [
        shown.handler.clone(),
        shown.shard.clone(),
        shown.state.to_owned(),
        or_none(shown.owner.clone()),
        shown.epoch.to_string(),
        or_none(shown.updated_secs_ago.map(|secs| format!("{} ago", duration(secs)))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Problem;

    fn status(leases: usize) -> Status {
        let lease = |number: usize| LeaseShown {
            handler: "orders".into(),
            shard: format!("s{number}"),
            kind: "shard",
            state: if number == 0 { "finished" } else { "held" },
            owner: Some("a".into()),
            epoch: 1,
            updated_at: None,
            updated_secs_ago: None,
        };
        Status {
            at: String::new(),
            view: 1,
            problems: Vec::new(),
            members: Vec::new(),
            handlers: Vec::new(),
            leases: (0..leases).map(lease).collect(),
        }
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut status = status(2);
        assert!(text(&status, false).starts_with("everything is well\n\nHANDLER"));
        let (problem, mend) = ("3 roots are parked".to_owned(), "angzarr-relay parked list".to_owned());
        status.problems.push(Problem { problem, mend });
        assert!(text(&status, false).starts_with("!! 3 roots are parked\n   -> angzarr-relay parked list\n"));
    }

    #[test]
    fn many_leases_are_listed_when_asked_for() {
        let shown = text(&status(2), false);
        assert!(shown.contains("s1") && !shown.contains("s0"), "{shown}");
        assert!(text(&status(2), true).contains("s0"));
        let many = status(LEASES_MAX + 2);
        assert!(text(&many, false).ends_with("31 leases: --leases lists them"), "{}", text(&many, false));
        assert!(text(&many, true).contains("s31"));
    }
}
