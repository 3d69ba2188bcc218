# shellcheck shell=bash
# Whole Debian machines under QEMU: their disks, and how one is booted. Needs image.sh.
#
# A machine has Debian's own packages only: kernel, systemd, Docker. What a run shall do comes on a
# second disk, which is nothing but a tar archive, and is started by a unit that the image has:
#
#   /dev/vda   the system; every write of a run goes to a throw-away overlay
#   /dev/vdb   the task: a tar archive with an executable `run` in it
#   /dev/vdc   the results: what the task left in /run/task/results, again as a tar archive
#   ttyS0      the console: kernel and systemd
#   ttyS1      what the task prints, as it runs
#
# The disk is made in two steps. The packages are installed into a directory, which becomes a file
# system; then the machine is booted once to load the container images into its Docker, so that no test
# pays for that.

MACHINE_PACKAGES=linux-image-cloud-amd64,systemd,systemd-sysv,udev,dbus,apparmor,docker.io,iptables,iproute2,procps,kmod,jq,ca-certificates

# The suites that make machines, and what each has beyond the common list (Docker's command line was
# part of docker.io in Debian 12).
declare -A MACHINE_EXTRA=([bookworm]= [trixie]=,docker-cli [testing]=,docker-cli)

# The container images that a machine's Docker has.
declare -A MACHINE_IMAGES=([bookworm]='busybox bookworm' [trixie]='busybox bookworm' [testing]='busybox bookworm')

MACHINE_TOOLS=(qemu-system-x86 mmdebstrap e2fsprogs)

need_machine_tools() {
    local tool missing=()
    for tool in "${MACHINE_TOOLS[@]}"; do
        dpkg-query -W -f '${Status}\n' "$tool" 2>/dev/null | grep -q ' installed$' || missing+=("$tool")
    done
    [ "${#missing[@]}" -eq 0 ] ||
        die "packages are missing: ${missing[*]}" "install them: apt-get install --no-install-recommends ${missing[*]}"
}

machine_suite_known() {
    [ -n "${MACHINE_IMAGES[$1]:-}" ] || die "there is no machine '$1'" "known are: ${!MACHINE_IMAGES[*]}"
}

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
    mmdebstrap --variant=minbase --include="$MACHINE_PACKAGES${MACHINE_EXTRA[$suite]}" \
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

# machine_boot DIR DISK TASK RESULTS SECONDS: boots the machine whose kernel is in DIR, has it run the
# task in the directory TASK and shows what that prints. Afterwards RESULTS has `console`, `output` and
# what the task left. Fails if the task failed, or the machine did, or was not done in time; then the
# end of the console is shown.
machine_boot() {
    local dir=$1 disk=$2 task=$3 results=$4 limit=$5 overlay=on status=0 tail_pid
    [ -z "${MACHINE_KEEP:-}" ] || overlay=off
    rm -rf "$results"
    mkdir -p "$results"
    tar -C "$task" -cf "$results/task.tar" .
    truncate -s 64M "$results/back.tar"
    : >"$results/output"
    tail --follow --lines=+1 --sleep-interval=0.2 "$results/output" &
    tail_pid=$!
    # No network card: nothing that a test needs may come from outside. KVM where it works.
    timeout --signal=TERM --kill-after=10 "$limit" qemu-system-x86_64 \
        -accel kvm -accel tcg -cpu max -smp 2 -m "${MACHINE_MEMORY:-3G}" -nographic -no-reboot -nic none -monitor none \
        -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
        -append "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=true apparmor=1 security=apparmor ${MACHINE_CMDLINE:-}" \
        -drive "file=$disk,format=raw,if=virtio,cache=unsafe,snapshot=$overlay" \
        -drive "file=$results/task.tar,format=raw,if=virtio,readonly=on" \
        -drive "file=$results/back.tar,format=raw,if=virtio,cache=unsafe" \
        -device virtio-rng-pci \
        -serial "file:$results/console" -serial "file:$results/output" \
        >"$results/qemu.log" 2>&1 </dev/null || status=$?
    # What was printed last is still to be shown.
    sleep 0.5
    kill "$tail_pid" 2>/dev/null || true
    tar -C "$results" -xf "$results/back.tar" 2>/dev/null || true
    rm -f "$results/task.tar" "$results/back.tar"
    if [ "$(cat "$results/status" 2>/dev/null)" = 0 ]; then return 0; fi
    case $status in
        0) ;;
        124 | 137) say "the machine was not done after $limit s" ;;
        *) say "qemu failed with status $status:"; tail -n 5 "$results/qemu.log" ;;
    esac
    if [ ! -s "$results/status" ]; then
        say "the machine gave no result; the end of its console ($results/console):"
        tail -n 60 "$results/console" | tr -d '\r' | sed 's/^/    | /'
    fi
    return 1
}
