//! `angzarr-relay positions`: how far handlers have come.

use clap::Args;

use super::{CliError, Context};
use crate::event::{Root, RootError};
use crate::handler::{HandlerName, HandlerNameError};

/// Show how far handlers have come
///
/// By handler: all roots it has a position of (this scans the table). By root: the position of every configured
/// handler. By both: one.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "\
Examples:
  angzarr-relay positions --handler orders-view
  angzarr-relay positions --root orders angzarr order-1 --config config/relay.toml
  angzarr-relay positions --handler orders-view --root orders angzarr order-1 --json",
    group = clap::ArgGroup::new("whose").args(["handler", "root"]).required(true).multiple(true)
)]
pub struct PositionsArgs {
    /// The handler's name
    #[arg(long, value_name = "NAME", value_parser = handler_name)]
    pub handler: Option<HandlerName>,

    /// The root: its domain, its edition ("" is the unnamed one) and its id
    #[arg(long, num_args = 3, value_names = ["DOMAIN", "EDITION", "ROOT"])]
    pub root: Option<Vec<String>>,

    /// Print JSON, one position a line
    #[arg(long)]
    pub json: bool,
}

impl PositionsArgs {
    /// The root asked for, if one is.
    ///
    /// # Errors
    /// When domain or root id is empty, or the key would be too long.
    pub fn root(&self) -> Result<Option<Root>, RootError> {
        match self.root.as_deref() {
            Some([domain, edition, id]) => Root::new(domain, edition, id).map(Some),
            _ => Ok(None),
        }
    }
}

fn handler_name(text: &str) -> Result<HandlerName, HandlerNameError> {
    HandlerName::new(text)
}

#[expect(clippy::unused_async, reason = "the body comes with the position store")]
pub(super) async fn run(args: PositionsArgs, _context: Context) -> Result<(), CliError> {
    args.root()?;
    Err(CliError::NotBuilt { command: "positions" })
}
