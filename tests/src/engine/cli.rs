//! Docker and Podman, whose commands are nearly the same.

use super::{Engine, How, Stats};
use crate::{Cmd, Container, World};

pub(super) fn run(
    engine: Engine,
    how: How,
    name: &str,
    container: &Container,
    command: &[String],
) -> Cmd {
    let how = match how {
        How::Foreground => "--rm",
        How::Detached => "--detach",
    };
    let cmd = if engine == Engine::Podman {
        // Podman starts its containers anywhere; the world's belong where its others are.
        let parent = World::current().cgroup_parent();
        Cmd::new("podman", ["--runtime", &container.runtime, "run", "--name", name])
            .args(["--cgroup-parent", &parent])
    } else {
        Cmd::docker(["run", "--name", name, "--runtime", &container.runtime])
    };
    cmd.args([how]).args(&container.args).args([&container.image]).args(command)
}

/// A field of `inspect`, as a Go template names it.
#[track_caller]
pub(crate) fn inspect(name: &str, field: &str) -> String {
    let format = format!("{{{{{field}}}}}");
    Engine::current().cmd(["inspect", "--format", &format, name]).ok()
}

#[track_caller]
pub(crate) fn stats(name: &str) -> Stats {
    let format = "{{.MemUsage}}/{{.PIDs}}";
    let line = Engine::current().cmd(["stats", "--no-stream", "--format", format, name]).ok();
    let fields: Vec<&str> = line.split('/').map(str::trim).collect();
    let [memory, limit, processes] = fields[..] else { panic!("three numbers: {line}") };
    Stats {
        memory: bytes(memory),
        memory_limit: bytes(limit),
        processes: processes.parse().expect("a number of processes"),
    }
}

/// A size with its unit: Docker prints MiB, Podman MB.
#[track_caller]
fn bytes(text: &str) -> f64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "B" | "" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => panic!("{text} is no size"),
    };
    number.trim().parse::<f64>().unwrap_or_else(|_| panic!("{text} is no size")) * unit
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("200MiB"), 209_715_200.0);
        assert_eq!(bytes("209.7MB"), 209_700_000.0);
        assert_eq!(bytes("12B"), 12.0);
    }
}
