"""All that the doctor looks at, in its order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ram_ebpf.doctor import (
    clock,
    control_groups,
    docker_plugin,
    engines,
    file_systems,
    instances,
    kernel,
    leftovers,
    mirrors,
    names,
    network,
    other_programs,
    policy,
    programs,
    proxies,
    python,
    resolvers,
    responder,
    rights,
    scopes,
)
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, unchecked

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examination:
    """One look, which answers these checks. `for_root`: nobody else can; `of_policy`: it needs one."""

    look: Callable[[Case], Iterator[Finding]]
    checks: tuple[Check, ...]
    for_root: bool = False
    of_policy: bool = False


_KERNEL = (Check.PROGRAM_TYPES, Check.HELPERS, Check.MAPS, Check.CONNECT_HOOKS, Check.BOOT_CLOCK, Check.JIT)

# What forks comes before what starts threads, as asking Docker does.
EXAMINATIONS = (
    Examination(rights.examine, (Check.RIGHTS, Check.SURROUNDINGS)),
    Examination(python.examine, (Check.PYTHON,)),
    Examination(kernel.examine_release, (Check.KERNEL, Check.BTF)),
    Examination(kernel.examine_types, _KERNEL, for_root=True),
    Examination(kernel.examine_memory, (Check.LOCKED_MEMORY,), for_root=True),
    Examination(kernel.examine_perf, (Check.PERF_EVENTS,), for_root=True),
    Examination(network.examine, (Check.DEVICES, Check.SOCKET_LIST, Check.SOCKET_END), for_root=True),
    Examination(control_groups.examine_layout, (Check.CGROUPS,)),
    Examination(control_groups.examine_hooks, (Check.CGROUP_HOOKS,), for_root=True),
    Examination(control_groups.examine_sockets, (Check.CGROUP_SOCKETS,), for_root=True),
    Examination(file_systems.examine_bpf, (Check.BPF_FILE_SYSTEM,), for_root=True),
    Examination(file_systems.examine_directories, (Check.DIRECTORIES,), for_root=True),
    Examination(programs.examine, (Check.COMPILER, Check.PROGRAMS), for_root=True),
    Examination(clock.examine, (Check.CLOCK,)),
    Examination(policy.examine, (Check.POLICY,)),
    Examination(policy.examine_file, (Check.POLICY_FILE,)),
    Examination(policy.examine_encrypted, (Check.ENCRYPTED_RESOLVERS,), of_policy=True),
    Examination(engines.examine, (Check.ENGINE,)),
    Examination(proxies.examine, (Check.PROXY,), for_root=True, of_policy=True),
    Examination(mirrors.examine, (Check.MIRROR,), for_root=True, of_policy=True),
    Examination(docker_plugin.examine, (Check.DOCKER_PLUGIN,), for_root=True, of_policy=True),
    Examination(scopes.examine, (Check.SCOPE,), for_root=True, of_policy=True),
    Examination(other_programs.examine, (Check.OTHER_PROGRAMS,), for_root=True),
    Examination(resolvers.examine, (Check.RESOLVER,), of_policy=True),
    Examination(resolvers.examine_local, (Check.LOCAL_RESOLVER,), for_root=True, of_policy=True),
    Examination(resolvers.examine_resolv_conf, (Check.RESOLV_CONF,), of_policy=True),
    Examination(resolvers.examine_name_service, (Check.NAME_SERVICE,), of_policy=True),
    Examination(names.examine, (Check.NAME,), of_policy=True),
    Examination(names.examine_hosts, (Check.HOSTS_FILE,), of_policy=True),
    Examination(responder.examine, (Check.RESPONDER,), for_root=True, of_policy=True),
    Examination(instances.examine, (Check.INSTANCE,), for_root=True),
    Examination(leftovers.examine_pins, (Check.PINS,), for_root=True),
    Examination(leftovers.examine_attached, (Check.LEFTOVERS,), for_root=True),
)


def examine(case: Case) -> Iterator[Finding]:
    """Looks at everything, one thing after the other. Whatever goes wrong there is a finding too."""
    for examination in EXAMINATIONS:
        if examination.of_policy and case.policy is None:
            continue
        if examination.for_root and not case.is_root:
            yield from map(unchecked, examination.checks)
            continue
        try:
            yield from examination.look(case)
        except Exception as error:  # the others are to be looked at all the same
            _log.debug("%s could not be looked at", examination.checks[0].value, exc_info=True)
            yield failure(
                examination.checks[0],
                f"could not be looked at: {error or type(error).__name__}",
                "mend what it says; else report it, with what `ram-ebpf doctor --debug` prints",
            )
