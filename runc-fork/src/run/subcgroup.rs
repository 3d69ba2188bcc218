//! `exec --cgroup`: the process goes into a cgroup below the container's, which must exist.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sysbox_cgroups::Cgroup;

/// One `--cgroup`: a path below the container's cgroup, of the controllers named (v1), or of the
/// unified hierarchy if there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    controllers: Vec<String>,
    path: PathBuf,
}

/// Reads the options; runc's words for what it refuses.
pub fn parse(options: &[String]) -> Result<Vec<Place>> {
    options.iter().map(|option| one(option)).collect()
}

fn one(option: &str) -> Result<Place> {
    let (controllers, path) = option.split_once(':').unwrap_or(("", option));
    let relative: PathBuf = Path::new(path)
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .collect();
    // The container's cgroup is the container's world: no way leads out of it.
    ensure!(
        relative.components().all(|part| matches!(part, Component::Normal(_))),
        "bad sub cgroup path: {path}"
    );
    let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
    Ok(Place { controllers, path: relative })
}

/// Moves the process.
pub fn enter(cgroup: &Cgroup, places: &[Place], pid: i32) -> Result<()> {
    for place in places {
        for directory in directories(cgroup, place)? {
            let file = directory.join(&place.path).join("cgroup.procs");
            fs::write(&file, pid.to_string()).with_context(|| {
                format!("adding pid {pid} to cgroups failed (--cgroup): write {}", file.display())
            })?;
        }
    }
    Ok(())
}

fn directories<'a>(cgroup: &'a Cgroup, place: &Place) -> Result<Vec<&'a Path>> {
    if place.controllers.is_empty() {
        return Ok(match cgroup.unified() {
            Some(unified) => vec![unified],
            None => cgroup.v1().map(|(_, directory)| directory).collect(),
        });
    }
    let mut found = Vec::new();
    for name in &place.controllers {
        match cgroup.v1().find(|(controller, _)| controller == name) {
            Some((_, directory)) => found.push(directory),
            None => bail!("--cgroup: unknown controller {name} (no cgroup v1 hierarchy has it)"),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let place = |option: &str| one(option).unwrap();
        assert_eq!(place("/a/b").path, Path::new("a/b"));
        assert_eq!(place("cpu,memory:a").controllers, ["cpu", "memory"]);
        assert_eq!(place("/").path, Path::new(""));
        assert!(one("/../x").is_err() && one("cpu:a/../../b").is_err());
    }
}
