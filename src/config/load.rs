//! The whole configuration: from a file's text and the environment, and checked against the handlers a program
//! registers.

use std::path::Path;

use toml::Table;

use super::error::Fault;
use super::reader::{Report, Section};
use super::{
    BackfillConfig, ConfigError, Environment, HandlerConfig, KinesisConfig, Problem, Receiver, RelayConfig,
    StorageConfig, TelemetryConfig,
};

/// All settings of one relay. The defaults are those of an empty file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `[storage]`.
    pub storage: StorageConfig,
    /// `[kinesis]`.
    pub kinesis: KinesisConfig,
    /// `[relay]`.
    pub relay: RelayConfig,
    /// `[backfill]`.
    pub backfill: BackfillConfig,
    /// `[telemetry]`.
    pub telemetry: TelemetryConfig,
    /// `[[handlers]]`, in the file's order.
    pub handlers: Vec<HandlerConfig>,
}

impl Config {
    /// Reads the file, if one is named, and lays the environment over it.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or settings are wrong; then all problems at once.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::parse("", "the environment", environment) };
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string(), environment)
    }

    /// Reads a file's text; `origin` names it in errors.
    ///
    /// # Errors
    /// When it is no TOML, or settings are wrong; then all problems at once.
    pub fn parse(text: &str, origin: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let mut table: Table = text.parse().map_err(|error| syntax_error(text, origin, &error))?;
        let overlay = environment.lay_over(&mut table);
        let report = Report::new(overlay.variables, overlay.problems);
        let mut root = Section::root(&report, table);
        let config = Self {
            storage: StorageConfig::read(root.section("storage")),
            kinesis: KinesisConfig::read(root.section("kinesis")),
            relay: RelayConfig::read(root.section("relay")),
            backfill: BackfillConfig::read(root.section("backfill")),
            telemetry: TelemetryConfig::read(root.section("telemetry")),
            handlers: HandlerConfig::read_all(&mut root),
        };
        root.finish();
        settings_error(origin, report.into_problems()).map_or(Ok(config), Err)
    }

    /// Checks that there is something to run: at least one handler, and Rust code for exactly those that name no
    /// receiver. `registered` are the names under which the program registers code.
    ///
    /// # Errors
    /// With all problems at once.
    pub fn validate(&self, registered: &[&str]) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut problem = |key: String, fault| problems.push(Problem { key, variable: None, fault });
        if self.handlers.is_empty() {
            problem("handlers".to_owned(), Fault::Missing { expected: "at least one [[handlers]]".to_owned() });
        }
        for (index, handler) in self.handlers.iter().enumerate() {
            let name = handler.name.as_str();
            let code = registered.contains(&name);
            let fault = match (&handler.receiver, code) {
                (Receiver::InProcess, false) => Fault::Missing {
                    expected: format!(
                        "one of {}, since this program registers no handler {name:?}",
                        super::handlers::receiver_kinds()
                    ),
                },
                (Receiver::Kinesis(_) | Receiver::Http(_) | Receiver::Jsonl(_), true) => Fault::Wrong {
                    found: "a receiver".to_owned(),
                    expected: format!("none, since this program registers a handler {name:?}"),
                },
                (Receiver::InProcess, true)
                | (Receiver::Kinesis(_) | Receiver::Http(_) | Receiver::Jsonl(_), false) => continue,
            };
            problem(format!("handlers[{index}]"), fault);
        }
        for name in registered {
            if !self.handlers.iter().any(|handler| handler.name.as_str() == *name) {
                let expected = format!("an entry named {name:?}, since this program registers a handler of that name");
                problem("handlers".to_owned(), Fault::Missing { expected });
            }
        }
        settings_error("the handlers", problems).map_or(Ok(()), Err)
    }
}

fn settings_error(origin: &str, problems: Vec<Problem>) -> Option<ConfigError> {
    (!problems.is_empty()).then(|| ConfigError::Settings { origin: origin.to_owned(), problems })
}

fn syntax_error(text: &str, origin: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    ConfigError::Syntax {
        origin: origin.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        reason: error.message().to_owned(),
    }
}
