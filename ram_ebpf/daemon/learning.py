"""What user space learns: the policy's own names, and what the kernel could not read to its end.

The kernel reads replies over UDP by itself. Exact names are resolved ahead of anybody's asking; names in
replies that were truncated, broken, in another order or from a doubtful sender are asked again; and for
queries over TCP the same is asked here, while the kernel holds the client's reply back.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import overload

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.openings import open_addresses, remove_expired
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dataplane.view import View
from ram_ebpf.dns.lookup import types_for
from ram_ebpf.dns.response import Answer, question_name, question_type
from ram_ebpf.dns.seeding import Seeder
from ram_ebpf.dns.streams import FlowKey, QueryStreams, Question, flow_of
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.ruleset import NameRule
from ram_ebpf.tally import Tally

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
_MOST_CONNECTIONS = 4096  # of one scope


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


class _Clients:
    """What is kept in mind of one scope. Another scope's clients take none of its room."""

    def __init__(self) -> None:
        self.streams = QueryStreams()
        self.connections: OrderedDict[FlowKey, _Connection] = OrderedDict()


class _ExactNames(Sequence[tuple[str, list[tuple[View, int]]]]):
    """The exact names of all views that are to be resolved, each once, with the views that have it and the
    number of its rule there. They are put together when they are asked for, as there may be 100 000.

    `unexpected`: those that only the catalogue names, and that need not exist.
    """

    def __init__(self, views: Iterable[View]) -> None:
        self._views = list(views)
        self._first = array("H")  # the first view that has it, and its rank there
        self._ranks = array("I")
        self.unexpected: set[str] = set()
        own: set[str] = set()
        for number, view in enumerate(self._views):
            for rank, (like, name) in enumerate(view.tables.rules.names.likes(), start=1):
                if like.pattern.kind is not PatternKind.EXACT or not _is_resolved(like, view):
                    continue
                if like.known:
                    self.unexpected.add(name)
                elif len(self._views) > 1:
                    own.add(name)
                if not any(self._rank_in(earlier, name) for earlier in self._views[:number]):
                    self._first.append(number)
                    self._ranks.append(rank)
        self.unexpected -= own

    @staticmethod
    def _rank_in(view: View, name: str) -> int:
        rank, _, _ = view.tables.rules.names.ranks_of(name)
        return rank if rank and _is_resolved(view.tables.rules.names[rank - 1], view) else 0

    def __len__(self) -> int:
        return len(self._ranks)

    @overload
    def __getitem__(self, index: int) -> tuple[str, list[tuple[View, int]]]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, list[tuple[View, int]]]]: ...

    def __getitem__(
        self, index: int | slice
    ) -> tuple[str, list[tuple[View, int]]] | list[tuple[str, list[tuple[View, int]]]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first = self._first[index]
        name = self._views[first].tables.rules.names[self._ranks[index] - 1].pattern.text
        places = ((view, self._rank_in(view, name)) for view in self._views[first:])
        return name, [(view, rank) for view, rank in places if rank]


def _is_resolved(rule: NameRule, view: View) -> bool:
    """Where registries are recognised, those that are denied have to be known as well."""
    return not rule.deny or view.posture is abi.Posture.REGISTRIES


class Learner:
    """Asks resolvers and writes what they say into the kernel. Its thread is the seeder's."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        history: NameHistory,
        resolvers: Callable[[], Sequence[TrustedResolver]],
        views: Sequence[View] | None = None,
        lookups: Tally | None = None,
    ) -> None:
        """`views`: whose names are resolved ahead; None: those that the plane has now. `lookups`: counts."""
        self._plane = plane
        self._settings = settings
        self._history = history
        names = _ExactNames(plane.views if views is None else views)
        self._seeder = Seeder(
            names,
            resolvers,
            self._seed,
            longest=settings.maximum_ttl,
            unexpected=names.unexpected,
            lookups=lookups,
        )
        self._clients: dict[int, _Clients] = {}  # by scope
        self._lock = threading.Lock()  # the reader of events and the seeder meet in the connections
        self._under_way: set[tuple[str, tuple[int, ...], int, int]] = set()

    def start(self) -> None:
        """Begins to resolve."""
        self._seeder.start()

    def wait_first_round(self, seconds: float) -> bool:
        """Waits until each exact name was tried once; False when that took longer."""
        return self._seeder.wait_first_round(seconds)

    def states(self) -> dict[str, int]:
        """How many exact names are in which state; see seeding.py."""
        return dict(self._seeder.states)

    def stop(self) -> None:
        """Ends the thread."""
        self._seeder.stop()

    def remove_expired(self) -> None:
        """Makes room among the addresses of exact names."""
        for view in self._plane.views:
            remove_expired(view.maps["seeded"], self._settings.grace)

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

        self._seeder.ask_once(
            event.scope, name, types, lambda answer: self._learn(answer, event.rule, event.scope), done
        )

    def take_query(self, event: Event) -> None:
        """A segment to a resolver over TCP: asks what it asks, and lets the reply go on after that."""
        flow = flow_of(event.packet)
        if flow is None:
            return
        # Docker's resolver is known by the port that the client asks, which NAT has changed in the packet.
        flow = replace(flow, destination_port=event.port)
        clients = self._clients_of(event.scope)
        wanted = []
        # The kernel found its rule for the one message that the segment looks like. A stream can be made to
        # mean something else, so that rule is only for the same name.
        looks_like = question_name((event.dns_message or b"")[2:]) if event.rule else None
        for question in clients.streams.feed(event.packet):
            is_known = question.name == looks_like
            rule = event.rule if is_known else self._rank_of(question.name, event.scope)
            if rule:
                wanted.append((question, rule))
        with self._lock:
            connection = clients.connections.setdefault(flow, _Connection())
            clients.connections.move_to_end(flow)
            connection.add(event.detail, len(wanted))
            while len(clients.connections) > _MOST_CONNECTIONS:
                clients.connections.popitem(last=False)
        self._release(event.scope, flow)
        for question, rule in wanted:
            self._ask_for_connection(question, rule, event.scope, flow, event.detail)

    def _clients_of(self, scope: int) -> _Clients:
        with self._lock:
            if scope not in self._clients:
                gone = [number for number in self._clients if self._plane.scope(number) is None]
                for number in gone:
                    del self._clients[number]
            return self._clients.setdefault(scope, _Clients())

    def _connection(self, scope: int, flow: FlowKey) -> _Connection | None:
        clients = self._clients.get(scope)
        return clients.connections.get(flow) if clients is not None else None

    def _ask_for_connection(
        self, question: Question, rule: int, scope: int, flow: FlowKey, count: int
    ) -> None:
        def done() -> None:
            with self._lock:
                connection = self._connection(scope, flow)
                if connection is not None:
                    connection.finish(count)
            self._release(scope, flow)

        types = types_for(question.rdtype)
        self._seeder.ask_once(
            scope, question.name, types, lambda answer: self._learn(answer, rule, scope), done
        )

    def _release(self, number: int, flow: FlowKey) -> None:
        scope = self._plane.scope(number)
        with self._lock:
            connection = self._connection(number, flow)
            count = connection.released() if connection is not None else None
            if count is not None and scope is not None:
                packed = abi.flow(flow.source, flow.source_port, flow.destination, flow.destination_port)
                scope.maps["released"][packed] = struct.pack("=I", count)

    def _rank_of(self, name: str, number: int) -> int:
        scope = self._plane.scope(number)
        if scope is None:
            return 0
        rule = scope.view.tables.rules.match(name)
        if rule is None or (rule.deny and scope.view.posture is abi.Posture.STRICT):
            return 0
        return rule.rank

    def _seed(self, answer: Answer, rule: Sequence[tuple[View, int]]) -> None:
        self._history.note(answer, own=True)
        for view, number in rule:
            self._open(view, view.maps["seeded"], answer, number)

    def _learn(self, answer: Answer, rule: int, number: int) -> None:
        self._history.note(answer)
        scope = self._plane.scope(number)
        if scope is not None:  # else it is gone meanwhile
            self._open(scope.view, scope.maps["learned"], answer, rule)

    def _open(self, view: View, openings: Map, answer: Answer, rule: int) -> None:
        found = view.tables.rule(rule)
        if isinstance(found, NameRule) and (not found.deny or view.posture is abi.Posture.REGISTRIES):
            open_addresses(openings, answer.addresses, found, view.tables, self._settings)
