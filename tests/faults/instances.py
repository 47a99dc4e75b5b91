"""ram-ebpf as it is started, killed and started again while the stream goes on."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ram_ebpf.daemon.control import NotRunningError, ask_all
from tests.adversarial.field import ScopedDaemon
from tests.lab.daemon import COMMAND
from tests.lab.lab import Lab
from tests.lab.switch import SwitchDaemon

from .far_end import EXACT, FRESH
from .traffic import PORT, RESOLVER

_RULES = (
    f"  - host: {EXACT}\n    private: true\n    ports: [{PORT}]\n",
    f'  - host: "*.{FRESH}"\n    private: true\n    ports: [{PORT}]\n',
)
# Beside others, so that all rules and lists of ports have other numbers.
_OTHERS = (
    "  - host: first.registry.test\n    ports: [1, 2]\n",
    '  - host: "*.deep.registry.test"\n    ports: [3]\n',
    "  - host: zz.registry.test\n    ports: [8080, 9090]\n",
)


def policy(*, others: bool = False, responder: bool = False, more: str = "") -> str:
    """What the stream needs. `others`: with rules beside these, before and behind."""
    rules = [_OTHERS[0], *_RULES, *_OTHERS[1:]] if others else _RULES
    answers = "" if responder else "refusals: { responder: off }\n"
    return f"version: 1\nregistries:\n{''.join(rules)}resolvers: [{RESOLVER}]\n{answers}{more}"


class Instances:
    """One place, and whoever governs it at the time."""

    def __init__(self, make: Callable[[str, Sequence[str], Sequence[str]], ScopedDaemon]) -> None:
        """`make`: of a policy, options and a command an instance that is to be started."""
        self._make = make
        self._current: ScopedDaemon | None = None

    @property
    def current(self) -> ScopedDaemon:
        """The one that runs."""
        assert self._current is not None
        return self._current

    def begin(
        self, text: str | None = None, options: Sequence[str] = (), command: Sequence[str] = COMMAND
    ) -> ScopedDaemon:
        """Starts one, and does not wait."""
        self._current = self._make(policy() if text is None else text, options, command)
        self._current.start()
        return self._current

    def start(
        self, text: str | None = None, options: Sequence[str] = (), command: Sequence[str] = COMMAND
    ) -> ScopedDaemon:
        """Starts one, and waits until it is ready."""
        found = self.begin(text, options, command)
        found.wait_ready()
        return found

    @staticmethod
    def wait_asked(daemon: ScopedDaemon, run: Path, patience: float = 60.0) -> dict[str, Any]:
        """Waits until one answers whose log is not to be read here; what it says of itself."""
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(NotRunningError, OSError):
                for answer in ask_all({"verb": "status"}, run):
                    if answer["instance"] == daemon.pid:
                        return answer
            if daemon.has_ended() or time.monotonic() > deadline:
                raise RuntimeError(f"it does not answer: {daemon.said()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """With SIGKILL."""
        assert self.current.signal(signal.SIGKILL) == -signal.SIGKILL
        self.forget()

    def forget(self) -> None:
        """Of the one that has ended."""
        if self._current is not None:
            self._current.__exit__(None, None, None)
            self._current = None

    def end(self) -> None:
        """Asks it to end."""
        status, said = self.current.terminate(), self.current.said()
        self.forget()
        assert status == 0, said

    def close(self) -> None:
        """Ends whatever is there. Another one takes away what a killed one has left."""
        try:
            if self._current is None or self._current.has_ended():
                self.forget()
                self.start()
            self.end()
        finally:
            self.forget()


@contextlib.contextmanager
def at_cgroup(lab: Lab, *scopes: Path) -> Iterator[Instances]:
    """On control groups of the client's."""

    def make(text: str, options: Sequence[str], command: Sequence[str]) -> ScopedDaemon:
        return ScopedDaemon(lab, text, options, scopes, command)

    with contextlib.closing(Instances(make)) as found:
        yield found


@contextlib.contextmanager
def at_device(lab: Lab) -> Iterator[Instances]:
    """On the switch's end of the client's cable."""

    def make(text: str, options: Sequence[str], command: Sequence[str]) -> ScopedDaemon:
        return SwitchDaemon(lab, text, ["device:client"], options)

    with contextlib.closing(Instances(make)) as found:
        yield found


def wait_for(daemon: ScopedDaemon, event: str, start: int = 0, patience: float = 60.0) -> dict[str, Any]:
    """The first line of that kind from number `start` on."""
    daemon.wait(lambda lines: any(line["event"] == event for line in lines[start:]), patience)
    return next(line for line in daemon.lines()[start:] if line["event"] == event)


def write(daemon: ScopedDaemon, text: str) -> None:
    """A policy file, as editors and configuration managers do: by a rename."""
    aside = daemon.policy_file.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    aside.rename(daemon.policy_file)


def take(daemon: ScopedDaemon, text: str) -> dict[str, Any]:
    """Writes another policy, and waits for what becomes of it; the line of the log."""
    start = len(daemon.lines())
    write(daemon, text)
    return wait_reloaded(daemon, start)


def wait_reloaded(daemon: ScopedDaemon, start: int) -> dict[str, Any]:
    """The line of the log about the next reload from number `start` on, whatever became of it."""

    def is_about(line: dict[str, Any]) -> bool:
        return line.get("event") in ("reloaded", "reload-failed")

    daemon.wait(lambda lines: any(map(is_about, lines[start:])), 60.0)
    return next(filter(is_about, daemon.lines()[start:]))
