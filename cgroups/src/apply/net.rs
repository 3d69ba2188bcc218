//! `linux.resources.network`: marks for traffic control, which only v1 has.

use oci_spec::runtime::LinuxResources;

use super::Setting;
use crate::error::Result;

pub(super) fn plan_class(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let class = resources.network().as_ref().and_then(|network| network.class_id());
    let class = class.filter(|class| *class != 0);
    let setting = |class| Setting::new("network.classID", "net_cls.classid", class);
    Ok(class.map(setting).into_iter().collect())
}

pub(super) fn plan_priorities(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let network = resources.network().iter();
    let priorities = network.filter_map(|network| network.priorities().as_ref()).flatten();
    let setting = |name: &str, priority: u32| {
        Setting::new("network.priorities", "net_prio.ifpriomap", format!("{name} {priority}"))
    };
    Ok(priorities.map(|entry| setting(entry.name(), entry.priority())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxInterfacePriorityBuilder, LinuxNetworkBuilder};

    #[test]
    fn files() {
        let priority = LinuxInterfacePriorityBuilder::default().name("eth0").priority(5_u32);
        let network = LinuxNetworkBuilder::default()
            .class_id(0x10_0001_u32)
            .priorities(vec![priority.build().unwrap()]);
        let mut resources = LinuxResources::default();
        resources.set_network(Some(network.build().unwrap()));
        assert_eq!(plan_class(&resources).unwrap()[0].value, "1048577");
        assert_eq!(plan_priorities(&resources).unwrap()[0].value, "eth0 5");
        assert!(plan_class(&LinuxResources::default()).unwrap().is_empty());
    }
}
