"""Keeping names resolved."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns import seeding
from ram_ebpf.dns.lookup import LookupFailedError
from ram_ebpf.dns.response import ADDRESS_TYPES, Answer
from ram_ebpf.dns.seeding import Seeder
from ram_ebpf.tally import Tally

from .server import Server, knows

ip = ipaddress.ip_address
RESOLVER = TrustedResolver(ip("127.0.0.1"), 53, True)


def answer(name: str, *seconds: int) -> Answer:
    return Answer(name, tuple((ip(f"192.0.2.{n}"), ttl) for n, ttl in enumerate(seconds or (60,), 1)))


class Lookups:
    """Stands for look_up: notes each call with its time, and answers as told."""

    def __init__(self, handle: Callable[[str], Answer | Awaitable[Answer]]) -> None:
        self.handle = handle
        self.calls: list[tuple[float, str]] = []
        self.resolvers: list[Sequence[TrustedResolver]] = []
        self.types: list[Sequence[int]] = []

    async def __call__(
        self, name: str, resolvers: Sequence[TrustedResolver], types: Sequence[int] = ADDRESS_TYPES
    ) -> Answer:
        self.calls.append((time.monotonic(), name))
        self.resolvers.append(resolvers)
        self.types.append(types)
        result = self.handle(name)
        return result if isinstance(result, Answer) else await result

    def names(self) -> list[str]:
        return [name for _, name in self.calls]

    def gaps(self) -> list[float]:
        times = [moment for moment, _ in self.calls]
        return [after - before for before, after in itertools.pairwise(times)]


class Learned(list[tuple[str, int]]):
    """What the seeder handed over: name and rule."""

    def __call__(self, found: Answer, rule: int) -> None:
        assert threading.current_thread().name == "seeder"
        assert found.addresses
        self.append((found.name, rule))


class Once(list[str]):
    """What became of names that were asked once, in its order: `learned NAME` and `done NAME`."""

    def ask(self, seeder: Seeder, name: str, types: Sequence[int] = ADDRESS_TYPES, asker: int = 1) -> None:
        def learn(found: Answer) -> None:
            assert threading.current_thread().name == "seeder"
            assert found.addresses
            self.append(f"learned {found.name}")

        seeder.ask_once(asker, name, types, learn, lambda: self.append(f"done {name}"))


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


@contextmanager
def seeding_of(
    names: Sequence[tuple[str, int]],
    learn: Callable[[Answer, int], None],
    resolvers: Callable[[], Sequence[TrustedResolver]] = lambda: [RESOLVER],
) -> Iterator[Seeder]:
    seeder = Seeder(names, resolvers, learn)
    seeder.start()
    try:
        yield seeder
    finally:
        seeder.stop()


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    fake = Lookups(answer)
    monkeypatch.setattr(seeding, "look_up", fake)
    return fake


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the module's constants, named in lower case and without their underscore."""

    def change(**values: float) -> None:
        for name, value in values.items():
            monkeypatch.setattr(seeding, f"_{name.upper()}", value)

    return change


def test_the_first_round(lookups: Lookups) -> None:
    learned = Learned()
    with seeding_of([("a.example", 1), ("b.example", 2), ("c.example", 7)], learned) as seeder:
        assert seeder.wait_first_round(5)
        assert sorted(learned) == [("a.example", 1), ("b.example", 2), ("c.example", 7)]
    assert lookups.names() == ["a.example", "b.example", "c.example"]
    assert lookups.resolvers == [[RESOLVER]] * 3


def test_no_names(lookups: Lookups) -> None:
    seeder = Seeder([], lambda: [RESOLVER], Learned())
    assert seeder.wait_first_round(0)
    seeder.start()
    time.sleep(0.05)
    seeder.stop()
    assert lookups.calls == []


def test_the_first_round_includes_names_that_fail(lookups: Lookups) -> None:
    def handle(name: str) -> Answer:
        if name == "bad.example":
            raise LookupFailedError("127.0.0.1: SERVFAIL")
        return Answer(name, ())

    lookups.handle = handle
    learned = Learned()
    with seeding_of([("bad.example", 1), ("empty.example", 2)], learned) as seeder:
        assert seeder.wait_first_round(5)
    assert learned == []


def test_a_first_round_that_takes_longer(lookups: Lookups) -> None:
    async def never() -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError

    lookups.handle = lambda name: never() if name == "slow.example" else answer(name)
    learned = Learned()
    with seeding_of([("slow.example", 1), ("quick.example", 2)], learned) as seeder:
        assert not seeder.wait_first_round(0.1)
        assert learned == [("quick.example", 2)]


def test_a_retry_is_not_another_name_of_the_first_round(
    lookups: Lookups, pauses: Callable[..., None]
) -> None:
    """One name that fails again and again must not stand for those that were not tried to their end."""
    pauses(first_retry=0.01, last_retry=0.01)

    async def never() -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError

    def handle(name: str) -> Answer | Awaitable[Answer]:
        if name == "slow.example":
            return never()
        raise LookupFailedError("SERVFAIL")

    lookups.handle = handle
    with seeding_of([("bad.example", 1), ("slow.example", 2)], Learned()) as seeder:
        assert eventually(lambda: lookups.names().count("bad.example") > 3)
        assert not seeder.wait_first_round(0)


def test_refresh_before_expiry(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(refresh_at=0.2, shortest_pause=0.0)
    lookups.handle = lambda name: answer(name, 3600, 1, 7200)  # the shortest decides
    learned = Learned()
    with seeding_of([("a.example", 1)], learned):
        assert eventually(lambda: len(learned) >= 3)
    assert all(0.19 < gap < 1 for gap in lookups.gaps())


def test_short_times_to_live_do_not_flood(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(shortest_pause=0.1)
    lookups.handle = lambda name: answer(name, 0)
    with seeding_of([("a.example", 1)], Learned()):
        assert eventually(lambda: len(lookups.calls) >= 3)
    assert all(0.09 < gap < 2 for gap in lookups.gaps())


def test_long_times_to_live_are_looked_at_meanwhile(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(longest_pause=0.1)
    lookups.handle = lambda name: answer(name, 2**31 - 1)
    with seeding_of([("a.example", 1)], Learned()):
        assert eventually(lambda: len(lookups.calls) >= 3)
    assert all(0.09 < gap < 2 for gap in lookups.gaps())


def test_failures_are_tried_again_with_growing_pauses(
    lookups: Lookups, pauses: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    pauses(first_retry=0.03, last_retry=0.12)

    def fail(name: str) -> Answer:
        raise LookupFailedError("127.0.0.1: SERVFAIL")

    lookups.handle = fail
    with caplog.at_level(logging.WARNING), seeding_of([("a.example", 1)], Learned()):
        assert eventually(lambda: len(lookups.calls) >= 6)
    for gap, least in zip(lookups.gaps(), [0.03, 0.06, 0.12, 0.12, 0.12], strict=False):
        assert least - 0.005 < gap < least + 1
    assert [record.getMessage() for record in caplog.records] == [
        "a.example could not be resolved: 127.0.0.1: SERVFAIL"
    ]


@pytest.mark.parametrize("outcome", ["failure", "no address"])
@pytest.mark.parametrize("expected", [True, False])
def test_names_that_need_not_exist_are_no_news(
    lookups: Lookups,
    pauses: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    outcome: str,
    expected: bool,
) -> None:
    pauses(first_retry=0.01, last_retry=0.01)

    def handle(name: str) -> Answer:
        if outcome == "failure":
            raise LookupFailedError("SERVFAIL")
        return Answer(name, ())

    lookups.handle = handle
    seeder = Seeder(
        [("a.example", 1)], lambda: [RESOLVER], Learned(), unexpected=set() if expected else {"a.example"}
    )
    with caplog.at_level(logging.WARNING):
        seeder.start()
        assert eventually(lambda: len(lookups.calls) >= 3)
        seeder.stop()
    assert len(caplog.records) == expected


def test_success_forgets_the_failures(
    lookups: Lookups, pauses: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    pauses(first_retry=0.02, last_retry=5.0, shortest_pause=0.01, longest_pause=0.01)

    def handle(name: str) -> Answer:
        if len(lookups.calls) in (1, 2, 4):
            raise LookupFailedError("SERVFAIL")
        return answer(name)

    lookups.handle = handle
    learned = Learned()
    with caplog.at_level(logging.WARNING), seeding_of([("a.example", 1)], learned):
        assert eventually(lambda: len(learned) >= 2)
    assert len(caplog.records) == 2  # calls 1 and 4: the second failure in a row is not told
    assert 0.015 < lookups.gaps()[3] < 1  # the first pause again, not the third


def test_a_very_long_failure_does_not_overflow(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(first_retry=0.0, last_retry=0.0)

    def fail(name: str) -> Answer:
        raise LookupFailedError("SERVFAIL")

    lookups.handle = fail
    with seeding_of([("a.example", 1)], Learned()) as seeder:
        # 2 ** 1024 has no place in a float, and comes after 17 hours of a try a minute.
        assert eventually(lambda: len(lookups.calls) > 1100, 1)
        assert seeder.wait_first_round(0)


def test_names_without_addresses_are_asked_again(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(last_retry=0.05)
    lookups.handle = lambda name: Answer(name, ()) if len(lookups.calls) < 3 else answer(name)
    learned = Learned()
    with seeding_of([("a.example", 1)], learned):
        assert eventually(lambda: len(learned) == 1)
    assert len(lookups.calls) == 3


def test_an_error_of_the_learner_does_not_end_the_thread(
    lookups: Lookups, caplog: pytest.LogCaptureFixture
) -> None:
    learned = []

    def learn(found: Answer, rule: int) -> None:
        if found.name == "bad.example":
            raise OSError("no such map")
        learned.append(found.name)

    with seeding_of([("bad.example", 1), ("good.example", 2)], learn) as seeder:
        assert seeder.wait_first_round(5)
        once = Once()
        once.ask(seeder, "later.example")
        assert eventually(lambda: once == ["learned later.example", "done later.example"])
    assert learned == ["good.example"]
    assert "resolving bad.example failed" in caplog.text


def test_resolvers_are_asked_for_each_time(lookups: Lookups) -> None:
    current = [RESOLVER]
    with seeding_of([("a.example", 1)], Learned(), lambda: list(current)) as seeder:
        assert seeder.wait_first_round(5)
        current[:] = [TrustedResolver(ip("192.0.2.53"))]
        Once().ask(seeder, "b.example")
        assert eventually(lambda: len(lookups.calls) == 2)
    assert lookups.resolvers == [[RESOLVER], [TrustedResolver(ip("192.0.2.53"))]]


def test_policy_names_are_asked_for_both_families(lookups: Lookups) -> None:
    with seeding_of([("a.example", 1)], Learned()) as seeder:
        assert seeder.wait_first_round(5)
    assert lookups.types == [ADDRESS_TYPES]


# --- names that are asked once


def failing(name: str) -> Answer:
    raise LookupFailedError("127.0.0.1: SERVFAIL")


def broken(name: str) -> Answer:
    raise RuntimeError("not even a failure")


@pytest.mark.parametrize(
    ("handle", "outcome"),
    [
        pytest.param(answer, ["learned b.example", "done b.example"], id="addresses"),
        pytest.param(lambda name: Answer(name, ()), ["done b.example"], id="no address"),
        pytest.param(failing, ["done b.example"], id="failure"),
        pytest.param(broken, ["done b.example"], id="a surprise"),
    ],
)
def test_done_comes_last_in_any_case(
    lookups: Lookups, handle: Callable[[str], Answer], outcome: list[str]
) -> None:
    """Somebody holds a reply back until it does."""
    lookups.handle = handle
    learned, once = Learned(), Once()
    with seeding_of([], learned) as seeder:
        once.ask(seeder, "b.example")
        assert eventually(lambda: once == outcome)
        assert seeder.refused == 0
    assert learned == []  # that is for the policy's names
    assert once == outcome


def test_done_comes_though_the_learner_fails(lookups: Lookups, caplog: pytest.LogCaptureFixture) -> None:
    def learn(found: Answer) -> None:
        raise OSError("no such map")

    done = threading.Event()
    with seeding_of([], Learned()) as seeder:
        seeder.ask_once(1, "b.example", ADDRESS_TYPES, learn, done.set)
        assert done.wait(5)
    assert "resolving b.example failed" in caplog.text


@pytest.mark.parametrize("types", [(1,), (28,), (65,), ADDRESS_TYPES])
def test_the_types_asked_for(lookups: Lookups, types: Sequence[int]) -> None:
    once = Once()
    with seeding_of([], Learned()) as seeder:
        once.ask(seeder, "b.example", types)
        assert eventually(lambda: "done b.example" in once)
    assert lookups.types == [types]


def test_failures_of_others_questions_are_not_warned_of(
    lookups: Lookups, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients decide what is asked, so they would decide what stands in the log."""
    lookups.handle = lambda name: failing(name) if name == "bad.example" else Answer(name, ())
    once = Once()
    with caplog.at_level(logging.WARNING), seeding_of([], Learned()) as seeder:
        once.ask(seeder, "bad.example")
        once.ask(seeder, "empty.example")
        assert eventually(lambda: len(once) == 2)
    assert caplog.records == []


def test_once_is_once(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(first_retry=0.01, last_retry=0.01, shortest_pause=0.01, longest_pause=0.01)
    lookups.handle = lambda name: failing(name) if name == "bad.example" else answer(name, 0)
    once = Once()
    with seeding_of([], Learned()) as seeder:
        once.ask(seeder, "bad.example")
        once.ask(seeder, "good.example")
        assert eventually(lambda: len(once) == 3)
        time.sleep(0.1)
    assert lookups.names() == ["bad.example", "good.example"]
    assert sorted(once) == ["done bad.example", "done good.example", "learned good.example"]


def test_in_the_order_of_asking(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(concurrent_once=1)
    once = Once()
    names = [f"n{n}.example" for n in range(50)]
    with seeding_of([], Learned()) as seeder:
        for name in names:
            once.ask(seeder, name)
        assert eventually(lambda: len(once) == 100)
    assert lookups.names() == names


def test_ask_once_is_no_part_of_the_first_round(lookups: Lookups) -> None:
    async def never() -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError

    lookups.handle = lambda name: never() if name == "slow.example" else answer(name)
    once = Once()
    with seeding_of([("slow.example", 1)], Learned()) as seeder:
        once.ask(seeder, "b.example")
        assert eventually(lambda: "done b.example" in once)
        assert not seeder.wait_first_round(0)


def test_ask_once_is_out_of_turn(lookups: Lookups, pauses: Callable[..., None]) -> None:
    """Somebody waits for it, and nobody for the rest of the first round."""
    pauses(concurrent=2)

    async def slowly(name: str) -> Answer:
        await asyncio.sleep(0.005)
        return answer(name)

    lookups.handle = slowly
    with seeding_of([(f"n{n}.example", n) for n in range(200)], Learned()) as seeder:
        assert eventually(lambda: len(lookups.calls) > 5)
        Once().ask(seeder, "urgent.example")
        assert seeder.wait_first_round(10)
        assert eventually(lambda: "urgent.example" in lookups.names())
    assert lookups.names().index("urgent.example") < 150


async def forever(name: str) -> Answer:
    await asyncio.sleep(3600)
    raise AssertionError


def test_an_asker_that_is_answered_slowly_delays_nobody_else(lookups: Lookups) -> None:
    """Whose questions go to a name server of its own, that never answers."""
    lookups.handle = lambda name: forever(name) if name.endswith(".slow.example") else answer(name)
    once, learned = Once(), Learned()
    with seeding_of([], learned) as seeder:
        for number in range(200):
            once.ask(seeder, f"n{number}.slow.example", asker=1)
        assert eventually(lambda: len(lookups.calls) == 8)
        once.ask(seeder, "b.example", asker=2)
        assert eventually(lambda: once == ["learned b.example", "done b.example"])
    assert len(lookups.calls) == 9


def test_many_slow_askers_do_not_delay_the_policys_names(
    lookups: Lookups, pauses: Callable[..., None]
) -> None:
    pauses(shortest_pause=0.02, longest_pause=0.02)
    lookups.handle = lambda name: forever(name) if name.endswith(".slow.example") else answer(name)
    once, learned = Once(), Learned()
    with seeding_of([("a.example", 1)], learned) as seeder:
        for number in range(200):
            once.ask(seeder, f"n{number}.slow.example", asker=number)
        assert eventually(lambda: sum(name.endswith("slow.example") for name in lookups.names()) == 32)
        before = len(learned)
        assert eventually(lambda: len(learned) > before + 3)


def test_slow_names_of_the_policy_do_not_delay_who_asks(lookups: Lookups) -> None:
    lookups.handle = lambda name: forever(name) if name.endswith(".slow.example") else answer(name)
    once = Once()
    with seeding_of([(f"n{n}.slow.example", n) for n in range(100)], Learned()) as seeder:
        assert eventually(lambda: len(lookups.calls) == 32)
        once.ask(seeder, "b.example")
        assert eventually(lambda: once == ["learned b.example", "done b.example"])


def test_ask_once_before_the_start_and_after_the_end(lookups: Lookups) -> None:
    """It is refused on the spot, and whoever waits is told so."""
    seeder = Seeder([], lambda: [RESOLVER], Learned())
    once = Once()
    once.ask(seeder, "a.example")
    assert (once, seeder.refused) == (["done a.example"], 1)
    seeder.start()
    seeder.stop()
    once.ask(seeder, "b.example")
    assert (once, seeder.refused) == (["done a.example", "done b.example"], 2)
    assert lookups.calls == []


def test_ask_once_has_room_for_so_many(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(most_once=3)
    opened = threading.Event()

    async def wait(name: str) -> Answer:
        while not opened.is_set():
            await asyncio.sleep(0.001)
        return answer(name)

    lookups.handle = wait
    once = Once()
    with seeding_of([], Learned()) as seeder:
        for name in ("a.example", "b.example", "c.example"):
            once.ask(seeder, name)
        assert (once, seeder.refused) == ([], 0)
        for name in ("d.example", "e.example"):
            once.ask(seeder, name)
        assert (once, seeder.refused) == (["done d.example", "done e.example"], 2)
        opened.set()
        assert eventually(lambda: len(once) == 8)
        once.ask(seeder, "f.example")  # there is room again
        assert eventually(lambda: "learned f.example" in once)
        assert seeder.refused == 2
    assert "d.example" not in lookups.names()


def test_the_usual_room(lookups: Lookups) -> None:
    async def never(name: str) -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError

    lookups.handle = never
    once = Once()
    with seeding_of([], Learned()) as seeder:
        for number in range(1025):
            once.ask(seeder, f"n{number}.example")
        assert (once, seeder.refused) == (["done n1024.example"], 1)
        once.ask(seeder, "other.example", asker=2)
        assert seeder.refused == 1


def test_failures_give_their_room_back(lookups: Lookups, pauses: Callable[..., None]) -> None:
    pauses(most_once=2)
    lookups.handle = failing
    once = Once()
    with seeding_of([], Learned()) as seeder:
        for count in range(1, 21):
            once.ask(seeder, "bad.example")
            assert eventually(lambda count=count: len(once) == count)  # type: ignore[misc]
        assert seeder.refused == 0
    assert len(lookups.calls) == 20


def test_ask_once_from_many_threads(lookups: Lookups) -> None:
    once = Once()
    with seeding_of([], Learned()) as seeder:

        def ask(thread: int) -> None:
            for number in range(50):
                once.ask(seeder, f"{thread}-{number}.example")

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert eventually(lambda: len(once) == 400)
    assert len(set(once)) == 400


def test_what_waits_at_the_end_is_done_too(lookups: Lookups, pauses: Callable[..., None]) -> None:
    """Whether it was under way or not yet."""
    pauses(concurrent_once=1)

    async def never(name: str) -> Answer:
        await asyncio.sleep(3600)
        raise AssertionError

    lookups.handle = never
    once = Once()
    with seeding_of([], Learned()) as seeder:
        once.ask(seeder, "a.example")
        once.ask(seeder, "b.example")
        assert eventually(lambda: len(lookups.calls) == 1)
    assert sorted(once) == ["done a.example", "done b.example"]


def test_stop_during_a_lookup(lookups: Lookups) -> None:
    ended: list[str] = []

    async def never(name: str) -> Answer:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(name)
        raise AssertionError

    lookups.handle = never
    seeder = Seeder([("a.example", 1), ("b.example", 2)], lambda: [RESOLVER], Learned())
    seeder.start()
    assert eventually(lambda: len(lookups.calls) == 2)
    before = time.monotonic()
    seeder.stop()
    assert time.monotonic() - before < 2
    assert sorted(ended) == ["a.example", "b.example"]
    assert "seeder" not in [thread.name for thread in threading.enumerate()]


def test_stop_between_lookups(lookups: Lookups) -> None:
    seeder = Seeder([("a.example", 1)], lambda: [RESOLVER], Learned())
    seeder.start()
    assert seeder.wait_first_round(5)
    before = time.monotonic()
    seeder.stop()
    assert time.monotonic() - before < 2  # and not after the pause
    assert len(lookups.calls) == 1


def test_stop_at_once_twice_and_without_a_start(lookups: Lookups) -> None:
    for _ in range(20):
        seeder = Seeder([("a.example", 1)], lambda: [RESOLVER], Learned())
        seeder.start()
        seeder.stop()
        seeder.stop()
    Seeder([("a.example", 1)], lambda: [RESOLVER], Learned()).stop()


def test_many_names_a_few_at_a_time(lookups: Lookups) -> None:
    under_way = most = 0

    async def slowly(name: str) -> Answer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return answer(name)

    lookups.handle = slowly
    names = [(f"n{n}.example", n) for n in range(1, 2001)]
    learned = Learned()
    with seeding_of(names, learned) as seeder:
        assert seeder.wait_first_round(20)
    assert sorted(learned) == sorted(names)
    assert len(lookups.calls) == 2000
    assert most == seeding._CONCURRENT


def test_with_a_resolver() -> None:
    learned = Learned()
    server = Server(knows(("a.example.", 60, "A", "192.0.2.1"), ("b.example.", 60, "AAAA", "2001:db8::1")))
    with (
        server,
        seeding_of([("a.example", 1), ("c.example", 3)], learned, lambda: [server.resolver]) as seeder,
    ):
        assert seeder.wait_first_round(5)
        once = Once()
        once.ask(seeder, "b.example", [28])
        assert eventually(lambda: once == ["learned b.example", "done b.example"])
    assert learned == [("a.example", 1)]
    assert server.asked[-1] == ("b.example", "AAAA", False)


def test_stop_while_a_resolver_is_silent() -> None:
    with Server(lambda query, over_tcp: None) as server:
        seeder = Seeder([("a.example", 1)], lambda: [server.resolver], Learned())
        seeder.start()
        assert eventually(lambda: len(server.asked) == 1)
        before = time.monotonic()
        seeder.stop()
        assert time.monotonic() - before < 1


def test_what_came_of_each_name(lookups: Lookups, pauses: Callable[..., None]) -> None:
    """Counted, and a name that is resolved later is in its newer state alone."""
    pauses(first_retry=0.01)
    bad = True

    def handle(name: str) -> Answer:
        if name == "bad.example" and bad:
            raise LookupFailedError("127.0.0.1: SERVFAIL")
        return Answer(name, () if name == "empty.example" else answer(name).addresses)

    lookups.handle = handle
    tally = Tally(*seeding.RESULTS)
    names = [("bad.example", 1), ("empty.example", 2), ("a.example", 3)]
    seeder = Seeder(names, lambda: [RESOLVER], Learned(), lookups=tally)
    assert seeder.states == {"resolved": 0, "empty": 0, "failed": 0, "pending": 3}
    seeder.start()
    try:
        assert seeder.wait_first_round(5)
        assert seeder.states == {"resolved": 1, "empty": 1, "failed": 1, "pending": 0}
        bad = False
        assert eventually(lambda: seeder.states["resolved"] == 2)
        assert seeder.states["failed"] == 0
    finally:
        seeder.stop()
    counts = tally.counts()
    assert counts["answered"] >= 3
    assert counts["failed"] >= 1
    assert counts["turned-away"] == 0
    seeder.ask_once(1, "late.example", [1], lambda answer: None, lambda: None)
    assert tally.counts()["turned-away"] == 1
