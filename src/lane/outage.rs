//! Telling an outage of the receiver from a poisoned event (contract clause 13). Pure.
//!
//! While the receiver is down nothing is handed to it but one batch at a time, as a probe, after growing waits;
//! nothing is counted against any root. It is down when it says so, or when several roots fail in a row and none
//! succeeds.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::time::{BackoffPolicy, Random};

/// So many different roots failing in a row, with no success between, is an outage and not the fault of any of them.
const FAILING_ROOTS: usize = 5;

/// The waits between probes.
const PROBES: BackoffPolicy = BackoffPolicy { initial: Duration::from_millis(250), max: Duration::from_secs(15) };

/// Whether anything may be handed to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// As much as its bounds allow.
    Open,
    /// One batch, to see whether it is back.
    Probe,
    /// Nothing: until then, or until the probe's answer.
    Closed(Option<Instant>),
}

/// Whether one receiver answers.
#[derive(Debug)]
pub(crate) struct Outage {
    down: Option<Down>,
    failing: BTreeSet<usize>,
    /// The end of the last outage.
    ended_at: Option<Instant>,
    /// The last time that the receiver answered.
    answered_at: Option<Instant>,
    random: Random,
}

#[derive(Debug)]
struct Down {
    probes: u32,
    probe_at: Instant,
    /// The root that is the probe under way.
    probe: Option<usize>,
}

impl Outage {
    pub(crate) fn new(random: Random) -> Self {
        Self { down: None, failing: BTreeSet::new(), ended_at: None, answered_at: None, random }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.is_some()
    }

    pub(crate) fn gate(&self, now: Instant) -> Gate {
        match &self.down {
            None => Gate::Open,
            Some(down) if down.probe.is_some() => Gate::Closed(None),
            Some(down) if down.probe_at <= now => Gate::Probe,
            Some(down) => Gate::Closed(Some(down.probe_at)),
        }
    }

    /// A root was handed over as the probe.
    pub(crate) fn probing(&mut self, root: usize) {
        if let Some(down) = &mut self.down {
            down.probe = Some(root);
        }
    }

    /// A root was not handed over after all: if it was to be the probe, another one is.
    pub(crate) fn not_asked(&mut self, root: usize) {
        if let Some(down) = self.down.as_mut().filter(|down| down.probe == Some(root)) {
            down.probe = None;
        }
    }

    /// Whether a root failed since the receiver last answered.
    pub(crate) fn suspects(&self, root: usize) -> bool {
        self.failing.contains(&root)
    }

    /// The receiver took something, or refused it for what it is: it answers. True when that ends an outage.
    pub(crate) fn answered(&mut self, now: Instant) -> bool {
        self.failing.clear();
        self.answered_at = Some(now);
        let ended = self.down.take().is_some();
        if ended {
            self.ended_at = Some(now);
        }
        ended
    }

    /// Whether the receiver has answered to another root since this one began to fail: only then it is its own fault.
    pub(crate) fn answered_since(&self, since: Instant) -> bool {
        self.answered_at.is_some_and(|answered_at| answered_at >= since)
    }

    /// How long a root has failed that did so first at `since`: what lies before the end of an outage does not count.
    pub(crate) fn age(&self, since: Instant, now: Instant) -> Duration {
        now.duration_since(self.ended_at.map_or(since, |ended_at| ended_at.max(since)))
    }

    /// The receiver says, to this root, that it is down. True when that begins an outage.
    pub(crate) fn unavailable(&mut self, root: usize, now: Instant, after: Option<Duration>) -> bool {
        let after = after.unwrap_or_default();
        let probes = match &mut self.down {
            // A late answer to something sent before the outage says nothing about the probe.
            Some(down) if down.probe != Some(root) => {
                down.probe_at = down.probe_at.max(now + after);
                return false;
            }
            Some(down) => down.probes + 1,
            None => 0,
        };
        let began = self.down.is_none();
        let wait = PROBES.wait_after(probes + 1, &self.random).max(after);
        self.down = Some(Down { probes, probe_at: now + wait, probe: None });
        began
    }

    /// A root failed in a way that another attempt may mend. True when that is part of an outage, begun now or before.
    pub(crate) fn failed(&mut self, root: usize, now: Instant, after: Option<Duration>) -> bool {
        self.failing.insert(root);
        if self.down.is_some() || self.failing.len() >= FAILING_ROOTS {
            self.unavailable(root, now, after);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Outage {
        Outage::new(Random::seeded(1))
    }

    #[test]
    fn one_failing_root_is_its_own_fault() {
        let (mut outage, now) = (outage(), Instant::now());
        for _ in 0..100 {
            assert!(!outage.failed(7, now, None));
        }
        assert_eq!(outage.gate(now), Gate::Open);
    }

    #[test]
    fn several_failing_roots_are_an_outage_unless_one_succeeds() {
        let (mut outage, now) = (outage(), Instant::now());
        for root in 0..FAILING_ROOTS - 1 {
            assert!(!outage.failed(root, now, None));
        }
        assert!(!outage.answered(now), "there was no outage to end");
        assert!(!outage.failed(99, now, None), "the success began the count anew");
        for root in 0..FAILING_ROOTS {
            outage.failed(root, now, None);
        }
        assert!(outage.is_down());
    }

    #[test]
    fn probes_one_at_a_time_with_growing_waits() {
        let (mut outage, mut now) = (outage(), Instant::now());
        assert!(outage.unavailable(1, now, None));
        let mut waits = Vec::new();
        for _ in 0..10 {
            let Gate::Closed(Some(at)) = outage.gate(now) else { panic!("closed until the probe") };
            waits.push(at - now);
            now = at;
            assert_eq!(outage.gate(now), Gate::Probe);
            outage.probing(2);
            assert!(!outage.unavailable(1, now, None), "a late answer");
            assert_eq!(outage.gate(now), Gate::Closed(None));
            assert!(!outage.unavailable(2, now, None));
        }
        assert!(waits[0] <= PROBES.initial && waits.iter().all(|wait| *wait <= PROBES.max), "{waits:?}");
        let mean = |waits: &[Duration]| waits.iter().sum::<Duration>() / 3;
        assert!(mean(&waits[7..]) > 10 * mean(&waits[..3]), "{waits:?}");
        assert!(outage.answered(now));
        assert_eq!(outage.gate(now), Gate::Open);
    }

    #[test]
    fn a_probe_that_was_not_handed_over_says_nothing() {
        let (mut outage, now) = (outage(), Instant::now());
        outage.unavailable(1, now, None);
        let later = now + PROBES.initial;
        outage.probing(2);
        outage.not_asked(1);
        assert_eq!(outage.gate(later), Gate::Closed(None), "another root's");
        outage.not_asked(2);
        assert_eq!((outage.gate(later), outage.is_down()), (Gate::Probe, true));
    }

    #[test]
    fn the_receivers_own_wait_is_kept() {
        let (mut outage, now) = (outage(), Instant::now());
        let asked = Duration::from_secs(90);
        outage.unavailable(1, now, Some(asked));
        assert_eq!(outage.gate(now), Gate::Closed(Some(now + asked)));
    }
}
