# shellcheck shell=bash
# Builds images as archives for `docker load`, without any registry. Each is kept in a cache, named by
# the hash of its recipe: a changed recipe makes a new archive.
#
#   busybox           one static binary and its links: a container that does almost nothing
#   bookworm, trixie  Debian 12 and 13 with systemd and Docker, as the packages come. In /opt lies the
#                     busybox image, for the inner engine to load and run without a network
#   engines           Debian 13 with engines that an ordinary user starts (rootless Podman and Docker),
#                     and such a user

IMAGE_CACHE=${XDG_CACHE_HOME:-/var/cache}/sysbox-images

# kmod: trixie's systemd-modules-load.service fails without its library, even with nothing to load.
# trixie has the docker command in a package of its own.
declare -A SYSTEM_PACKAGES=(
    [bookworm]=systemd,systemd-sysv,dbus,libpam-systemd,kmod,docker.io,iptables,iproute2,procps,ca-certificates
    [trixie]=systemd,systemd-sysv,dbus,libpam-systemd,kmod,docker.io,docker-cli,iptables,iproute2,procps,ca-certificates
    [engines]=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod,docker.io,docker-cli,rootlesskit,slirp4netns,podman,crun,uidmap,fuse-overlayfs,bubblewrap,iptables,iproute2,procps,ca-certificates
)

# The tag that an image has in the engine.
image_tag() {
    case $1 in
        busybox) say sysbox-busybox:latest ;;
        bookworm | trixie | engines) say "sysbox-system:$1" ;;
        *) die "there is no image '$1'" "known are: busybox, bookworm, trixie, engines" ;;
    esac
}

# All that decides what is in the archive. This file is the recipe.
image_hash() { { say "$1"; cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c 1-12; }

# image_archive NAME: makes sure that the archive exists and prints its path.
image_archive() {
    local name=$1 archive
    image_tag "$name" >/dev/null
    archive=$IMAGE_CACHE/$name-$(image_hash "$name").tar
    if [ ! -s "$archive" ]; then
        mkdir -p "$IMAGE_CACHE"
        rm -f "$IMAGE_CACHE/$name"-*.tar
        make_archive "$name" "$archive" >&2 || return 1
    fi
    say "$archive"
}

# An image archive: the layer, its configuration, and a manifest that names both.
make_archive() {
    local name=$1 archive=$2 work config='"Cmd": ["/bin/sh"]'
    work=$(mktemp -d "$IMAGE_CACHE/work.XXXXXX")
    if [ "$name" = busybox ]; then
        make_busybox "$work/layer.tar"
    else
        make_system "$name" "$work/layer.tar" || { rm -rf "$work"; return 1; }
        # The signal that systemd takes as "halt".
        config='"Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3"'
    fi
    cat >"$work/config.json" <<JSON
{ "architecture": "$(dpkg --print-architecture)", "os": "linux",
  "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], $config },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)"] } }
JSON
    cat >"$work/manifest.json" <<JSON
[{ "Config": "config.json", "Layers": ["layer.tar"],
   "RepoTags": ["$(image_tag "$name")", "$(hash_tag "$name")"] }]
JSON
    tar -C "$work" -cf "$work/archive" manifest.json config.json layer.tar
    mv "$work/archive" "$archive"
    rm -rf "$work"
}

make_busybox() {
    local root applet
    root=$(mktemp -d)
    chmod 755 "$root"
    mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sys,tmp,usr/bin,var}
    chmod 1777 "$root/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$root/etc/group"
    tar --numeric-owner --owner=0 --group=0 -C "$root" -cf "$1" .
    rm -rf "$root"
}

# The last hook undoes what mmdebstrap copies from this machine: each container gets its own.
make_system() {
    local image=$1 suite=$1 layer=$2 inner user=()
    if [ "$image" = engines ]; then
        suite=trixie
        # Ids for nested user namespaces: the user's, and root's for containers with ones of their own.
        user=(--customize-hook='chroot "$1" useradd --create-home --shell /bin/bash user'
            --customize-hook='printf "user:20000:20000\nroot:40000:10000\ncontainers:50000:10000\n" | tee "$1/etc/subuid" >"$1/etc/subgid"')
    fi
    inner=$(image_archive busybox) || return 1
    mmdebstrap --variant=minbase --include="${SYSTEM_PACKAGES[$image]}" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --customize-hook="upload '$inner' /opt/busybox.tar" \
        "${user[@]}" \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"' \
        "$suite" - >"$layer"
}

# A second tag that tells which recipe the engine's image was made from.
hash_tag() { say "$(image_tag "$1" | tr : -)-recipe:$(image_hash "$1")"; }

# load_image NAME: gives the engine that DOCKER_HOST names the image, unless it has this very one.
load_image() {
    local archive
    docker image inspect "$(hash_tag "$1")" >/dev/null 2>&1 && return
    archive=$(image_archive "$1") || return 1
    docker load --quiet --input "$archive"
}
