//! A handler's name and kind.

use std::fmt;
use std::sync::Arc;

/// A handler's name: part of the key of its positions. Never empty, no `@` (reserved for versions), no control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerName(Arc<str>);

/// Why a text is no handler name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerNameError {
    /// It is empty.
    #[error("a handler's name must not be empty")]
    Empty,
    /// It is longer than 128 bytes.
    #[error("a handler's name has at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// It holds a reserved character.
    #[error("a handler's name must not hold {0:?}")]
    Character(char),
}

const NAME_BYTES_MAX: usize = 128;

impl HandlerName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// When it is empty, too long, or holds `@` or a control character.
    pub fn new(name: &str) -> Result<Self, HandlerNameError> {
        if name.is_empty() {
            return Err(HandlerNameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(HandlerNameError::TooLong);
        }
        match name.chars().find(|character| *character == '@' || character.is_control()) {
            Some(character) => Err(HandlerNameError::Character(character)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HandlerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// What a handler is for; it sets the defaults that are safe for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerKind {
    /// Copies events elsewhere.
    Sink,
    /// Builds a view.
    Projector,
    /// Has effects that must not be repeated lightly: positions are flushed after every batch, and it starts at
    /// `latest`.
    Saga,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_names() {
        assert_eq!(HandlerName::new("orders-view").unwrap().as_str(), "orders-view");
        assert_eq!(HandlerName::new(""), Err(HandlerNameError::Empty));
        assert_eq!(HandlerName::new("orders@2"), Err(HandlerNameError::Character('@')));
        assert_eq!(HandlerName::new("a\nb"), Err(HandlerNameError::Character('\n')));
        assert_eq!(HandlerName::new(&"x".repeat(129)), Err(HandlerNameError::TooLong));
    }
}
