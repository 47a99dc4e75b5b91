"""What user space learns: the policy's own names, and what the kernel could not read to its end.

The kernel reads replies over UDP by itself. Exact names are resolved ahead of anybody's asking; names in
replies that were truncated, broken, in another order or from a doubtful sender are asked again; and for
queries over TCP the same is asked here, while the kernel holds the client's reply back.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.openings import open_addresses, remove_expired
from ram_ebpf.dataplane.plane import Plane, Settings, TrustedResolver
from ram_ebpf.dns.lookup import Answer, question_name, question_type, types_for
from ram_ebpf.dns.seeding import Seeder
from ram_ebpf.dns.streams import FlowKey, QueryStreams, Question, flow_of
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.rules import NameRule

# Replies whose addresses are learned from what we are told ourselves, if the kernel found a rule for them.
HANDED_OVER = frozenset(
    {
        abi.Reason.DNS_TRUNCATED,
        abi.Reason.DNS_MALFORMED,
        abi.Reason.DNS_TOO_MANY,
        abi.Reason.DNS_MAP_FULL,
        abi.Reason.DNS_OTHER_NAME,
        abi.Reason.DNS_WRONG_INTERFACE,
        abi.Reason.DNS_UNTRUSTED_SENDER,
    }
)
_MOST_CONNECTIONS = 4096


class _Connection:
    """The queries of one connection over TCP, in the order in which their replies may go on.

    Segments are known by the kernel's count of them. Their events may come in another order.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}  # count to questions still asked
        self._released: int | None = None

    def add(self, count: int, questions: int) -> None:
        """A segment after which the connection has sent `count` queries, as the kernel counts."""
        self._waiting[count] = self._waiting.get(count, 0) + questions

    def finish(self, count: int) -> None:
        """One question of that segment was dealt with."""
        if count in self._waiting:
            self._waiting[count] -= 1

    def released(self) -> int | None:
        """Up to which count everything is dealt with, if that is more than before."""
        before = self._released
        for count in sorted(self._waiting):
            if self._waiting[count] > 0:
                break
            del self._waiting[count]
            self._released = count if self._released is None else max(self._released, count)
        return None if self._released == before else self._released


class Learner:
    """Asks resolvers and writes what they say into the kernel. Its thread is the seeder's."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        history: NameHistory,
        resolvers: Callable[[], Sequence[TrustedResolver]],
    ) -> None:
        self._plane = plane
        self._settings = settings
        self._history = history
        rules = plane.tables.rules
        self._seeder = Seeder(
            ((rule.pattern.text, rule.rank) for rule in rules.of_kind(PatternKind.EXACT) if not rule.deny),
            resolvers,
            self._seed,
            longest=settings.maximum_ttl,
        )
        self._streams = QueryStreams()
        self._connections: OrderedDict[tuple[int, FlowKey], _Connection] = OrderedDict()
        self._lock = threading.Lock()  # the reader of events and the seeder meet in the connections
        self._under_way: set[tuple[str, tuple[int, ...], int, int]] = set()

    def start(self) -> None:
        """Begins to resolve."""
        self._seeder.start()

    def wait_first_round(self, seconds: float) -> bool:
        """Waits until each exact name was tried once; False when that took longer."""
        return self._seeder.wait_first_round(seconds)

    def stop(self) -> None:
        """Ends the thread."""
        self._seeder.stop()

    def remove_expired(self) -> None:
        """Makes room among the addresses of exact names."""
        remove_expired(self._plane.maps["seeded"], self._settings.grace)

    def ask_again(self, name: str, event: Event) -> None:
        """Asks for a name whose reply the kernel did not learn, or not whole."""
        types = types_for(question_type(event.dns_message or b""))
        question = (name, tuple(types), event.rule, event.scope)
        with self._lock:
            if question in self._under_way:
                return
            self._under_way.add(question)

        def done() -> None:
            with self._lock:
                self._under_way.discard(question)

        self._seeder.ask_once(name, types, lambda answer: self._learn(answer, event.rule, event.scope), done)

    def take_query(self, event: Event) -> None:
        """A segment to a resolver over TCP: asks what it asks, and lets the reply go on after that."""
        flow = flow_of(event.packet)
        if flow is None:
            return
        # Docker's resolver is known by the port that the client asks, which NAT has changed in the packet.
        flow = replace(flow, destination_port=event.port)
        wanted = []
        # The kernel found its rule for the one message that the segment looks like. A stream can be made to
        # mean something else, so that rule is only for the same name.
        looks_like = question_name((event.dns_message or b"")[2:]) if event.rule else None
        for question in self._streams.feed(event.packet):
            rule = event.rule if question.name == looks_like else self._rank_of(question.name)
            if rule:
                wanted.append((question, rule))
        key = (event.scope, flow)
        with self._lock:
            connection = self._connections.setdefault(key, _Connection())
            self._connections.move_to_end(key)
            connection.add(event.detail, len(wanted))
            while len(self._connections) > _MOST_CONNECTIONS:
                self._connections.popitem(last=False)
        self._release(key)
        for question, rule in wanted:
            self._ask_for_connection(question, rule, key, event.detail)

    def _ask_for_connection(
        self, question: Question, rule: int, key: tuple[int, FlowKey], count: int
    ) -> None:
        def done() -> None:
            with self._lock:
                connection = self._connections.get(key)
                if connection is not None:
                    connection.finish(count)
            self._release(key)

        types = types_for(question.rdtype)
        self._seeder.ask_once(question.name, types, lambda answer: self._learn(answer, rule, key[0]), done)

    def _release(self, key: tuple[int, FlowKey]) -> None:
        number, flow = key
        scope = self._plane.scope(number)
        with self._lock:
            connection = self._connections.get(key)
            count = connection.released() if connection is not None else None
            if count is not None and scope is not None:
                packed = abi.flow(flow.source, flow.source_port, flow.destination, flow.destination_port)
                scope.maps["released"][packed] = struct.pack("=I", count)

    def _rank_of(self, name: str) -> int:
        rule = self._plane.tables.rules.allows(name)
        return rule.rank if rule is not None else 0

    def _seed(self, answer: Answer, rule: int) -> None:
        self._history.note(answer)
        self._open(self._plane.maps["seeded"], answer, rule)

    def _learn(self, answer: Answer, rule: int, number: int) -> None:
        self._history.note(answer)
        scope = self._plane.scope(number)
        if scope is not None:  # else it is gone meanwhile
            self._open(scope.maps["learned"], answer, rule)

    def _open(self, openings: Map, answer: Answer, rule: int) -> None:
        found = self._plane.tables.rule(rule)
        if isinstance(found, NameRule) and not found.deny:
            open_addresses(openings, answer.addresses, found, self._plane.tables, self._settings)
