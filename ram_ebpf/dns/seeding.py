"""Resolving the policy's exact names ourselves, at start and again before what was learned expires.

So a name that a client had cached before we came still works, and the first pull after a start needs no
luck. The same way serves what the kernel could not read to its end: the name is asked once, out of turn.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ram_ebpf.dataplane.plane import TrustedResolver
from ram_ebpf.dns.lookup import ADDRESS_TYPES, Answer, LookupFailedError, look_up
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
_MOST_ONCE = 1024  # names that wait to be asked once for one asker: who makes more of them gets no more

Learn = Callable[[Answer], None]
Done = Callable[[], None]

PENDING, RESOLVED, EMPTY, FAILED = "pending", "resolved", "empty", "failed"
STATES = (RESOLVED, EMPTY, FAILED, PENDING)
"""Of an exact name: by what came of it last; empty: it has no address; pending: it was not asked for yet."""
ANSWERED, TURNED_AWAY = "answered", "turned-away"
RESULTS = (ANSWERED, FAILED, TURNED_AWAY)
"""Of a lookup; turned away: there were too many of one asker at a time."""


@dataclass
class _Name:
    name: str
    learn: Learn
    expected: bool = True
    failures: int = 0
    tried: bool = False
    state: str = PENDING


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
        names: Iterable[tuple[str, object]],
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
        self._order = itertools.count()
        self._due: list[tuple[float, int, _Name]] = [
            (0.0, next(self._order), _Name(name, partial(learn, rule=rule), name not in unexpected))
            for name, rule in names
        ]
        self._once = Turns[_Once](_MOST_ONCE, _CONCURRENT_OF_ONE)
        self.refused = 0  # names that found no room to be asked once
        self.states = dict.fromkeys(STATES, 0)
        """How many names are in each of STATES. The thread changes it, and others may read it."""
        self.states[PENDING] = len(self._due)
        self._first_round = len(self._due)
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
            now = time.monotonic()
            while self._due and self._due[0][0] <= now and len(names) < _CONCURRENT:
                self._begin(names, self._resolve(heapq.heappop(self._due)[2]))
            pause = None
            if self._due and len(names) < _CONCURRENT:
                pause = max(self._due[0][0] - time.monotonic(), 0)
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

    async def _resolve(self, item: _Name) -> None:
        pause = _LONGEST_PAUSE
        try:
            answer = await look_up(item.name, self._resolvers(), types=ADDRESS_TYPES)
            self._lookups.add(ANSWERED)
            self._now(item, RESOLVED if answer.addresses else EMPTY)
            if answer.addresses:
                item.learn(answer)
                shortest = min(self._longest, *(seconds for _, seconds in answer.addresses))
                pause = min(max(shortest * _REFRESH_AT, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            else:
                if not item.tried and item.expected:
                    _log.warning("%s has no address: is it spelt right in the policy?", item.name)
                pause = _LAST_RETRY
            item.failures = 0
        except LookupFailedError as error:
            if not item.failures and item.expected:
                _log.warning("%s could not be resolved: %s", item.name, error)
            item.failures += 1
            self._lookups.add(FAILED)
            self._now(item, FAILED)
            pause = min(_FIRST_RETRY * 2 ** min(item.failures - 1, 10), _LAST_RETRY)
        except Exception:
            _log.exception("resolving %s failed", item.name)
        finally:
            heapq.heappush(self._due, (time.monotonic() + pause, next(self._order), item))
            if not item.tried:
                item.tried = True
                self._first_round -= 1
                if not self._first_round:
                    self._first_round_done.set()

    def _now(self, item: _Name, state: str) -> None:
        self.states[item.state] -= 1
        self.states[state] += 1
        item.state = state
