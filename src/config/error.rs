//! What can be wrong with a configuration: all of it at once, each by its key.

use std::fmt;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML. The text around the fault is left out: it may hold a secret.
    #[error("{origin}: line {line}, column {column} is no TOML: {reason}")]
    Syntax {
        /// The file.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// Settings are wrong, missing or unknown: all that were found.
    #[error("{}", list(origin, problems))]
    Settings {
        /// The file, or `the environment`.
        origin: String,
        /// Never empty.
        problems: Vec<Problem>,
    },
}

/// One problem of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's dotted path, such as `handlers[2].http.timeout`.
    pub key: String,
    /// The environment variable that the value came from, if it did.
    pub variable: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no such key.
    Unknown {
        /// The path of the known key that is spelt most alike.
        nearest: Option<String>,
    },
    /// It must be there.
    Missing {
        /// What it would hold.
        expected: String,
    },
    /// It holds something else than it should.
    Wrong {
        /// What it holds, shortened; never a secret.
        found: String,
        /// What it should hold.
        expected: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)?;
        if let Some(variable) = &self.variable {
            write!(formatter, " (from {variable})")?;
        }
        match &self.fault {
            Fault::Unknown { nearest: Some(nearest) } => {
                write!(formatter, ": unknown key, the nearest known key is {nearest}")
            }
            Fault::Unknown { nearest: None } => formatter.write_str(": unknown key"),
            Fault::Missing { expected } => write!(formatter, ": missing, expected {expected}"),
            Fault::Wrong { found, expected } => write!(formatter, ": found {found}, expected {expected}"),
        }
    }
}

fn list(origin: &str, problems: &[Problem]) -> String {
    let count = problems.len();
    let mut text = format!("{origin}: {count} problem{}", if count == 1 { "" } else { "s" });
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}
