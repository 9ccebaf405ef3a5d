//! `angzarr-relay doctor`: what is wrong, and what mends it.
//!
//! - `look`: the calls, in the order of what depends on what
//! - `receivers`: the calls to what the handlers give their events to
//! - `judge`: from what was found to findings; pure
//! - `finding`: a finding, and the report of all; pure

mod finding;
mod judge;
mod look;
mod receivers;

use clap::Args;

use super::output::print;
use super::{CliError, Context};

/// Check configuration, credentials, tables and streams, and say what mends them
///
/// Looks at the configuration, the AWS credentials, the tables and the stream of the events table, the rows in it, and
/// what the handlers give their events to. Each check is `ok`, a `note` (to know, not to mend) or `WRONG`, with the
/// exact command that mends it where there is one. Changes nothing; the exit code is 1 if anything is wrong.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  angzarr-relay doctor --config config/relay.toml")]
pub struct DoctorArgs {
    /// Print JSON: ok, and findings with verdict (ok, note, wrong), check, text and mend (a command, or null)
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(args: DoctorArgs, context: Context) -> Result<(), CliError> {
    let report = look::look(&context).await;
    if args.json {
        print(report.json())?;
    } else {
        print(report.text())?;
    }
    match report.wrong() {
        0 => Ok(()),
        1 => Err(CliError::Unsound("1 check is wrong".into())),
        wrong => Err(CliError::Unsound(format!("{wrong} checks are wrong"))),
    }
}
