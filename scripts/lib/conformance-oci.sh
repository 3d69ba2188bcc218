# shellcheck shell=bash
# The validation programs of the OCI's runtime-tools, one for each part of the runtime-spec. Their source
# comes from Debian's source package. Debian has no package of the TAP library that they print with; what
# they call of it is in tests/conformance/tap.go.
# shellcheck disable=SC2034 # read by conformance.sh

SUITE_PACKAGES=(mmdebstrap crun)
SUITE_RECIPE=("${BASH_SOURCE[0]}" "$TOP/scripts/lib/conformance-oci-build" "$TOP/tests/conformance/tap.go")
suite_command=("$TOP/scripts/lib/conformance-oci-cases")

# Makes programs/ (static), runtimetest, which they run inside, and rootfs-ARCH.tar.gz.
suite_build() {
    step 'the validation programs' 'is the Debian mirror reachable?' build_oci_suite "$1" "${SUITE_RECIPE[@]:1}"
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
