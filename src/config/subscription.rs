//! `handlers[].subscribe`: which events a handler is given. Matching is `lane`'s.

use super::reader::Section;

/// Entries of one handler's `subscribe`.
pub(super) const SUBSCRIPTIONS_MAX: usize = 100;

/// The editions of the main timeline.
const MAIN_TIMELINE: [&str; 2] = ["angzarr", ""];

const GLOB: &str = "a name, in which * stands for any characters";
const EDITION_GLOB: &str = "an edition, in which * stands for any characters; \"\" is the unnamed one";

/// One entry of a subscription: an event matches when its domain, its type and its edition do. In each, `*` stands for
/// any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionConfig {
    /// The domain, never empty.
    pub domain: String,
    /// The event types, one of which must match; default all. Never an empty list.
    pub types: Vec<String>,
    /// The editions, one of which must match; default the main timeline: `angzarr` and the empty name. Never an empty
    /// list.
    pub editions: Vec<String>,
}

impl SubscriptionConfig {
    /// All events of the main timeline in the domains that match.
    #[must_use]
    pub fn domain(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            types: vec!["*".to_owned()],
            editions: MAIN_TIMELINE.map(str::to_owned).to_vec(),
        }
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let domain = section.required("domain", GLOB, |text| is_glob(text).then(|| text.to_owned()));
        let defaults = Self::domain(domain.as_deref().unwrap_or("*"));
        let types = section.texts("types", GLOB, is_glob);
        let editions = section.texts("editions", EDITION_GLOB, |text| text.is_empty() || is_glob(text));
        section.finish();
        Self {
            domain: defaults.domain,
            types: types.unwrap_or(defaults.types),
            editions: editions.unwrap_or(defaults.editions),
        }
    }
}

fn is_glob(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}
