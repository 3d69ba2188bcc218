# shellcheck shell=bash
# The programs of tests/, which need a world around them.

# The container images that they use (image.sh).
# shellcheck disable=SC2034
TEST_IMAGES=(busybox bookworm trixie engines)

# test_program NAME: builds one of them (e2e, attack), without running it, and prints its path.
test_program() {
    cargo test --quiet -p sysbox-tests --test "$1" --no-run --message-format=json |
        jq --raw-output 'select(.executable != null) | .executable'
}
