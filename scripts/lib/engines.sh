# shellcheck shell=bash
# The other engines of a world: Podman with all its files in the world's directory, and `ctr`, which talks
# to the containerd that the world has anyway. Both are commands without a daemon of their own:
#
#   scripts/world enter DIR podman run --rm --cgroup-parent "$SYSBOX_WORLD_CGROUP" IMAGE COMMAND
#   scripts/world enter DIR ctr run --rm --runc-binary DIR/bin/sysbox-runc IMAGE NAME COMMAND

# The engines that the tests of the main job are run with besides Docker.
# shellcheck disable=SC2034
OTHER_ENGINES=(podman ctr)

# write_podman_config DIR: nothing of it comes from the machine's own Podman. Locks are files, since those
# in shared memory are one set for all of the machine. Default limits: raising them takes rights that the
# tests' host may lack.
write_podman_config() {
    local dir=$1 podman=$1/podman
    mkdir -p "$podman/networks"
    chmod 711 "$podman"
    # conmon hands no environment on to the runtime.
    cat >"$podman/sysbox-runc" <<SH
#!/bin/sh
SYSBOX_RUN_DIR=$dir/run SYSBOX_CRASH_FILE=$dir/run/crash exec $dir/bin/sysbox-runc "\$@"
SH
    chmod 755 "$podman/sysbox-runc"
    cat >"$podman/containers.conf" <<TOML
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_config_dir = "$podman/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "$dir/run/libpod"
image_copy_tmp_dir = "$podman"
runtime = "sysbox"
[engine.runtimes]
sysbox = ["$podman/sysbox-runc"]
runc = ["$(command -v runc)"]
TOML
    cat >"$podman/storage.conf" <<TOML
[storage]
driver = "overlay"
graphroot = "$podman/storage"
runroot = "$dir/run/podman"
TOML
}

# write_network_config DIR: for `ctr run --cni`, which has its places built in. The world's mount namespace
# has its own there (world-holder).
write_network_config() {
    mkdir -p "$1/cni/net.d" "$1/cni/state"
    cat >"$1/cni/net.d/10-tests.conflist" <<'JSON'
{ "cniVersion": "0.4.0", "name": "tests", "plugins": [
  { "type": "bridge", "bridge": "cni-tests", "isGateway": true, "ipMasq": true,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.87.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "firewall" }
] }
JSON
}

# engine_environment DIR: what the two find the above by, as arguments of env(1).
engine_environment() {
    say "CONTAINERS_CONF=$1/podman/containers.conf"
    say "CONTAINERS_STORAGE_CONF=$1/podman/storage.conf"
    say "CONTAINERD_ADDRESS=$1/run/containerd.sock"
    say "CONTAINERD_NAMESPACE=tests"
}

# load_image_into DIR ENGINE NAME: gives the world's Podman or containerd an image, unless it has it.
load_image_into() {
    local dir=$1 archive
    archive=$(image_archive "$3") || return 1
    case $2 in
        podman) world_enter "$dir" podman image exists "$(image_tag "$3")" ||
            world_enter "$dir" podman load --quiet --input "$archive" ;;
        ctr) [ -n "$(world_enter "$dir" ctr images list --quiet "name==docker.io/library/$(image_tag "$3")")" ] ||
            world_enter "$dir" ctr images import "$archive" ;;
    esac
}

# other_leftovers DIR: what containers of theirs left behind.
other_leftovers() {
    local dir=$1
    [ ! -e "$dir/podman/storage" ] || world_enter "$dir" podman ps --all --format 'container {{.Names}} of podman'
    command -v ctr >/dev/null || return 0
    world_enter "$dir" ctr containers list --quiet | sed 's/$/ of ctr/; s/^/container /'
    world_enter "$dir" ctr snapshots list | awk '$NF == "Active" { print "snapshot " $1 " of ctr" }'
}

# Podman's store is a mount of itself.
stop_other_engines() {
    local dir=$1
    [ -e "$dir/podman/storage" ] || return 0
    world_enter "$dir" podman pod rm --all --force --time 0 >/dev/null 2>&1 || true
    world_enter "$dir" podman rm --all --force --time 0 >/dev/null 2>&1 || true
}
