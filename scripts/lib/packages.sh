# shellcheck shell=bash
# Installs the Debian packages that building, running and testing need. Rust is the user's to install.

# What building and running take: the engine and its network; images made without a registry; the build.
# The quick start installs these, and no more.
PACKAGES=(docker.io iptables iproute2 mmdebstrap busybox-static libseccomp-dev gcc libc6-dev pkg-config jq procps)

# What the tests take besides: file systems, a second engine, networks for it and for ctr; tools that they run inside.
# shellcheck disable=SC2034
TEST_PACKAGES=(xfsprogs btrfs-progs fuse-overlayfs podman containernetworking-plugins sysstat htop numactl nodejs default-jre-headless)

# What testing the package takes besides: machines to install it in, and Debian's checks of packages.
MACHINE_TOOLS=(qemu-system-x86 e2fsprogs lintian)

# missing_packages [MORE...]: which of the packages, and of some more, are not installed.
missing_packages() {
    local package
    for package in "${PACKAGES[@]}" "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || say "$package"
    done
}

# install_packages [MORE...]
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "not a Debian system, so these can't be installed: ${missing[*]}" \
        "install what your distribution calls them, then start again"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# Ends the script unless a cargo that can build the workspace is there.
need_rust() {
    local wanted have=none
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$TOP/Cargo.toml")
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
    if command -v cargo >/dev/null; then
        have=$(cd "$TOP" && cargo --version | cut -d ' ' -f 2)
    fi
    if [ "$have" = none ] || [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
        die "Rust $wanted or newer is needed to build (found: $have)" \
            "install it with rustup (see rust-lang.org, 'Install'), then start again"
    fi
}
