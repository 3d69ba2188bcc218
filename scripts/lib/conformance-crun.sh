# shellcheck shell=bash
# crun's own tests (Python), of the version in Debian 12: its source comes from there.
# shellcheck disable=SC2034 # read by conformance.sh

SUITE_PACKAGES=(mmdebstrap crun gcc libc6-dev python3)
# crun's tests are judged by what crun passes, too.
SUITE_REFERENCES='runc crun'
SUITE_RECIPE=("${BASH_SOURCE[0]}")
suite_command=("$TOP/scripts/lib/conformance-crun-cases")

# Makes tests/, with init, the static program that runs inside.
suite_build() { step "crun's tests" 'is the Debian mirror reachable?' build_crun_suite "$1"; }

# shellcheck disable=SC2016
build_crun_suite() {
    mmdebstrap --variant=apt --format=null \
        --customize-hook='chroot "$1" sh -c "cd /root && HOME=/root apt-get source --download-only --tar-only crun && mv crun_*.orig.tar.?z crun.tar"' \
        --customize-hook="download /root/crun.tar '$1/crun.tar'" \
        bookworm - 'deb http://deb.debian.org/debian bookworm main' 'deb-src http://deb.debian.org/debian bookworm main'
    tar -xf "$1/crun.tar" -C "$1" --strip-components=1 --wildcards '*/tests'
    rm "$1/crun.tar"
    # What configure would find.
    printf '#define HAVE_ERROR_H 1\n' >"$1/tests/config.h"
    gcc -O -static -I "$1/tests" -o "$1/tests/init" "$1/tests/init.c"
}
