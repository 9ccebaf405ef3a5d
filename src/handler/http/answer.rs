//! What the status of an answer means, and when its `Retry-After` asks to come again.
//!
//! Pure: the kind of failure is decided here, what is done about it in `lane`.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::event::Timestamp;
use crate::handler::HandlerError;

/// The longest wait that is taken over from a receiver.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// The part of an answer that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header `Retry-After`, if there is one.
    pub(super) retry_after: Option<String>,
}

/// Whether the events of the request to `url` were accepted, and if not, why.
pub(super) fn judge(answer: &Answer, url: &str, now: Timestamp) -> Result<(), HandlerError> {
    let status = answer.status;
    let after = answer.retry_after.as_deref().and_then(|text| retry_after(text, now));
    match status {
        200..=299 => Ok(()),
        300..=399 => Err(HandlerError::permanent(format!(
            "{url} answered {status}, a redirection, which is not followed; configure the url that serves the events"
        ))),
        401 | 403 => Err(HandlerError::Unavailable {
            reason: format!("{url} answered {status}: it does not accept the credentials in the configured headers"),
            after,
            source: None,
        }),
        429 => Err(HandlerError::Throttled { reason: format!("{url} answered {status}"), after }),
        408 | 409 | 425 => Err(retry(url, status, after)),
        400..=499 => Err(HandlerError::permanent(format!("{url} refused the event with {status}"))),
        // 5xx, and numbers that HTTP does not know: the receiver is at fault, not the event.
        _ => Err(retry(url, status, after)),
    }
}

fn retry(url: &str, status: u16, after: Option<Duration>) -> HandlerError {
    HandlerError::Retry { reason: format!("{url} answered {status}"), after, source: None }
}

/// Reads `Retry-After`: seconds, or an HTTP date. A date that has passed is no wait; what cannot be read is ignored.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than u64 holds are a long wait all the same.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let moment = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        Timestamp::from_unix_millis(moment.unix_timestamp().saturating_mul(1000)).since(now)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2026-10-21T07:28:00Z").unwrap()
    }

    fn judged(status: u16, retry_after: Option<&str>) -> Result<(), HandlerError> {
        judge(&Answer { status, retry_after: retry_after.map(str::to_owned) }, "http://host/path", now())
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in 100..=999 {
            let answer = judged(status, None);
            let as_expected = match status {
                200..=299 => answer.is_ok(),
                401 | 403 => matches!(answer, Err(HandlerError::Unavailable { after: None, .. })),
                429 => matches!(answer, Err(HandlerError::Throttled { after: None, .. })),
                408 | 409 | 425 => matches!(answer, Err(HandlerError::Retry { after: None, .. })),
                300..=499 => matches!(answer, Err(HandlerError::Permanent { .. })),
                _ => matches!(answer, Err(HandlerError::Retry { after: None, .. })),
            };
            assert!(as_expected, "{status}: {answer:?}");
        }
    }

    #[test]
    fn a_redirection_says_that_it_is_not_followed() {
        assert!(judged(308, None).unwrap_err().to_string().contains("not followed"));
    }

    #[test]
    fn the_receiver_says_when_to_come_again() {
        let cases = [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(3600)),
            ("86400", Some(3600)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:30 GMT", Some(0)),
            ("Thu, 22 Oct 2026 07:28:00 GMT", Some(3600)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            for status in [429, 503] {
                let answer = judged(status, Some(text));
                let Err(HandlerError::Retry { after, .. } | HandlerError::Throttled { after, .. }) = answer else {
                    panic!("{status} is tried again")
                };
                assert_eq!(after, seconds.map(Duration::from_secs), "{status} {text:?}");
            }
        }
    }
}
