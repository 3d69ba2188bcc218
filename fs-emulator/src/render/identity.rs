//! Numbers that name a machine: each container has its own.

use crate::view::View;

/// `/proc/sys/kernel/random/boot_id`: another one whenever a container starts.
pub fn boot_id(view: &View) -> String {
    let record = &view.container.record;
    uuid(&format!("boot {} {} {}", record.id, record.key, record.created_boottime_ns))
}

/// `/sys/devices/virtual/dmi/id/product_uuid`: the same for all lives of a container.
pub fn product_uuid(view: &View) -> String {
    uuid(&format!("product {}", view.container.record.id))
}

/// A UUID (version 8, of our own making) by FNV-1a over 128 bits.
fn uuid(of: &str) -> String {
    let step = |hash: u128, byte: u8| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    };
    let hash = of.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step);
    let hash = hash & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{hash:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}\n")
}

#[cfg(test)]
mod tests {
    use super::uuid;

    #[test]
    fn uuids_are_well_formed_and_differ() {
        let (a, b) = (uuid("a 1"), uuid("a 2"));
        assert_ne!(a, b);
        assert_eq!(a, uuid("a 1"));
        assert_eq!(a.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 13]);
        assert!(a.split('-').nth(2).unwrap().starts_with('8'), "{a}");
        assert!(a.split('-').nth(3).unwrap().starts_with(['8', '9', 'a', 'b']), "{a}");
    }
}
