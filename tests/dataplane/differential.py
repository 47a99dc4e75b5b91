"""The programs against the model of reference.py: many DNS exchanges, compared address by address.

Also a program, for long runs and for looking at one exchange again:

    python -m tests.dataplane.differential --count 5000000 --seed 1
    python -m tests.dataplane.differential --replay '{"query": ...}'
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import random
import struct
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import hypothesis
from hypothesis import strategies as st

from ram_ebpf.dataplane import abi, clock, syscall
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.maps import Map

from .generate import Drawn, exchanges, policy_rules, variants
from .reference import Case, Expected, Labels, Lead, Opened, Reference
from .support import CLIENT, CLIENT6, RESOLVER, RESOLVER6, SETTINGS, Bench

VARIANTS = 100
"""Exchanges that are made of one that hypothesis draws."""
_EXAMPLES = 60
"""Draws of one run of hypothesis, which keeps them all in memory until its end."""
_MASK = 0xFFFFFFFFFFFFFFFF


# What the programs' identity of a name is (bpf/lib/identity.h): SipHash-1-3 over its labels.


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK


def _round(v: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    v0, v1, v2, v3 = v
    v0 = (v0 + v1) & _MASK
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotate(v1, 17) ^ v2
    return v0, v1, _rotate(v2, 32), v3


def identity(name: Labels, key: tuple[int, int]) -> int:
    """Of a name in lower case. Each label, with its length octet, is two words, or eight if it is long."""
    v = (
        key[0] ^ 0x736F6D6570736575,
        key[1] ^ 0x646F72616E646F6D,
        key[0] ^ 0x6C7967656E657261,
        key[1] ^ 0x7465646279746573,
    )
    for label in name:
        octets = bytes((len(label),)) + label
        for word in struct.iter_unpack("=Q", octets.ljust(16 if len(octets) <= 16 else 64, b"\0")):
            v0, v1, v2, v3 = _round((v[0], v[1], v[2], v[3] ^ word[0]))
            v = (v0 ^ word[0], v1, v2, v3)
    v = _round(_round(_round((v[0], v[1], v[2] ^ 0xFF, v[3]))))
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# Fewer and shorter system calls than syscall.py makes.


class _Call:
    """One command of bpf(2) with its attributes, made again and again."""

    def __init__(self, command: int, attributes: bytes) -> None:
        self._command = command
        self.attributes = ctypes.create_string_buffer(attributes, len(attributes))

    def __call__(self) -> int:
        """0, or the number of the error."""
        number = syscall._SYSCALL_NUMBER
        if syscall._libc.syscall(number, self._command, self.attributes, len(self.attributes)) < 0:
            return ctypes.get_errno()
        return 0

    def put(self, layout: str, offset: int, *values: int) -> None:
        """Writes into the attributes."""
        struct.pack_into(layout, self.attributes, offset, *values)

    def get(self, layout: str, offset: int) -> int:
        """Reads one of what the kernel left in the attributes."""
        value: int = struct.unpack_from(layout, self.attributes, offset)[0]
        return value


_LOOKUP_BATCH, _LOOKUP_AND_DELETE_BATCH = 24, 25  # enum bpf_cmd; Linux 5.6, of per-CPU arrays 5.13


def _batch_attributes(token: int, keys: int, values: int, count: int, fd: int) -> bytes:
    return struct.pack("=QQQQIIQQ", 0, token, keys, values, count, fd, 0, 0)


_BATCH_COUNT = 32  # offset in those


class _Drain:
    """Takes all that is in a map: at once where the kernel can, else one by one."""

    def __init__(self, source: Map, room: int) -> None:
        self._map = source
        self._room = room
        self._key_size, self._value_size = source.shape.key_size, source.shape.value_size
        self._token = ctypes.create_string_buffer(64)
        self._keys = ctypes.create_string_buffer(room * self._key_size)
        self._values = ctypes.create_string_buffer(room * self._value_size)
        self._call = _Call(
            _LOOKUP_AND_DELETE_BATCH,
            _batch_attributes(
                ctypes.addressof(self._token), ctypes.addressof(self._keys), ctypes.addressof(self._values),
                room, source.fd,
            ),
        )  # fmt: skip
        self._at_once = True

    def __call__(self) -> list[tuple[bytes, bytes]]:
        """Pairs of key and value."""
        if self._at_once:
            self._call.put("=I", _BATCH_COUNT, self._room)
            error = self._call()
            if error == errno.ENOENT:  # the end of the map
                count = self._call.get("=I", _BATCH_COUNT)
                if not count:
                    return []
                keys, values = self._keys.raw, self._values.raw
                k, v = self._key_size, self._value_size
                return [(keys[n * k : n * k + k], values[n * v : n * v + v]) for n in range(count)]
            if error != errno.EINVAL:
                raise OSError(error, f"{self._map.name}: {os.strerror(error)} for all at once")
            self._at_once = False
        pairs = list(self._map.items())
        for key, _ in pairs:
            self._map.discard(key)
        return pairs


class _Counters:
    """All counters at once, or one by one."""

    def __init__(self, counters: Map) -> None:
        self._map = counters
        cpus = syscall.possible_cpus()
        self._layout = struct.Struct(f"={abi.REASON_COUNT * cpus}Q")
        self._cpus = cpus
        self._token = ctypes.create_string_buffer(64)
        self._keys = ctypes.create_string_buffer(abi.REASON_COUNT * 4)
        self._values = ctypes.create_string_buffer(self._layout.size)
        self._call = _Call(
            _LOOKUP_BATCH,
            _batch_attributes(
                ctypes.addressof(self._token), ctypes.addressof(self._keys), ctypes.addressof(self._values),
                abi.REASON_COUNT, counters.fd,
            ),
        )  # fmt: skip
        self._at_once = True
        self._last = self._read()

    def _read(self) -> tuple[int, ...]:
        if self._at_once:
            self._call.put("=I", _BATCH_COUNT, abi.REASON_COUNT)
            error = self._call()
            if error in (0, errno.ENOENT) and self._call.get("=I", _BATCH_COUNT) == abi.REASON_COUNT:
                return self._layout.unpack(self._values.raw)
            self._at_once = False
        raw = b"".join(
            syscall.map_lookup(self._map.fd, struct.pack("=I", index), 8 * self._cpus) or b""
            for index in range(abi.REASON_COUNT)
        )
        return self._layout.unpack(raw)

    def __call__(self) -> Counter[Reason]:
        """What was counted since this was asked last."""
        now = self._read()
        delta: Counter[Reason] = Counter()
        for index, (new, old) in enumerate(zip(now, self._last, strict=True)):
            if new != old:
                delta[Reason(index // self._cpus)] += new - old
        self._last = now
        return delta


class _Sender:
    """Runs one program on datagrams between the client and the resolver."""

    def __init__(self, fd: int, outgoing: bool) -> None:
        client, server = ip_address(CLIENT).packed, ip_address(RESOLVER).packed
        client6, server6 = ip_address(CLIENT6).packed, ip_address(RESOLVER6).packed
        ports = (4000, 53) if outgoing else (53, 4000)
        self._ports = struct.pack("!2H", *ports)
        self._addresses = client + server if outgoing else server + client
        self._addresses6 = client6 + server6 if outgoing else server6 + client6
        self._memory = ctypes.create_string_buffer(4096)
        attributes = struct.pack(
            "=IIIIQQIIIIQQ", fd, 0, 0, 0, ctypes.addressof(self._memory), 0, 1, 0, 0, 0, 0, 0
        )
        self._call = _Call(syscall.Command.PROG_TEST_RUN, attributes)

    def __call__(self, payload: bytes, length: int | None, ipv6: bool) -> None:
        """Sends one, which must pass. Checksums are left out: nobody looks at them."""
        size = 8 + len(payload)
        udp = self._ports + struct.pack("!2H", size if length is None else length, 0) + payload
        if ipv6:
            head = b"\2\0\0\0\0\2\2\0\0\0\0\1\x86\xdd" + struct.pack("!IHBB", 6 << 28, size, 17, 64)
            packet = head + self._addresses6 + udp
        else:
            head = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\x00" + struct.pack(
                "!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, 17, 0
            )
            packet = head + self._addresses + udp
        ctypes.memmove(self._memory, packet, len(packet))
        self._call.put("=II", 8, len(packet), 0)  # the kernel wrote how much it would give back
        error = self._call()
        if error:
            raise OSError(error, f"test run of {len(packet)} octets: {os.strerror(error)}")
        if self._call.get("=I", 4) != 1:
            raise DifferenceError("the packet was refused")


class DifferenceError(AssertionError):
    """The programs did something else than the model says."""


@dataclass
class Tally:
    """What was compared."""

    messages: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    """Of the replies."""
    opening: int = 0
    """Exchanges by which addresses were opened."""
    addresses: int = 0
    """Pairs of an address and a list of ports that were compared."""

    def share(self, reason: Reason) -> float:
        """Of all replies."""
        return self.reasons[reason] / max(self.messages, 1)

    def lines(self) -> Iterator[str]:
        """For a person."""
        opened = self.opening / max(self.messages, 1)
        yield f"{self.messages} messages; {opened:.1%} opened addresses; {self.addresses} addresses compared"
        for reason, count in self.reasons.most_common():
            yield f"  {reason.slug:24} {count:9} {count / self.messages:6.1%}"


class Differential:
    """Sends exchanges through the programs and compares what came of each with the model."""

    def __init__(self) -> None:
        """Loads the programs. Leave by `with`."""
        self.bench = Bench(policy_rules())
        self.bench.reset()
        plane = self.bench.plane
        self.tables = plane.tables
        self.reference = Reference(self.tables, SETTINGS)
        self.tally = Tally()
        config = abi.Config.from_buffer_copy(self.bench.map("config")[struct.pack("=I", 0)])
        self._key = (config.identity_key[0], config.identity_key[1])
        self._identities: dict[Labels, int] = {}
        self._egress = _Sender(plane.shared.fds["eg"], outgoing=True)
        self._ingress = _Sender(plane.shared.fds["ing"], outgoing=False)
        self._counters = _Counters(self.bench.map("counters"))
        self._learned = _Drain(self.bench.map("learned"), 4096)
        self._aliases = _Drain(self.bench.map("aliases"), 512)

    def __enter__(self) -> Differential:
        return self

    def __exit__(self, *_: object) -> None:
        self.bench.plane.close()

    def compare_all(self, drawn: Drawn, seed: int, count: int = VARIANTS) -> None:
        """An exchange and changed ones. Raises DifferenceError."""
        case = drawn.case
        for case in variants(drawn, seed, count):
            self.compare(case)
        self._check_nothing_is_left(case)

    def compare(self, case: Case) -> None:
        """One exchange. Raises DifferenceError, or ContradictionError where model and dnspython differ."""
        try:
            expected = self.reference.expect(case)
            self._prepare(case)
            self._egress(case.query, case.query_length, case.ipv6)
            before = clock.now_ns()
            self._ingress(case.reply, case.reply_length, case.ipv6)
            span = (before, clock.now_ns())
            counted = self._counters()
            learned = self._learned()
            aliases = self._aliases()
            if counted != expected.counted:
                raise DifferenceError(f"counted {_plain(counted)}, not {_plain(expected.counted)}")
            self._compare_openings(learned, expected, span)
            self._compare_aliases(aliases, expected, span)
            if expected.awaited:
                self._end_query(case, expected.awaited)
        except (AssertionError, OSError) as error:
            self._forget()
            raise DifferenceError(f"{type(error).__name__}: {error}\n{describe(case)}") from error
        self.tally.messages += 1
        self.tally.reasons[expected.reason] += 1
        self.tally.addresses += len(expected.openings)
        self.tally.opening += any(not o.before and not o.private for o in expected.openings.values())

    def _forget(self) -> None:
        """Whatever a difference has left behind."""
        self.bench.reset()
        self._counters()

    def _prepare(self, case: Case) -> None:
        self._base = clock.now_ns()
        for address, opened in case.openings:
            number = self.tables.port_list_of(self.reference.rule(opened.rule))
            key = abi.opening_key(abi.unpack_address(address), number)
            value = abi.Opening(self._at(opened), opened.rule, int(opened.private))
            self.bench.map("learned")[key] = bytes(value)
        if case.alias is not None and case.lead is not None:
            key = struct.pack("=Q", self._identity(case.alias))
            self.bench.map("aliases")[key] = bytes(
                abi.Alias(self._at(case.lead), case.lead.rule, case.lead.depth)
            )

    def _at(self, item: Opened | Lead) -> int:
        # A guest that has just booted has not been up for long enough to count back from.
        return max(self._base + int(item.seconds * NANOSECONDS), 0)

    def _identity(self, name: Labels) -> int:
        number = self._identities.get(name)
        if number is None:
            if len(self._identities) > 10000:
                self._identities.clear()
            number = self._identities[name] = identity(name, self._key)
        return number

    def _is_due(self, expires: int, item: Opened | Lead, span: tuple[int, int]) -> bool:
        if item.before:
            return expires == self._at(item)
        seconds = int(item.seconds) * NANOSECONDS
        return span[0] + seconds <= expires <= span[1] + seconds

    def _compare_openings(
        self, pairs: list[tuple[bytes, bytes]], expected: Expected, span: tuple[int, int]
    ) -> None:
        found = {}
        for key, value in pairs:
            expires, rule, flags = struct.unpack("=QII", value)
            place = key[:16], struct.unpack_from("=I", key, 16)[0]
            opened = expected.openings.get(place)
            if (
                opened is None
                or (rule, flags) != (opened.rule, int(opened.private))
                or not self._is_due(expires, opened, span)
            ):
                left = (expires - span[0]) / NANOSECONDS
                raise DifferenceError(
                    f"{abi.unpack_address(place[0])} on list {place[1]} is kept for {left:.6f} s by rule "
                    f"{rule} with flags {flags}, not as {opened}"
                )
            found[place] = True
        if len(found) != len(expected.openings):
            missing = [place for place in expected.openings if place not in found]
            raise DifferenceError(f"not kept: {[(str(abi.unpack_address(a)), n) for a, n in missing[:9]]}")

    def _compare_aliases(
        self, pairs: list[tuple[bytes, bytes]], expected: Expected, span: tuple[int, int]
    ) -> None:
        if not pairs and not expected.aliases:
            return
        wanted = {self._identity(name): (name, lead) for name, lead in expected.aliases.items()}
        for key, value in pairs:
            (number,) = struct.unpack("=Q", key)
            alias = abi.Alias.from_buffer_copy(value)
            name, lead = wanted.pop(number, (None, None))
            if (
                lead is None
                or (alias.rule, alias.depth) != (lead.rule, lead.depth)
                or not self._is_due(alias.expires_ns, lead, span)
            ):
                left = (alias.expires_ns - span[0]) / NANOSECONDS
                known = hex(number) if name is None else repr(b".".join(name))
                raise DifferenceError(
                    f"alias {known} is kept for {left:.6f} s by rule {alias.rule} at depth {alias.depth}, "
                    f"not as {lead}"
                )
        if wanted:
            raise DifferenceError(f"aliases not kept: {[b'.'.join(name) for name, _ in wanted.values()]}")

    def _end_query(self, case: Case, awaited: str) -> None:
        """A query that was not answered is still there, and only where it should be."""
        client, resolver = (CLIENT6, RESOLVER6) if case.ipv6 else (CLIENT, RESOLVER)
        key = struct.pack(
            "=16s16sHHHH",
            abi.pack_address(ip_address(resolver)), abi.pack_address(ip_address(client)), 53, 4000,
            int.from_bytes(case.query[:2], "big"), 0,
        )  # fmt: skip
        if not self.bench.map(awaited).discard(key):
            raise DifferenceError(f"the query is not in {awaited} any more")

    def _check_nothing_is_left(self, case: Case) -> None:
        for name in ("queries", "unlisted", "walks"):
            left = list(self.bench.map(name).items())
            if left:
                raise DifferenceError(f"left in {name}: {left}; the last exchange was\n{describe(case)}")


def _plain(counted: Counter[Reason]) -> dict[str, int]:
    return {reason.slug: count for reason, count in counted.items()}


def describe(case: Case) -> str:
    """What somebody needs to look at an exchange again."""
    return (
        f"query: {case.query.hex()}\nreply: {case.reply.hex()}\n"
        f"again: python -m tests.dataplane.differential --replay '{case.to_json()}'"
    )


def run(differential: Differential, count: int, seed: int, deadline: float = float("inf")) -> None:
    """Compares at least `count` messages, the same for the same seed.

    Fewer only when `time.monotonic()` reaches the deadline. Raises DifferenceError.
    """
    tally = differential.tally
    target = tally.messages + count
    chooser = random.Random(seed)
    while tally.messages < target and time.monotonic() < deadline:
        examples = min(_EXAMPLES, -(-(target - tally.messages) // VARIANTS))
        _run_examples(differential, examples, chooser.getrandbits(64), deadline)


def _run_examples(differential: Differential, examples: int, seed: int, deadline: float) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,  # which hypothesis would otherwise not do on the machines of CI services
        database=None,
        # A difference is told as it was found. To shrink it would take long: each example is many exchanges.
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(exchanges(differential.tables), st.integers(0, 2**32 - 1))
    def compare(drawn: Drawn, changes: int) -> None:
        if time.monotonic() < deadline:
            differential.compare_all(drawn, changes)

    compare()


def _main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare the programs with the model on generated DNS exchanges."
    )
    parser.add_argument("--count", type=int, default=200_000, help="messages to compare")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--every", type=int, default=100_000, help="messages between two lines of progress")
    parser.add_argument("--replay", type=Case.from_json, help="compare this one exchange")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    seed = int.from_bytes(os.urandom(4), "big") if arguments.seed is None else arguments.seed
    with Differential() as differential:
        if arguments.replay is not None:
            expected = differential.reference.expect(arguments.replay)
            print(f"expected: {expected}", flush=True)
            differential.compare(arguments.replay)
            print("no difference")
            return 0
        return _run_and_report(differential, arguments.count, seed, arguments.seconds, arguments.every)


def _run_and_report(differential: Differential, count: int, seed: int, seconds: float, every: int) -> int:
    print(f"seed {seed}, {count} messages", flush=True)
    started = time.monotonic()
    tally = differential.tally
    part = 0
    while tally.messages < count and time.monotonic() < started + seconds:
        run(differential, min(every, count - tally.messages), seed * 1000 + part, started + seconds)
        part += 1
        elapsed = time.monotonic() - started
        rate = tally.messages / elapsed
        print(f"{tally.messages} messages in {elapsed:.0f} s, {rate:.0f} a second, no difference", flush=True)
    print("\n".join(tally.lines()))
    print(f"  answers that dnspython's resolve_chaining() gave too: {differential.reference.confirmed}")
    print("  where dnspython differs on purpose (DEVIATIONS):")
    for kind, number in differential.reference.deviations.most_common():
        print(f"  {kind:24} {number:9}")
    return 0 if tally.messages >= count else 1


if __name__ == "__main__":
    sys.exit(_main())
