//! What is wrong by one look. Pure.
//!
//! Invariant: every problem comes with the command, or the deed, that mends it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::look::Seen;
use super::view::{HandlerShown, Status};
use crate::config::Config;
use crate::fleet::Member;
use crate::handler::HandlerName;
use crate::shell::own_command;
use crate::stream::STREAM_RETENTION;

/// What the look is judged by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standard {
    pub(super) configured: Vec<HandlerName>,
    pub(super) config_path: Option<PathBuf>,
    pub(super) safety_alarm: Duration,
}

impl Standard {
    pub(crate) fn of(config: &Config, config_path: Option<&Path>) -> Self {
        Self {
            configured: config.handlers.iter().map(|handler| handler.name.clone()).collect(),
            config_path: config_path.map(Path::to_owned),
            safety_alarm: config.relay.safety_alarm,
        }
    }

    fn command(&self, words: &[&str]) -> String {
        own_command(words, self.config_path.as_deref())
    }
}

/// What is wrong, and what mends it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) problem: String,
    pub(crate) mend: String,
}

/// Everything that is wrong.
pub(super) fn problems(shown: &Status, seen: &Seen, standard: &Standard) -> Vec<Problem> {
    let mut found = of_members(shown, seen, standard);
    for handler in &shown.handlers {
        found.extend(of_handler(handler, standard));
    }
    if let Some(reason) = &seen.no_stream {
        found.push(Problem {
            problem: format!("the stream could not be looked into: {reason}"),
            mend: standard.command(&["doctor"]),
        });
    }
    found
}

fn of_members(shown: &Status, seen: &Seen, standard: &Standard) -> Vec<Problem> {
    let mut found = Vec::new();
    let renewing: Vec<&Member> = seen.roll.fleet.members.iter().filter(|member| seen.renews(&member.id)).collect();
    if renewing.is_empty() {
        found.push(Problem {
            problem: "no replica runs: nothing is delivered".to_owned(),
            mend: standard.command(&["run"]),
        });
    }
    for member in shown.members.iter().filter(|member| matches!(member.state, "late" | "dead")) {
        let ago = member.renewed_secs_ago.map_or_else(String::new, |secs| format!(" for {secs} s"));
        found.push(Problem {
            problem: format!("{} has not renewed{ago}: the others take over what it holds", member.member),
            mend: "look at the log of that replica: it was killed, stands still, or does not reach DynamoDB".to_owned(),
        });
    }
    let versions: BTreeSet<&str> = renewing.iter().map(|member| member.version.as_str()).collect();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        found.push(Problem {
            problem: format!("replicas of several versions run: {}", versions.join(", ")),
            mend: "wait for the deployment that is under way, or look at why it does not go on".to_owned(),
        });
    }
    found
}

fn of_handler(shown: &HandlerShown, standard: &Standard) -> Vec<Problem> {
    let name = &shown.handler;
    let mut found = Vec::new();
    let mut say = |problem: String, mend: String| found.push(Problem { problem, mend });
    let configured = standard.configured.iter().any(|handler| handler.as_str() == name);
    if shown.state == "not run" && configured {
        say(
            format!("no replica runs `{name}`"),
            format!("deploy the configuration that names it, or see why: {}", standard.command(&["doctor"])),
        );
    }
    if shown.state == "paused" {
        say(format!("`{name}` is paused"), standard.command(&["resume", name]));
    }
    if shown.unread > 0 && shown.replicas > 0 {
        say(
            format!("{} of the {} shards of `{name}` are read by nobody", shown.unread, shown.shards),
            "they are taken within a lease's duration; if they stay, look at the logs of the replicas that run it"
                .to_owned(),
        );
    }
    if shown.parked > 0 {
        say(
            format!("{} roots of `{name}` are parked: they get nothing until they are released", shown.parked),
            standard.command(&["parked", "list", "--handler", name]),
        );
    }
    let left = shown.lag_secs.map(|secs| STREAM_RETENTION.saturating_sub(Duration::from_secs(secs)));
    if left.is_some_and(|left| left < standard.safety_alarm) && shown.lag_secs > Some(0) {
        let left = left.unwrap_or_default().as_secs() / 60;
        say(
            format!(
                "`{name}` lags so far that the stream trims what it waits for in {left} minutes; it will be found in the table"
            ),
            "see what holds it up: its receiver, a pause, too few replicas".to_owned(),
        );
    }
    found
}
