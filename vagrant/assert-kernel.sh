#!/bin/sh
# Fails unless the running kernel's release begins with the argument.
set -eu
release=$(uname -r)
case $release in
"$1"*) echo "running Linux $release" ;;
*)
	echo "this machine runs Linux $release, not $1*: the boot loader did not take the kernel that was installed" >&2
	exit 1
	;;
esac
