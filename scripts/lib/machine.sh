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

# Machines that boot otherwise than Debian does by itself: what their kernel is told. Each has a step of
# its name in tests/machine/variants.sh.
declare -A MACHINE_VARIANTS=(
    # systemd's layout with controllers in cgroup v1.
    [hybrid]='systemd.unified_cgroup_hierarchy=0'
    # Permissive: Debian's policy was not made for its Docker. What would be refused is in the kernel's log.
    [selinux]='security=selinux selinux=1 enforcing=0'
)
# Where they can be: SELinux's policy knows containers from Debian 13 on, whose systemd refuses cgroup v1.
declare -A MACHINE_VARIANT_SUITES=([hybrid]=bookworm [selinux]='trixie testing')
# The one that the machine is now, if any.
MACHINE_VARIANT=

need_machine_tools() {
    local missing
    mapfile -t missing < <(missing_packages "${MACHINE_TOOLS[@]}")
    [ "${#missing[@]}" -eq 0 ] ||
        die "packages are missing: ${missing[*]}" "install them: apt-get install --no-install-recommends ${missing[*]}"
}

machine_suite_known() {
    [ -n "${MACHINE_EXTRA[$1]:-}" ] || die "there is no machine '$1'" "known are: ${!MACHINE_EXTRA[*]}"
}

machine_variant_known() {
    [[ " ${MACHINE_VARIANT_SUITES[$1]} " == *" $2 "* ]] ||
        die "there is no variant '$1' of the machine '$2'" "known are: ${MACHINE_VARIANT_SUITES[$1]}"
}

# KVM where the processor supports it. A /dev/kvm alone says little: some clouds offer one that cannot
# run an ordinary kernel.
machine_accelerator() {
    if grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then say kvm; else say tcg; fi
}

# What the kernel is told where the processor is emulated: the emulator's clock counter is good, though
# two busy processors seem to disagree about it and every look at another clock costs a hundred times as
# much; nothing runs there that the costly ways around faults of processors would keep out; and on a
# host that is busy the kernel would take a timer that is late for a broken one, and panic, and systemd
# would give up Docker.
machine_hints() {
    [ "$(machine_accelerator)" = kvm ] ||
        say 'tsc=reliable mitigations=off no_timer_check systemd.default_timeout_start_sec=600'
}

# For how many seconds a machine may print nothing new before it counts as hanging: until its task has
# begun, and from then on. The second is longer than what a step or test may take, which ends by itself.
MACHINE_BOOT_SILENCE=${MACHINE_BOOT_SILENCE:-300}
MACHINE_TASK_SILENCE=${MACHINE_TASK_SILENCE:-1700}

# What a boot has running.
MACHINE_PIDS=()

# What Podman would do at each boot, for nobody here; it keeps the task waiting.
MACHINE_RESTING='systemd.mask=podman.service systemd.mask=podman-auto-update.service systemd.mask=podman-restart.service'

# machine_boot DIR DISK TASK RESULTS SECONDS: boots the machine whose kernel is in DIR, has it run the
# task in the directory TASK and shows what that prints. Afterwards RESULTS has `console`, `output` and
# what the task left. Fails if the task failed, or the machine did, or hung, or was not done in time; then
# it tells what happened, and shows the end of the console if there is no result. A machine whose processor
# was emulated wrongly is booted again, with all of the time, up to twice.
machine_boot() {
    local results=$4 boots=1 status
    while :; do
        status=0
        machine_boot_once "$@" || status=$?
        if [ -s "$results/status" ]; then return "$status"; fi
        if [ "$boots" -eq 3 ] || ! machine_misemulated "$results"; then break; fi
        boots=$((boots + 1))
        say "the emulator lost the end of a change of the kernel's code, by which the kernel panicked (its console says 'int3'): booted again"
    done
    machine_post_mortem "$results" "$status" "$1"
    return 1
}

# machine_misemulated RESULTS: whether the kernel ended by the fault that QEMU has up to 8.0: while one
# processor changes a jump in the kernel's code, another may be left with the breakpoint that stands there
# for a moment, after the kernel has forgotten it (once in hundreds of boots; Red Hat's bug 2216496).
# No fault of our programs ends like this, nor any on a real processor.
machine_misemulated() {
    [ "$(machine_accelerator)" != kvm ] && grep -aqE '\] (Oops: )?int3: 0000 \[#1\]' "$1/console"
}

# machine_boot_once DIR DISK TASK RESULTS SECONDS: one boot. Returns 0 if the task was done, 1 if it failed
# (its status is in RESULTS), otherwise, without a result, QEMU's status or 124.
machine_boot_once() {
    local dir=$1 disk=$2 task=$3 results=$4 limit=$5 qemu status=0
    rm -rf "$results"
    mkdir -p "$results"
    tar -C "$task" -cf "$results/task.tar" .
    truncate -s 64M "$results/back.tar"
    : >"$results/output"
    : >"$results/console"
    tail --follow --lines=+1 --sleep-interval=0.2 "$results/output" &
    MACHINE_PIDS=($!)
    # No network card: nothing that a test needs may come from outside.
    qemu-system-x86_64 \
        -accel "$(machine_accelerator)" -cpu max -smp 2 -m "${MACHINE_MEMORY:-3G}" -nographic -no-reboot -nic none -monitor none \
        -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
        -append "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=true apparmor=1 security=apparmor $MACHINE_RESTING $(machine_hints) ${MACHINE_CMDLINE:-}" \
        -drive "file=$disk,format=raw,if=virtio,cache=unsafe,snapshot=on" \
        -drive "file=$results/task.tar,format=raw,if=virtio,readonly=on" \
        -drive "file=$results/back.tar,format=raw,if=virtio,cache=unsafe" \
        -device virtio-rng-pci \
        -serial "file:$results/console" -serial "file:$results/output" \
        >"$results/qemu.log" 2>&1 </dev/null &
    qemu=$!
    MACHINE_PIDS+=("$qemu")
    machine_watch "$qemu" "$results" "$limit" || status=$?
    # What was printed last is still to be shown.
    sleep 0.5
    machine_end
    tar -C "$results" -xf "$results/back.tar" 2>/dev/null || true
    rm -f "$results/task.tar" "$results/back.tar"
    if [ ! -s "$results/status" ]; then return "$status"; fi
    [ "$(cat "$results/status")" = 0 ]
}

# Ends what a boot has running, if anything is: to be called when the script ends, too.
machine_end() {
    local pid
    for pid in "${MACHINE_PIDS[@]}"; do stop_pid "$pid" 10 || true; done
    MACHINE_PIDS=()
}

# machine_watch PID RESULTS SECONDS: waits for the end of QEMU, whose status is returned, or ends it, tells
# why, and returns 124.
machine_watch() {
    local pid=$1 results=$2 limit=$3 start=$SECONDS since=$SECONDS seen='' now patience why
    until process_gone "$pid"; do
        now=$(machine_progress "$results")
        [ "$now" = "$seen" ] || { seen=$now since=$SECONDS; }
        if [ -s "$results/output" ]; then
            patience=$MACHINE_TASK_SILENCE why='its task had begun, and then'
        else
            patience=$MACHINE_BOOT_SILENCE why='it has not begun with its task, and'
        fi
        if [ $((SECONDS - since)) -ge "$patience" ]; then
            why="the machine hangs: $why nothing new was printed for $patience s"
        elif [ $((SECONDS - start)) -ge "$limit" ]; then
            why="the machine was not done after $limit s"
        else
            sleep 1
            continue
        fi
        stop_pid "$pid" 10 || true
        say "$why"
        return 124
    done
    wait "$pid"
}

# A number that changes when the machine gets on: lines of the console, but for those in which systemd
# tells again and again how long it has been waiting, and the length of what the task has printed.
machine_progress() { say "$(grep -acvE 'job is running|\] (\([0-9]+ of [0-9]+\) )?Job ' "$1/console") $(stat -c %s "$1/output")"; }

# machine_post_mortem RESULTS STATUS DIR: what is known of a machine that gave no result.
machine_post_mortem() {
    local results=$1 status=$2
    case $status in
        0 | 124) ;;
        *) say "qemu failed with status $status:"; tail -n 5 "$results/qemu.log" ;;
    esac
    say "the machine gave no result; the end of its console ($results/console):"
    tail -n 60 "$results/console" | tr -d '\r' | sed 's/^/    | /'
    say "a machine that is only slow may print nothing for longer with MACHINE_BOOT_SILENCE or MACHINE_TASK_SILENCE=SECONDS;"
    say "one whose disk is broken gets a new one after: rm -r $3"
}
