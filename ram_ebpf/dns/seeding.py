"""Resolving the policy's exact names ourselves, at start and again before what was learned expires.

So a name that a client had cached before we came still works, and the first pull after a start needs no
luck. The same way serves what the kernel could not read to its end: the name is asked once, out of turn.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from array import array
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.lookup import LookupFailedError, look_up
from ram_ebpf.dns.response import ADDRESS_TYPES, Answer
from ram_ebpf.dns.turns import Turns
from ram_ebpf.tally import Tally

_log = logging.getLogger(__name__)

# Questions under way: 100 000 names then take minutes, and no resolver is flooded. The policy's names and
# those that are asked once have limits of their own, so that neither keeps the other waiting.
_CONCURRENT = 32
_CONCURRENT_ONCE = 32
_CONCURRENT_OF_ONE = 8  # asker, however slowly it is answered
_REFRESH_AT = 0.8  # of the time that an answer may be kept
_SHORTEST_PAUSE = 5.0  # seconds; shorter times to live are bridged by the policy's grace
_LONGEST_PAUSE = 3600.0
_LONGEST_TTL = 86400
_FIRST_RETRY = 2.0
_LAST_RETRY = 60.0
_MOST_FAILURES = 10  # that are counted
_MOST_ONCE = 1024  # names that wait to be asked once for one asker: who makes more of them gets no more

Learn = Callable[[Answer], None]
Done = Callable[[], None]

PENDING, RESOLVED, EMPTY, FAILED = "pending", "resolved", "empty", "failed"
STATES = (RESOLVED, EMPTY, FAILED, PENDING)
"""Of an exact name: by what came of it last; empty: it has no address; pending: it was not asked for yet."""
ANSWERED, TURNED_AWAY = "answered", "turned-away"
RESULTS = (ANSWERED, FAILED, TURNED_AWAY)
"""Of a lookup; turned away: there were too many of one asker at a time."""


class _Schedule:
    """When each of many names is due, by its index: first all in a row, then each by its time.

    As there may be 100 000, those that are due at one time are together, and after a second or more a name
    may be due a sixteenth of its pause early, so that these times are few: then a name takes four bytes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._untried = 0  # the first of those that were not due yet
        self._later: dict[int, array[int]] = {}  # by the millisecond at which they are due
        self._times: list[int] = []  # a heap of these

    def next(self) -> float | None:
        """The time at which the next one is due, on the monotonic clock; None: none is."""
        if self._untried < self._count:
            return 0.0
        return self._times[0] / 1000 if self._times else None

    def take(self) -> int:
        """The next one, which is not due any more."""
        if self._untried < self._count:
            self._untried += 1
            return self._untried - 1
        together = self._later[self._times[0]]
        index = together.pop()
        if not together:
            del self._later[heapq.heappop(self._times)]
        return index

    def put(self, index: int, pause: float) -> None:
        """It is due again after that many seconds."""
        step = max(int(pause) * 1000 // 16, 1)
        due = int((time.monotonic() + pause) * 1000) // step * step
        if due not in self._later:
            self._later[due] = array("I")
            heapq.heappush(self._times, due)
        self._later[due].append(index)


@dataclass
class _Once:
    name: str
    types: Sequence[int]
    learn: Learn
    done: Done  # called when that is over, whatever came of it


class Seeder:
    """A thread that keeps the policy's exact names resolved.

    `learn(answer, rule=...)` is called from that thread for each answer that has addresses.
    """

    def __init__(
        self,
        names: Sequence[tuple[str, object]],
        resolvers: Callable[[], Sequence[TrustedResolver]],
        learn: Callable[..., None],
        longest: int = _LONGEST_TTL,
        unexpected: Collection[str] = (),
        lookups: Tally | None = None,
    ) -> None:
        """`names` with what `learn` is told of each; `longest`: seconds that an answer may be kept.

        `unexpected`: names that need not exist. `lookups`: counts by RESULTS.
        """
        self._lookups = lookups or Tally(*RESULTS)
        self._resolvers = resolvers
        self._longest = longest
        self._names = names
        self._learn = learn
        self._unexpected = unexpected
        self._schedule = _Schedule(len(names))
        self._failures = bytearray(len(names))  # in a row, up to _MOST_FAILURES
        self._tried = bytearray(len(names))
        self._once = Turns[_Once](_MOST_ONCE, _CONCURRENT_OF_ONE)
        self.refused = 0  # names that found no room to be asked once
        self._states = bytearray([STATES.index(PENDING)]) * len(names)  # of each name, by its place there
        self.states = dict.fromkeys(STATES, 0)
        """How many names are in each of STATES. The thread changes it, and others may read it."""
        self.states[PENDING] = len(names)
        self._first_round = len(names)
        self._first_round_done = threading.Event()
        if not self._first_round:
            self._first_round_done.set()
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="seeder", daemon=True)

    def start(self) -> None:
        """Begins to resolve."""
        self._thread.start()

    def wait_first_round(self, seconds: float) -> bool:
        """Waits until each name was tried once; False when that took longer."""
        return self._first_round_done.wait(seconds)

    def ask_once(self, asker: int, name: str, types: Sequence[int], learn: Learn, done: Done) -> None:
        """Asks for records of a name once, out of turn. May be called from any thread.

        Several askers, by number, are served in turns. `learn` is called with an answer that has addresses,
        and `done` at the end in any case, both from the seeder's thread, or here when there is no room or no
        thread to ask.
        """
        if not self._thread.is_alive() or not self._once.add(asker, _Once(name, types, learn, done)):
            self.refused += 1
            self._lookups.add(TURNED_AWAY)
            done()
            return
        self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Ends the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finish)
            self._thread.join()
        self._loop.close()

    def _finish(self) -> None:
        self._stopping = True
        self._wake.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._work())

    async def _work(self) -> None:
        names: set[asyncio.Task[None]] = set()
        once: set[asyncio.Task[None]] = set()
        while not self._stopping:
            while len(once) < _CONCURRENT_ONCE and (taken := self._once.take()) is not None:
                self._begin(once, self._ask(*taken))
            due = self._schedule.next()
            while due is not None and due <= time.monotonic() and len(names) < _CONCURRENT:
                self._begin(names, self._resolve(self._schedule.take()))
                due = self._schedule.next()
            pause = None
            if due is not None and len(names) < _CONCURRENT:
                pause = max(due - time.monotonic(), 0)
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except asyncio.TimeoutError:
                continue
            self._wake.clear()
        for task in names | once:
            task.cancel()
        await asyncio.gather(*names, *once, return_exceptions=True)
        for item in self._once.drain():  # nobody will ask any more, and somebody may wait
            item.done()

    def _begin(self, running: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda _: self._wake.set())

    async def _ask(self, asker: int, item: _Once) -> None:
        try:
            answer = await look_up(item.name, self._resolvers(), types=item.types)
            self._lookups.add(ANSWERED)
            if answer.addresses:
                item.learn(answer)
        except LookupFailedError:
            self._lookups.add(FAILED)  # clients decide what is asked here, and not what stands in the log
        except Exception:
            _log.exception("resolving %s failed", item.name)
        finally:
            self._once.finish(asker)
            item.done()

    async def _resolve(self, index: int) -> None:
        name, rule = self._names[index]
        pause = _LONGEST_PAUSE
        try:
            answer = await look_up(name, self._resolvers(), types=ADDRESS_TYPES)
            self._lookups.add(ANSWERED)
            self._now(index, RESOLVED if answer.addresses else EMPTY)
            if answer.addresses:
                self._learn(answer, rule=rule)
                shortest = min(self._longest, *(seconds for _, seconds in answer.addresses))
                pause = min(max(shortest * _REFRESH_AT, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            else:
                if not self._tried[index] and name not in self._unexpected:
                    _log.warning("%s has no address: is it spelt right in the policy?", name)
                pause = _LAST_RETRY
            self._failures[index] = 0
        except LookupFailedError as error:
            failures = self._failures[index]
            if not failures and name not in self._unexpected:
                _log.warning("%s could not be resolved: %s", name, error)
            self._failures[index] = min(failures + 1, _MOST_FAILURES)
            self._lookups.add(FAILED)
            self._now(index, FAILED)
            pause = min(_FIRST_RETRY * 2**failures, _LAST_RETRY)
        except Exception:
            _log.exception("resolving %s failed", name)
        finally:
            self._schedule.put(index, pause)
            if not self._tried[index]:
                self._tried[index] = True
                self._first_round -= 1
                if not self._first_round:
                    self._first_round_done.set()

    def _now(self, index: int, state: str) -> None:
        self.states[STATES[self._states[index]]] -= 1
        self.states[state] += 1
        self._states[index] = STATES.index(state)
