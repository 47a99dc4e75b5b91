#!/bin/sh
# The first process of the guest: gives the host's root, which it sees read-only, what a running system has
# beside it, starts guest.py and turns the machine off.
#
#     guest_init.sh PYTHON PROJECT
#
# What the kernel lacks is listed in the file `missing` of the directory shared with the host.
python=$1
project=$2
share=/run/ram-kernel
missing=

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/run/home
export RAM_EBPF_CACHE=/run/ram-ebpf-cache HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis
export PYTHONDONTWRITEBYTECODE=1 # nothing but a failure for each module, on a read-only root

# feature, then the arguments of mount
need() {
	feature=$1
	shift
	mount "$@" || missing="$missing $feature"
}

power_off() {
	echo 1 >/proc/sys/kernel/sysrq
	echo o >/proc/sysrq-trigger && sleep 10
	exit 0 # without the key, the end of the first process is a panic, which ends the machine too
}

# Python and project may lie where an empty file system is mounted next; descriptors keep hold of them.
exec 8<"$(dirname "$(dirname "$python")")" 9<"$project"

mount -t proc proc /proc || { echo "guest: the kernel lacks procfs (CONFIG_PROC_FS)" && exit 1; }
need "sysfs (CONFIG_SYSFS)" -t sysfs sysfs /sys
grep -q ' /dev devtmpfs ' /proc/mounts || need "devtmpfs (CONFIG_DEVTMPFS)" -t devtmpfs devtmpfs /dev
for directory in /tmp /var/tmp /run; do
	need "tmpfs (CONFIG_TMPFS)" -t tmpfs -o mode=1777 tmpfs "$directory"
done
chmod 755 /run
mkdir -p /dev/pts /dev/shm "$HOME" "$share"
need "devpts (CONFIG_UNIX98_PTYS)" -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
need "cgroup2 (CONFIG_CGROUPS)" -t cgroup2 cgroup2 /sys/fs/cgroup
need "bpffs (CONFIG_BPF_SYSCALL)" -t bpf bpf /sys/fs/bpf
# cache=none: the host reads while we write, and the machine ends without a sync.
need "9p (CONFIG_9P_FS)" -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none ram-share "$share"

restore() { # descriptor, directory
	[ -d "$2" ] && return
	mkdir -p "$2"
	mount --no-canonicalize --bind "/proc/self/fd/$1" "$2"
}
restore 8 "$(dirname "$(dirname "$python")")"
restore 9 "$project"
exec 8<&- 9<&-

# Where a service of the host makes this file, it is a link into the now empty /run.
[ -e /etc/resolv.conf ] || {
	target=$(readlink -m /etc/resolv.conf)
	mkdir -p "$(dirname "$target")"
	: >"$target"
}

if [ -n "$missing" ]; then
	echo "$missing" >"$share/missing"
	power_off
fi
ip link set lo up
cd "$project" || power_off
# By a pipe, as what pytest writes to a terminal is no good in a log.
"$python" -m tests.kernels.guest "$share" 2>&1 | cat
power_off
