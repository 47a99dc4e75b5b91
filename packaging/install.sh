#!/bin/sh
# `make install` and `make uninstall`: what goes where.
#
#     packaging/install.sh install|uninstall
#
# PREFIX: where programs go (default /usr/local). DESTDIR: a directory that stands for / (default: none).
# UNITS: where units go (default PREFIX/lib/systemd/system); empty: nowhere.
set -eu

here=$(dirname "$(realpath "$0")")
prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
units=${UNITS-$prefix/lib/systemd/system}
application=$prefix/lib/ram-ebpf
# Docker looks in lib and libexec, of /usr and of /usr/local (docker/cli, cli-plugins/manager/manager_unix.go).
plugins=$prefix/libexec/docker/cli-plugins
unit_names="ram-ebpf.service ram-ebpf-boot.service"

# Whether this is about the running system.
is_live() {
	[ -z "$destdir" ] && [ -n "$units" ] && [ -d /run/systemd/system ]
}

make_link() {
	mkdir -p "$destdir$(dirname "$2")"
	ln -sfn "$1" "$destdir$2"
}

install() {
	"$here/application.sh" "$destdir$application" "$application" ${OPTIONS:-}
	make_link "$application/bin/ram-ebpf" "$prefix/bin/ram-ebpf"
	make_link "$application/bin/docker-ram" "$plugins/docker-ram"
	mkdir -p "$destdir/etc/ram-ebpf"
	if [ ! -e "$destdir/etc/ram-ebpf/policy.yaml" ]; then
		cp "$here/policy.yaml" "$destdir/etc/ram-ebpf/policy.yaml"
		chmod 644 "$destdir/etc/ram-ebpf/policy.yaml"
	fi
	if [ -n "$units" ]; then
		mkdir -p "$destdir$units"
		for unit in $unit_names; do
			sed "s|/usr/bin/ram-ebpf|$prefix/bin/ram-ebpf|" "$here/systemd/$unit" >"$destdir$units/$unit"
			chmod 644 "$destdir$units/$unit"
		done
	fi
	[ -z "$destdir" ] || return 0
	"$application/bin/python" -m compileall -q "$application/lib"
	if is_live; then systemctl daemon-reload; fi
	echo "installed. The policy is /etc/ram-ebpf/policy.yaml, and audits at first."
	echo "next: systemctl enable --now ram-ebpf"
}

uninstall() {
	if is_live; then systemctl disable --quiet --now $unit_names 2>/dev/null || true; fi
	if [ -z "$destdir" ] && [ -x "$prefix/bin/ram-ebpf" ]; then
		if mountpoint -q /sys/fs/cgroup; then "$prefix/bin/ram-ebpf" detach; fi
		"$prefix/bin/ram-ebpf" ca uninstall || true # where nothing is known of the system's store
	fi
	for unit in ${units:+$unit_names}; do
		rm -f "$destdir$units/$unit"
	done
	rm -f "$destdir$prefix/bin/ram-ebpf" "$destdir$plugins/docker-ram"
	rm -rf "$destdir$application" "$destdir/var/cache/ram-ebpf"
	for directory in "$plugins" ${units:+"$units"}; do
		rmdir --ignore-fail-on-non-empty -p "$destdir$directory" 2>/dev/null || true
	done
	if is_live; then systemctl daemon-reload; fi
	echo "uninstalled. What is yours is kept: /etc/ram-ebpf, and /var/lib/ram-ebpf if there is an authority."
}

case ${1:-} in
install | uninstall) "$1" ;;
*)
	sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
