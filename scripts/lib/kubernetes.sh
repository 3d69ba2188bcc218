# shellcheck shell=bash
# Kubernetes for a machine that has no network: a node as an image, and the images of its control plane.
# Needs common.sh, image.sh and world.sh.

# Debian's packages; the programs of Kubernetes itself come from kubernetes-build.
NODE_PACKAGES=systemd,systemd-sysv,dbus,kmod,containerd,runc,containernetworking-plugins,iptables,ebtables,ethtool,iproute2,conntrack,socat,procps,busybox-static
CONTROL_PACKAGES=etcd-server,iptables,conntrack,kmod,busybox-static
# One image serves for all; kubeadm asks for it by these names.
CONTROL_IMAGES=(kube-apiserver:v1.20.2 kube-controller-manager:v1.20.2 kube-scheduler:v1.20.2 kube-proxy:v1.20.2 etcd:3.4.13-0 pause:3.2)

kubernetes_hash() {
    cat "${BASH_SOURCE[0]}" "$TOP"/scripts/lib/kubernetes-build "$TOP"/tests/machine/kubernetes/* | sha256sum | cut -c 1-12
}

# kubernetes_dir BIN: makes sure that the images exist, and prints the directory that has them: node.tar for
# `docker load`, control.tar for `ctr images import`. BIN has the programs of the engine that makes them.
kubernetes_dir() {
    local dir
    dir=$IMAGE_CACHE/kubernetes-$(kubernetes_hash)
    if [ ! -s "$dir/node.tar" ]; then
        [ "$(command -v make rsync | wc -l)" -eq 2 ] || die 'Kubernetes is built with make and rsync' 'install them: apt-get install make rsync'
        rm -rf "$IMAGE_CACHE"/kubernetes-*
        mkdir -p "$dir.new/build"
        # shellcheck disable=SC2034
        STEP_LOG=$dir.new/log
        {
            step 'building Kubernetes' 'is the Debian mirror reachable?' "$TOP/scripts/lib/kubernetes-build" "$dir.new/build"
            step 'installing what its control plane needs' 'is the Debian mirror reachable?' control_root "$dir.new/build/bin" "$dir.new/control-root.tar"
            step 'installing a node' 'is the Debian mirror reachable?' node_root "$dir.new/build/bin" "$dir.new/node-root.tar"
            step 'making images' 'does scripts/world start an engine here?' kubernetes_images "$dir.new" "$1"
        } >&2
        rm -rf "$dir.new"/{build,control-root.tar,node-root.tar}
        mv "$dir.new" "$dir"
    fi
    say "$dir"
}

# debian PACKAGES ARCHIVE OPTION...: a root file system of Debian 12.
debian() {
    mmdebstrap --variant=minbase --include="$1" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        "${@:3}" bookworm - >"$2"
}

# control_root PROGRAMS ARCHIVE
control_root() {
    # shellcheck disable=SC2016
    debian "$CONTROL_PACKAGES" "$2" \
        --customize-hook="copy-in $(printf "'$1/%s' " kube-apiserver kube-controller-manager kube-scheduler kube-proxy) /usr/local/bin"
}

# node_root PROGRAMS ARCHIVE: containerd and the kubelet run once it has booted; kubeadm makes the cluster.
node_root() {
    local files=$TOP/tests/machine/kubernetes
    # shellcheck disable=SC2016
    debian "$NODE_PACKAGES" "$2" \
        --customize-hook="copy-in $(printf "'$1/%s' " kubelet kubeadm kubectl) '$files/crictl' /usr/bin" \
        --customize-hook='mkdir -p "$1/etc/cni/net.d" "$1/etc/containerd"' \
        --customize-hook="upload '$files/network.conflist' /etc/cni/net.d/network.conflist" \
        --customize-hook="upload '$files/containerd.toml' /etc/containerd/config.toml" \
        --customize-hook="upload '$files/kubelet.service' /etc/systemd/system/kubelet.service" \
        --customize-hook='chmod 755 "$1/usr/bin/crictl"; chroot "$1" systemctl --quiet enable kubelet.service' \
        --customize-hook='echo "net.ipv4.ip_forward = 1" >"$1/etc/sysctl.d/kubernetes.conf"' \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"'
}

# kubernetes_images DIRECTORY BIN: in a process of its own, with a private engine that ends whatever happens. (`set -e`
# has no effect in what a caller asks for its status.)
kubernetes_images() (
    scratch=$(mktemp -d /var/tmp/sysbox-images.XXXXXX)
    trap 'world_down "$scratch"; rm -rf "$scratch"' EXIT
    export DOCKER_HOST=unix://$scratch/docker.sock DOCKER_CONFIG=$scratch/cli
    world_up "$(machine_view)" "$scratch" "$2" || exit 1
    path='ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    docker import --change "$path" --change 'ENTRYPOINT ["busybox", "sleep", "1000000000"]' "$1/control-root.tar" control || exit 1
    for name in "${CONTROL_IMAGES[@]}"; do docker tag control "k8s.gcr.io/$name" || exit 1; done
    load_image busybox &&
        docker save --output "$1/control.tar" "${CONTROL_IMAGES[@]/#/k8s.gcr.io/}" "$(image_tag busybox)" &&
        docker import --change "$path" --change 'CMD ["/sbin/init"]' "$1/node-root.tar" sysbox-kubernetes &&
        docker save --output "$1/node.tar" sysbox-kubernetes
)
