//! A text that must not be shown, and where it comes from: the configuration, the environment, or a file.
//!
//! Invariants: no `Debug` and no error shows the text; it is read when it is needed, so a file that is replaced is picked up.

use std::fmt;
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;

/// The longest secret.
const SECRET_BYTES_MAX: usize = 16 << 10;

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The configuration itself.
    Literal(String),
    /// The environment variable of this name.
    Env(String),
    /// The file at this path, without line ends at its end; read each time, so it may be replaced.
    File(PathBuf),
}

/// Why a secret cannot be had just now.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no such variable.
    #[error("the environment variable {name} is not set")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// The file is not there, or may not be read.
    #[error("the file {} cannot be read", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is no secret, but something large.
    #[error("it is longer than {SECRET_BYTES_MAX} bytes")]
    TooLong,
}

/// Shows where it comes from, never the text.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => formatter.write_str("Literal(<redacted>)"),
            Self::Env(name) => formatter.debug_tuple("Env").field(name).finish(),
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Secret {
    /// The text as it is now.
    ///
    /// # Errors
    /// When the variable is not set, the file cannot be read, or the text is too long.
    pub async fn read(&self) -> Result<String, SecretError> {
        let text = match self {
            Self::Literal(text) => text.clone(),
            Self::Env(name) => std::env::var(name).map_err(|_| SecretError::NoVariable { name: name.clone() })?,
            Self::File(path) => {
                let unreadable = |source| SecretError::File { path: path.clone(), source };
                let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
                let mut text = String::new();
                // One byte over the limit is enough to see that it is passed.
                file.take(SECRET_BYTES_MAX as u64 + 1).read_to_string(&mut text).await.map_err(unreadable)?;
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                text
            }
        };
        if text.len() > SECRET_BYTES_MAX { Err(SecretError::TooLong) } else { Ok(text) }
    }
}
