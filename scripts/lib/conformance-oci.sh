# shellcheck shell=bash
# The validation programs of the OCI's runtime-tools, one for each part of the runtime-spec. Their source
# comes from Debian's source package. Debian has no package of the TAP library that they print with; what
# they call of it is in tests/conformance/tap.go.
# shellcheck disable=SC2034 # read by conformance.sh

SUITE_PACKAGES=(mmdebstrap crun)
suite_command=("$TOP/scripts/lib/conformance-oci-cases")

# Leaves in SUITE_DIR: programs/ (static), runtimetest, which they run inside, and rootfs-ARCH.tar.gz.
suite_prepare() {
    local recipe work build=$TOP/scripts/lib/conformance-oci-build tap=$TOP/tests/conformance/tap.go
    recipe=$(cat "${BASH_SOURCE[0]}" "$build" "$tap" | sha256sum | cut -c 1-12)
    SUITE_DIR=$IMAGE_CACHE/conformance-oci-$recipe
    [ ! -d "$SUITE_DIR" ] || return 0
    mkdir -p "$IMAGE_CACHE"
    rm -rf "$IMAGE_CACHE"/conformance-oci-*
    work=$(mktemp -d "$IMAGE_CACHE/work.XXXXXX")
    STEP_LOG=$work/log
    step 'the validation programs' 'is the Debian mirror reachable?' build_oci_suite "$work" "$build" "$tap"
    chmod 755 "$work"
    mv "$work" "$SUITE_DIR"
}

# Builds in a Debian 13 that is gone afterwards.
# shellcheck disable=SC2016
build_oci_suite() {
    mmdebstrap --variant=apt --format=null \
        --customize-hook="upload '$2' /root/build" --customize-hook="upload '$3' /root/tap.go" \
        --customize-hook='chroot "$1" bash /root/build' --customize-hook="copy-out /root/out '$1'" \
        trixie - 'deb http://deb.debian.org/debian trixie main' 'deb-src http://deb.debian.org/debian trixie main'
    mv "$1"/out/* "$1"
    rmdir "$1/out"
}

suite_runtime() {
    case $1 in
        runc | crun) command -v "$1" ;;
        sysbox-runc) say "$TARGET/debug/sysbox-runc" ;;
        sysbox-runc-keep) say "$TOP/scripts/lib/conformance-keep" ;;
    esac
}
