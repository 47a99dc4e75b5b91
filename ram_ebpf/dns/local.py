"""Who serves the resolver addresses that live on this host: their sockets, cgroups and processes.

A reply that comes over the loopback interface is worth as much as the socket that sent it. The sockets that
the kernel would deliver a query to are found by sock_diag(7), whose cookie of a socket is the one that BPF
programs see (bpf_get_socket_cookie), and so is its cgroup, from Linux 5.9 on: the one that the socket was
made in, where the cgroup hooks of its packets run. Earlier kernels tell only the inode of the socket, which
leads to a process by /proc, and from there to the cgroup that the process is in now. These differ for a
socket that another process made and handed over, as systemd does (systemd.socket(5)).

The dump is our own and not pyroute2's, whose DiagSocket drops the kernel's errors: a kernel without
CONFIG_INET_UDP_DIAG would look like a host without a resolver.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dataplane.trusted import DOCKER_RESOLVER, TrustedResolver
from ram_ebpf.dns import netlink
from ram_ebpf.policy.choices import Engine
from ram_ebpf.scopes.cgroup import CgroupNames, find_cgroup2_mount, of_process
from ram_ebpf.scopes.engines import FoundEngine, find_engines

# include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_INET_DIAG_SKV6ONLY = 11
_INET_DIAG_CGROUP_ID = 21
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")  # struct inet_diag_req_v2
_MESSAGE = struct.Struct("=4B2s2s16s16s3I5I")  # struct inet_diag_msg
_UNCONNECTED = 1 << 7  # TCP_CLOSE of include/net/tcp_states.h, which an unconnected UDP socket is in

_LOOPBACK = 1  # LOOPBACK_IFINDEX of include/net/net_namespace.h, the same in each network namespace
_LAST_SYSTEM_UID = 999  # SYS_UID_MAX of login.defs(5)
_FIRST_ORDINARY_PORT = 1024  # PROT_SOCK of include/net/sock.h: below that it takes CAP_NET_BIND_SERVICE
_RESCAN = 10.0  # seconds until /proc is searched again for what was not there

# The kernel's names of processes, 15 bytes at most. Looked at first; every other is found too, later.
_LIKELY = frozenset(
    {
        "AdGuardHome",
        "CoreDNS",
        "NetworkManager",
        "aardvark-dns",
        "cloudflared",
        "connmand",
        "coredns",
        "dnscrypt-proxy",
        "dnsmasq",
        "dnsproxy",
        "dockerd",
        "kresd",
        "named",
        "pdns_recursor",
        "pihole-FTL",
        "stubby",
        "systemd-resolve",
        "unbound",
    }
)


@dataclass(frozen=True)
class UdpSocket:
    """An unconnected UDP socket of this network namespace. `address` is an IPv4 one where it is IPv4-mapped.

    `device`: the interface that it is bound to, or 0. `both`: bound to `::` it receives IPv4 too.
    `cgroup_id`: None before Linux 5.9.
    """

    address: IPAddress
    port: int
    cookie: int
    uid: int
    inode: int
    device: int = 0
    both: bool = False
    cgroup_id: int | None = None


@dataclass(frozen=True)
class LocalSocket:
    """A socket that serves a resolver's endpoint. What could not be found is None."""

    cookie: int
    uid: int
    cgroup: Path | None
    process: str | None
    pid: int | None


@dataclass(frozen=True)
class LocalResolver:
    """The endpoint of a resolver on this host, and who serves it now.

    `cookies` are in ascending order and empty when nobody does; `cgroups` are those that could be found.
    `uid` and `process` are None where they are not known, and where they differ between the sockets:
    `sockets` has each by itself.
    """

    address: IPAddress
    port: int
    cookies: tuple[int, ...]
    cgroups: tuple[Path, ...]
    uid: int | None
    process: str | None
    sockets: tuple[LocalSocket, ...] = ()


class _Holder(NamedTuple):
    """A process with an open descriptor of a socket; `link` is the descriptor's name below /proc."""

    pid: int
    process: str
    link: str


def udp_sockets(port: int = 0) -> list[UdpSocket]:
    """The unconnected UDP sockets of this network namespace; with `port`, only those bound to it.

    Raises OSError where the kernel refuses: ENOENT without CONFIG_INET_UDP_DIAG, EBADMSG for an answer that
    cannot be read.
    """
    found: list[UdpSocket] = []
    with netlink.connected(_NETLINK_SOCK_DIAG) as item:
        for family in (socket.AF_INET, socket.AF_INET6):
            for piece in netlink.pieces(item, request(family, port)):
                sockets, done = parse_dump(piece, family)
                found += sockets
                if done:
                    break
    return found


def request(family: int, port: int) -> bytes:
    """The netlink message that asks for UDP sockets of a family; the family is its sequence number too."""
    body = _REQUEST.pack(
        family, socket.IPPROTO_UDP, 0, _UNCONNECTED, port.to_bytes(2, "big"), b"", b"", b"", 0, b""
    )
    return netlink.request(_SOCK_DIAG_BY_FAMILY, body, family)


def parse_dump(data: bytes, sequence: int) -> tuple[list[UdpSocket], bool]:
    """One piece of an answer: its sockets, and whether it was the last. Raises OSError as udp_sockets."""
    messages, done = netlink.parse(data, sequence, "sock_diag")
    return [_parse_socket(body) for kind, body in messages if kind == _SOCK_DIAG_BY_FAMILY], done


def _parse_socket(body: bytes) -> UdpSocket:
    if len(body) < _MESSAGE.size:
        raise netlink.malformed("socket")
    family, _, _, _, port, _, source, _, device, low, high, _, _, _, uid, inode = _MESSAGE.unpack_from(body)
    known = netlink.attributes(body, _MESSAGE.size)
    address = _address(family, source)
    v6only = known.get(_INET_DIAG_SKV6ONLY, b"\0") != b"\0"
    cgroup = known.get(_INET_DIAG_CGROUP_ID)
    return UdpSocket(
        address,
        int.from_bytes(port, "big"),
        cookie=high << 32 | low,
        uid=uid,
        inode=inode,
        device=device,
        both=address == ipaddress.IPv6Address(0) and not v6only,
        cgroup_id=struct.unpack("=Q", cgroup)[0] if cgroup is not None and len(cgroup) == 8 else None,
    )


def _address(family: int, packed: bytes) -> IPAddress:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(packed[:4])
    if family == socket.AF_INET6:
        return _plain(ipaddress.IPv6Address(packed))
    raise netlink.malformed("family")


def _plain(address: IPAddress) -> IPAddress:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _bound(sockets: Iterable[UdpSocket], address: IPAddress, port: int) -> list[UdpSocket]:
    """Those that may receive this host's datagrams for an endpoint, if no other does."""
    # IPv4 takes the host's own datagrams as coming in by the loopback interface. IPv6 takes them as coming
    # in by the interface that the address is on (ip6_rcv_core() in net/ipv6/ip6_input.c).
    return [
        item
        for item in sockets
        if item.port == port
        and (item.device in (0, _LOOPBACK) or address.version == 6)
        and (item.address == address or item.address.is_unspecified)
    ]


def serving(sockets: Iterable[UdpSocket], address: IPAddress, port: int) -> list[UdpSocket]:
    """Those that the kernel delivers this host's datagrams for an endpoint to.

    Sockets bound to the address come before wildcard ones, and wildcard IPv4 sockets before IPv6 ones that
    receive IPv4 too (compute_score() and the lookups above it in net/ipv4/udp.c). Which of several equal
    ones gets a datagram is not for us to know: all are given.
    """
    bound = _bound(sockets, address, port)
    anywhere = [item for item in bound if item.address.is_unspecified]
    return (
        [item for item in bound if item.address == address]
        or [item for item in anywhere if item.address.version == address.version]
        or [item for item in anywhere if item.both]
    )


class LocalFinder:
    """Finds who serves local resolvers, again and again: what it found once it only confirms later.

    A round costs about half a millisecond then. The first one, and one after a resolver was started anew,
    searches /proc, the processes that are resolvers by their names first.
    """

    def __init__(
        self,
        sockets: Callable[[int], list[UdpSocket]] = udp_sockets,
        proc: Path = Path("/proc"),
        mount: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mount`: where cgroup version 2 is. Raises ScopeError when that is not given and nowhere."""
        self._sockets = sockets
        self._proc = proc
        self._mount = mount or find_cgroup2_mount()
        self._clock = clock
        self._names = CgroupNames(self._mount)
        self._gone: set[int] = set()  # ids of cgroups that have no directory, and will not get one any more
        self._holders: dict[int, _Holder] = {}  # by cookie
        self._unheld: dict[int, float] = {}  # by cookie: when to search again
        self._engines: list[FoundEngine] = []
        self._engines_until = float("-inf")

    def find(
        self, resolvers: Iterable[TrustedResolver], governed: Sequence[Path] = ()
    ) -> list[LocalResolver]:
        """One for each resolver with `local`, in their order. Raises what udp_sockets raises.

        Sockets that are not to be believed do not count, nor do they hide others: those of ordinary users;
        those in the `governed` cgroups, unless they have a privileged port and belong to a process that is in
        no container, as resolvers do on a host that is governed as a whole; and those of which it cannot be
        found out.
        """
        endpoints = [(_plain(item.address), item.port) for item in resolvers if item.local]
        ports = {port for address, port in endpoints if address != DOCKER_RESOLVER}
        sockets = self._sockets(ports.pop() if len(ports) == 1 else 0) if ports else []
        candidates = {endpoint: _bound(sockets, *endpoint) for endpoint in endpoints}
        every = {item.cookie: item for items in candidates.values() for item in items}
        self._gone &= {item.cgroup_id for item in every.values()}
        self._find_holders(every.values())
        believed = [item for item in every.values() if self._is_believable(item, governed)]
        return [
            self._docker(*endpoint)
            if endpoint[0] == DOCKER_RESOLVER
            else self._resolver(*endpoint, serving(believed, *endpoint))
            for endpoint in endpoints
        ]

    # Root on the host itself could end the enforcement, so it is not kept from speaking for a resolver.
    def _is_believable(self, item: UdpSocket, governed: Sequence[Path]) -> bool:
        if item.uid > _LAST_SYSTEM_UID:
            return False
        cgroup = self._socket(item).cgroup
        if cgroup is None:
            return False
        if not any(cgroup.is_relative_to(place) for place in governed):
            return True
        holder = self._holders.get(item.cookie)
        return (
            item.port < _FIRST_ORDINARY_PORT
            and holder is not None
            and not _is_in_container(holder.pid, self._proc)
        )

    def _resolver(self, address: IPAddress, port: int, sockets: Iterable[UdpSocket]) -> LocalResolver:
        found = tuple(self._socket(item) for item in sorted(sockets, key=lambda item: item.cookie))
        uids = {item.uid for item in found}
        processes = {item.process for item in found}
        return LocalResolver(
            address,
            port,
            tuple(item.cookie for item in found),
            tuple(sorted({item.cgroup for item in found if item.cgroup is not None})),
            uids.pop() if len(uids) == 1 else None,
            processes.pop() if len(processes) == 1 else None,
            found,
        )

    def _socket(self, item: UdpSocket) -> LocalSocket:
        holder = self._holders.get(item.cookie)
        cgroup = None
        if item.cgroup_id is not None:
            cgroup = self._directory(item.cgroup_id)
        elif holder is not None:
            cgroup = of_process(holder.pid, self._mount, self._proc)
        return LocalSocket(
            item.cookie,
            item.uid,
            cgroup,
            holder.process if holder is not None else None,
            holder.pid if holder is not None else None,
        )

    def _directory(self, identifier: int) -> Path | None:
        """The directory of a cgroup; None when it was removed while the socket lives on."""
        if identifier in self._gone:
            return None
        name = self._names.path(identifier)
        directory = self._mount / (name or "").lstrip("/")
        try:
            # A service that restarts leaves its old id and gets a new directory of the same name.
            if name is not None and directory.stat().st_ino == identifier:
                return directory
        except OSError:
            pass
        self._gone.add(identifier)
        return None

    def _find_holders(self, sockets: Iterable[UdpSocket]) -> None:
        now = self._clock()
        holders: dict[int, _Holder] = {}
        unheld: dict[int, float] = {}
        missing: dict[int, int] = {}
        for item in sockets:
            holder = self._holders.get(item.cookie)
            again = self._unheld.get(item.cookie, now)
            if holder is not None and _target(holder.link) == f"socket:[{item.inode}]":
                holders[item.cookie] = holder
            elif now < again:
                unheld[item.cookie] = again
            else:
                missing[item.inode] = item.cookie
                unheld[item.cookie] = now + _RESCAN
        if missing:
            for inode, holder in find_holders(missing, self._proc).items():
                holders[missing[inode]] = holder
                del unheld[missing[inode]]
        self._holders, self._unheld = holders, unheld

    def _docker(self, address: IPAddress, port: int) -> LocalResolver:
        now = self._clock()
        there = all(of_process(e.pid, self._mount, self._proc) == e.cgroup for e in self._engines)
        if now >= self._engines_until or not there or not self._engines:
            self._engines = find_engines(Engine.DOCKER, self._proc)
            self._engines_until = now + _RESCAN
        engines = [
            engine
            for engine in self._engines
            # Any process may call itself dockerd.
            if _is_of_system_user(engine.pid, self._proc) and not _is_in_container(engine.pid, self._proc)
        ]
        cgroups = tuple(sorted({engine.cgroup for engine in engines}))
        return LocalResolver(address, port, (), cgroups, None, "dockerd" if cgroups else None)


def find_local(resolvers: Sequence[TrustedResolver], governed: Sequence[Path] = ()) -> list[LocalResolver]:
    """Who serves the local ones of these resolvers, asked once. See LocalFinder.find."""
    return LocalFinder().find(resolvers, governed)


def find_holders(inodes: Iterable[int], proc: Path) -> dict[int, _Holder]:
    """For each socket the first process found that has it open; those that nobody has are left out."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    found: dict[int, _Holder] = {}
    for pid, process in _processes(proc) if wanted else ():
        for link in _entries(f"{proc}/{pid}/fd"):
            inode = wanted.pop(_target(link), None)
            if inode is not None:
                found[inode] = _Holder(int(pid), process, link)
        if not wanted:
            break
    return found


def _is_in_container(pid: int, proc: Path) -> bool:
    """Whether a process has a root directory or a PID namespace of its own.

    Process 1 has the host's. Where that may not be looked at (ptrace(2)), this process counts as on the host.
    """
    try:
        host = _surroundings("1", proc)
    except OSError:
        host = _surroundings("self", proc)
    try:
        return _surroundings(str(pid), proc) != host
    except OSError:  # it is gone
        return True


def _surroundings(pid: str, proc: Path) -> tuple[str, int, int]:
    """The PID namespace of a process, and its root directory by device and inode."""
    root = (proc / pid / "root").stat()
    return str((proc / pid / "ns/pid").readlink()), root.st_dev, root.st_ino


def _is_of_system_user(pid: int, proc: Path) -> bool:
    try:
        status = (proc / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it is gone
        return False
    lines = [line.split() for line in status.splitlines() if line.startswith("Uid:")]
    return len(lines) == 1 and all(int(uid) <= _LAST_SYSTEM_UID for uid in lines[0][1:])


def _processes(proc: Path) -> Iterator[tuple[str, str]]:
    """Number and name of each process, the likely ones first."""
    others = []
    for entry in _entries(str(proc)):
        pid = entry.rpartition("/")[2]
        if not pid.isdecimal():
            continue
        try:
            with open(f"{entry}/comm", "rb") as file:  # noqa: PTH123 - see _entries
                process = file.read(64).decode(errors="replace").strip()
        except OSError:
            continue
        if process in _LIKELY:
            yield pid, process
        else:
            others.append((pid, process))
    yield from others


# Plain strings: a Path for each descriptor of each process would take most of the time.
def _entries(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries]
    except OSError:  # the process is gone
        return []


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - see _entries
    except OSError:
        return ""
