//! `angzarr-relay rewind`: a handler is given a root's events again, or those of many roots.
//!
//! Done by marks on the positions: a running relay takes it up within seconds, one that is stopped at its next start. No
//! position goes back.

use clap::Args;

use super::arguments::{MAIN_EDITION, handler_name};
use super::connect::Connection;
use super::output::{print, remark};
use super::{CliError, Context};
use crate::event::{Root, Sequence};
use crate::handler::{HandlerKind, HandlerName};
use crate::storage::{DynamoMarks, DynamoPositions, Marking, StorageError};
use crate::time::Clock;

/// Give a handler events again that it has had
///
/// A root is given again from --to on, in order, to its end, and then goes on as ever; later events wait for that. Its
/// position stays as it is, and what is ordered is recorded. Without a root every root of the handler, or of a domain, is
/// given again; to build a whole view anew, a new version beside the old one is better: `angzarr-relay help versions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  angzarr-relay rewind orders-view --domain orders --root order-1 --to 7
  angzarr-relay rewind orders-view --domain orders --to beginning")]
pub struct RewindArgs {
    /// The handler's name
    #[arg(value_name = "HANDLER", value_parser = handler_name)]
    pub handler: HandlerName,

    /// Of this domain only
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,

    /// This root only, by its id
    #[arg(long, value_name = "ROOT", requires = "domain")]
    pub root: Option<String>,

    /// The root's edition; "" is the unnamed one
    #[arg(long, default_value = MAIN_EDITION, value_name = "EDITION", requires = "root")]
    pub edition: String,

    /// The first event to give again: its sequence, or `beginning`
    #[arg(long, value_name = "SEQUENCE", value_parser = sequence)]
    pub to: Sequence,

    /// Let a saga have events again that it has acted on
    #[arg(long)]
    pub rerun_side_effects: bool,
}

fn sequence(text: &str) -> Result<Sequence, String> {
    if text == "beginning" {
        return Ok(Sequence::FIRST);
    }
    text.parse().map(Sequence).map_err(|_| "a sequence is a whole number from 0, or `beginning`".to_owned())
}

pub(super) async fn run(args: RewindArgs, context: Context) -> Result<(), CliError> {
    let Some(handler) = context.config.handlers.iter().find(|handler| handler.name == args.handler) else {
        let text = format!("the configuration has no handler `{}`: whether it is a saga is not known", args.handler);
        return Err(CliError::Refused(text));
    };
    if handler.kind == HandlerKind::Saga && !args.rerun_side_effects {
        return Err(CliError::Refused(format!(
            "`{}` is a saga and has acted on its events; say --rerun-side-effects to let it have them again",
            args.handler
        )));
    }
    let connection = Connection::new(&context).await?;
    let marks = DynamoMarks::new(&connection.clients, &connection.tables, Clock::system());
    let positions = DynamoPositions::new(&connection.clients, &connection.tables.positions, Clock::system());
    let mut rewind = Rewind { args, connection, marks, rewound: 0, left: 0 };
    if let (Some(domain), Some(id)) = (&rewind.args.domain, &rewind.args.root) {
        let root = Root::new(domain, &rewind.args.edition, id)?;
        rewind.one(&root).await?;
    } else {
        let mut after = None;
        loop {
            let page = positions.list(Some(&rewind.args.handler), None, after.as_ref()).await;
            let page = page.map_err(|error| rewind.connection.trouble(error))?;
            for row in &page.rows {
                let chosen = rewind.args.domain.as_deref().is_none_or(|domain| row.root.domain() == domain);
                if chosen && row.sequence >= rewind.args.to {
                    rewind.one(&row.root).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    rewind.verdict()
}

struct Rewind {
    args: RewindArgs,
    connection: Connection,
    marks: DynamoMarks,
    rewound: usize,
    left: usize,
}

impl Rewind {
    async fn one(&mut self, root: &Root) -> Result<(), CliError> {
        match self.marks.rewind(&self.args.handler, root, self.args.to).await {
            Ok(Marking::Done) => self.rewound += 1,
            Ok(Marking::Refused) => {
                self.left += 1;
                remark(format!(
                    "{root} is left as it is: it has no position from {} on, or is parked, deferred or being given again already",
                    self.args.to
                ));
            }
            Err(StorageError::Conflict { .. } | StorageError::Throttled { .. }) => {
                self.left += 1;
                remark(format!("{root} could not be ordered at the moment; repeat the command"));
            }
            Err(error) => return Err(self.connection.trouble(error).into()),
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), CliError> {
        let Self { rewound, left, .. } = self;
        if *rewound == 0 && *left > 0 {
            return Err(CliError::Refused(format!("nothing was ordered: {left} roots are left as they are")));
        }
        if *rewound == 0 {
            return Err(CliError::Refused(format!(
                "nothing was ordered: no root of `{}` is that far",
                self.args.handler
            )));
        }
        let roots = if *rewound == 1 { "1 root is".to_owned() } else { format!("{rewound} roots are") };
        let left = if *left == 0 { String::new() } else { format!(", {left} left as they are") };
        print(format!("{roots} given again from {} on{left}; a running relay begins within seconds", self.args.to))
    }
}
