#!/bin/sh
# `make deb`: builds the Debian package for the release that this runs on, into dist/.
#
# The tree is copied to build/deb, where packaging/debian becomes debian/.
set -eu

top=$(dirname "$(dirname "$(realpath "$0")")")
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$top/ram_ebpf/__init__.py")
. /etc/os-release
release=${VERSION_CODENAME:?"/etc/os-release names no release"}
: "${SOURCE_DATE_EPOCH:=$(git -C "$top" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

build=$top/build/deb
tree=$build/ram-ebpf-$version
rm -rf "$build"
mkdir -p "$tree" "$top/dist"
for part in ram_ebpf bpf docs examples packaging pyproject.toml README.md SECURITY.md CHANGELOG.md; do
	cp -a "$top/$part" "$tree/"
done
find "$tree" -name __pycache__ -type d -prune -exec rm -rf {} +
cp -a "$tree/packaging/debian" "$tree/debian"
cp "$tree/packaging/systemd/ram-ebpf.service" "$tree/debian/ram-ebpf.service"
cp "$tree/packaging/systemd/ram-ebpf-boot.service" "$tree/debian/ram-ebpf.ram-ebpf-boot.service"
cat >"$tree/debian/changelog" <<END
ram-ebpf ($version~$release) $release; urgency=medium

  * This version, built for $release; CHANGELOG.md says what is new in it.

 -- ram-ebpf maintainers <ram-ebpf@packages.invalid>  $(date -uRd "@$SOURCE_DATE_EPOCH")
END
cd "$tree"
dpkg-buildpackage --no-sign --build=binary
cp "$build"/*.deb "$top/dist/"
ls "$top/dist/"ram-ebpf_"$version~$release"_*.deb
