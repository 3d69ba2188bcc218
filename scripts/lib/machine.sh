# shellcheck shell=bash
# Boots whole Debian machines under QEMU. Needs common.sh and packages.sh.
#
# A machine has Debian's own packages only: kernel, systemd, Docker. What it shall do comes on a second
# disk, which is nothing but a tar archive, and is started by a unit that the image has:
#
#   /dev/vda   the system; every write of a run goes to a throw-away overlay
#   /dev/vdb   the task: a tar archive with an executable `run` in it
#   /dev/vdc   the results: what the task left in /run/task/results, again as a tar archive
#   ttyS0      the console: kernel and systemd
#   ttyS1      what the task prints, as it runs

need_machine_tools() {
    local missing
    mapfile -t missing < <(missing_packages "${MACHINE_TOOLS[@]}")
    [ "${#missing[@]}" -eq 0 ] ||
        die "packages are missing: ${missing[*]}" "install them: apt-get install --no-install-recommends ${missing[*]}"
}

machine_suite_known() {
    [ -n "${MACHINE_EXTRA[$1]:-}" ] || die "there is no machine '$1'" "known are: ${!MACHINE_EXTRA[*]}"
}

# KVM where the processor supports it. A /dev/kvm alone says little: some clouds offer one that cannot
# run an ordinary kernel.
machine_accelerator() {
    if grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then say kvm; else say tcg; fi
}

# What the kernel is told where the processor is emulated: the emulator's clock counter is good, though
# two busy processors seem to disagree about it and every look at another clock costs a hundred times as
# much; and nothing runs there that the costly ways around faults of processors would keep out.
machine_hints() { [ "$(machine_accelerator)" = kvm ] || say 'tsc=reliable mitigations=off'; }

# machine_boot DIR DISK TASK RESULTS SECONDS: boots the machine whose kernel is in DIR, has it run the
# task in the directory TASK and shows what that prints. Afterwards RESULTS has `console`, `output` and
# what the task left. Fails if the task failed, or the machine did, or was not done in time; then the
# end of the console is shown.
machine_boot() {
    local dir=$1 disk=$2 task=$3 results=$4 limit=$5 status=0 tail_pid
    rm -rf "$results"
    mkdir -p "$results"
    tar -C "$task" -cf "$results/task.tar" .
    truncate -s 64M "$results/back.tar"
    : >"$results/output"
    tail --follow --lines=+1 --sleep-interval=0.2 "$results/output" &
    tail_pid=$!
    # No network card: nothing that a test needs may come from outside.
    timeout --signal=TERM --kill-after=10 "$limit" qemu-system-x86_64 \
        -accel "$(machine_accelerator)" -cpu max -smp 2 -m "${MACHINE_MEMORY:-3G}" -nographic -no-reboot -nic none -monitor none \
        -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
        -append "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=true apparmor=1 security=apparmor $(machine_hints) ${MACHINE_CMDLINE:-}" \
        -drive "file=$disk,format=raw,if=virtio,cache=unsafe,snapshot=on" \
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
