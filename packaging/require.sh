#!/bin/sh
# Installs the Debian or Ubuntu packages named as arguments that are missing. Quick when none is.
set -eu

missing=
for package in "$@"; do
	status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "missing packages:$missing" >&2
	echo "install them with: sudo apt-get install$missing" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# A package list that is there and serves is good enough; one that is old or absent is fetched first.
# shellcheck disable=SC2086
apt-get install -qq --no-install-recommends $missing >/dev/null 2>&1 || {
	apt-get update -qq
	apt-get install -qq --no-install-recommends $missing
}
