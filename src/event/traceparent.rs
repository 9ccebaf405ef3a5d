//! The trace an event belongs to, as its writer noted it: a `traceparent` of W3C Trace Context.

use std::fmt;

/// The longest that is taken: that of version 00 has 55 characters, later ones may add some.
const CHARS_MAX: usize = 128;

/// A `traceparent`, such as `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// Takes what is one, by W3C Trace Context (section 3.2); anything else is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (part.len() == digits && part.bytes().all(is_hex)).then_some(part)
        };
        let (version, trace, span, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let known = match version {
            "ff" => false,
            "00" => parts.next().is_none(),
            _later => true,
        };
        (known && !is_zero(trace) && !is_zero(span) && text.len() <= CHARS_MAX).then(|| Self(text.into()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    #[test]
    fn takes_what_the_standard_calls_one_and_nothing_else() {
        for good in [format!("00-{TRACE}-01"), format!("00-{TRACE}-00"), format!("01-{TRACE}-01-more-of-it")] {
            assert_eq!(TraceParent::parse(&good).unwrap().to_string(), good);
        }
        let zeros = |digits: usize| "0".repeat(digits);
        for bad in [
            String::new(),
            TRACE.to_owned(),
            format!("00-{TRACE}"),
            format!("ff-{TRACE}-01"),
            format!("00-{TRACE}-01-more"),
            format!("00-{}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-0g"),
            format!("00-{}-{}-01", zeros(32), "b7ad6b7169203331"),
            format!("00-{}-{}-01", "0af7651916cd43dd8448eb211c80319c", zeros(16)),
            format!("01-{TRACE}-01-{}", zeros(CHARS_MAX)),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }
}
