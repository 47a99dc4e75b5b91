"""Finds the programs that the lab starts and names the Debian package of one that is missing."""

from __future__ import annotations

import functools
import os
import shutil

PACKAGES = {
    "containerd": "containerd",
    "dnsmasq": "dnsmasq-base",
    "dnsperf": "dnsperf",
    "docker-registry": "docker-registry",
    "skopeo": "skopeo",
    "tinyproxy": "tinyproxy-bin",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "gcc": "gcc",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "musl-gcc": "musl-tools",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "sh": "dash",
    "unbound": "unbound",
    "unshare": "util-linux",
}

# A minimal guest's PATH often lacks the administrator's directories, where dnsmasq lives.
SEARCH_PATH = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
)


class MissingProgramError(RuntimeError):
    """A program that the lab needs is not on this machine."""


@functools.cache
def find(name: str) -> str:
    """Return the path of a program; a name with a slash is taken as it is."""
    if "/" in name:
        return name
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        package = PACKAGES.get(name)
        advice = (
            f"install the Debian package {package}" if package else "its Debian package is unknown to the lab"
        )
        raise MissingProgramError(f"the lab needs the program {name}, which is not installed: {advice}")
    return path
