//! `angzarr-relay status`: the fleet at one look, and what is wrong with it.
//!
//! Reads only, from the tables; where nobody reads a shard, from the stream, how old the first record is that waits
//! there. So it answers when no relay runs, too. `look` asks, `view` and `problems` make of it what is to be known, `shown` lays it out.

mod look;
mod problems;
mod shown;
mod view;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use self::look::look;
use self::problems::Standard;
use self::view::Status;
use super::connect::Connection;
use super::output::print;
use super::{CliError, Context};

/// How often `--watch` looks again.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Show replicas, handlers and leases, lag, parked roots and backfills, and what to do about what is wrong
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay status --config config/relay.toml
  angzarr-relay status --watch
  angzarr-relay status --json | jq .problems")]
pub struct StatusArgs {
    /// List every lease, however many there are
    #[arg(long)]
    pub leases: bool,

    /// Look again every two seconds, until stopped
    #[arg(long)]
    pub watch: bool,

    /// Print JSON: one document a look
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(args: StatusArgs, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let in_place = args.watch && !args.json && std::io::stdout().is_terminal();
    loop {
        let seen = look(&context, &connection).await.map_err(|error| connection.trouble(error))?;
        let status = Status::new(&seen, &Standard::of(&context));
        let text = if args.json { serde_json::json!(status).to_string() } else { shown::text(&status, args.leases) };
        if in_place {
            // From the top of a cleared screen.
            let mut stdout = std::io::stdout();
            stdout.write_all(b"\x1b[H\x1b[2J").and_then(|()| stdout.flush()).map_err(CliError::Output)?;
        }
        print(text)?;
        if !args.watch {
            return Ok(());
        }
        sleep(WATCH_INTERVAL).await;
    }
}
