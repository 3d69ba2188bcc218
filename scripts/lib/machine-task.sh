# shellcheck shell=bash
# What the machines are given to do: directories with a `run` in them. Needs packages.sh, tests.sh and
# machine.sh.

# The programs that go into the package, in $BIN: those that the caller names, or the ones that the
# first commands of README's "Installing" make.
build_programs() {
    if [ -n "${BIN:-}" ]; then return; fi
    BIN=$TARGET/dist
    (cd "$TOP" && bash -euo pipefail -c "$(readme_commands 1)") >/dev/null || die 'building failed' 'the lines above say why'
    README_PACKAGES=("$TARGET"/package/sysbox_*.deb)
}

# readme_commands N: the N-th block of commands in README's section "Installing", word for word.
readme_commands() {
    awk -v wanted="$1" '
        /^## / { section = ($0 == "## Installing") }
        section && /^```/ { inside = !inside; blocks += inside; next }
        section && inside && blocks == wanted
    ' "$TOP/README.md" | grep . || die "README.md has no block $1 of commands in 'Installing'"
}

# task_of COMMAND ARGUMENT...: calls the command with a new directory, in $task, as its first argument;
# for programs (not functions of this file) as the last.
task_of() {
    local command=$1
    shift
    task=$(mktemp -d /var/tmp/sysbox-task.XXXXXX)
    if [ "$(type -t "$command")" = function ]; then "$command" "$task" "$@"; else "$command" "$@" "$task"; fi
}

# The steps of tests/machine, with the package and a newer one of the same programs. The package lies
# where README's commands look for it.
test_task() {
    local task=$1 version
    shift
    mkdir -p "$task/newer"
    cp "$TOP"/tests/machine/{run,lib.sh,steps.sh,variants.sh,kubernetes.sh} "$task"
    make_package "$task/target/package"
    version=$(dpkg-deb --field "$task"/target/package/*.deb Version)
    # Not compressed, which would take longer than all that is done with it.
    DPKG_DEB_COMPRESSOR_TYPE=none "$TOP/scripts/package" --bin "$BIN" --out "$task/newer" --version "$version+1" >/dev/null
    readme_commands 2 >"$task/readme-commands"
    if [ $# -gt 0 ]; then printf '%s\n' "$@"; else machine_steps; fi >"$task/steps"
}

# The steps of tests/machine/kubernetes.sh, with the images that they take.
kubernetes_task() {
    local images
    images=$(kubernetes_dir "$BIN") || return 1
    test_task "$1" install 'kubernetes_inside 3000' 'kubernetes_runtime_class 3000'
    mkdir -p "$1/kubernetes"
    cp "$images"/*.tar "$TOP/tests/machine/kubeadm.yaml" "$1/kubernetes"
}

# Steps that `scripts/test --machine`, and so CI, leaves to `--matrix`: what they show changes seldom, and the
# natively run end-to-end tests show most of it, too.
MATRIX_STEPS=(device_rules apparmor nfs daemon_reload restart_of_docker)
machine_steps() { sed -n 's/^step_\([a-z_]*\)() {$/\1/p' "$TOP/tests/machine/steps.sh"; }
machine_short_steps() { machine_steps | grep -vxF -f <(printf '%s\n' "${MATRIX_STEPS[@]}"); }

# make_package DIRECTORY: the one that README's commands made, or one of the programs that the caller named.
make_package() {
    mkdir -p "$1"
    if [ -n "${README_PACKAGES:-}" ]; then
        cp "${README_PACKAGES[@]}" "$1"
    else
        "$TOP/scripts/package" --bin "$BIN" --out "$1" >/dev/null
    fi
}

# The test programs as they are on this machine, and the list of tests to run: those whose name contains
# one of the FILTERs, or all. The attacker is looked for above the tests' directory.
e2e_task() {
    local task=$1 name
    shift
    mkdir -p "$task/tests/deps" "$task/scripts/lib"
    cp "$TOP/tests/machine/e2e" "$task/run"
    cp "$TOP/tests/machine/lib.sh" "$task"
    cp "$TOP/scripts/world" "$task/scripts"
    cp "$TOP"/scripts/lib/{common.sh,world.sh,engines.sh,world-holder} "$task/scripts/lib"
    make_package "$task/package"
    need_rust
    (cd "$TOP" && cargo build --quiet -p sysbox-attacker) || die 'the attacker does not build' 'the lines above say why'
    for name in e2e attack; do
        strip --strip-debug -o "$task/tests/deps/$name" "$(cd "$TOP" && test_program "$name")"
    done
    strip -o "$task/tests/sysbox-attacker" "$TARGET/debug/sysbox-attacker"
    all_tests | grep -F -f <(printf '%s\n' "$@") >"$task/list" || die "no test has a name with this in it: $*"
}

# The same for a Docker that keeps images in containerd: it has none yet, those come with the task.
CONTAINERD_TESTS=(rootfs:: storage:: ids:: exec:: inner_docker::trixie_runs)
containerd_task() {
    local task=$1 name
    shift
    [ $# -gt 0 ] || set -- "${CONTAINERD_TESTS[@]}"
    e2e_task "$task" "$@"
    mkdir -p "$task/images"
    for name in busybox bookworm trixie; do cp "$(image_archive "$name")" "$task/images" || return 1; done
}

# The quick start's part of this tree, the programs, and the image archives that it would make.
quickstart_task() {
    local task=$1 name
    mkdir -p "$task/tree/scripts" "$task/programs" "$task/images"
    cp "$TOP/tests/machine/quickstart" "$task/run"
    cp "$TOP/tests/machine/lib.sh" "$task"
    cp -a "$TOP/scripts" "$TOP/Cargo.toml" "$task/tree"
    cp "$BIN"/sysbox{,-runc,-mgr,-fs} "$task/programs"
    for name in busybox bookworm; do cp "$(image_archive "$name")" "$task/images" || return 1; done
}
