"""What every engine is asked: does what is allowed work, is what is refused refused at once and by name?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.adversarial.field import wait_line
from tests.lab.daemon import Daemon
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from .measured import Measured
from .names import MESSAGE, Names
from .wire import Wire

AT_ONCE = 0.3  # seconds from the first lookup of the name to the command's end, so all retries are in
_ATTEMPTS = 5  # a busy machine is no news about us: the quickest counts
TOLD = "operation not permitted"  # what engines make of EPERM

Action = Callable[[str], Finished]


@dataclass(frozen=True)
class _Refusal:
    """The line of the log, and seconds: of the whole command, and of it since it first asked for the name."""

    line: dict[str, Any]
    command: float
    since_asked: float


class Judge:
    """Runs an engine's command on names that it has not seen before, and reads what ram-ebpf says of it."""

    def __init__(self, lab: Lab, names: Names, measured: Measured, wire: Wire, engine: str) -> None:
        self._lab = lab
        self._wire = wire
        self._names = names
        self._measured = measured
        self._engine = engine

    def allows(self, daemon: Daemon, what: str, action: Action, event: str = "allowed") -> Finished:
        """The command works, and the log names the registry in a line of that event."""
        host, start = self._names.allowed(), len(daemon.lines())
        result = action(host).check()
        line = self._line(daemon, start, event, host)
        assert self._lab.allowed.address in (line.get("address"), *line.get("addresses", ()))
        denied = [one for one in daemon.lines()[start:] if one["event"] == "denied"]
        # A line that was held back, as it was like one before, is about an earlier test's.
        denied = [one for one in denied if not self._names.is_refused(one.get("host"))]
        # Engines keep connections open for a minute or two, those of before this daemon too. A packet of such
        # a one has no name, and unlike connect() no process.
        denied = [one for one in denied if "host" in one or "process" in one]
        assert not denied, denied
        self._measured.add(self._engine, what, "allowed", result.seconds)
        return result

    def refuses(
        self, daemon: Daemon, what: str, action: Action, at_once: float = AT_ONCE, told: str = TOLD
    ) -> dict[str, Any]:
        """The command fails at once, no connection is made, and the log names the registry."""
        found: list[_Refusal] = []
        for _ in range(_ATTEMPTS):
            found.append(self._refuse(daemon, action, told))
            if found[-1].since_asked < at_once:
                break
        best = min(found, key=lambda refusal: refusal.since_asked)
        self._measured.add(self._engine, what, "refused", best.command)
        self._measured.add(self._engine, what, "since asked", best.since_asked)
        assert best.since_asked < at_once, f"it goes on for so many seconds: {[r.since_asked for r in found]}"
        return best.line

    def _refuse(self, daemon: Daemon, action: Action, told: str) -> _Refusal:
        target, start = self._names.refused(), len(daemon.lines())
        connections = self._lab.blocked.counters()["Tcp.PassiveOpens"]
        self._wire.forget()
        result = action(target.host)
        ended = time.time()
        asked = self._wire.first(target.host)
        said = result.stdout + result.stderr
        assert not result.ok, said
        assert told in said.lower(), said
        line = self._line(daemon, start, "denied", target.host)
        assert (line["verdict"], line["address"], line["port"]) == ("deny", target.address, 443)
        assert line["message"] == MESSAGE
        assert self._lab.blocked.counters()["Tcp.PassiveOpens"] == connections
        assert asked is not None, "the name was not asked for"
        return _Refusal(line, result.seconds, ended - asked)

    def _line(self, daemon: Daemon, start: int, event: str, host: str) -> dict[str, Any]:
        def wanted(line: dict[str, Any]) -> bool:
            return line["event"] == event and line.get("host") == host

        return wait_line(daemon, start, wanted, f"{host} {event}")
