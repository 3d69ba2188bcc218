//! Waiting for a condition instead of sleeping.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long to wait here for what takes at most `time` on an idle machine of today:
/// `SYSBOX_TEST_SLOWNESS` says how many times slower this one is (emulated processors are).
pub fn patient(time: Duration) -> Duration {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    let slowness = SLOWNESS.get_or_init(|| {
        std::env::var("SYSBOX_TEST_SLOWNESS").map_or(1, |text| {
            text.parse().unwrap_or_else(|_| panic!("SYSBOX_TEST_SLOWNESS={text} is no number"))
        })
    });
    time * *slowness
}

/// Polls until the condition holds and gives its value. It answers `Err(state)` while it does not;
/// when the time is over, the last state is what the failed test shows.
#[track_caller]
pub fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let patience = patient(patience);
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(20);
    loop {
        match condition() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= deadline => {
                panic!("waited {patience:?} in vain until {what}; last state: {state}")
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}
