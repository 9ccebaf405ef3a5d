//! Which roots and event types a handler receives. Pure.
//!
//! Scope (domain and edition) is judged before the sequencer, so a root out of scope costs nothing; the type is judged
//! after it, because only the sequencer's whole view of a root shows a gap.

use super::Glob;
use crate::event::{Event, Root};

/// One entry of a subscription; an event fits when its domain, one of the editions and one of the types do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The domains.
    pub domain: Glob,
    /// The event types.
    pub types: Vec<Glob>,
    /// The editions.
    pub editions: Vec<Glob>,
}

/// The editions a handler sees unless it says otherwise: the main timeline, under both its names.
#[must_use]
pub fn default_editions() -> Vec<Glob> {
    vec![Glob::new("angzarr"), Glob::new("")]
}

/// What a handler receives: what fits one of the patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    patterns: Vec<Pattern>,
    every_type: bool,
}

impl Subscription {
    /// A subscription to what fits one of the patterns.
    #[must_use]
    pub fn new(patterns: Vec<Pattern>) -> Self {
        let star = Glob::new("*");
        let every_type = patterns.iter().all(|pattern| pattern.types.contains(&star));
        Self { patterns, every_type }
    }

    /// Everything of the main timeline.
    #[must_use]
    pub fn everything() -> Self {
        let all = Glob::new("*");
        Self::new(vec![Pattern { domain: all.clone(), types: vec![all], editions: default_editions() }])
    }

    /// Whether events of this root can be received at all.
    #[must_use]
    pub fn covers(&self, root: &Root) -> bool {
        let (domain, edition) = (root.domain(), root.edition());
        self.patterns.iter().any(|pattern| pattern.fits_scope(&domain, &edition))
    }

    /// Whether this event of a root in scope is received.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        if self.every_type {
            return true;
        }
        let (domain, edition) = (event.root.domain(), event.root.edition());
        (self.patterns.iter())
            .any(|pattern| pattern.fits_type(&event.event_type) && pattern.fits_scope(&domain, &edition))
    }
}

impl Pattern {
    fn fits_scope(&self, domain: &str, edition: &str) -> bool {
        self.domain.matches(domain) && self.editions.iter().any(|glob| glob.matches(edition))
    }

    fn fits_type(&self, event_type: &str) -> bool {
        self.types.iter().any(|glob| glob.matches(event_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Sequence, Timestamp};

    fn event(domain: &str, edition: &str, event_type: &str) -> Event {
        Event {
            root: Root::new(domain, edition, "1").unwrap(),
            sequence: Sequence(0),
            event_type: event_type.into(),
            payload: bytes::Bytes::new(),
            chunked: None,
            correlation_id: None,
            created_at: Timestamp::from_unix_millis(0),
        }
    }

    fn pattern(domain: &str, types: &[&str], editions: &[&str]) -> Pattern {
        let globs = |texts: &[&str]| texts.iter().map(|text| Glob::new(text)).collect();
        Pattern { domain: Glob::new(domain), types: globs(types), editions: globs(editions) }
    }

    #[test]
    fn types_belong_to_their_own_pattern() {
        let subscription = Subscription::new(vec![
            pattern("orders", &["OrderPlaced"], &["angzarr", ""]),
            pattern("stock*", &["*"], &["angzarr"]),
        ]);
        for (domain, edition, event_type, covered, wanted) in [
            ("orders", "angzarr", "OrderPlaced", true, true),
            ("orders", "", "OrderPlaced", true, true),
            ("orders", "angzarr", "OrderShipped", true, false),
            ("orders", "what-if", "OrderPlaced", false, false),
            ("stock-eu", "angzarr", "Counted", true, true),
            ("stock-eu", "", "Counted", false, false),
            ("billing", "angzarr", "OrderPlaced", false, false),
        ] {
            let event = event(domain, edition, event_type);
            let covers = subscription.covers(&event.root);
            assert_eq!((covers, covers && subscription.wants(&event)), (covered, wanted), "{event:?}");
        }
    }

    #[test]
    fn everything_is_the_main_timeline() {
        let all = Subscription::everything();
        assert!(all.wants(&event("a", "", "T")) && all.wants(&event("b", "angzarr", "T")));
        assert!(!all.covers(&event("a", "branch", "T").root));
    }
}
