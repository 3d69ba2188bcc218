# shellcheck shell=bash
# Steps of `scripts/machine kubernetes`: Kubernetes in a container of ours, and Kubernetes that starts some.
# Each runs in a bash with `set -e`; lib.sh has been read. They take what scripts/lib/kubernetes.sh makes.
# What is in single quotes is for a shell inside.
# shellcheck disable=SC2016

# A node, as an image that knows nothing of us, becomes a cluster by kubeadm's usual way.
step_kubernetes_inside() {
    docker load --quiet --input kubernetes/node.tar
    docker run --detach --name "$MAIN" --hostname node --runtime=sysbox --memory 3g --stop-signal SIGRTMIN+3 \
        --volume "$PWD/kubernetes:/images:ro" sysbox-kubernetes
    on_node() { docker exec --interactive --env KUBECONFIG=/etc/kubernetes/admin.conf "$MAIN" "$@"; }
    eventually 600 sh -c "docker exec $MAIN systemctl is-system-running | grep -E 'running|degraded|starting'"
    eventually 300 on_node ctr version
    on_node ctr --namespace k8s.io images import /images/control.tar
    make_cluster "$(docker inspect --format '{{.NetworkSettings.IPAddress}}' "$MAIN")"
    equal 'units of the node that failed' '' "$(on_node systemctl --failed --no-legend)"
    pods_work
    # Limits of a pod are seen in it, and hold.
    make_pod limited '"command": ["sleep", "100000"], "resources": { "limits": { "memory": "64Mi", "cpu": "500m" } }'
    equal 'MemTotal of a pod' 65536 "$(on_node kubectl exec limited -- awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
    fails on_node kubectl exec limited -- sh -c 'head -c 100m /dev/zero | tail -c 100m >/dev/null'

    # The machine restarts; the cluster has what it had.
    docker restart --time 300 "$MAIN"
    eventually 900 cluster_answers
    eventually 600 service_answers
    docker rm --force "$MAIN"
}

# The machine itself is the node, and a RuntimeClass gives system containers.
step_kubernetes_runtime_class() {
    local token
    on_node() { env KUBECONFIG=/etc/kubernetes/admin.conf "$@"; }
    become_node
    docker save "$SYSTEM" | ctr --namespace k8s.io images import -
    ctr --namespace k8s.io images import kubernetes/control.tar
    make_cluster 10.99.0.1
    on_node kubectl apply --filename - <<<'{ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "sysbox" }, "handler": "sysbox" }'
    class='"runtimeClassName": "sysbox",'
    pods_work

    # A whole system in a pod, with what pods usually have.
    on_node kubectl create secret generic words --from-literal word=secret
    on_node kubectl create configmap settings --from-literal setting=value
    class+=' "volumes": [{ "name": "words", "secret": { "secretName": "words", "defaultMode": 256 } },
        { "name": "settings", "configMap": { "name": "settings" } }, { "name": "scratch", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory" } }],'
    make_pod system '"resources": { "limits": { "memory": "512Mi", "cpu": "1" } },
        "readinessProbe": { "exec": { "command": ["systemctl", "is-system-running"] }, "timeoutSeconds": 100, "periodSeconds": 10 },
        "volumeMounts": [{ "name": "words", "mountPath": "/words" }, { "name": "settings", "mountPath": "/settings" },
            { "name": "scratch", "mountPath": "/scratch" }, { "name": "memory", "mountPath": "/memory" }]' "$SYSTEM"
    in_pod() { on_node kubectl exec system -- "$@"; }
    in_pod cat /proc/self/uid_map | grep -E '^ *0 +[1-9][0-9]* +65536'
    equal 'MemTotal' 524288 "$(in_pod awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
    equal 'a secret' 'secret 0' "$(in_pod sh -c 'echo "$(cat /words/word) $(stat -L -c %u /words/word)"')"
    equal 'a setting' value "$(in_pod cat /settings/setting)"
    in_pod touch /scratch/made /memory/made
    equal 'whose files are' '0 0' "$(in_pod stat -c %u /scratch/made /memory/made | xargs)"
    token=$(in_pod cat /var/run/secrets/kubernetes.io/serviceaccount/token)
    test -n "$token"
    in_pod docker load --input /opt/busybox.tar
    equal 'an inner container' hello "$(in_pod docker run --rm "$SMALL" sh -c 'grep -q ^MemTotal /proc/meminfo && echo hello')"
    on_node kubectl delete pod system web client --timeout 600s
    equal 'containers of ours that are left' '' "$(sysbox ps --json | jq --raw-output '.[].id')"
}

# What a node has beside Debian's own packages, from the image of one.
become_node() {
    local id
    docker load --quiet --input kubernetes/node.tar
    id=$(docker create sysbox-kubernetes)
    docker export "$id" | tar -C / --keep-directory-symlink --wildcards -x usr/bin/kubelet usr/bin/kubeadm usr/bin/kubectl usr/bin/crictl \
        usr/sbin/conntrack 'usr/lib/x86_64-linux-gnu/lib*conntrack.so*' 'usr/lib/x86_64-linux-gnu/libnfnetlink.so*' usr/lib/cni \
        etc/cni/net.d etc/containerd/config.toml etc/systemd/system/kubelet.service
    docker rm "$id"
    # The machine has no network, and nobody who answers to names.
    : >>/etc/resolv.conf
    ip link add node0 type dummy
    ip address add 10.99.0.1/24 dev node0
    ip link set node0 up
    ip route add default via 10.99.0.2
    systemctl daemon-reload
    systemctl enable kubelet
    systemctl restart containerd
}

# make_cluster ADDRESS: kubeadm's checks, and all that it does but the name server, which no package has.
make_cluster() {
    sed "s/ADDRESS/$1/" kubernetes/kubeadm.yaml | on_node tee /etc/kubeadm.yaml
    on_node kubeadm init --config /etc/kubeadm.yaml --skip-phases addon/coredns
    on_node kubectl wait --for condition=Ready --timeout 600s node/node
    eventually 600 on_node kubectl get serviceaccount default
}

# make_pod NAME FIELDS [IMAGE]: fields of its container, as JSON; $class has fields of the pod, if any.
make_pod() {
    on_node kubectl apply --filename - <<<"{ \"apiVersion\": \"v1\", \"kind\": \"Pod\",
        \"metadata\": { \"name\": \"$1\", \"labels\": { \"name\": \"$1\" } },
        \"spec\": { ${class:-} \"terminationGracePeriodSeconds\": 60,
            \"containers\": [{ \"name\": \"main\", \"image\": \"${3:-$SMALL:latest}\", \"imagePullPolicy\": \"Never\", $2 }] } }"
    on_node kubectl wait --for condition=Ready --timeout 900s "pod/$1"
}

# A pod serves a page, by a service, to another pod.
pods_work() {
    make_pod web '"command": ["sh", "-c", "echo served by $(hostname) >/index.html; exec httpd -f -p 80 -h /"]'
    make_pod client '"command": ["sleep", "100000"]'
    on_node kubectl expose pod web --port 80
    eventually 600 service_answers
    on_node kubectl logs web
}

service_answers() {
    local address
    address=$(on_node kubectl get service web --output 'jsonpath={.spec.clusterIP}') &&
        [ "$(on_node kubectl exec client -- wget -q -O - "http://$address/")" = 'served by web' ]
}

cluster_answers() { on_node kubectl get --raw /readyz; }
