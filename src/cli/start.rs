//! From arguments to an exit code.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use super::error::EXIT_USAGE;
use super::{Cli, CliError, Command};
use crate::config::{Config, Environment};
use crate::handler::Handler;
use crate::telemetry::{LogFilter, LogFormat, Traces, init_logs};

/// What short commands log, unless `ANGZARR_RELAY_LOG` says otherwise: what they print is the point. What the SDK
/// warns of comes as the command's own error.
const COMMAND_LOG_LEVEL: &str = "error,angzarr_relay=warn";

/// Rust handlers that a program brings along, by the names of their entries in the configuration.
#[derive(Clone, Default)]
pub struct InProcessHandlers(Vec<(String, Arc<dyn Handler>)>);

/// What every command is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// The settings; checked on their own, not yet against `handlers`.
    pub config: Config,
    /// The file they were read from, if one was named.
    pub config_path: Option<PathBuf>,
    /// The program's own handlers.
    pub handlers: InProcessHandlers,
}

impl InProcessHandlers {
    /// Adds a handler for the configuration's entry of this name.
    #[must_use]
    pub fn with(mut self, name: &str, handler: impl Handler) -> Self {
        self.0.push((name.to_owned(), Arc::new(handler)));
        self
    }

    /// The names, in the order added.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The handler of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Handler>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, handler)| Arc::clone(handler))
    }
}

impl fmt::Debug for InProcessHandlers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

/// The whole program: arguments, configuration, logs, runtime, command. Prints what went wrong to stderr.
#[must_use]
pub fn start(handlers: InProcessHandlers) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too; that nobody reads them is no failure.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(main(cli, handlers)),
        Err(error) => exit(Err(CliError::Runtime(error))),
    }
}

/// Runs one command on a runtime that is there already: configuration, logs, command. Prints what went wrong to stderr.
pub async fn main(cli: Cli, handlers: InProcessHandlers) -> ExitCode {
    exit(run(cli, handlers).await)
}

async fn run(cli: Cli, handlers: InProcessHandlers) -> Result<(), CliError> {
    let config = load_config(&cli)?;
    let traces = init_telemetry(&cli.command, &config)?;
    let outcome = dispatch(cli.command, Context { config, config_path: cli.config, handlers }).await;
    // Whoever signals twice waits for nothing.
    if !matches!(outcome, Err(CliError::Interrupted)) {
        traces.end().await;
    }
    outcome
}

async fn dispatch(command: Command, context: Context) -> Result<(), CliError> {
    match command {
        Command::Run(args) => super::run::run(args, context).await,
        #[cfg(feature = "local")]
        Command::Local(args) => super::local::run(args, context).await,
        Command::Tables(command) => super::tables::run(command, context).await,
        Command::Append(args) => super::append::run(args, context).await,
        Command::Read(args) => super::read::run(args, context).await,
        Command::Positions(args) => super::positions::run(args, context).await,
        Command::Parked(command) => super::parked::run(command, context).await,
        Command::Pause(args) => super::pause::run(args, true, context).await,
        Command::Resume(args) => super::pause::run(args, false, context).await,
        Command::Rewind(args) => super::rewind::run(args, context).await,
        Command::Versions(command) => super::versions::run(command, context).await,
        Command::Backfill(command) => super::backfill::run(command, context).await,
        Command::Status(args) => super::status::run(args, context).await,
        Command::Audit(args) => super::audit::run(args, context).await,
        Command::Doctor(args) => super::doctor::run(args, context).await,
    }
}

fn load_config(cli: &Cli) -> Result<Config, CliError> {
    let environment = Environment::of_process();
    #[cfg(feature = "local")]
    if cli.config.is_none() && matches!(cli.command, Command::Local(_)) {
        return Ok(Config::parse(super::local::CONFIG, super::local::CONFIG_NAME, &environment)?);
    }
    Ok(Config::load(cli.config.as_deref(), &environment)?)
}

/// Sets up logs, and for what runs until it is stopped, traces.
fn init_telemetry(command: &Command, config: &Config) -> Result<Traces, CliError> {
    let telemetry = &config.telemetry;
    let daemon = match command {
        Command::Run(_) => true,
        #[cfg(feature = "local")]
        Command::Local(_) => true,
        Command::Tables(_)
        | Command::Append(_)
        | Command::Read(_)
        | Command::Positions(_)
        | Command::Parked(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Rewind(_)
        | Command::Versions(_)
        | Command::Backfill(_)
        | Command::Status(_)
        | Command::Audit(_)
        | Command::Doctor(_) => false,
    };
    if daemon {
        let (traces, layers) = Traces::of_environment()?;
        init_logs(telemetry.log_format, &telemetry.log_level, layers)?;
        return Ok(traces);
    }
    init_logs(LogFormat::Text, &LogFilter::parse(COMMAND_LOG_LEVEL)?, Vec::new())?;
    Ok(Traces::default())
}

fn exit(outcome: Result<(), CliError>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.is_reader_gone() {
        return ExitCode::SUCCESS;
    }
    // Where stderr is closed there is nobody left to tell.
    writeln!(std::io::stderr(), "angzarr-relay: {}", error.report()).ok();
    ExitCode::from(error.exit_code())
}
