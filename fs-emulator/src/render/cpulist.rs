//! `/sys/devices/system/cpu/{online,present,possible,offline}`.

use crate::view::View;

/// The visible CPUs as the kernel's list: all that the container has are online.
pub fn online(view: &View) -> String {
    match view.visible_cpus().cpus.len() {
        1 => "0\n".to_owned(),
        n => format!("0-{}\n", n - 1),
    }
}

/// No CPU of the container is offline.
pub fn offline(_: &View) -> String {
    "\n".to_owned()
}
