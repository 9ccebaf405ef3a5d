//! Since when a lane has taken what its checkpoint does not cover: what would be read again after a crash. Pure.
//!
//! Pages that were taken within a moment count as one, so under steady load the age is that of a checkpoint, not of the
//! lane. Invariant: it remembers [`MOMENTS_MAX`] at most; beyond them the age is too great rather than too small.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::stream::StreamPoint;

/// Pages taken within so long of each other count as taken at once.
const MOMENT: Duration = Duration::from_secs(1);

/// Moments that are told apart.
const MOMENTS_MAX: usize = 600;

/// What was taken and is not saved.
#[derive(Debug, Default)]
pub(crate) struct Unsaved(VecDeque<Moment>);

#[derive(Debug)]
struct Moment {
    since: Instant,
    /// The place behind its last page; none for the end of the shard, which is saved with the whole lane.
    through: Option<StreamPoint>,
}

impl Unsaved {
    /// A page was taken, through this place or to the end of the shard.
    pub(crate) fn taken(&mut self, through: Option<&StreamPoint>, now: Instant) {
        let through = through.cloned();
        let is_full = self.0.len() >= MOMENTS_MAX;
        match self.0.back_mut().filter(|last| is_full || now.duration_since(last.since) < MOMENT) {
            // What ends the shard stays its end; a page that was met again leads no further.
            Some(last) if last.through.is_none() || (through.is_some() && through <= last.through) => {}
            Some(last) => last.through = through,
            None => self.0.push_back(Moment { since: now, through }),
        }
    }

    /// The checkpoint is here.
    pub(crate) fn saved(&mut self, at: &StreamPoint) {
        while self.0.front().and_then(|first| first.through.as_ref()).is_some_and(|through| through <= at) {
            self.0.pop_front();
        }
    }

    /// When the first of what is not saved was taken; none when all is.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.0.front().map(|first| first.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamSequence;

    fn point(number: u64) -> StreamPoint {
        StreamPoint::After(StreamSequence::new(&number.to_string()))
    }

    fn age(unsaved: &Unsaved, now: Instant) -> Option<Duration> {
        unsaved.since().map(|since| now.duration_since(since))
    }

    #[test]
    fn under_steady_load_the_age_is_that_of_the_last_checkpoint() {
        let (mut unsaved, began) = (Unsaved::default(), Instant::now());
        let mut oldest = Duration::ZERO;
        for tick in 1..=6_000 {
            // A page every 100 ms, a checkpoint every 5 s up to where the lane was a second before.
            let now = began + Duration::from_millis(100) * u32::try_from(tick).unwrap();
            unsaved.taken(Some(&point(tick)), now);
            if tick % 50 == 0 {
                unsaved.saved(&point(tick - 10));
            }
            oldest = oldest.max(age(&unsaved, now).unwrap());
        }
        assert!((Duration::from_secs(5)..=Duration::from_secs(8)).contains(&oldest), "{oldest:?}");
    }

    #[test]
    fn it_grows_while_nothing_is_saved_and_is_none_when_all_is() {
        let (mut unsaved, began) = (Unsaved::default(), Instant::now());
        assert_eq!(unsaved.since(), None);
        for second in 0..2_000_u64 {
            unsaved.taken(Some(&point(second + 10)), began + Duration::from_secs(second));
        }
        let now = began + Duration::from_secs(2_000);
        assert_eq!(age(&unsaved, now), Some(Duration::from_secs(2_000)));
        assert_eq!(unsaved.0.len(), MOMENTS_MAX);
        unsaved.saved(&point(9 + 100));
        assert_eq!(age(&unsaved, now), Some(Duration::from_secs(1_900)));
        // A page that is met again takes nothing back.
        unsaved.taken(Some(&point(10)), now);
        unsaved.saved(&point(2_009));
        assert_eq!(unsaved.since(), None);
    }

    #[test]
    fn the_end_of_a_shard_is_saved_with_the_lane_alone() {
        let (mut unsaved, began) = (Unsaved::default(), Instant::now());
        unsaved.taken(Some(&point(1)), began);
        unsaved.taken(None, began);
        unsaved.taken(Some(&point(2)), began);
        unsaved.saved(&point(9));
        assert_eq!(unsaved.since(), Some(began));
    }
}
