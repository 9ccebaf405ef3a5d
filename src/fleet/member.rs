//! A member of the fleet: one life of one replica, as its row says it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::Patience;
use crate::handler::HandlerName;
use crate::time::Random;

/// The longest part of a member's id that comes from its host: the row stays within one write unit.
const NAME_BYTES_MAX: usize = 80;

/// One incarnation of a replica, such as `relay-6d4f-x2x9k~5f0c2a91`: the host's name and what tells its lives apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(Arc<str>);

impl MemberId {
    /// Takes an id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// A new incarnation on a host of this name.
    #[must_use]
    pub fn incarnate(host: &str, random: &Random) -> Self {
        let fit = |character: &char| character.is_ascii_alphanumeric() || "-._".contains(*character);
        let name: String = host.chars().filter(fit).take(NAME_BYTES_MAX).collect();
        let name = if name.is_empty() { "relay" } else { &name };
        Self(format!("{name}~{:08x}", random.below(1 << 32)).into())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MemberId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A member's row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// Which.
    pub id: MemberId,
    /// Raised by every renewal.
    pub counter: u64,
    /// Somebody has declared it dead: it renews no more, and what it holds may be taken.
    pub dead: bool,
    /// It stops, and hands over what it holds.
    pub leaving: bool,
    /// The version of the view that it goes by.
    pub view: u64,
    /// The handlers it runs.
    pub handlers: BTreeSet<HandlerName>,
    /// The version of the program it runs.
    pub version: String,
    /// How long the others wait for it, by its own configuration.
    pub patience: Patience,
}

/// What a member tells people with each renewal; nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The lag of each handler, in whole seconds; those without are left out.
    pub lags_secs: BTreeMap<HandlerName, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_an_id_of_its_own() {
        let random = Random::seeded(1);
        let first = MemberId::incarnate("relay-6d4f-x2x9k", &random);
        let second = MemberId::incarnate("relay-6d4f-x2x9k", &random);
        assert_ne!(first, second);
        assert!(first.as_str().starts_with("relay-6d4f-x2x9k~"));
        for host in ["", "###", &"h".repeat(500)] {
            let id = MemberId::incarnate(host, &random);
            assert!(!id.as_str().starts_with('~') && id.as_str().len() < 100, "{id}");
        }
    }
}
