# shellcheck shell=bash
# runc's own integration suite (bats). Its source, and what it needs to build the helpers of its tests,
# come from Debian's unstable source package of runc: the only archive that has it as a whole.
# shellcheck disable=SC2034 # read by conformance.sh

SUITE_PACKAGES=(bats gawk jq mmdebstrap busybox-static crun gcc libc6-dev util-linux)
# This revision is asked for; when the mirror has no more of it, the one that it has is taken instead.
RUNC_REVISION=1.3.6+ds1-1
SUITE_RECIPE=("${BASH_SOURCE[0]}" "$TOP/scripts/lib/conformance-runc-build")
suite_command=("$TOP/scripts/lib/conformance-runc-cases")

# Makes tests/ (the suite and its helpers), runc (of the same source, static), and the
# root file systems that the suite would download.
suite_build() {
    local work=$1
    step 'source and helpers of the suite' 'is the Debian mirror reachable?' build_runc_suite "$work"
    step 'root file system: busybox' '' make_suite_busybox "$work"
    step 'root file system: Debian' 'is the Debian mirror reachable?' \
        make_suite_debian "$work/debian.tar"
    cat >"$work/tests/integration/get-images.sh" <<TEXT
#!/bin/sh
echo BUSYBOX_IMAGE=$SUITE_DIR/busybox.tar
echo DEBIAN_IMAGE=$SUITE_DIR/debian.tar
TEXT
    chmod 755 "$work/tests/integration/get-images.sh"
    say "the suite is that of runc $(cat "$work/revision")"
}

# Builds in an unstable Debian that is gone afterwards. The mirror may be a snapshot whose lists are
# old, hence no check of their dates; their signatures are checked.
# shellcheck disable=SC2016
build_runc_suite() {
    mmdebstrap --variant=apt --format=null --aptopt='Acquire::Check-Valid-Until "false"' \
        --customize-hook="upload '$TOP/scripts/lib/conformance-runc-build' /root/build" \
        --customize-hook="chroot \"\$1\" bash /root/build '$RUNC_REVISION'" \
        --customize-hook="copy-out /root/out/tests /root/out/runc /root/out/revision '$1'" \
        sid - 'deb http://deb.debian.org/debian sid main' 'deb-src http://deb.debian.org/debian sid main'
}

# Each of its cases unpacks it: without what only installing and people need.
# shellcheck disable=SC2016
make_suite_debian() {
    local waste='usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/i18n usr/share/zoneinfo
        usr/share/perl* usr/lib/*/perl* usr/lib/*/gconv usr/bin/perl* usr/bin/dpkg* var/lib/apt var/lib/dpkg var/cache'
    mmdebstrap --variant=essential --include=mount,util-linux \
        --customize-hook="cd \"\$1\" && rm -rf $(say "$waste" | xargs)" bookworm - >"$1"
}

# As the image that the suite would download: nobody has the ids that it uses, and there is neither /proc
# nor /sys.
make_suite_busybox() {
    make_busybox "$1/busybox.tar"
    mkdir -p "$1/bb/etc"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$1/bb/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/bb/etc/group"
    tar --delete -f "$1/busybox.tar" ./etc/passwd ./etc/group ./proc ./sys ./run
    tar --numeric-owner --owner=0 --group=0 -C "$1/bb" -rf "$1/busybox.tar" ./etc/passwd ./etc/group
    rm -rf "$1/bb"
}

suite_runtime() {
    case $1 in
        runc) say "$SUITE_DIR/runc" ;;
        crun) command -v crun ;;
        sysbox-runc) say "$TARGET/debug/sysbox-runc" ;;
        sysbox-runc-keep) say "$TOP/scripts/lib/conformance-runc-keep" ;;
    esac
}
