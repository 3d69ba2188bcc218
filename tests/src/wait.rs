//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

/// Polls until the condition holds and gives its value. It answers `Err(state)` while it does not;
/// when the time is over, the last state is what the failed test shows.
#[track_caller]
pub fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
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
