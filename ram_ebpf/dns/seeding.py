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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ram_ebpf.dataplane.plane import TrustedResolver
from ram_ebpf.dns.lookup import ADDRESS_TYPES, Answer, LookupFailedError, look_up

_log = logging.getLogger(__name__)

_CONCURRENT = 32  # questions under way; 100 000 names then take minutes, and no resolver is flooded
_REFRESH_AT = 0.8  # of the time that an answer may be kept
_SHORTEST_PAUSE = 5.0  # seconds; shorter times to live are bridged by the policy's grace
_LONGEST_PAUSE = 3600.0
_LONGEST_TTL = 86400
_AT_ONCE = -1.0  # before the first round, which is due at 0
_FIRST_RETRY = 2.0
_LAST_RETRY = 60.0
_MOST_ONCE = 4096  # names that wait to be asked once: whoever makes more of them gets no more

Learn = Callable[[Answer], None]
Done = Callable[[], None]


@dataclass
class _Name:
    name: str
    learn: Learn
    types: Sequence[int] = ADDRESS_TYPES
    done: Done | None = None  # of a name that is asked once: called when that is over, whatever came of it
    failures: int = 0
    tried: bool = False


class Seeder:
    """A thread that keeps the policy's exact names resolved.

    `learn(answer, rule=number)` is called from that thread for each answer that has addresses.
    """

    def __init__(
        self,
        names: Iterable[tuple[str, int]],
        resolvers: Callable[[], Sequence[TrustedResolver]],
        learn: Callable[..., None],
        longest: int = _LONGEST_TTL,
    ) -> None:
        """`names` with their rules; `longest`: seconds that an answer may be kept, whatever it says."""
        self._resolvers = resolvers
        self._longest = longest
        self._order = itertools.count()
        self._due: list[tuple[float, int, _Name]] = [
            (0.0, next(self._order), _Name(name, partial(learn, rule=rule))) for name, rule in names
        ]
        self._once = 0
        self.refused = 0  # names that found no room to be asked once
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

    def ask_once(self, name: str, types: Sequence[int], learn: Learn, done: Done) -> None:
        """Asks for records of a name once, out of turn. May be called from any thread.

        `learn` is called with an answer that has addresses, and `done` at the end in any case, both from the
        seeder's thread, or here when there is no room or no thread to ask.
        """
        if self._once >= _MOST_ONCE or not self._thread.is_alive():
            self.refused += 1
            done()
            return
        self._once += 1
        self._loop.call_soon_threadsafe(self._push, _AT_ONCE, _Name(name, learn, types, done))

    def stop(self) -> None:
        """Ends the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finish)
            self._thread.join()
        self._loop.close()

    def _finish(self) -> None:
        self._stopping = True
        self._wake.set()

    def _push(self, due: float, item: _Name) -> None:
        heapq.heappush(self._due, (due, next(self._order), item))
        self._wake.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._work())

    async def _work(self) -> None:
        running: set[asyncio.Task[None]] = set()
        while not self._stopping:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now and len(running) < _CONCURRENT:
                task = self._loop.create_task(self._resolve(heapq.heappop(self._due)[2]))
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(lambda _: self._wake.set())
            pause = None
            if self._due and len(running) < _CONCURRENT:
                pause = max(self._due[0][0] - time.monotonic(), 0)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except asyncio.TimeoutError:
                continue
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for _, _, item in self._due:  # nobody will ask any more, and somebody may wait
            if item.done is not None:
                self._once -= 1
                item.done()

    async def _resolve(self, item: _Name) -> None:
        pause = _LONGEST_PAUSE
        try:
            answer = await look_up(item.name, self._resolvers(), types=item.types)
            if answer.addresses:
                item.learn(answer)
                shortest = min(self._longest, *(seconds for _, seconds in answer.addresses))
                pause = min(max(shortest * _REFRESH_AT, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            else:
                if not item.tried and item.done is None:
                    _log.warning("%s has no address: is it spelt right in the policy?", item.name)
                pause = _LAST_RETRY
            item.failures = 0
        except LookupFailedError as error:
            if not item.failures and item.done is None:
                _log.warning("%s could not be resolved: %s", item.name, error)
            item.failures += 1
            pause = min(_FIRST_RETRY * 2 ** min(item.failures - 1, 10), _LAST_RETRY)
        except Exception:
            _log.exception("resolving %s failed", item.name)
        finally:
            if item.done is not None:
                self._once -= 1
                item.done()
            else:
                self._push(time.monotonic() + pause, item)
                if not item.tried:
                    item.tried = True
                    self._first_round -= 1
                    if not self._first_round:
                        self._first_round_done.set()
