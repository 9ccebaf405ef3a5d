//! Which roots and event types a handler receives. Pure.
//!
//! Scope (domain and edition) is judged before the sequencer, so a root out of scope costs nothing; the type is judged
//! after it, because only the sequencer's whole view of a root shows a gap. What was added to a subscription holds for
//! events created since then: a saga is not run over history because it was given one more type (clause 10).

use super::Glob;
use crate::event::{Event, Root, Timestamp};
use crate::relay_table::RegisteredInterest;

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

/// One domain, one type and one edition, each a glob, and since when the handler has subscribed to them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interest {
    domain: Glob,
    event_type: Glob,
    edition: Glob,
    since: Option<Timestamp>,
}

/// What a handler receives: what fits one of the patterns, and was created since that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    interests: Vec<Interest>,
    every_type: bool,
}

impl Subscription {
    /// A subscription to what fits one of the patterns.
    #[must_use]
    pub fn new(patterns: Vec<Pattern>) -> Self {
        let mut interests = Vec::new();
        for Pattern { domain, types, editions } in patterns {
            for (event_type, edition) in types.iter().flat_map(|one| editions.iter().map(move |other| (one, other))) {
                let (domain, event_type, edition) = (domain.clone(), event_type.clone(), edition.clone());
                interests.push(Interest { domain, event_type, edition, since: None });
            }
        }
        Self::of(interests)
    }

    fn of(interests: Vec<Interest>) -> Self {
        let star = Glob::new("*");
        let every_type = interests.iter().all(|interest| interest.event_type == star && interest.since.is_none());
        Self { interests, every_type }
    }

    /// Everything of the main timeline.
    #[must_use]
    pub fn everything() -> Self {
        let all = Glob::new("*");
        Self::new(vec![Pattern { domain: all.clone(), types: vec![all], editions: default_editions() }])
    }

    /// The same for a handler that had subscribed to `registered` before: what is not part of that holds since `now`, the
    /// rest for as long as it did. A subscription that is only written in another way is no wider.
    #[must_use]
    pub fn holding(mut self, registered: &[RegisteredInterest], now: Timestamp) -> Self {
        for interest in &mut self.interests {
            let held = registered.iter().filter(|held| interest.is_part_of(held)).map(|held| held.since);
            // None is the earliest: ever since the handler is there.
            interest.since = held.min().unwrap_or(Some(now));
        }
        Self::of(self.interests)
    }

    /// What is to be registered of it.
    #[must_use]
    pub fn registered(&self) -> Vec<RegisteredInterest> {
        let registered = |interest: &Interest| RegisteredInterest {
            domain: interest.domain.to_string(),
            event_type: interest.event_type.to_string(),
            edition: interest.edition.to_string(),
            since: interest.since,
        };
        self.interests.iter().map(registered).collect()
    }

    /// Whether events of this root can be received at all.
    #[must_use]
    pub fn covers(&self, root: &Root) -> bool {
        let (domain, edition) = (root.domain(), root.edition());
        self.interests.iter().any(|interest| interest.fits_scope(&domain, &edition))
    }

    /// Whether this event of a root in scope is received.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        if self.every_type {
            return true;
        }
        let (domain, edition) = (event.root.domain(), event.root.edition());
        let held = |interest: &Interest| interest.since.is_none_or(|since| event.created_at >= since);
        (self.interests.iter()).any(|interest| {
            interest.event_type.matches(&event.event_type) && held(interest) && interest.fits_scope(&domain, &edition)
        })
    }
}

impl Interest {
    fn fits_scope(&self, domain: &str, edition: &str) -> bool {
        self.domain.matches(domain) && self.edition.matches(edition)
    }

    /// Whether all that fits it fits the other: a star of its own is text like any other for the stars there.
    fn is_part_of(&self, other: &RegisteredInterest) -> bool {
        let part = |mine: &Glob, other: &str| Glob::new(other).matches(&mine.to_string());
        part(&self.domain, &other.domain)
            && part(&self.event_type, &other.event_type)
            && part(&self.edition, &other.edition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Sequence;

    fn event(domain: &str, edition: &str, event_type: &str) -> Event {
        Event {
            root: Root::new(domain, edition, "1").unwrap(),
            sequence: Sequence(0),
            event_type: event_type.into(),
            payload: bytes::Bytes::new(),
            chunked: None,
            correlation_id: None,
            traceparent: None,
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

    fn at(mut event: Event, millis: i64) -> Event {
        event.created_at = Timestamp::from_unix_millis(millis);
        event
    }

    #[test]
    fn what_was_added_holds_since_then() {
        let orders = Subscription::new(vec![pattern("orders", &["OrderPlaced"], &["angzarr"])]);
        let wider = Subscription::new(vec![
            pattern("orders", &["OrderPlaced", "OrderPaid"], &["angzarr"]),
            pattern("stock", &["*"], &["angzarr"]),
        ]);
        let wider = wider.holding(&orders.registered(), Timestamp::from_unix_millis(100));
        for (domain, event_type, millis, wanted) in [
            ("orders", "OrderPlaced", 0, true),
            ("orders", "OrderPaid", 99, false),
            ("orders", "OrderPaid", 100, true),
            ("stock", "Counted", 99, false),
            ("stock", "Counted", 100, true),
        ] {
            let event = at(event(domain, "angzarr", event_type), millis);
            assert!(wider.covers(&event.root));
            assert_eq!(wider.wants(&event), wanted, "{domain} {event_type} {millis}");
        }
        let later = wider.clone().holding(&wider.registered(), Timestamp::from_unix_millis(500));
        assert_eq!(later, wider, "at the next start nothing was added");
        let without = orders.clone().holding(&later.registered(), Timestamp::from_unix_millis(600));
        assert_eq!(without, orders);
        let again = wider.clone().holding(&without.registered(), Timestamp::from_unix_millis(700));
        assert!(!again.wants(&at(event("stock", "angzarr", "Counted"), 699)), "what was taken out had an end");
    }

    #[test]
    fn what_is_only_written_in_another_way_is_not_added() {
        let all = Subscription::new(vec![pattern("orders*", &["Order*"], &["*"])]);
        let now = Timestamp::from_unix_millis(100);
        for narrower in [
            pattern("orders", &["OrderPlaced", "OrderP*", "Order*"], &["angzarr", "", "what-if*"]),
            pattern("orders-eu*", &["Order*Paid"], &["*"]),
        ] {
            let narrower = Subscription::new(vec![narrower]);
            assert_eq!(narrower.clone().holding(&all.registered(), now), narrower);
        }
        let wider = Subscription::new(vec![pattern("*", &["Order*"], &["*"])]);
        assert_ne!(wider.clone().holding(&all.registered(), now), wider);
    }
}
