# shellcheck shell=bash
# The recipe of the machines' disks; see machine.sh for what a machine is. Needs image.sh and machine.sh.
#
# A disk is made in two steps. Debian's packages are installed into a directory, which becomes a file
# system; then the machine is booted once to load the container images into its Docker, so that no test
# pays for that. Disks are kept, named by the hash of this file and of what it reads.

MACHINE_PACKAGES=linux-image-cloud-amd64,systemd,systemd-sysv,udev,dbus,apparmor,docker.io,iptables,iproute2,procps,kmod,jq,ca-certificates

# The suites that make machines, and what each has beyond the common list (Docker's command line was
# part of docker.io in Debian 12).
declare -A MACHINE_EXTRA=([bookworm]='' [trixie]=',docker-cli' [testing]=',docker-cli')

# The container images that a machine's Docker has.
declare -A MACHINE_IMAGES=([bookworm]='busybox bookworm' [trixie]='busybox bookworm' [testing]='busybox bookworm')

# All that decides what is on the disk: this file, and the container images' recipes.
machine_hash() {
    { say "$1"; cat "${BASH_SOURCE[0]}" "$TOP"/tests/machine/image/*; image_hash bookworm; } | sha256sum | cut -c 1-12
}

# machine_dir SUITE: makes sure that the machine's disk exists and prints the directory that has it,
# as `disk`, `vmlinuz` and `initrd`.
machine_dir() {
    local suite=$1 dir
    dir=$IMAGE_CACHE/machine-$suite-$(machine_hash "$suite")
    if [ ! -s "$dir/disk" ]; then
        rm -rf "$IMAGE_CACHE/machine-$suite"-*
        make_machine "$suite" "$dir.new" >&2 || return 1
        mv "$dir.new" "$dir"
    fi
    say "$dir"
}

make_machine() {
    local suite=$1 dir=$2 name
    mkdir -p "$dir/task/images"
    say "installing Debian $suite"
    # In a mount namespace: a /proc that was busy once stays mounted, and would go into the file system.
    # The hooks' $1 is the new system.
    # shellcheck disable=SC2016
    unshare --mount --propagation private mmdebstrap --variant=minbase --include="$MACHINE_PACKAGES${MACHINE_EXTRA[$suite]}" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --customize-hook="copy-in '$TOP/tests/machine/image/task.service' /etc/systemd/system" \
        --customize-hook="copy-in '$TOP/tests/machine/image/task' /usr/local/sbin" \
        --customize-hook='chroot "$1" systemctl --quiet enable task.service' \
        --customize-hook='echo "/dev/vda / ext4 rw 0 1" >"$1/etc/fstab"; echo machine >"$1/etc/hostname"; rm -f "$1/etc/resolv.conf"' \
        "$suite" "$dir/root" || return 1
    cp "$dir"/root/boot/vmlinuz-* "$dir/vmlinuz"
    cp "$dir"/root/boot/initrd.img-* "$dir/initrd"
    say 'making the disk'
    mke2fs -q -t ext4 -d "$dir/root" "$dir/disk.new" 8G || return 1
    rm -rf "$dir/root"
    say 'loading the container images into its Docker'
    for name in ${MACHINE_IMAGES[$suite]}; do
        cp "$(image_archive "$name")" "$dir/task/images/$name.tar" || return 1
    done
    cp "$TOP/tests/machine/image/load-images" "$dir/task/run"
    MACHINE_KEEP=yes machine_boot "$dir" "$dir/disk.new" "$dir/task" "$dir/made" 1200 || return 1
    rm -rf "$dir/task" "$dir/made"
    mv "$dir/disk.new" "$dir/disk"
}

