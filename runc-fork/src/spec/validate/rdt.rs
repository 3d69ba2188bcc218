//! `linux.intelRdt`: names and lines that the kernel's resctrl file system can take. Whether this machine
//! has it is seen when the container is made.

use oci_spec::runtime::Linux;

use crate::spec::Error;

/// Directories of resctrl that are no class.
const NO_CLASS: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

pub(super) fn check(linux: &Linux) -> Result<(), Error> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(()) };
    // "/" is the class of all tasks that are in no other.
    if let Some(class) = rdt.clos_id().as_deref().filter(|class| *class != "/")
        && (NO_CLASS.contains(&class) || class.contains(['/', '\n', '\0']))
    {
        let reason = format!("{class:?} is no name of a class");
        let remedy = "it becomes a directory of /sys/fs/resctrl";
        return Err(Error::field("linux.intelRdt.closID", reason, remedy));
    }
    let memory = rdt.mem_bw_schema().as_deref().filter(|schema| !schema.is_empty());
    if memory.is_some_and(|schema| !schema.starts_with("MB:") || schema.contains('\n')) {
        let reason = format!("{:?} is no line of memory bandwidth", memory.unwrap_or_default());
        let remedy = "it looks like MB:0=20;1=70";
        return Err(Error::field("linux.intelRdt.memBwSchema", reason, remedy));
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') {
            let field = format!("linux.intelRdt.schemata[{index}]");
            return Err(Error::field(field, "has a line break in it", "each entry is one line"));
        }
    }
    Ok(())
}
