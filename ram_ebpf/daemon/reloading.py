"""Another policy in the place of the one that is enforced: read and loaded aside, and then taken at once.

That takes a thread of its own, so that meanwhile everything goes on as before. What is wrong with the other
policy changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ram_ebpf.daemon.file_mark import FileMark, mark_of
from ram_ebpf.daemon.holding import Ports
from ram_ebpf.daemon.learning import Learner
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.view import View
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.target import Target, Watch

_LOOK_PERIOD = 1.0  # seconds between looks at the file
_SETTLED = 0.2  # seconds for which a file must not have changed: some editors write in pieces


@dataclass(frozen=True)
class Loaded:
    """A policy, and what it means on this host."""

    policy: PolicyLike
    rules: Mapping[Terms, RuleSet]
    targets: Sequence[tuple[Target, Terms]]
    watches: Sequence[Watch] = ()
    ports: Ports | None = None
    """Where containers come that may belong to a target."""
    judged: Mapping[Terms, RuleSet] = field(default_factory=dict)
    """By what Docker's requests are judged, where they are: the rules of judged_terms()."""


@dataclass
class Prepared:
    """The same in the kernel, attached to nothing."""

    loaded: Loaded
    settings: Settings
    views: Mapping[Terms, View]
    learner: Learner
    taken: bool = False


class Outcome(NamedTuple):
    """Of one reload. `prepared`: None where something is wrong, which is in `problem`."""

    prepared: Prepared | None
    problem: str = ""
    seconds: float = 0.0


@dataclass
class _Seen:
    """A file as it was when somebody looked."""

    mark: FileMark = None
    since: float = field(default_factory=time.monotonic)


class Reloading:
    """Says when there is another policy to take. One thread calls all of this."""

    def __init__(self, file: Path | None, prepare: Callable[[], Prepared], used: FileMark = None) -> None:
        """`file`: whose changes count; None: only hurry() does. `prepare` is called in another thread, and
        whatever it raises is told. `used`: of the file before it was read; what it is by now may be newer."""
        self._file = file
        self._prepare = prepare
        self._used = _Seen(used)
        self._seen = self._used
        self._next_look = 0.0
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None
        self.requested = 0
        """How often a reload was asked for, or the file has changed."""
        self.finished = 0
        """How many of these are dealt with; several may be at once."""
        self.last_problem = ""
        """Why the last one changed nothing; empty when it did."""
        self._under_way = 0

    def hurry(self) -> int:
        """A reload is wanted. Returns its number, which `finished` will reach."""
        self._wanted = True
        self.requested += 1
        return self.requested

    def follow(self) -> Outcome | None:
        """Looks what there is to do, and returns what has come to an end since the last call."""
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread.join()
            self._thread = None
            outcome, self._outcome = self._outcome, None
            assert outcome is not None
            return outcome
        self._look()
        if self._wanted:
            self._wanted = False
            self._under_way = self.requested
            self._used = self._seen = _Seen(mark_of(self._file) if self._file is not None else None)
            thread = threading.Thread(target=self._run, name="reload", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no memory for its stack, or too many tasks
                return Outcome(None, f"{error}: see whether there is enough memory, and LimitNPROC, TasksMax")
            self._thread = thread
        return None

    def next_look(self) -> float:
        """When follow() has something to do at the latest, on the monotonic clock."""
        if self._thread is not None or self._wanted:
            return 0.0
        return float("inf") if self._file is None else self._next_look

    def conclude(self, problem: str) -> None:
        """What follow() has returned is dealt with. `problem`: why nothing came of it, or empty."""
        self.finished = self._under_way
        self.last_problem = problem

    def _look(self) -> None:
        now = time.monotonic()
        if self._file is None or self._wanted or now < self._next_look:
            return
        self._next_look = now + _LOOK_PERIOD
        mark = mark_of(self._file)
        if mark is None or mark == self._used.mark:  # that it is gone is no reason to change anything
            self._seen = _Seen(mark, now)
            return
        if mark != self._seen.mark:
            self._seen = _Seen(mark, now)
            self._next_look = now + _SETTLED
        elif now - self._seen.since >= _SETTLED:
            self.hurry()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            prepared = self._prepare()
        except Exception as error:  # whatever it is, what was enforced before stays
            self._outcome = Outcome(None, str(error) or type(error).__name__)
        else:
            self._outcome = Outcome(prepared, seconds=time.monotonic() - started)
