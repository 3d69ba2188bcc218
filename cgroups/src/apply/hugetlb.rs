//! `linux.resources.hugepageLimits`: bytes of huge pages, by page size.
//!
//! Where the kernel has it, the limit of reservations is set too, as runc does: it makes `mmap`
//! fail where the other one sends SIGBUS at the first touch.

use oci_spec::runtime::LinuxResources;

use super::Setting;
use crate::error::{Error, Result};

pub(super) fn plan_v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    plan(resources, "limit_in_bytes", "-1")
}

pub(super) fn plan_v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    plan(resources, "max", "max")
}

fn plan(resources: &LinuxResources, file: &str, unlimited: &str) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        // The page size becomes part of a file's name.
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::Unsupported {
                field: "linux.resources.hugepageLimits.pageSize".to_owned(),
                reason: format!("{size:?} is no page size such as \"2MB\""),
            });
        }
        let value = match limit.limit() {
            ..=-1 => unlimited.to_owned(),
            bytes => bytes.to_string(),
        };
        let field = format!("hugepageLimits[{size}]");
        settings.push(Setting::new(&field, format!("hugetlb.{size}.{file}"), &value));
        settings
            .push(Setting::new(&field, format!("hugetlb.{size}.rsvd.{file}"), &value).optional());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxHugepageLimitBuilder;

    fn with(size: &str, limit: i64) -> LinuxResources {
        let limit = LinuxHugepageLimitBuilder::default().page_size(size).limit(limit);
        let mut resources = LinuxResources::default();
        resources.set_hugepage_limits(Some(vec![limit.build().unwrap()]));
        resources
    }

    #[test]
    fn files() {
        let v2 = plan_v2(&with("2MB", 4_194_304)).unwrap();
        let files: Vec<_> = v2.iter().map(|setting| setting.files[0].as_str()).collect();
        assert_eq!(files, ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]);
        assert_eq!(v2[0].value, "4194304");
        assert!(!v2[0].optional && v2[1].optional);
        assert_eq!(plan_v2(&with("1GB", -1)).unwrap()[0].value, "max");
        let v1 = plan_v1(&with("1GB", -1)).unwrap();
        assert_eq!(v1[0].files[0], "hugetlb.1GB.limit_in_bytes");
        assert_eq!(v1[0].value, "-1");
        for size in ["", "../x", "2MB/"] {
            assert!(plan_v2(&with(size, 1)).is_err());
        }
    }
}
