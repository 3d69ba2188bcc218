//! `linux.resources.pids`: how many tasks there may be.

use oci_spec::runtime::LinuxResources;

use super::Setting;
use crate::error::Result;

/// The file is the same in both versions.
pub(super) fn plan(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let value = match resources.pids().as_ref().map(|pids| pids.limit()) {
        None | Some(0) => return Ok(Vec::new()),
        Some(limit) if limit < 0 => "max".to_owned(),
        Some(limit) => limit.to_string(),
    };
    Ok(vec![Setting::new("pids.limit", "pids.max", value)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxPidsBuilder;

    #[test]
    fn limits() {
        for (limit, expected) in [(0, None), (-1, Some("max")), (100, Some("100"))] {
            let mut resources = LinuxResources::default();
            resources.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build().unwrap()));
            let settings = plan(&resources).unwrap();
            assert_eq!(settings.first().map(|setting| setting.value.as_str()), expected);
        }
        assert!(plan(&LinuxResources::default()).unwrap().is_empty());
    }
}
