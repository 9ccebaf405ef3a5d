//! The root, one aggregate instance, and the codec of its partition key `{domain}#{edition}#{root}`.
//!
//! In domain and edition `%` and `#` stand as `%25` and `%23`; the root id comes last and is taken as it stands, so it
//! may hold any character. Invariant: a [`Root`] always holds a valid key, and equal keys are equal roots.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// DynamoDB's limit for a partition key, in bytes.
const KEY_BYTES_MAX: usize = 2048;

/// One aggregate instance: (domain, edition, root id), held as its partition key. Cheap to clone.
#[derive(Clone)]
pub struct Root {
    key: Arc<str>,
    domain_end: u16,
    edition_end: u16,
}

/// Why something is no root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// A domain or root id was empty; an edition may be.
    #[error("the {part} of a root must not be empty")]
    Empty {
        /// `domain` or `root id`.
        part: &'static str,
    },
    /// The key is longer than DynamoDB's 2048 bytes.
    #[error("the key of a root has {bytes} bytes, more than DynamoDB's {KEY_BYTES_MAX}")]
    TooLong {
        /// The length of the key that would result.
        bytes: usize,
    },
    /// The key does not have the three parts `{domain}#{edition}#{root}`.
    #[error("the key is not of the form domain#edition#root")]
    Parts,
    /// A `%` that does not begin `%25` or `%23`.
    #[error("a % in domain or edition must be written %25, and a # as %23")]
    Escape,
}

impl Root {
    /// The root with this domain, edition (may be empty) and id.
    ///
    /// # Errors
    /// When domain or id is empty, or the key would be longer than 2048 bytes.
    pub fn new(domain: &str, edition: &str, id: &str) -> Result<Self, RootError> {
        let domain = escape(domain);
        Self::from_key(format!("{domain}#{}#{id}", escape(edition)).into())
    }

    /// Reads a partition key.
    ///
    /// # Errors
    /// When it does not have three parts, an empty domain or id, a wrong escape, or more than 2048 bytes.
    pub fn parse(key: &str) -> Result<Self, RootError> {
        Self::from_key(key.into())
    }

    fn from_key(key: Arc<str>) -> Result<Self, RootError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(RootError::TooLong { bytes: key.len() });
        }
        let domain_end = key.find('#').ok_or(RootError::Parts)?;
        let edition_end = domain_end + 1 + key[domain_end + 1..].find('#').ok_or(RootError::Parts)?;
        if domain_end == 0 {
            return Err(RootError::Empty { part: "domain" });
        }
        if edition_end + 1 == key.len() {
            return Err(RootError::Empty { part: "root id" });
        }
        unescape(&key[..domain_end]).ok_or(RootError::Escape)?;
        unescape(&key[domain_end + 1..edition_end]).ok_or(RootError::Escape)?;
        let offset = |end: usize| u16::try_from(end).map_err(|_| RootError::TooLong { bytes: key.len() });
        Ok(Self { domain_end: offset(domain_end)?, edition_end: offset(edition_end)?, key })
    }

    /// The partition key, `{domain}#{edition}#{root}`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether this is a clone of the other: a cheap look that may say no where the two are equal.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }

    /// The domain, unescaped.
    #[must_use]
    pub fn domain(&self) -> Cow<'_, str> {
        plain(&self.key[..usize::from(self.domain_end)])
    }

    /// The edition, unescaped; empty on the main timeline of some stores.
    #[must_use]
    pub fn edition(&self) -> Cow<'_, str> {
        plain(&self.key[usize::from(self.domain_end) + 1..usize::from(self.edition_end)])
    }

    /// The root id, as it stands in the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.key[usize::from(self.edition_end) + 1..]
    }
}

/// The two names at the front of the key were checked when the root was made; text that could not be unescaped stands
/// as it is.
fn plain(part: &str) -> Cow<'_, str> {
    unescape(part).unwrap_or(Cow::Borrowed(part))
}

/// Writes `%` as `%25` and `#` as `%23`.
#[must_use]
pub fn escape(plain: &str) -> Cow<'_, str> {
    if plain.contains(['%', '#']) {
        Cow::Owned(plain.replace('%', "%25").replace('#', "%23"))
    } else {
        Cow::Borrowed(plain)
    }
}

/// Undoes [`escape`]; none when a `%` begins anything but `%25` or `%23`.
#[must_use]
pub fn unescape(escaped: &str) -> Option<Cow<'_, str>> {
    if !escaped.contains('%') {
        return Some(Cow::Borrowed(escaped));
    }
    let mut plain = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        plain.push(match rest.get(at + 1..at + 3)? {
            "25" => '%',
            "23" => '#',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    Some(Cow::Owned(plain))
}

impl PartialEq for Root {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.key == other.key
    }
}

impl Eq for Root {}

impl PartialOrd for Root {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Root {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Hash for Root {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Root").field(&self.key).finish()
    }
}

impl fmt::Display for Root {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_has_its_three_parts() {
        let root = Root::new("orders", "angzarr", "a#b%c").unwrap();
        assert_eq!(root.key(), "orders#angzarr#a#b%c");
        assert_eq!((root.domain().as_ref(), root.edition().as_ref(), root.id()), ("orders", "angzarr", "a#b%c"));
        assert_eq!(Root::new("a#1", "50%", "x").unwrap().key(), "a%231#50%25#x");
        assert_eq!(Root::new("orders", "", "x").unwrap().key(), "orders##x");
    }

    #[test]
    fn refuses_what_is_no_key() {
        assert_eq!(Root::parse("orders"), Err(RootError::Parts));
        assert_eq!(Root::parse("orders#x"), Err(RootError::Parts));
        assert_eq!(Root::parse("#e#x"), Err(RootError::Empty { part: "domain" }));
        assert_eq!(Root::parse("d#e#"), Err(RootError::Empty { part: "root id" }));
        assert_eq!(Root::parse("d%41#e#x"), Err(RootError::Escape));
        assert_eq!(Root::parse("d#e%2#x"), Err(RootError::Escape));
        assert_eq!(Root::new("d", "e", &"x".repeat(2045)), Err(RootError::TooLong { bytes: 2049 }));
        assert!(Root::new("d", "e", &"x".repeat(2044)).is_ok());
    }

    fn hash(root: &Root) -> u64 {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
        BuildHasherDefault::<DefaultHasher>::default().hash_one(root)
    }

    #[test]
    fn is_shown_as_its_key() {
        let root = Root::new("a#1", "", "x").unwrap();
        assert_eq!((root.to_string(), format!("{root:?}")), ("a%231##x".into(), "Root(\"a%231##x\")".into()));
        assert!(root.is_same(&root.clone()));
        assert!(!root.is_same(&Root::parse("a%231##x").unwrap()), "equal, and another text in memory");
    }

    proptest! {
        #[test]
        fn any_names_survive_the_key(domain in ".{1,40}", edition in ".{0,40}", id in ".{1,40}") {
            let root = Root::new(&domain, &edition, &id).unwrap();
            let read = Root::parse(root.key()).unwrap();
            prop_assert_eq!(read.domain(), domain.as_str());
            prop_assert_eq!(read.edition(), edition.as_str());
            prop_assert_eq!(read.id(), id.as_str());
        }

        /// Over the characters that matter, so that parts run into each other if they can.
        #[test]
        fn distinct_roots_have_distinct_keys(
            one in ("[%#2357a]{1,4}", "[%#2357a]{0,4}", "[%#2357a]{1,4}"),
            two in ("[%#2357a]{1,4}", "[%#2357a]{0,4}", "[%#2357a]{1,4}"),
        ) {
            let root = |(domain, edition, id): &(String, String, String)| Root::new(domain, edition, id).unwrap();
            let (first, second) = (root(&one), root(&two));
            prop_assert_eq!(first.key() == second.key(), one == two);
            prop_assert_eq!(first == second, one == two);
            prop_assert_eq!(first.cmp(&second), first.key().cmp(second.key()));
            prop_assert_eq!(first.partial_cmp(&second), Some(first.cmp(&second)));
            prop_assert_eq!(hash(&first) == hash(&second), one == two);
        }

        /// A name has one way to be escaped, and only what is an escape is undone.
        #[test]
        fn an_escape_is_undone_and_there_is_no_other(plain: String, escaped in "[%2357aé]{0,8}") {
            let written = escape(&plain);
            prop_assert!(!written.contains('#'));
            prop_assert_eq!(unescape(&written), Some(Cow::Borrowed(plain.as_str())));
            if let Some(read) = unescape(&escaped) {
                prop_assert_eq!(escape(&read), escaped.as_str());
            }
            let by_hand = escaped.split('%').skip(1).all(|rest| rest.starts_with("25") || rest.starts_with("23"));
            prop_assert_eq!(unescape(&escaped).is_some(), by_hand);
        }

        #[test]
        fn no_text_panics(text in prop_oneof![".{0,80}", "[%#235a\n]{0,12}", any::<String>()]) {
            if let Ok(root) = Root::parse(&text) {
                prop_assert_eq!(root.key(), text.as_str());
                let again = Root::new(&root.domain(), &root.edition(), root.id()).unwrap();
                prop_assert_eq!(again, root);
            }
        }
    }
}
