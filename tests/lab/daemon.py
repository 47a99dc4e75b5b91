"""Runs ram-ebpf beside the lab's client and reads the JSON lines of its log."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .lab import Lab
from .pace import PACE

COMMAND = (sys.executable, "-m", "ram_ebpf")
_ROOT = Path(__file__).parents[2]
_UNLIMITED = "log: { limit: off }\n"


@dataclass(frozen=True)
class Decision:
    """One decision of the daemon; empty or 0 is what the line did not say."""

    time: str
    verdict: str
    reason: str
    host: str
    address: str
    port: int
    process: str
    pid: int
    rule: str
    explanation: str

    @property
    def allowed(self) -> bool:
        """Whether the traffic went through."""
        return self.verdict.startswith("allow")

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Decision:
        """Take a line of the log for what it is, with null for empty."""

        def text(key: str) -> str:
            value = line.get(key)
            return "" if value is None else str(value)

        def number(key: str) -> int:
            return int(line.get(key) or 0)

        return cls(
            time=text("time"),
            verdict=text("verdict"),
            reason=text("reason"),
            host=text("host"),
            address=text("address"),
            port=number("port"),
            process=text("process"),
            pid=number("pid"),
            rule=text("rule"),
            explanation=text("explanation"),
        )


_numbers = itertools.count(1)


class Daemon:
    """`ram-ebpf run` on the client's control group, from entry, when it is ready, until exit."""

    def __init__(
        self,
        lab: Lab,
        policy: str,
        options: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
        patience: float = 60.0,
    ) -> None:
        self._lab = lab
        self._patience = patience
        # Each has its own: a daemon takes the changes of its file.
        directory = lab.directory / f"daemon-{next(_numbers)}"
        directory.mkdir()
        self._policy = directory / "policy.yaml"
        # A test makes more refusals than a person would read of, and asks for the line of each.
        text = policy if "\nlog:" in policy else f"{policy.rstrip()}\n{_UNLIMITED}"
        self._policy.write_text(text, encoding="utf-8")
        self._argv = [*command, "run", "--policy", str(self._policy)]
        self._argv += ["--scope", f"cgroup:{lab.client_cgroup}", "--log-format", "json", *options]
        self._changed = threading.Condition()
        self._lines: list[dict[str, Any]] = []
        self._other: list[str] = []
        self._ended = False

    def add_options(self, *words: str) -> None:
        """Add words to the command line of a daemon that has not started yet."""
        self._argv += words

    def __enter__(self) -> Daemon:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self) -> None:
        """Start it without waiting for anything; __exit__ ends it."""
        self._process = self._lab.client.popen(
            self._argv, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        """Wait until it governs what it should."""
        self.wait(lambda lines: any(line.get("event") == "ready" for line in lines), self._patience)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A daemon that does not end by itself is killed, and so is its end of the pipe.
        if self._process.poll() is None:
            self._process.kill()
        self._reader.join()
        self._lab.client.stop(self._process)

    @property
    def policy_file(self) -> Path:
        """What it was started with."""
        return self._policy

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self._process.pid

    def lines(self) -> list[dict[str, Any]]:
        """Return all JSON lines so far."""
        with self._changed:
            return list(self._lines)

    def decisions(self) -> list[Decision]:
        """Return all decisions so far."""
        return [Decision.from_line(line) for line in self.lines() if line.get("verdict")]

    def said(self) -> str:
        """Return the end of what the daemon printed that is not JSON: usage, warnings, tracebacks."""
        with self._changed:
            return "".join(self._other[-30:]).strip()

    def wait(self, condition: Callable[[list[dict[str, Any]]], bool], timeout: float = 10.0) -> None:
        """Wait until the lines so far meet a condition; TimeoutError, or RuntimeError at the daemon's end."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._lines) or self._ended, timeout * PACE):
                raise TimeoutError(f"the daemon's log lacks what was waited for: {self._tail()}")
            if not condition(self._lines):
                raise RuntimeError(f"the daemon ended early: {self._tail()}")

    def wait_decision(
        self, start: int, condition: Callable[[Decision], bool], timeout: float = 2.0
    ) -> Decision | None:
        """Return the first decision from number `start` on that meets a condition; None if none comes."""
        deadline = time.monotonic() + timeout
        while True:
            found = next(filter(condition, self.decisions()[start:]), None)
            if found is not None or time.monotonic() > deadline or self._ended:
                return found
            time.sleep(0.005)

    def has_ended(self) -> bool:
        """Whether its process is no more."""
        return self._process.poll() is not None

    def wait_end(self, timeout: float = 10.0) -> int:
        """Wait until it has ended by itself, and return its exit status."""
        return self._process.wait(timeout * PACE)

    def terminate(self, timeout: float = 10.0) -> int:
        """Ask the daemon to end (SIGTERM) and return its exit status."""
        self._process.terminate()
        return self._process.wait(timeout)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = _parse(text)
            with self._changed:
                if line is None:
                    self._other.append(text)
                else:
                    self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _tail(self) -> str:
        lines = [json.dumps(line) for line in self._lines[-5:]]
        return "\n".join(["", *self._other[-15:], *lines]).rstrip() or "it said nothing"


def _parse(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
