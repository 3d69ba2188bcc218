//! Counting and timing without locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sysbox_ipc::proto;

/// Upper ends of the classes of duration, in microseconds. Longer ones are in a class of their own.
pub const BOUNDS_US: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000];

/// How often something was done, and how long it took.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BOUNDS_US.len() + 1],
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Counts one that took this long.
    pub fn observe(&self, took: Duration) {
        let class = BOUNDS_US.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        // Half a millennium of nanoseconds fits.
        self.sum_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> proto::Histogram {
        proto::Histogram {
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_its_class() {
        let histogram = Histogram::new();
        for us in [0, 50, 51, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let got = histogram.snapshot();
        assert_eq!(got.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(got.sum_ns, 10_000_102_000);
    }
}
