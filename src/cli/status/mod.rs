//! `angzarr-relay status`: the fleet at one look, and what is wrong with it.
//!
//! Left to `status`: the look, and what is wrong by it. `shown` lays it out for people.

mod shown;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::connect::Connection;
use super::output::print;
use super::{CliError, Context};
use crate::status::{Place, Standard, Status, look};

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
    let place = Place::of(&context.config, &connection.clients);
    let standard = Standard::of(&context.config, context.config_path.as_deref());
    let in_place = args.watch && !args.json && std::io::stdout().is_terminal();
    loop {
        let seen = look(&place).await.map_err(|error| connection.trouble(error))?;
        let status = Status::new(&seen, &standard);
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
