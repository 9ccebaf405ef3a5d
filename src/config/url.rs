//! An HTTP address as settings name it.

use std::fmt;

use http::Uri;

/// An `http` or `https` URL with a host and no user. Its query is left out when it is shown for debugging: it may hold
/// a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// What a wrong one should have been.
    pub(super) const EXPECTED: &str = "a URL such as \"http://localhost:8000\", without user or password";

    /// Checks and takes a URL; `None` when it is none, has no host, or names a user.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let usable = matches!(uri.scheme_str(), Some("http" | "https"))
            && !authority.host().is_empty()
            && !authority.as_str().contains('@');
        usable.then(|| Self(text.to_owned()))
    }

    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.split_once('?').map_or(self.0.as_str(), |(before, _)| before);
        write!(formatter, "{shown:?}")
    }
}
