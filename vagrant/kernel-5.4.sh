#!/bin/sh
# Installs the newest 5.4 kernel of Ubuntu 20.04's archive beside the one of 22.04, and makes it the default.
set -eu
export DEBIAN_FRONTEND=noninteractive

# The mirror that this machine already uses, asked for the older release; nothing else may come from there.
sources=/etc/apt/sources.list.d/focal-kernel.list
sed -n 's/^deb \(.*\) jammy main.*/deb \1 focal main\ndeb \1 focal-updates main/p' /etc/apt/sources.list |
	sort -u >"$sources"
[ -s "$sources" ] || {
	echo "no 'deb ... jammy main' line in /etc/apt/sources.list to take the mirror from" >&2
	exit 1
}
cat >/etc/apt/preferences.d/focal-kernel <<-PIN
	Package: *
	Pin: release n=focal
	Pin-Priority: -1

	Package: linux-image-5.4.0-* linux-modules-5.4.0-*
	Pin: release n=focal
	Pin-Priority: 500
PIN
apt-get update -qq

image=$(apt-cache search --names-only '^linux-image-5\.4\.0-[0-9]+-generic$' | cut -d' ' -f1 | sort -V | tail -n 1)
[ -n "$image" ] || {
	echo "Ubuntu 20.04's archive offers no linux-image-5.4.0-*-generic" >&2
	exit 1
}
# With the modules that it depends on, veth and bridge among them; the extra ones are drivers.
apt-get install -qq "$image"

# By the ids in the menu, since by its version the kernel of 22.04 would come first.
update-grub
menu=/boot/grub/grub.cfg
release=${image#linux-image-}
entry=$(sed -n "s/.*'\(gnulinux-$release-advanced-[^']*\)'.*/\1/p" "$menu" | head -n 1)
submenu=$(sed -n "s/^submenu .*'\(gnulinux-advanced-[^']*\)'.*/\1/p" "$menu" | head -n 1)
[ -n "$entry" ] || {
	echo "$menu has no entry for $release" >&2
	exit 1
}
echo "GRUB_DEFAULT='${submenu:+$submenu>}$entry'" >/etc/default/grub.d/90-kernel-5.4.cfg
update-grub
