//! What `local` shows on the terminal: where everything is, what goes on each second, and a summary at the end.
//!
//! On a terminal the status stays in place; elsewhere a line is printed now and then. Writes that fail are let go:
//! there is nobody to tell.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::resharding::Resharding;
use super::sample::Sample;
use super::view::OrdersView;
use crate::relay::Running;
use crate::time::Clock;

/// How often the status is drawn in place.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);

/// How often a line is printed where nothing can be drawn in place, in draws.
const LINE_DRAWS: u64 = 5;

/// What is shown.
pub(super) struct Screen {
    pub(super) dynamodb: String,
    pub(super) kinesis: String,
    pub(super) files: PathBuf,
    pub(super) sample: Option<Sample>,
    pub(super) resharding: Option<Resharding>,
    pub(super) view: Option<Arc<OrdersView>>,
}

impl Screen {
    /// Shows until stopped, then prints the summary.
    pub(super) async fn show(self, running: oneshot::Receiver<Running>, stop: CancellationToken) {
        let Ok(running) = running.await else { return };
        let terminal = std::io::stdout().is_terminal();
        print(&self.places(&running));
        let began = Instant::now();
        let mut ticks = interval(DRAW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Vec<u64> = vec![0; running.progress.len()];
        let (mut draws, mut first, mut drawn_lines) = (0_u64, false, 0);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let now: Vec<u64> = running.progress.iter().map(|(_, progress)| progress.delivered_events()).collect();
            if !first && now.iter().any(|delivered| *delivered > 0) {
                first = true;
                print(&format!(
                    "the first event was delivered {:.1} s after the start\n",
                    began.elapsed().as_secs_f64()
                ));
                drawn_lines = 0;
            }
            if terminal {
                let status = self.status(&running, &last, &now);
                print(&format!("{}{status}", clear(drawn_lines)));
                drawn_lines = status.lines().count();
            } else if draws.is_multiple_of(LINE_DRAWS) {
                print(&self.status(&running, &last, &now));
            }
            last = now;
            draws += 1;
        }
        print(&self.summary(&running, began));
    }

    fn places(&self, running: &Running) -> String {
        format!(
            "\nangzarr-relay local is running; Ctrl-C stops it\n  \
             DynamoDB  {}   (any credentials, region us-east-1)\n  \
             Kinesis   {}\n  \
             metrics   http://{}/metrics   (/livez, /readyz)\n  \
             status    {}\n  \
             files     {}\n\n",
            self.dynamodb,
            self.kinesis,
            running.probes,
            running.admin.map_or_else(|| "off".to_owned(), |admin| format!("http://{admin}/status")),
            self.files.display()
        )
    }

    fn status(&self, running: &Running, last: &[u64], now: &[u64]) -> String {
        let clock = Clock::system();
        let mut text = String::new();
        if let Some(sample) = &self.sample {
            line(&mut text, format_args!("sample events written {:>8}", sample.written()));
        }
        if let Some(resharding) = &self.resharding {
            line(&mut text, format_args!("shards of the stream  {}", resharding.status()));
        }
        for (index, (name, progress)) in running.progress.iter().enumerate() {
            let rate = now[index].saturating_sub(last[index]);
            let lag = progress.lag(clock.now()).as_secs_f64();
            let stuck = match progress.stuck_roots() {
                0 => String::new(),
                roots => format!("   {roots} roots stuck"),
            };
            let delivered = now[index];
            line(&mut text, format_args!("{name:<20} {delivered:>8} events {rate:>6}/s   lag {lag:>5.1} s{stuck}"));
        }
        if let Some(view) = &self.view {
            let steps = view.steps();
            let steps: Vec<String> = steps.iter().map(|(step, orders)| format!("{step} {orders}")).collect();
            line(&mut text, format_args!("orders by last event: {}", steps.join(", ")));
        }
        for problem in running.health.problems() {
            line(&mut text, format_args!("NOT READY  {problem}"));
        }
        text
    }

    fn summary(&self, running: &Running, began: Instant) -> String {
        let mut text = String::new();
        line(&mut text, format_args!("\nstopped after {:.0} s", began.elapsed().as_secs_f64()));
        if let Some(sample) = &self.sample {
            line(&mut text, format_args!("  sample events written {}", sample.written()));
        }
        for (name, progress) in &running.progress {
            line(&mut text, format_args!("  {name:<20} {} events delivered", progress.delivered_events()));
        }
        text
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    writeln!(text, "{arguments}").ok();
}

/// Takes the cursor back over so many lines and clears from there.
fn clear(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
}
