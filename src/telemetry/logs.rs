//! Where log lines go and which of them: text or JSON on stderr, chosen by a filter.
//!
//! Standard output stays free for what commands print. Which words a line holds is the business of whoever writes it;
//! that lines do not repeat without end is [`LogLimiter`](super::LogLimiter)'s.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

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
        if !text.split(',').all(known) || EnvFilter::try_new(text).is_err() {
            return Err(LogError::Filter { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Sets up the logs of this process, once. `ANGZARR_RELAY_LOG`, when set and not empty, goes before `filter`.
///
/// # Errors
/// When the variable holds no filter, or the process has a subscriber already.
pub fn init_logs(format: LogFormat, filter: &LogFilter) -> Result<(), LogError> {
    let filter = effective_filter(filter, std::env::var(LOG_VARIABLE).ok().as_deref())?;
    let directives =
        EnvFilter::try_new(filter.as_str()).map_err(|_| LogError::Filter { text: filter.as_str().to_owned() })?;
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(directives).with_writer(std::io::stderr);
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match format {
        LogFormat::Text => Box::new(lines.with_ansi(ansi).finish()),
        LogFormat::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
        }
    };
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Installed)
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
