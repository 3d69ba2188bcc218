//! A containerd as a kubelet uses it: with its CRI plugin, and a handler for the runtime (what a
//! RuntimeClass names).
//!
//! It is one of its own beside the world's, since Debian's Docker and the world have the plugin off.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{Cmd, World, patient, wait_until};

/// Messages and client of the interface.
#[expect(missing_docs, reason = "made from proto/cri.proto")]
pub mod api {
    tonic::include_proto!("runtime.v1");
}

use api::runtime_service_client::RuntimeServiceClient;

/// The handler's name.
pub const HANDLER: &str = "sysbox";
/// Image of the container that holds a pod's namespaces; [`Cri::new`] wants it in the archive.
pub const PAUSE: &str = "sysbox-pause:latest";

/// The containerd, which ends with this value.
#[derive(Debug)]
pub struct Cri {
    directory: TempDir,
    daemon: Child,
    tokio: tokio::runtime::Runtime,
    client: RuntimeServiceClient<Channel>,
}

/// Calls a method and waits for its answer.
macro_rules! call {
    ($cri:expr, $method:ident, $request:expr) => {{
        let answer = $cri.tokio.block_on($cri.client.clone().$method($request));
        answer.map(tonic::Response::into_inner)
    }};
}

impl Cri {
    /// Starts it with the images of this archive.
    #[track_caller]
    pub fn new(images: &std::path::Path) -> Self {
        let world = World::current();
        let directory =
            tempfile::Builder::new().prefix("k").tempdir_in(&world.dir).expect("a directory");
        // Container root walks through it to its root file system.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .expect("open the directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let runtime = world.runtime().display().to_string();
        let config = format!(
            r#"version = 2
root = "{}"
state = "{}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/{PAUSE}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{HANDLER}]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{HANDLER}.options]
  BinaryName = "{runtime}"
"#,
            at("root"),
            at("state"),
            at("sock"),
        );
        fs::write(at("config.toml"), config).expect("write a configuration");
        let log = fs::File::create(at("log")).expect("make a log");
        let daemon = Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tokio = tokio.expect("a tokio runtime");
        let endpoint = Endpoint::try_from(format!("unix:{}", at("sock"))).expect("an address");
        let endpoint = endpoint.timeout(patient(Duration::from_secs(60)));
        let log = at("log");
        let client = wait_until("containerd answers", Duration::from_secs(30), || {
            let channel = tokio.block_on(endpoint.connect()).map_err(|e| e.to_string())?;
            let mut client = RuntimeServiceClient::new(channel);
            let version = tokio.block_on(client.version(api::VersionRequest {}));
            version
                .map_err(|e| format!("{e}: {}", fs::read_to_string(&log).unwrap_or_default()))?;
            Ok(client)
        });
        let cri = Self { directory, daemon, tokio, client };
        let import = ["images", "import", images.to_str().expect("text")];
        cri.ctr(&import).patience(Duration::from_secs(240)).ok();
        cri
    }

    /// A `ctr` command for the same containerd.
    fn ctr(&self, args: &[&str]) -> Cmd {
        let socket = self.directory.path().join("sock").display().to_string();
        Cmd::new("ctr", ["--address", &socket, "--namespace", "k8s.io"]).args(args)
    }

    /// A pod whose containers have pid namespaces of their own, as Kubernetes' default is.
    #[track_caller]
    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.pod_with_ids(name, None)
    }

    /// A pod with 65536 ids from this one on, as a kubelet gives them with `hostUsers: false`.
    #[track_caller]
    pub fn pod_with_ids(&self, name: &str, first: Option<u32>) -> Pod<'_> {
        let ids = |host_id| vec![api::IdMapping { host_id, container_id: 0, length: 65536 }];
        let options = api::NamespaceOption {
            pid: api::NamespaceMode::Container.into(),
            userns_options: first.map(|first| api::UserNamespace {
                mode: api::NamespaceMode::Pod.into(),
                uids: ids(first),
                gids: ids(first),
            }),
            ..Default::default()
        };
        let config = api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{name}-uid"),
                namespace: "tests".to_owned(),
            }),
            hostname: name.to_owned(),
            log_directory: self.directory.path().join("logs").display().to_string(),
            linux: Some(api::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod-{name}", World::current().cgroup_parent()),
                security_context: Some(api::SandboxSecurity { namespace_options: Some(options) }),
            }),
        };
        let request = api::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: HANDLER.to_owned(),
        };
        let id = call!(self, run_pod_sandbox, request).expect("run a pod").pod_sandbox_id;
        Pod { cri: self, id, config }
    }

    /// What it has written, for a test that fails.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- containerd, the last first\n{}", lines.join("\n"));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A pod, which is removed with this value.
#[derive(Debug)]
pub struct Pod<'a> {
    cri: &'a Cri,
    /// Its id.
    pub id: String,
    config: api::PodSandboxConfig,
}

impl Pod<'_> {
    /// Starts a container in it; what containerd says if it can't.
    pub fn try_start(
        &self,
        name: &str,
        image: &str,
        change: impl FnOnce(&mut api::ContainerConfig),
    ) -> Result<String, String> {
        let options = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let security = api::ContainerSecurity {
            privileged: false,
            namespace_options: options.and_then(|s| s.namespace_options.clone()),
        };
        let mut config = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata { name: name.to_owned() }),
            image: Some(api::ImageSpec { image: format!("docker.io/library/{image}") }),
            log_path: format!("{name}.log"),
            linux: Some(api::LinuxContainerConfig {
                resources: None,
                security_context: Some(security),
            }),
            ..Default::default()
        };
        change(&mut config);
        let request = api::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let created = call!(self.cri, create_container, request).map_err(|e| e.to_string())?;
        let id = created.container_id;
        let request = api::ContainerRequest { container_id: id.clone() };
        call!(self.cri, start_container, request).map_err(|e| e.to_string())?;
        Ok(id)
    }

    /// Starts a container in it: its id.
    #[track_caller]
    pub fn start(
        &self,
        name: &str,
        image: &str,
        change: impl FnOnce(&mut api::ContainerConfig),
    ) -> String {
        self.try_start(name, image, change).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs a shell script in a container, as a probe of Kubernetes does: exit code and output.
    #[track_caller]
    pub fn sh(&self, container: &str, script: &str) -> (i32, String) {
        let request = api::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 60,
        };
        let answer = call!(self.cri, exec_sync, request).expect("run a program in a container");
        let text = [answer.stdout, answer.stderr].concat();
        (answer.exit_code, String::from_utf8_lossy(&text).trim_end().to_owned())
    }

    /// The same for a script that must succeed.
    #[track_caller]
    pub fn ok(&self, container: &str, script: &str) -> String {
        let (code, text) = self.sh(container, script);
        assert_eq!(code, 0, "{script}: {text}");
        text
    }

    /// Sets another limit of memory.
    #[track_caller]
    pub fn limit_memory(&self, container: &str, bytes: i64) {
        let resources =
            api::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
        let request = api::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(resources),
        };
        call!(self.cri, update_container_resources, request).expect("change a limit");
    }

    /// Asks a container to end and removes it.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        let id = container.to_owned();
        let request = api::StopContainerRequest { container_id: id.clone(), timeout: 20 };
        call!(self.cri, stop_container, request).expect("stop a container");
        let request = api::ContainerRequest { container_id: id };
        call!(self.cri, remove_container, request).expect("remove a container");
    }

    /// The address that the network plugin gave it.
    #[track_caller]
    pub fn address(&self) -> String {
        let request = api::PodRequest { pod_sandbox_id: self.id.clone() };
        let status = call!(self.cri, pod_sandbox_status, request).expect("ask for a pod").status;
        status.and_then(|status| status.network).expect("a network").ip
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let request = api::PodRequest { pod_sandbox_id: self.id.clone() };
        let stopped = call!(self.cri, stop_pod_sandbox, request.clone());
        let removed = call!(self.cri, remove_pod_sandbox, request);
        if let Err(e) = stopped.and(removed) {
            eprintln!("the pod {} stays: {e}", self.id);
        }
        // Its cgroups are the kubelet's to remove, where they are still there.
        let parent = self.config.linux.as_ref().map_or("", |linux| &linux.cgroup_parent);
        for line in fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if fields[2].starts_with("cgroup") {
                let _ = fs::remove_dir(format!("{}{parent}", fields[1]));
            }
        }
    }
}

/// Major and minor version of the containerd of this machine.
#[track_caller]
pub fn version() -> (u32, u32) {
    let text = Cmd::new("containerd", ["--version"]).ok();
    let numbers = |word: &str| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
    };
    text.split_whitespace().find_map(numbers).unwrap_or_else(|| panic!("no version: {text}"))
}

/// Makes an archive of these images of Docker's, and of one that holds pods.
#[track_caller]
pub fn save_images(file: &std::path::Path, image_of_pause: &str, images: &[&str]) {
    // One after the other: the image that holds pods has one name.
    static SAVING: Mutex<()> = Mutex::new(());
    let _saving = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("pause-{}", std::process::id());
    Cmd::docker(["create", "--name", &name, image_of_pause]).ok();
    let command = r#"CMD ["sleep", "100000"]"#;
    Cmd::docker(["commit", "--change", command, &name, PAUSE]).ok();
    Cmd::docker(["rm", &name]).ok();
    let file: PathBuf = file.to_owned();
    let save = ["save", "--output", file.to_str().expect("text"), PAUSE];
    Cmd::docker(save).args(images).patience(Duration::from_secs(240)).ok();
    Cmd::docker(["rmi", PAUSE]).ok();
}
