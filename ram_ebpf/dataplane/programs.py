"""Which programs there are, and loading them. Attaching them is for cgroups.py and devices.py."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ram_ebpf.dataplane import abi, syscall
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.bytecode import Program
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.scope_maps import PLACE, place_map
from ram_ebpf.dataplane.syscall import AttachType, ProgramType

OBJECT_PREFIX = "ram_ebpf_"

_NONE = PlaceFlag(0)


class Hook(NamedTuple):
    """Where one C function is attached. `label` is the end of the program's name in the kernel.

    `flags`: what the function is told of that.
    """

    function: str
    label: str
    program_type: ProgramType
    attach_type: AttachType | None = None  # None: the caller of the hook decides
    flags: PlaceFlag = _NONE

    @property
    def object_name(self) -> str:
        """The program's name in the kernel, by which a later start recognises what an earlier one left."""
        return OBJECT_PREFIX + self.label


# Egress last of the skb hooks and connect after both: a reply that is learned is never refused meanwhile.
CGROUP_HOOKS = (
    Hook("ram_scope_ingress", "in", ProgramType.CGROUP_SKB, AttachType.INET_INGRESS),
    Hook("ram_scope_egress", "out", ProgramType.CGROUP_SKB, AttachType.INET_EGRESS),
    Hook("ram_sock_addr4", "con4", ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT),
    Hook("ram_sock_addr6", "con6", ProgramType.CGROUP_SOCK_ADDR, AttachType.INET6_CONNECT),
    Hook(
        "ram_sock_addr4",
        "snd4",
        ProgramType.CGROUP_SOCK_ADDR,
        AttachType.UDP4_SENDMSG,
        PlaceFlag.SENDMSG,
    ),
    Hook(
        "ram_sock_addr6",
        "snd6",
        ProgramType.CGROUP_SOCK_ADDR,
        AttachType.UDP6_SENDMSG,
        PlaceFlag.SENDMSG,
    ),
)
# On the cgroups of resolvers that live on this host; see bpf/lib/witness.h.
RESOLVER_HOOKS = (Hook("ram_witness", "wit", ProgramType.CGROUP_SKB, AttachType.INET_EGRESS),)


class SharedProgram(NamedTuple):
    """A program that all scopes share: they reach it by a tail call, at a place of an array of programs."""

    hook: Hook
    array: str
    place: int


def _on_ingress(function: str, label: str, place: int) -> SharedProgram:
    hook = Hook(function, label, ProgramType.CGROUP_SKB, AttachType.INET_INGRESS)
    return SharedProgram(hook, "ingress_programs", place)


def _on_egress(function: str, label: str, place: int) -> SharedProgram:
    hook = Hook(function, label, ProgramType.CGROUP_SKB, AttachType.INET_EGRESS)
    return SharedProgram(hook, "egress_programs", place)


def _of_device(function: str, label: str) -> Hook:
    return Hook(function, label, ProgramType.SCHED_CLS)


def _as_device(shared: SharedProgram) -> SharedProgram:
    return SharedProgram(
        _of_device(shared.hook.function, f"d_{shared.hook.label}"), shared.array, shared.place
    )


class ProgramSet(NamedTuple):
    """What one C source file makes. `attached` lead to `shared` by tail calls; `others` stand alone.

    `holding`: those of `attached` under other names. `known`: what lets others pass these.
    """

    source: str
    shared: tuple[SharedProgram, ...]
    attached: tuple[Hook, ...]
    others: tuple[Hook, ...] = ()
    holding: tuple[Hook, ...] = ()
    known: tuple[Hook, ...] = ()

    def hooks(self) -> Iterator[Hook]:
        """All that is loaded, whether it is attached or called by another one."""
        for shared in self.shared:
            yield shared.hook
        yield from self.others
        yield from self.attached
        yield from self.known


_SHARED = (
    _on_ingress("ram_ingress", "ing", abi.IngressProgram.MAIN),
    _on_ingress("ram_answers", "ans", abi.IngressProgram.ANSWERS),
    _on_ingress("ram_tell", "tell", abi.IngressProgram.TELL),
    _on_egress("ram_egress", "eg", abi.EgressProgram.MAIN),
    _on_egress("ram_query", "qry", abi.EgressProgram.QUERY),
    _on_egress("ram_query_rule", "rule", abi.EgressProgram.RULE),
)
_BEGINNINGS = (
    _on_egress("ram_beginning", "beg", abi.EgressProgram.BEGINNING),
    _on_egress("ram_hello", "hel", abi.EgressProgram.HELLO),
    _on_egress("ram_name", "name", abi.EgressProgram.NAME),
    _on_egress("ram_request", "req", abi.EgressProgram.REQUEST),
)
_REFUSALS = (
    SharedProgram(_of_device("ram_refuse", "d_no"), "egress_programs", abi.EgressProgram.REFUSE),
    SharedProgram(_of_device("ram_refuse_query", "d_noq"), "egress_programs", abi.EgressProgram.REFUSE_QUERY),
)
DEVICE_INCOMING = _of_device("ram_device_incoming", "d_in")
DEVICE_OUTGOING = _of_device("ram_device_outgoing", "d_out")

# At the ports of bridges that hold new containers: those that are known.
DEVICE_KNOWN = _of_device("ram_device_known", "d_pass")
# The first two again, on such a bridge, under names of their own, by which a later start tells them apart.
HOLD_INCOMING = _of_device("ram_device_incoming", "d_hin")
HOLD_OUTGOING = _of_device("ram_device_outgoing", "d_hold")

CGROUP_PROGRAMS = ProgramSet("cgroup.c", _SHARED, CGROUP_HOOKS, RESOLVER_HOOKS)
# Behind those, in the same arrays: compiled by themselves, as enforcement can begin without them.
BEGINNING_PROGRAMS = ProgramSet("beginnings.c", _BEGINNINGS, ())
DEVICE_PROGRAMS = ProgramSet(
    "tc.c",
    (*map(_as_device, (*_SHARED, *_BEGINNINGS)), *_REFUSALS),
    (DEVICE_INCOMING, DEVICE_OUTGOING),
    holding=(HOLD_INCOMING, HOLD_OUTGOING),
    known=(DEVICE_KNOWN,),
)
PROGRAM_SETS = (CGROUP_PROGRAMS, BEGINNING_PROGRAMS, DEVICE_PROGRAMS)


# What takes the verifier longest, as measured with Linux 6.18: with may_goto the first two, without all
# others. Last, one processor would verify it alone.
_SLOWEST = ("ram_answers", "ram_egress", "ram_name", "ram_query_rule", "ram_request")


def _slowest_first(hook: Hook) -> int:
    return _SLOWEST.index(hook.function) if hook.function in _SLOWEST else len(_SLOWEST)


class Programs:
    """Loaded programs by the labels of their hooks. Closing gives the descriptors back; what is attached
    stays so."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}

    def have(self, programs: ProgramSet) -> bool:
        """Whether all that scopes share of that set are among these."""
        return all(shared.hook.label in self.fds for shared in programs.shared)

    def take(self, others: Programs) -> None:
        """Those of another one become these, too."""
        self.fds.update(others.fds)
        others.fds.clear()

    def load(self, hook: Hook, compiled: Compiled, maps: Mapping[str, int]) -> None:
        """Loads one. Raises syscall.VerifierError with the kernel's log."""

        def attempt(program: Program) -> int:
            code = program.with_maps(maps)
            return syscall.program_load(hook.object_name, hook.program_type, code, hook.attach_type)[0]

        self.fds[hook.label] = compiled.load(hook.function, attempt)

    def close(self) -> None:
        """Gives the descriptors back."""
        syscall.close_all(list(self.fds.values()))
        self.fds.clear()


def _load_all(
    hooks: Mapping[Hook, Compiled], maps: Callable[[Hook], Mapping[str, int]], aside: bool = False
) -> Programs:
    """All of them or none, side by side: the verifier takes its time, and runs without a lock."""
    programs = Programs()
    processors = os.cpu_count() or 1
    try:
        with ThreadPoolExecutor(max(processors - aside, 1)) as pool:
            list(
                pool.map(
                    lambda hook: programs.load(hook, hooks[hook], maps(hook)),
                    sorted(hooks, key=_slowest_first),
                )
            )
    except BaseException:
        programs.close()
        raise
    return programs


def load_shared(
    compiled: Mapping[ProgramSet, Compiled], maps: Mapping[str, Map], aside: bool = False
) -> Programs:
    """Loads what all scopes share, and puts it into the arrays. `aside`: the caller's process has another
    thread that is busy, to which it leaves a processor."""
    fds = {name: item.fd for name, item in maps.items()}
    hooks = {
        hook: its
        for programs, its in compiled.items()
        for hook in (*(shared.hook for shared in programs.shared), *programs.others)
    }
    loaded = _load_all(hooks, lambda _: fds, aside)
    try:
        for programs in compiled:
            for shared in programs.shared:
                fd = loaded.fds[shared.hook.label]
                maps[shared.array][struct.pack("=I", shared.place)] = struct.pack("=I", fd)
    except BaseException:
        loaded.close()
        raise
    return loaded


def load_attached(
    hooks: Sequence[Hook], compiled: Compiled, maps: Mapping[str, Map], number: int, flags: int
) -> Programs:
    """Loads what is attached for one scope. `number` and `flags` tell these programs where they are, as in
    place_map()."""
    fds = {name: item.fd for name, item in maps.items()}
    with contextlib.ExitStack() as stack:
        places = {
            of_hook: stack.enter_context(contextlib.closing(place_map(number, flags | of_hook))).fd
            for of_hook in {hook.flags for hook in hooks}
        }
        return _load_all(dict.fromkeys(hooks, compiled), lambda hook: {**fds, PLACE: places[hook.flags]})
