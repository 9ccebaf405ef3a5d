//! Where log lines go and which of them: text or JSON on stderr, chosen by a filter.
//!
//! Invariant: no filter brings a payload or a credential into the log. At TRACE the AWS SDK writes requests and answers with
//! their bodies, so that level of it is never written.
//!
//! Standard output stays free for what commands print. Which words a line holds is the business of whoever writes it;
//! that lines do not repeat without end is [`LogLimiter`](super::LogLimiter)'s.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::{FilterExt as _, LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is told of everything that happens in the process: lines are written from it, or traces exported.
pub type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The variable whose filter goes before the configured one.
pub const LOG_VARIABLE: &str = "ANGZARR_RELAY_LOG";

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; in colours on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A checked filter of log lines: a level (`info`), or directives per module (`info,angzarr_relay::stream=debug`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error("`{text}` is no log filter such as info or info,angzarr_relay::stream=debug")]
    Filter {
        /// What was found.
        text: String,
    },
    /// This process has set up its logs before.
    #[error("the logs of this process are set up already")]
    Installed,
    /// Whatever wrote them has ended.
    #[error("the logs of this process have ended")]
    Gone,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl LogFilter {
    /// Checks a filter. A directive without `=` must be a level: the crate underneath would take a misspelt level for a
    /// module.
    ///
    /// # Errors
    /// [`LogError::Filter`] when the text is no filter.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let known = |directive: &str| {
            directive.contains(['=', '[']) || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive))
        };
        if !text.split(',').all(known) || directives_of(text).is_err() {
            return Err(LogError::Filter { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    fn directives(&self) -> Result<EnvFilter, LogError> {
        directives_of(&self.0).map_err(|_| LogError::Filter { text: self.0.clone() })
    }

    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which lines are logged, changed while the process runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogSwitch(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    first: LogFilter,
    now: Mutex<LogFilter>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// That of this process, once its logs are set up here.
static SWITCH: OnceLock<LogSwitch> = OnceLock::new();

impl LogSwitch {
    /// The switch of this process; none when the program around the relay has set up logs of its own.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        SWITCH.get().cloned()
    }

    /// The filter that holds now.
    #[must_use]
    pub fn now(&self) -> LogFilter {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The filter there was at the start.
    #[must_use]
    pub fn first(&self) -> &LogFilter {
        &self.0.first
    }

    /// Logs by this filter from now on.
    ///
    /// # Errors
    /// When the process' logs are gone.
    pub fn set(&self, filter: LogFilter) -> Result<(), LogError> {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.filter.reload(filter.directives()?).map_err(|_| LogError::Gone)?;
        *now = filter;
        Ok(())
    }
}

/// Sets up the logs of this process, once, beside other layers. `ANGZARR_RELAY_LOG`, when set and not empty, goes before
/// `filter`.
///
/// # Errors
/// When the variable holds no filter, or the process has a subscriber already.
pub fn init_logs(format: LogFormat, filter: &LogFilter, others: Vec<LogLayer>) -> Result<(), LogError> {
    let first = effective_filter(filter, std::env::var(LOG_VARIABLE).ok().as_deref())?;
    let (filter, handle) = reload::Layer::new(first.directives()?);
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: LogLayer = match format {
        LogFormat::Text => lines.with_ansi(ansi).with_filter(filter.and(without_bodies())).boxed(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            lines.with_filter(filter.and(without_bodies())).boxed()
        }
    };
    let layers: Vec<LogLayer> = std::iter::once(lines).chain(others).collect();
    tracing::subscriber::set_global_default(Registry::default().with(layers)).map_err(|_| LogError::Installed)?;
    let now = Mutex::new(first.clone());
    SWITCH.set(LogSwitch(Arc::new(Switch { first, now, filter: handle }))).map_err(|_| LogError::Installed)
}

/// A field's value is compared as a text: whoever may set a filter is not given regular expressions to compile.
fn directives_of(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(text)
}

/// Everything but what holds bodies of requests and answers.
fn without_bodies() -> Targets {
    // The prefix of all crates of the SDK.
    Targets::new().with_default(LevelFilter::TRACE).with_target("aws", LevelFilter::DEBUG)
}

fn effective_filter(configured: &LogFilter, variable: Option<&str>) -> Result<LogFilter, LogError> {
    match variable {
        Some(text) if !text.trim().is_empty() => LogFilter::parse(text),
        _ => Ok(configured.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_changes_which_lines_are_logged() {
        let first = LogFilter::parse("info").unwrap();
        let (filter, handle) = reload::Layer::new(first.directives().unwrap());
        let switch =
            LogSwitch(Arc::new(Switch { now: Mutex::new(first.clone()), first: first.clone(), filter: handle }));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(filter);
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            switch.set(LogFilter::parse("debug").unwrap()).unwrap();
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            assert_eq!((switch.now().as_str(), switch.first()), ("debug", &first));
            switch.set(LogFilter::parse("error").unwrap()).unwrap();
            assert!(!tracing::enabled!(tracing::Level::WARN));
        });
        assert!(matches!(switch.set(first), Err(LogError::Gone)));
    }

    #[test]
    fn no_filter_brings_bodies_of_the_sdk_into_the_log() {
        for text in ["trace", "aws=trace", "aws_smithy_runtime=trace", "info,aws_smithy_runtime::client=trace"] {
            let filter = LogFilter::parse(text).unwrap().directives().unwrap();
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
            let lines = lines.with_filter(filter.and(without_bodies()));
            tracing::subscriber::with_default(Registry::default().with(lines), || {
                assert!(!tracing::enabled!(target: "aws_smithy_runtime::client", tracing::Level::TRACE), "{text}");
                assert!(tracing::enabled!(target: "aws_smithy_runtime::client", tracing::Level::DEBUG), "{text}");
            });
        }
    }

    #[test]
    fn takes_levels_and_directives_and_refuses_misspelt_levels() {
        for good in ["info", "WARN", "off", "info,angzarr_relay::stream=debug", "warn,hyper=off"] {
            assert_eq!(LogFilter::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "inof", "info,debgu", "angzarr_relay=loud", "info,", "warn, hyper=off"] {
            assert!(LogFilter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_variable_goes_before_the_configured_filter() {
        let configured = LogFilter::parse("warn").unwrap();
        assert_eq!(effective_filter(&configured, None).unwrap(), configured);
        assert_eq!(effective_filter(&configured, Some(" ")).unwrap(), configured);
        assert_eq!(effective_filter(&configured, Some("debug")).unwrap().as_str(), "debug");
        assert!(effective_filter(&configured, Some("loud")).is_err());
    }
}
