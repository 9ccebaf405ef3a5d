//! `angzarr-relay pause` and `resume`: a handler is given nothing until an operator lets it go on.
//!
//! Done by the relay's table; a running relay takes it up within seconds, one that is stopped at its next start.

use clap::Args;

use super::arguments::handler_name;
use super::connect::Connection;
use super::output::{print, remark};
use super::{CliError, Context};
use crate::handler::HandlerName;
use crate::relay_table::RelayTable;
use crate::time::Clock;

/// Which handler to pause or resume.
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    /// The handler's name
    #[arg(value_name = "HANDLER", value_parser = handler_name)]
    pub handler: HandlerName,
}

pub(super) async fn run(args: PauseArgs, paused: bool, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    if !context.config.handlers.iter().any(|handler| handler.name == args.handler) {
        remark(format!("the configuration has no handler `{}`; the order stands for when it has", args.handler));
    }
    let table = RelayTable::new(&connection.clients, &connection.tables.relay, Clock::system());
    table.set_paused(&args.handler, paused).await.map_err(|error| connection.trouble(error))?;
    let handler = args.handler;
    print(if paused {
        format!(
            "`{handler}` is paused: a running relay stops handing it events within seconds; `angzarr-relay resume {handler}` lets it go on"
        )
    } else {
        format!("`{handler}` goes on within seconds where it stopped")
    })
}
