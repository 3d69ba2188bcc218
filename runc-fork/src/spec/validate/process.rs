//! `process`.

use oci_spec::runtime::Spec;

use crate::spec::Error;

pub(super) fn check(spec: &Spec) -> Result<(), Error> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::field("process", "is missing", "it says what to execute"))?;
    check_strings("process.args", process.args().as_deref().unwrap_or_default())?;
    match process.args().as_deref() {
        None | Some([]) => {
            let remedy = "the image has no command; give one";
            return Err(Error::field("process.args", "is empty", remedy));
        }
        Some([first, ..]) if first.is_empty() => {
            return Err(Error::field("process.args[0]", "is empty", "it names the program"));
        }
        Some(_) => {}
    }
    check_strings("process.env", process.env().as_deref().unwrap_or_default())?;
    if !process.cwd().is_absolute() {
        let reason = format!("{:?} is not absolute", process.cwd());
        return Err(Error::field("process.cwd", reason, ""));
    }
    match process.oom_score_adj() {
        Some(adjustment) if !(-1000..=1000).contains(&adjustment) => {
            let reason = format!("{adjustment} is not between -1000 and 1000");
            return Err(Error::field("process.oomScoreAdj", reason, ""));
        }
        _ => {}
    }
    check_rlimits(spec)
}

/// The kernel's strings end at a zero byte.
fn check_strings(name: &str, strings: &[String]) -> Result<(), Error> {
    match strings.iter().position(|string| string.contains('\0')) {
        Some(index) => Err(Error::field(format!("{name}[{index}]"), "holds a zero byte", "")),
        None => Ok(()),
    }
}

fn check_rlimits(spec: &Spec) -> Result<(), Error> {
    let process = spec.process().as_ref();
    let limits = process.and_then(|process| process.rlimits().as_deref()).unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let name = limit.typ();
        if limits[..index].iter().any(|earlier| earlier.typ() == name) {
            return Err(Error::field(field, format!("{name} is given twice"), "give it once"));
        }
        if limit.soft() > limit.hard() {
            let reason = format!(
                "the soft limit {} of {name} is above the hard limit {}",
                limit.soft(),
                limit.hard()
            );
            return Err(Error::field(field, reason, ""));
        }
    }
    Ok(())
}
