"""What the doctor finds: one thing each, with its cure where it is not well."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Status(str, Enum):
    """A warning costs something or may become a failure; a failure keeps ram-ebpf from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Check(str, Enum):
    """What is looked at, by the name that output and docs/doctor.md have for it. Names stay as they are."""

    RIGHTS = "rights"
    SURROUNDINGS = "surroundings"
    PYTHON = "python"
    KERNEL = "kernel"
    BTF = "btf"
    PROGRAM_TYPES = "program-types"
    HELPERS = "helpers"
    MAPS = "maps"
    CONNECT_HOOKS = "connect-hooks"
    BOOT_CLOCK = "boot-clock"
    JIT = "jit"
    LOCKED_MEMORY = "locked-memory"
    PERF_EVENTS = "perf-events"
    DEVICES = "devices"
    SOCKET_LIST = "socket-list"
    SOCKET_END = "socket-end"
    CGROUPS = "cgroups"
    CGROUP_HOOKS = "cgroup-hooks"
    CGROUP_SOCKETS = "cgroup-sockets"
    BPF_FILE_SYSTEM = "bpf-file-system"
    DIRECTORIES = "directories"
    COMPILER = "compiler"
    PROGRAMS = "programs"
    CLOCK = "clock"
    POLICY = "policy"
    POLICY_FILE = "policy-file"
    ENCRYPTED_RESOLVERS = "encrypted-resolvers"
    ENGINE = "engine"
    PROXY = "proxy"
    MIRROR = "mirror"
    DOCKER_PLUGIN = "docker-plugin"
    SCOPE = "scope"
    OTHER_PROGRAMS = "other-programs"
    RESOLVER = "resolver"
    LOCAL_RESOLVER = "local-resolver"
    RESOLV_CONF = "resolv-conf"
    NAME_SERVICE = "name-service"
    NAME = "name"
    HOSTS_FILE = "hosts-file"
    RESPONDER = "responder"
    INSTANCE = "instance"
    PINS = "pins"
    LEFTOVERS = "leftovers"


AS_ROOT = "run it as root: sudo ram-ebpf doctor"


@dataclass(frozen=True)
class Finding:
    """One line of the output. `subject`: of several findings of one check, what this one is about.

    `checked`: false where nobody could look.
    """

    check: Check
    status: Status
    title: str
    cure: str = ""
    subject: str = ""
    checked: bool = True

    def as_json(self) -> dict[str, Any]:
        """As docs/doctor.md describes it."""
        return {
            "check": self.check.value,
            "status": self.status.value,
            "subject": self.subject or None,
            "title": self.title,
            "cure": self.cure or None,
            "checked": self.checked,
        }


def well(check: Check, title: str, subject: str = "") -> Finding:
    """It is as it should be."""
    return Finding(check, Status.OK, title, "", subject)


def warning(check: Check, title: str, cure: str, subject: str = "") -> Finding:
    """It could be better."""
    return Finding(check, Status.WARNING, title, cure, subject)


def failure(check: Check, title: str, cure: str, subject: str = "") -> Finding:
    """It does not work."""
    return Finding(check, Status.FAILURE, title, cure, subject)


def unchecked(check: Check) -> Finding:
    """Nobody but root can look."""
    return Finding(check, Status.WARNING, "not checked, as that takes root", AS_ROOT, "", False)
