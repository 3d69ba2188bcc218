//! The engine's commands on a container, in the words of the engine that the tests drive.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::{self, Engine, Stats, cli, ctr};
use crate::{Running, World};

/// By Docker's and Podman's `inspect` or commands, or by what ctr has.
macro_rules! by_engine {
    ($by_ctr:expr, $otherwise:expr) => {
        if Engine::current() == Engine::Ctr { $by_ctr } else { $otherwise }
    };
}

impl Running {
    /// The host's pid of the container's init.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let parse = |pid: String| {
            pid.parse().unwrap_or_else(|_| panic!("{} has no pid but '{pid}'", self.name))
        };
        by_engine!(ctr::pid(&self.name), parse(self.inspect(".State.Pid")))
    }

    /// The engine's name for the container in full.
    #[track_caller]
    pub fn id(&self) -> String {
        by_engine!(self.name.clone(), self.inspect(".Id"))
    }

    /// Directory of the container's cgroup in the hierarchy of a controller.
    #[track_caller]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let hierarchy = World::current().controller(controller);
        hierarchy
            .expect("a controller that the test asked for")
            .join(engine::cgroup_path(&self.name))
    }

    /// Where the engine keeps what the container has changed.
    #[track_caller]
    pub fn upper_dir(&self) -> PathBuf {
        self.overlay_option("UpperDir").into()
    }

    /// The layers below that, the topmost first, with colons between them.
    #[track_caller]
    pub fn lower_dirs(&self) -> String {
        self.overlay_option("LowerDir")
    }

    /// An option of the engine's overlay, by the name that Docker has for it.
    #[track_caller]
    fn overlay_option(&self, name: &str) -> String {
        let option = name.to_lowercase();
        let by_docker = || {
            let value = self.inspect(&format!(".GraphDriver.Data.{name}"));
            // Docker knows nothing of the layers when it has them in containerd.
            if value.starts_with('/') {
                value
            } else {
                ctr::overlay_option("moby", &self.id(), &option)
            }
        };
        by_engine!(ctr::overlay_option(ctr::NAMESPACE, &self.name, &option), by_docker())
    }

    /// Where the engine keeps the files of the only volume.
    #[track_caller]
    pub fn volume_dir(&self) -> PathBuf {
        by_engine!(ctr::volume_dir(&self.name), self.inspect("(index .Mounts 0).Source").into())
    }

    /// Asks it to end, and kills it after this time; what the engine says of its end.
    #[track_caller]
    pub fn stop(&self, patience: Duration) -> String {
        let stop = || {
            self.docker(["stop", "--time", &patience.as_secs().to_string()]);
            self.inspect(".State.ExitCode")
        };
        by_engine!(ctr::stop(&self.name, patience).unwrap_or_default(), stop())
    }

    /// Starts it again.
    #[track_caller]
    pub fn start(&self) {
        by_engine!(ctr::start(&self.name), drop(self.docker(["start"])));
    }

    /// Stops and starts it.
    #[track_caller]
    pub fn restart(&self, patience: Duration) {
        let by_ctr = || {
            ctr::stop(&self.name, patience);
            ctr::start(&self.name);
        };
        let time = patience.as_secs().to_string();
        by_engine!(by_ctr(), drop(self.docker(["restart", "--time", &time])));
    }

    /// Kills it and waits for its end: the exit code.
    #[track_caller]
    pub fn kill(&self) -> String {
        let kill = || {
            self.docker(["kill", "--signal", "KILL"]);
            self.wait()
        };
        let killed = || ctr::end(&self.name, "SIGKILL", Duration::ZERO);
        by_engine!(killed().expect("it runs"), kill())
    }

    /// Waits for its end: the exit code.
    #[track_caller]
    pub fn wait(&self) -> String {
        by_engine!(ctr::wait(&self.name), self.docker(["wait"]))
    }

    /// Freezes it.
    #[track_caller]
    pub fn pause(&self) {
        let by_ctr = || crate::Cmd::new("ctr", ["tasks", "pause", &self.name]).ok();
        drop(by_engine!(by_ctr(), self.docker(["pause"])));
    }

    /// Lets it go on.
    #[track_caller]
    pub fn unpause(&self) {
        let by_ctr = || crate::Cmd::new("ctr", ["tasks", "resume", &self.name]).ok();
        drop(by_engine!(by_ctr(), self.docker(["unpause"])));
    }

    /// `running`, `paused`, or another word of the engine's.
    #[track_caller]
    pub fn state(&self) -> String {
        by_engine!(ctr::state(&self.name).to_lowercase(), self.inspect(".State.Status"))
    }

    /// What its program has printed.
    #[track_caller]
    pub fn logs(&self) -> String {
        by_engine!(ctr::all_logs(&self.name), self.docker(["logs"]))
    }

    /// Its processes: a heading, then a line each.
    #[track_caller]
    pub fn top(&self) -> String {
        by_engine!(ctr::top(&self.name), self.docker(["top"]))
    }

    /// What it has changed in its root file system: lines that only the same engine's can be compared with.
    #[track_caller]
    pub fn diff(&self) -> String {
        by_engine!(ctr::diff(&self.name), self.docker(["diff"]))
    }

    /// What the engine counts for it.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        by_engine!(ctr::stats(&self.name), cli::stats(&self.name))
    }

    /// Address and port by which the host reaches this port inside, which is published on a port of the
    /// host's loopback by engines that do that.
    #[track_caller]
    pub fn address(&self, port: u16) -> String {
        let published = || {
            let port = format!("{port}/tcp");
            let ports = Engine::current().cmd(["port", &self.name, &port]).ok();
            ports.lines().next().expect("a published port").to_owned()
        };
        by_engine!(format!("{}:{port}", ctr::address(&self.name)), published())
    }

    /// Kills and removes it now.
    #[track_caller]
    pub fn remove(&self) {
        engine::remove(&self.name).ok();
    }
}
