# shellcheck shell=bash
# The recipe of the machines' disks; see machine.sh for what a machine is. Needs packages.sh, image.sh,
# tests.sh, world.sh and machine.sh.
#
# Debian's packages are installed into a directory, the container images are put into what will be its
# Docker's data directory, and the whole becomes a file system. The images are loaded by an engine of
# this machine, not by the new one: that takes seconds, and minutes where the processor is emulated.
# Disks are kept, named by the hash of this file and of what it reads.

MACHINE_PACKAGES=linux-image-cloud-amd64,systemd,systemd-sysv,udev,dbus,apparmor,docker.io,iptables,iproute2,procps,kmod,jq,ca-certificates,xfsprogs,btrfs-progs,fuse-overlayfs,podman,nftables,nfs-kernel-server

# The suites that make machines, and what each has beyond the common list: Docker's command line, which
# was part of docker.io in Debian 12; there, what the quick start would install.
declare -A MACHINE_EXTRA=(
    [bookworm]=,$(IFS=,; say "${PACKAGES[*]}")
    [trixie]=,docker-cli
    [testing]=,docker-cli
)

# What is on the disk of a variant alone (machine.sh); those that need nothing more have the suite's own disk.
declare -A MACHINE_VARIANT_EXTRA=([selinux]=,selinux-policy-default,policycoreutils,selinux-utils)
machine_packages() { say "$MACHINE_PACKAGES${MACHINE_EXTRA[$1]}${MACHINE_VARIANT_EXTRA[${MACHINE_VARIANT:-none}]:-}"; }

# All that decides what is on the disk: this file, and the container images' recipes.
machine_hash() {
    { say "$1 $(machine_packages "$1") ${TEST_IMAGES[*]}"; cat "${BASH_SOURCE[0]}" "$TOP"/tests/machine/image/*; image_hash bookworm; } |
        sha256sum | cut -c 1-12
}

# machine_dir SUITE BIN: makes sure that the machine's disk exists and prints the directory that has it,
# as `disk`, `vmlinuz` and `initrd`. BIN has the programs of the engine that loads the images.
machine_dir() {
    local suite=$1 bin=$2 dir name=machine-$1
    [ -z "${MACHINE_VARIANT_EXTRA[${MACHINE_VARIANT:-none}]:-}" ] || name+=.$MACHINE_VARIANT
    dir=$IMAGE_CACHE/$name-$(machine_hash "$suite")
    if [ ! -s "$dir/disk" ]; then
        rm -rf "$IMAGE_CACHE/$name"-*
        make_machine "$suite" "$dir.new" "$bin" >&2 || return 1
        mv "$dir.new" "$dir"
    fi
    say "$dir"
}

make_machine() {
    local suite=$1 dir=$2 bin=$3
    mkdir -p "$dir"
    say "installing Debian $suite"
    install_machine "$suite" "$dir/root" || return 1
    cp "$dir"/root/boot/vmlinuz-* "$dir/vmlinuz" && cp "$dir"/root/boot/initrd.img-* "$dir/initrd" || return 1
    say 'giving its Docker the container images'
    copy_images "$dir/root/var/lib/docker" "$bin" || return 1
    say 'making the disk'
    mke2fs -q -t ext4 -d "$dir/root" "$dir/disk" 8G || return 1
    rm -rf "$dir/root"
}

# In a mount namespace: a /proc that was busy once stays mounted, and would go into the file system.
# A mirror may serve a copy of testing that is older than the week for which that is signed.
# The hooks' $1 is the new system. A step starts the NFS server; no other is to wait for it at boot.
install_machine() {
    # shellcheck disable=SC2016
    unshare --mount --propagation private mmdebstrap --variant=minbase --include="$(machine_packages "$1")" \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --customize-hook="copy-in '$TOP/tests/machine/image/task.service' /etc/systemd/system" \
        --customize-hook="copy-in '$TOP/tests/machine/image/task' /usr/local/sbin" \
        --customize-hook='chroot "$1" systemctl --quiet enable task.service' \
        --customize-hook='chroot "$1" systemctl --quiet disable nfs-server.service nfs-client.target rpcbind.socket rpcbind.service' \
        --customize-hook='[ ! -d "$1/etc/selinux/default" ] || { printf "SELINUX=permissive\nSELINUXTYPE=default\n" >"$1/etc/selinux/config"; chroot "$1" setfiles /etc/selinux/default/contexts/files/file_contexts /; }' \
        --customize-hook='echo "/dev/vda / ext4 rw 0 1" >"$1/etc/fstab"; echo machine >"$1/etc/hostname"; rm -f "$1/etc/resolv.conf"' \
        "$1" "$2"
}

# copy_images TO BIN: the images of a private engine, which every later Docker reads as its own.
# A process of its own: the engine must end whatever happens.
copy_images() (
    to=$1 scratch=$(mktemp -d /var/tmp/sysbox-images.XXXXXX)
    trap 'world_down "$scratch"; rm -rf "$scratch"' EXIT
    export DOCKER_HOST=unix://$scratch/docker.sock DOCKER_CONFIG=$scratch/cli
    world_up "$(machine_view)" "$scratch" "$2" || exit 1
    for name in "${TEST_IMAGES[@]}"; do load_image "$name" || exit 1; done
    world_stop "$scratch" dockerd containerd
    install --directory --mode=710 "$to" && cp --archive "$scratch/engine/docker"/{image,overlay2} "$to"
)
