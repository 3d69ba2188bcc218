//! `linux.resources.rdma`: handles and objects of RDMA devices.

use oci_spec::runtime::LinuxResources;

use super::Setting;
use crate::error::Result;

/// The file is the same in both versions.
pub(super) fn plan(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    let setting = |name: &str, handles: Option<u32>, objects: Option<u32>| {
        let mut value = name.to_owned();
        for (key, limit) in [("hca_handle", handles), ("hca_object", objects)] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        Setting::new(&format!("rdma[{name}]"), "rdma.max", value)
    };
    let all = devices.into_iter();
    Ok(all.map(|(name, limit)| setting(name, limit.hca_handles(), limit.hca_objects())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxRdmaBuilder;

    #[test]
    fn line() {
        let limit = LinuxRdmaBuilder::default().hca_handles(3_u32).hca_objects(100_u32);
        let mut resources = LinuxResources::default();
        resources.set_rdma(Some([("mlx5_1".to_owned(), limit.build().unwrap())].into()));
        let settings = plan(&resources).unwrap();
        assert_eq!(settings[0].value, "mlx5_1 hca_handle=3 hca_object=100");
    }
}
