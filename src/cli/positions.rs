//! `angzarr-relay positions`: how far handlers have come.

use clap::Args;
use serde::Serialize;

use super::arguments::handler_name;
use super::connect::Connection;
use super::output::{Listing, remark};
use super::{CliError, Context};
use crate::event::{Root, RootError};
use crate::handler::HandlerName;
use crate::storage::{DynamoPositions, PositionRow};
use crate::time::Clock;

/// Show how far handlers have come
///
/// By handler: all roots it has a position of (this scans the table). By root: the position of every configured
/// handler, - where it has none; without configured handlers the table is scanned for the root. By both: one.
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

    /// Print JSON, one position a line: handler, domain, edition, root, sequence and updated_at (null: no position)
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

pub(super) async fn run(args: PositionsArgs, context: Context) -> Result<(), CliError> {
    let root = args.root()?;
    let connection = Connection::new(&context).await?;
    let positions = DynamoPositions::new(&connection.clients, &connection.tables.positions, Clock::system());
    let failed = |error| connection.trouble(error);
    let mut printer = Printer::new(args.json);
    let named: Vec<HandlerName> = match args.handler {
        Some(handler) => vec![handler],
        None => context.config.handlers.iter().map(|handler| handler.name.clone()).collect(),
    };
    match &root {
        Some(root) if !named.is_empty() => {
            let mut shown = Vec::new();
            for handler in named {
                let page = positions.list(Some(&handler), Some(root), None).await.map_err(failed)?;
                shown.push(Shown::new(&handler, root, page.rows.first()));
            }
            printer.print(&shown)?;
        }
        root => {
            let mut after = None;
            loop {
                let page = positions.list(named.first().filter(|_| root.is_none()), root.as_ref(), after.as_ref());
                let page = page.await.map_err(failed)?;
                let shown: Vec<Shown> =
                    page.rows.iter().map(|row| Shown::new(&row.handler, &row.root, Some(row))).collect();
                printer.print(&shown)?;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    if printer.found == 0 {
        remark("no position was found: nothing has been delivered there yet, or the name is another");
    }
    Ok(())
}

/// One position as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    handler: String,
    domain: String,
    edition: String,
    root: String,
    /// None when there is no position.
    sequence: Option<u64>,
    updated_at: Option<String>,
}

impl Shown {
    fn new(handler: &HandlerName, root: &Root, row: Option<&PositionRow>) -> Self {
        Self {
            handler: handler.to_string(),
            domain: root.domain().into_owned(),
            edition: root.edition().into_owned(),
            root: root.id().to_owned(),
            sequence: row.map(|row| row.sequence.0),
            updated_at: row.and_then(|row| row.updated_at).map(|moment| moment.to_string()),
        }
    }

    fn cells(&self) -> [String; 6] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.handler.clone(),
            self.domain.clone(),
            self.edition.clone(),
            self.root.clone(),
            or_none(self.sequence.map(|sequence| sequence.to_string())),
            or_none(self.updated_at.clone()),
        ]
    }
}

struct Printer {
    listing: Listing<6>,
    /// Positions printed.
    found: usize,
}

impl Printer {
    fn new(json: bool) -> Self {
        let headings = ["HANDLER", "DOMAIN", "EDITION", "ROOT", "SEQUENCE", "UPDATED_AT"];
        Self { listing: Listing::new(json, headings), found: 0 }
    }

    fn print(&mut self, positions: &[Shown]) -> Result<(), CliError> {
        self.found += positions.iter().filter(|position| position.sequence.is_some()).count();
        self.listing.print(positions, Shown::cells)
    }
}
