//! `linux.sysctl`.

use oci_spec::runtime::Linux;

/// Docker lets every group send pings, with a range up to 2^31 - 1. The kernel takes only groups
/// that exist in the container's user namespace.
const PING_GROUPS: &str = "net.ipv4.ping_group_range";

/// Cuts group ranges to the groups that the container has.
pub(super) fn clamp_groups(linux: &mut Linux, gid_count: u32) {
    let Some(mut settings) = linux.sysctl().clone() else {
        return;
    };
    let Some(range) = settings.get_mut(PING_GROUPS) else {
        return;
    };
    let numbers: Vec<u32> = range.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // "1 0" (nobody) and what is no range are the kernel's to judge.
    if let [first, last] = numbers[..]
        && first <= last
    {
        let highest = gid_count.saturating_sub(1);
        *range = match first <= highest {
            true => format!("{first} {}", last.min(highest)),
            // None of these groups exists inside.
            false => "1 0".to_owned(),
        };
    }
    linux.set_sysctl(Some(settings));
}
