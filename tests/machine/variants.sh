# shellcheck shell=bash
# Steps of machines that boot otherwise than Debian does by itself: `scripts/machine hybrid` and the like
# do them, after `install`, and no other. Each runs in a bash with `set -e`; lib.sh has been read.

# Controllers in cgroup v1, an empty unified hierarchy beside them, and Docker with the systemd driver.
step_hybrid() {
    local id scope init name
    equal 'the type of /sys/fs/cgroup' tmpfs "$(stat -f -c %T /sys/fs/cgroup)"
    fails grep --word-regexp memory /sys/fs/cgroup/unified/cgroup.controllers
    jq '."exec-opts" = ["native.cgroupdriver=systemd"]' /etc/docker/daemon.json >results/daemon.json
    cp results/daemon.json /etc/docker/daemon.json
    systemctl restart docker
    equal 'the driver' systemd "$(docker info --format '{{.CgroupDriver}}')"
    mknod --mode 666 /var/lib/node b $((0x$(stat -c %t /dev/vdc))) $((0x$(stat -c %T /dev/vdc)))

    docker run --detach --name "$MAIN" --runtime=sysbox --memory 512m --cpus 1 --cpu-shares 512 --pids-limit 300 \
        --cpuset-cpus 0 --blkio-weight 300 --volume /var/lib/node:/node --device /dev/vdb:/dev/task:r "$SYSTEM"
    eventually 600 sh -c "docker exec $MAIN systemctl is-system-running | grep -E 'running|degraded'"
    inside systemctl is-system-running || { inside systemctl --failed --no-pager; fail 'systemd is not content'; }
    id=$(docker inspect --format '{{.Id}}' "$MAIN")
    scope=system.slice/docker-$id.scope
    systemctl is-active "docker-$id.scope"

    # Init is in the scope of every hierarchy, and one exec'd is, too.
    init=$(docker inspect --format '{{.State.Pid}}' "$MAIN")
    equal 'hierarchies without init' '' "$(grep -v "/$scope\(/init\.scope\)\?$" "/proc/$init/cgroup" || true)"
    docker exec --detach "$MAIN" sleep 98765
    eventually 60 pgrep --full --exact 'sleep 98765'
    equal 'hierarchies without the exec' '' "$(grep -v "/$scope\(/init\.scope\)\?$" "/proc/$(pgrep --full --exact 'sleep 98765')/cgroup" || true)"
    # Inside it is cgroup v2, whose root is the scope, and container root makes cgroups there.
    equal 'the type inside' cgroup2fs "$(inside stat -f -c %T /sys/fs/cgroup)"
    equal 'the owner of the root inside' 0 "$(inside stat -c %u /sys/fs/cgroup)"
    test -d "/sys/fs/cgroup/unified/$scope/system.slice"
    for name in memory pids freezer devices; do fails inside ls "/sys/fs/cgroup/$name"; done

    hybrid_limits "$scope" 536870912 100000 300
    # systemd writes what it knows again.
    systemctl daemon-reload
    hybrid_limits "$scope" 536870912 100000 300
    equal 'MemTotal' 524288 "$(meminfo_total)"
    docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' "$MAIN" | grep '/ 512MiB [1-9]'
    docker update --memory 448m --cpus 1.5 --pids-limit 400 "$MAIN"
    hybrid_limits "$scope" 469762048 150000 400
    systemctl daemon-reload
    hybrid_limits "$scope" 469762048 150000 400
    equal 'MemTotal after the update' 458752 "$(meminfo_total)"
    docker stats --no-stream --format '{{.MemUsage}}' "$MAIN" | grep '/ 448MiB'

    docker pause "$MAIN"
    equal 'its state' paused "$(docker inspect --format '{{.State.Status}}' "$MAIN")"
    docker update --cpus 1 "$MAIN"
    equal 'paused while updated' 1 "$(cat "/sys/fs/cgroup/unified/$scope/cgroup.freeze")"
    docker unpause "$MAIN"
    inside docker load --input /opt/busybox.tar
    equal 'an inner container' hello "$(inner_hello)"

    docker stop --time 300 "$MAIN"
    equal 'left in the hierarchies' '' "$(find /sys/fs/cgroup -name "*$id*")"
    equal 'left in systemd' 0 "$(systemctl list-units --all --no-legend "docker-$id.scope" | wc -l)"
    docker start "$MAIN"
    docker kill "$MAIN"
    eventually 60 sh -c "test \$(docker inspect --format '{{.State.Status}}' $MAIN) = exited"
    docker rm --force "$MAIN"
    # One that cannot start.
    fails docker run --name broken --runtime=sysbox "$SMALL" /no/such/program
    docker rm broken
    equal 'left in the hierarchies at the end' '' "$(find /sys/fs/cgroup -name '*docker-*')"
}

# hybrid_limits SCOPE MEMORY QUOTA PIDS
hybrid_limits() {
    local v1=/sys/fs/cgroup scope=$1
    equal 'memory.limit_in_bytes' "$2" "$(cat "$v1/memory/$scope/memory.limit_in_bytes")"
    equal 'cpu.cfs_quota_us' "$3" "$(cat "$v1/cpu/$scope/cpu.cfs_quota_us")"
    equal 'pids.max' "$4" "$(cat "$v1/pids/$scope/pids.max")"
    equal 'cpu.shares' 512 "$(cat "$v1/cpu/$scope/cpu.shares")"
    equal 'cpuset.cpus' 0 "$(cat "$v1/cpuset/$scope/cpuset.cpus")"
    fails grep '^a' "$v1/devices/$scope/devices.list"
    inside head -c 10 /dev/task >/dev/null
    fails inside head -c 10 /node
    inside sh -c ': >/dev/null </dev/zero && head -c 1 /dev/urandom >/dev/null'
}

# SELinux with Debian's policy, and Docker with labels. Not enforcing: the layers of the images were unpacked on a machine
# without SELinux, and the policy knows no such programs.
step_selinux() {
    local pid place file label='system_u:system_r:container_t:s0:c1,c2' files='system_u:object_r:container_file_t:s0:c1,c2'
    equal 'the mode' Permissive "$(getenforce)"
    jq '."selinux-enabled" = true' /etc/docker/daemon.json >results/daemon.json
    cp results/daemon.json /etc/docker/daemon.json
    systemctl restart docker
    docker info --format '{{.SecurityOptions}}' | grep selinux
    /usr/bin/sysbox-runc features | jq --exit-status .linux.selinux.enabled

    mkdir -p /var/lib/bound
    docker run --detach --name labelled --runtime=sysbox --security-opt label=type:container_t --security-opt label=level:s0:c1,c2 \
        --tmpfs /scratch --volume /var/lib/bound:/bound:Z "$SMALL" sleep 100000
    pid=$(docker inspect --format '{{.State.Pid}}' labelled)
    cat "/proc/$pid/mountinfo"
    equal 'the label of init' "$label" "$(tr -d '\0' <"/proc/$pid/attr/current")"
    equal 'the label of an exec' "$label" "$(docker exec labelled cat /proc/self/attr/current | tr -d '\0')"
    for place in / /dev /scratch /dev/shm; do
        grep -F " $place " "/proc/$pid/mountinfo" | grep -F "context=\"$files\"" || fail "$place has no context"
    done
    docker exec labelled touch /made /scratch/made /bound/made
    for file in /made /scratch/made /bound/made; do
        equal "the label of $file" "$files" "$(stat -c %C "/proc/$pid/root$file")"
    done
    docker rm --force labelled

    # A system boots with the labels that Docker chooses, and its Docker runs a container.
    docker run --detach --name "$MAIN" --runtime=sysbox --memory 512m "$SYSTEM"
    eventually 600 sh -c "docker exec $MAIN systemctl is-system-running | grep -E 'running|degraded'"
    inside systemctl is-system-running || { inside systemctl --failed --no-pager; fail 'systemd is not content'; }
    inside cat /proc/1/attr/current | grep '^system_u:system_r:container_t:s0:c'
    inside docker load --input /opt/busybox.tar
    equal 'an inner container' hello "$(inner_hello)"
    docker rm --force "$MAIN"
    # The engine's own word for a process without a label.
    equal 'its label' '' "$(docker run --rm --runtime=sysbox --security-opt label=disable "$SMALL" cat /proc/self/attr/current | grep -a container_t || true)"
    # What the policy would refuse to a whole system, for docs/operations.md.
    dmesg | grep -o 'avc: *denied.*:container_t:.*' | sed 's/ pid=.* scontext=.* tcontext=/ /' | sort -u >results/denied
    test -s results/denied
}
