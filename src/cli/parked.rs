//! `angzarr-relay parked`: roots that stopped for a handler, and how an operator lets them go on.
//!
//! Everything is done by the tables; a running relay takes it up within seconds, one that is stopped at its next start.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::arguments::{MAIN_EDITION, handler_name};
use super::connect::Connection;
use super::output::{Listing, print, remark};
use super::{CliError, Context, RootArgs};
use crate::event::{Root, Timestamp};
use crate::handler::{HandlerKind, HandlerName};
use crate::storage::{
    DynamoMarks, DynamoPositions, LOAD_ROOTS_MAX, Mark, MarkState, Marking, PositionStore as _, Skip, Standing,
};
use crate::time::Clock;

/// The subcommands of `parked`.
#[derive(Debug, Clone, Subcommand)]
pub enum ParkedCommand {
    #[command(after_help = "Example:\n  angzarr-relay parked list --domain orders --config config/relay.toml")]
    /// List the parked roots
    List(ParkedListArgs),
    /// Show why a root is parked
    #[command(
        after_help = "Example:\n  angzarr-relay parked show orders-view orders order-1 --config config/relay.toml"
    )]
    Show(ParkedRootArgs),
    /// Let parked roots go on from the event they stand before
    ///
    /// The event and all after it are delivered, in order, to the end of the root. A running relay begins within seconds.
    Release(ParkedReleaseArgs),
    /// Pass the event a root stands before, and go on behind it
    ///
    /// The handler never gets that event; what was passed is recorded in the relay's table.
    #[command(
        after_help = "Example:\n  angzarr-relay parked skip orders-view orders order-1 --config config/relay.toml"
    )]
    Skip(ParkedRootArgs),
    /// List the events that were passed: by an operator, by on_failure = "skip", or because they could not be read
    ///
    /// `angzarr-relay rewind` gives one to its handler after all, with what follows it in its root.
    #[command(after_help = "Example:\n  angzarr-relay parked skipped --handler orders-view --config config/relay.toml")]
    Skipped(ParkedListArgs),
}

/// Which parked roots to list.
#[derive(Debug, Clone, Args)]
pub struct ParkedListArgs {
    /// Of this handler; without it, of all configured ones
    #[arg(long, value_name = "NAME", value_parser = handler_name)]
    pub handler: Option<HandlerName>,

    /// Of this domain
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,

    /// Print JSON, one root a line
    #[arg(long)]
    pub json: bool,
}

/// One parked root.
#[derive(Debug, Clone, Args)]
pub struct ParkedRootArgs {
    /// The handler's name
    #[arg(value_name = "HANDLER", value_parser = handler_name)]
    pub handler: HandlerName,

    /// The root.
    #[command(flatten)]
    pub root: RootArgs,
}

/// Which parked roots to release.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay parked release orders-view orders order-1 --config config/relay.toml
  angzarr-relay parked release orders-view --all --config config/relay.toml")]
pub struct ParkedReleaseArgs {
    /// The handler's name
    #[arg(value_name = "HANDLER", value_parser = handler_name)]
    pub handler: HandlerName,

    /// The root's domain, such as orders
    #[arg(value_name = "DOMAIN", required_unless_present = "all", conflicts_with = "all")]
    pub domain: Option<String>,

    /// The root's id, any characters
    #[arg(value_name = "ROOT", required_unless_present = "all", conflicts_with = "all")]
    pub root: Option<String>,

    /// The root's edition; "" is the unnamed one
    #[arg(long, default_value = MAIN_EDITION, value_name = "EDITION")]
    pub edition: String,

    /// All parked roots of the handler
    #[arg(long)]
    pub all: bool,

    /// Let a saga have events again that it may have acted on
    #[arg(long)]
    pub rerun_side_effects: bool,
}

pub(super) async fn run(command: ParkedCommand, context: Context) -> Result<(), CliError> {
    let connection = Connection::new(&context).await?;
    let marks = DynamoMarks::new(&connection.clients, &connection.tables, Clock::system());
    let positions = DynamoPositions::new(&connection.clients, &connection.tables.positions, Clock::system());
    let parked = Parked { connection, marks, positions, context };
    match command {
        ParkedCommand::List(args) => parked.list(args).await,
        ParkedCommand::Show(args) => parked.show(&args).await,
        ParkedCommand::Release(args) => parked.release(args).await,
        ParkedCommand::Skip(args) => parked.skip(&args).await,
        ParkedCommand::Skipped(args) => parked.skipped(args).await,
    }
}

struct Parked {
    connection: Connection,
    marks: DynamoMarks,
    positions: DynamoPositions,
    context: Context,
}

impl Parked {
    async fn of(&self, handler: &HandlerName) -> Result<Vec<(Root, Mark)>, CliError> {
        let mut marked = self.marks.list(handler).await.map_err(|error| self.connection.trouble(error))?;
        marked.retain(|(_, mark)| mark.state == MarkState::Parked);
        Ok(marked)
    }

    /// How a parked root stands, and its mark; or why there is nothing to do.
    async fn standing(&self, handler: &HandlerName, root: &Root) -> Result<(Standing, Mark), CliError> {
        let loaded = self.positions.load(handler, std::slice::from_ref(root)).await;
        let loaded = loaded.map_err(|error| self.connection.trouble(error))?;
        let standing = loaded.into_iter().next().unwrap_or_default();
        let not_parked =
            |why: &str| CliError::Refused(format!("{root} is not parked for the handler `{handler}`{why}"));
        match standing.mark.clone() {
            Some(mark) if mark.state == MarkState::Parked => Ok((standing, mark)),
            Some(_) => Err(not_parked(": it is deferred, and the relay goes on with it by itself")),
            None => Err(not_parked("; `angzarr-relay parked list` shows what is")),
        }
    }

    async fn list(&self, args: ParkedListArgs) -> Result<(), CliError> {
        let mut printer = Printer::new(&args);
        for handler in self.handlers(args.handler) {
            let parked = self.of(&handler).await?;
            printer.print(parked.iter().map(|(root, mark)| Shown::new(&handler, root, mark)))?;
        }
        if printer.found == 0 {
            remark("no root is parked");
        }
        Ok(())
    }

    async fn skipped(&self, args: ParkedListArgs) -> Result<(), CliError> {
        let mut printer = Printer::new(&args);
        for handler in self.handlers(args.handler) {
            let skips = self.marks.skips(&handler).await.map_err(|error| self.connection.trouble(error))?;
            printer.print(skips.iter().map(|(root, skip, at)| Shown::of_skip(&handler, root, skip, *at)))?;
        }
        if printer.found == 0 {
            remark("no event was passed");
        }
        Ok(())
    }

    /// The handler that is named, or all that are configured.
    fn handlers(&self, named: Option<HandlerName>) -> Vec<HandlerName> {
        let handlers = match named {
            Some(handler) => vec![handler],
            None => self.context.config.handlers.iter().map(|handler| handler.name.clone()).collect(),
        };
        if handlers.is_empty() {
            remark("no handler is configured: name one with --handler, or a configuration with --config");
        }
        handlers
    }

    async fn show(&self, args: &ParkedRootArgs) -> Result<(), CliError> {
        let root = args.root.root()?;
        let (_, mark) = self.standing(&args.handler, &root).await?;
        print(format!(
            "{root} is parked for `{}` since {}\n  before its event {} (`angzarr-relay read` shows it)\n  attempts {}\n  reason   {}",
            args.handler, mark.marked_at, mark.sequence, mark.attempts, mark.reason
        ))
    }

    async fn release(&self, args: ParkedReleaseArgs) -> Result<(), CliError> {
        let configured = self.context.config.handlers.iter().find(|handler| handler.name == args.handler);
        let unsafe_because = match configured.map(|handler| handler.kind) {
            Some(HandlerKind::Saga) => Some("is a saga and may have acted on the event already"),
            Some(HandlerKind::Sink | HandlerKind::Projector) => None,
            None => Some("is not in the configuration, so whether it is a saga is not known"),
        };
        if let Some(why) = unsafe_because.filter(|_| !args.rerun_side_effects) {
            return Err(CliError::Refused(format!(
                "`{}` {why}; say --rerun-side-effects to let it have the event again",
                args.handler
            )));
        }
        let chosen = match (&args.domain, &args.root) {
            (Some(domain), Some(id)) => {
                let root = Root::new(domain, &args.edition, id)?;
                self.standing(&args.handler, &root).await?;
                vec![root]
            }
            _ => self.of(&args.handler).await?.into_iter().map(|(root, _)| root).collect(),
        };
        let mut released = 0;
        for roots in chosen.chunks(LOAD_ROOTS_MAX) {
            let standings = self.positions.load(&args.handler, roots).await;
            let standings = standings.map_err(|error| self.connection.trouble(error))?;
            for (root, standing) in roots.iter().zip(standings) {
                let marking = self.marks.release(&args.handler, root, &standing).await;
                match marking.map_err(|error| self.connection.trouble(error))? {
                    Marking::Done => released += 1,
                    Marking::Refused => remark(format!("{root} was changed meanwhile and is left as it is")),
                }
            }
        }
        print(format!("released {released}; the relay goes on with them within seconds, or at its next start"))
    }

    async fn skip(&self, args: &ParkedRootArgs) -> Result<(), CliError> {
        let root = args.root.root()?;
        let (standing, mark) = self.standing(&args.handler, &root).await?;
        let marking = self.marks.skip(&args.handler, &root, &standing).await;
        match marking.map_err(|error| self.connection.trouble(error))? {
            Marking::Done => {
                print(format!("passed {root} {}; the relay goes on behind it within seconds", mark.sequence))
            }
            Marking::Refused => Err(CliError::Refused(format!("{root} was changed meanwhile; look again and repeat"))),
        }
    }
}

/// Prints the rows of a list.
struct Printer {
    domain: Option<String>,
    listing: Listing<8>,
    found: usize,
}

impl Printer {
    fn new(args: &ParkedListArgs) -> Self {
        let headings = ["HANDLER", "DOMAIN", "EDITION", "ROOT", "SEQUENCE", "ATTEMPTS", "SINCE", "REASON"];
        Self { domain: args.domain.clone(), listing: Listing::new(args.json, headings), found: 0 }
    }

    fn print(&mut self, rows: impl Iterator<Item = Shown>) -> Result<(), CliError> {
        let chosen = |row: &Shown| self.domain.as_ref().is_none_or(|domain| row.domain == *domain);
        let rows: Vec<Shown> = rows.filter(chosen).collect();
        self.found += rows.len();
        self.listing.print(&rows, Shown::cells)
    }
}

/// One parked root, or passed event, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    handler: String,
    domain: String,
    edition: String,
    root: String,
    sequence: u64,
    attempts: u32,
    since: String,
    reason: String,
}

impl Shown {
    fn new(handler: &HandlerName, root: &Root, mark: &Mark) -> Self {
        Self {
            handler: handler.to_string(),
            domain: root.domain().into_owned(),
            edition: root.edition().into_owned(),
            root: root.id().to_owned(),
            sequence: mark.sequence.0,
            attempts: mark.attempts,
            since: mark.marked_at.to_string(),
            reason: mark.reason.clone(),
        }
    }

    fn of_skip(handler: &HandlerName, root: &Root, skip: &Skip, skipped_at: Timestamp) -> Self {
        let mark = Mark::new(MarkState::Parked, skip.sequence, skip.attempts, &skip.reason, skipped_at);
        Self::new(handler, root, &mark)
    }

    fn cells(&self) -> [String; 8] {
        [
            self.handler.clone(),
            self.domain.clone(),
            self.edition.clone(),
            self.root.clone(),
            self.sequence.to_string(),
            self.attempts.to_string(),
            self.since.clone(),
            self.reason.clone(),
        ]
    }
}
