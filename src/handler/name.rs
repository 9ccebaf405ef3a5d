//! A handler's name and kind.

use std::fmt;
use std::sync::Arc;

/// A handler's name: part of the key of its positions. Never empty, no control characters; `@` stands before its version
/// alone, a number from 2 on: `orders@2` is built beside `orders`, which is `orders@1`.
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
    /// What stands behind `@` is no version.
    #[error("behind @ in a handler's name stands its version, a number from 1 to {VERSION_MAX}")]
    Version,
    /// It holds a reserved character.
    #[error("a handler's name must not hold {0:?}")]
    Character(char),
}

const NAME_BYTES_MAX: usize = 128;

const VERSION_MAX: u32 = 999_999;

impl HandlerName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// When it is empty, too long, holds a control character, or `@` and no version behind it.
    pub fn new(name: &str) -> Result<Self, HandlerNameError> {
        if name.is_empty() {
            return Err(HandlerNameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(HandlerNameError::TooLong);
        }
        if let Some(character) = name.chars().find(|character| character.is_control()) {
            return Err(HandlerNameError::Character(character));
        }
        match name.split_once('@') {
            None => Ok(Self(name.into())),
            Some(("", _)) => Err(HandlerNameError::Empty),
            Some((base, "1")) => Ok(Self(base.into())),
            Some((_, version)) if is_version(version) => Ok(Self(name.into())),
            Some(_) => Err(HandlerNameError::Version),
        }
    }

    /// The name without its version.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(base, _)| base)
    }

    /// Its version: 1 where none is named.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.split_once('@').and_then(|(_, version)| version.parse().ok()).unwrap_or(1)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One way to write each: no sign, no leading zero.
fn is_version(text: &str) -> bool {
    !text.starts_with('0')
        && text.bytes().all(|digit| digit.is_ascii_digit())
        && text.parse().is_ok_and(|version: u32| (2..=VERSION_MAX).contains(&version))
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
        assert_eq!(HandlerName::new("@2"), Err(HandlerNameError::Empty));
        for wrong in ["orders@", "orders@0", "orders@02", "orders@+2", "orders@x", "orders@1@2", "orders@1000000"] {
            assert_eq!(HandlerName::new(wrong), Err(HandlerNameError::Version), "{wrong}");
        }
        assert_eq!(HandlerName::new("a\nb"), Err(HandlerNameError::Character('\n')));
        assert_eq!(HandlerName::new(&"x".repeat(129)), Err(HandlerNameError::TooLong));
    }

    #[test]
    fn the_first_version_is_the_plain_name() {
        let name = |text: &str| HandlerName::new(text).unwrap();
        assert_eq!(name("orders@1"), name("orders"));
        assert_ne!(name("orders@2"), name("orders"));
        assert_eq!((name("orders@12").base(), name("orders@12").version()), ("orders", 12));
        assert_eq!((name("orders").base(), name("orders").version()), ("orders", 1));
    }
}
