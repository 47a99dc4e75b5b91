"""Network namespaces, by name, by path or by a process that is in one."""

from __future__ import annotations

import re
from pathlib import Path

from ram_ebpf.dataplane import namespaces
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.device import devices_into
from ram_ebpf.scopes.target import Places, Target

NAMED = Path("/run/netns")  # of ip-netns(8)
_PROCESS = re.compile(r"pid:([0-9]{1,10})")


def resolve(text: str) -> Path:
    """The file of a namespace: `NAME` of ip-netns(8), a path, or `pid:N`. Raises ScopeError."""
    process = _PROCESS.fullmatch(text)
    if process is not None:
        return Path(f"/proc/{process[1]}/ns/net")
    if text.startswith("/"):
        return Path(text)
    if "/" in text or text in (".", "..") or text.startswith("pid:"):
        raise ScopeError(
            f"netns {text}: is no network namespace; write a name that `ip netns` shows, an absolute path "
            "such as /run/netns/build, or pid:N"
        )
    return NAMED / text


class NetnsTarget(Target):
    """All ways out of one network namespace."""

    period = 1.0
    at_devices = True

    def __init__(self, text: str) -> None:
        """Raises ScopeError for what can be no namespace, or is the one that this process is in."""
        self.label = f"netns {text}"
        self._path = resolve(text)
        self._refuse_own()

    def _is_own(self) -> bool:
        return namespaces.identity(self._path) == namespaces.identity(namespaces.OWN)

    def _refuse_own(self) -> None:
        try:
            own = self._is_own()
        except OSError:
            return
        if own:
            raise ScopeError(
                f"{self.label}: is the network namespace of this host itself, and a strict scope would "
                "cut it off; name that of a container"
            )

    def find(self) -> Places:
        """The devices that lead out of it, none while it is not there."""
        try:
            if self._is_own():  # a name may be given to another one
                return Places()
            return Places(devices=devices_into(self._path))
        except OSError:
            return Places()
