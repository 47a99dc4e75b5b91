"""What docker's command line prints under a command that was refused: the hook of its plugins.

docker/cli from 26.1 on, cli-plugins/manager/hooks.go and cli-plugins/hooks/template.go: where its
configuration has `plugins: { ram: { hooks: ... } }` and `features: { hooks: "true" }`, it calls the plugin
after these commands on a terminal, with a JSON object of the strings RootCmd and CommandError and the map
Flags. The answer, {"Type": 0, "Template": TEXT}, is a template of Go's text/template with a line for each
message.

Whoever waits for the command waits for this as well: nothing that is slow to import may be imported here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ram_ebpf.cli.printing import printable
from ram_ebpf.oci.reference import ImageNameError, Registry, registry_of

HOOKS = (
    "pull,push,run,create,build,image pull,image push,image build,container run,container create,buildx build"
)
"""The commands after which to ask."""
NEXT_STEPS = 0
"""The only kind of answer there is."""

_BUDGET = 0.3  # seconds for all of it
_AGAIN = 0.08  # a refusal may be on its way through the daemon when the command has ended already
_COUNT = 50
_OLDEST = 60.0
# A line like one before is held back for a second (daemon/repeats.py), so it may be from before the command.
_BEFORE = 1.5
_MOST_READ = 1 << 16
_MOST_TOLD = 3
_LONGEST_LINE = 400
_HOSTS = re.compile(r"\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][A-Za-z0-9._-]*)")
_BUILDS = frozenset({"build", "buildx", "bake"})
_ENGINES = frozenset({"dockerd", "buildkitd", "containerd"})
_HUB_DOMAIN = ".docker.io"

Ask = Callable[[dict[str, Any]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Command:
    """What docker was told to do."""

    words: Sequence[str]
    since: float
    """When it was started, in seconds since the epoch."""


class _OutOfTimeError(Exception):
    pass


def main(text: str) -> int:
    """Prints the answer to docker's JSON `text`; an empty one for whatever goes wrong. The exit status, 0."""
    lines: list[str] = []
    with contextlib.suppress(Exception), _limited(_BUDGET):
        lines = explain(text, _caller(os.getppid()), _ask)
    print(json.dumps({"Type": NEXT_STEPS, "Template": template(lines)}))
    return 0


def template(lines: Sequence[str]) -> str:
    """The lines as a template that yields them and nothing else, without control characters."""
    shown = (printable(line)[:_LONGEST_LINE] for line in lines)
    # The only thing with a meaning outside of actions (text/template: "Actions" are delimited by it).
    return "\n".join(line.replace("{{", '{{"{{"}}') for line in shown)


def explain(text: str, command: Command, ask: Ask) -> list[str]:
    """What to print about the failed command; nothing if none of the last refusals is about it.

    Raises ValueError, or what `ask` raises.
    """
    if len(text) > _MOST_READ:
        raise ValueError("more than docker would say")
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    error, root = data.get("CommandError"), data.get("RootCmd")
    if not isinstance(error, str) or not error:  # it did not fail
        return []
    about = _About(error, str(root), command)
    for last in (False, True):
        found = [
            (fit, record, answer.get("organization"))
            for answer in ask({"verb": "last", "count": _COUNT})
            for record in answer.get("refusals", ())
            if (fit := about.fit(record)) is not None
        ]
        if found or last:
            best = min((fit for fit, _, _ in found), default=None)
            return _lines([(record, organization) for fit, record, organization in found if fit == best])
        time.sleep(_AGAIN)
    return []


class _About:
    """What a command that failed was about."""

    def __init__(self, error: str, root: str, command: Command) -> None:
        self._error = error
        self._hosts = {(address or host).rstrip(".").lower() for address, host in _HOSTS.findall(error)}
        named = set(_registries(command.words))
        # Any plain word, such as `run` itself, could be an image of Docker Hub.
        self._registries = {registry for registry in named if not registry.hub} or named
        # A Dockerfile's registries are in no word of docker's, and all that buildx tells is that it failed.
        self._is_build = not _BUILDS.isdisjoint(root.split())
        self._since = max(command.since - _BEFORE, time.time() - _OLDEST)

    def fit(self, record: dict[str, Any]) -> int | None:
        """How sure it is that this refusal is why: 0 most, None not at all."""
        if record.get("event") != "denied" or record.get("method"):  # the engine itself tells of the latter
            return None
        if _seconds(record["time"]) < self._since:
            return None
        message = record.get("message")
        if message and message in self._error:  # the responder has told it
            return None
        host, address = str(record.get("host", "")).rstrip(".").lower(), str(record.get("address", ""))
        if not self._hosts.isdisjoint({host, address} - {""}):
            return 0
        if any(_is_at(registry, host, address) for registry in self._registries):
            return 1
        return 2 if self._is_build and record.get("process") in _ENGINES else None


def _registries(words: Sequence[str]) -> Iterator[Registry]:
    for word in words:
        with contextlib.suppress(ImageNameError):
            yield registry_of(word)


def _is_at(registry: Registry, host: str, address: str) -> bool:
    if registry.hub:
        return host.endswith(_HUB_DOMAIN)
    if registry.address is not None:
        return bool(address) and registry.address == ipaddress.ip_address(address)
    return registry.host == host


def _lines(found: list[tuple[dict[str, Any], str | None]]) -> list[str]:
    lines: dict[str, None] = {}  # a set with an order
    for record, organization in found:
        whose = f"{organization}'s" if organization else "this host's"
        where = record.get("host") or record.get("address")
        lines[f"Access to {where} is blocked by {whose} registry policy: {record.get('explanation')}."] = None
        if len(lines) == _MOST_TOLD:
            break
    for record, _ in found[:1]:  # what to do is the same for all
        for key in ("message", "hint"):
            if record.get(key):
                lines[str(record[key])] = None
    return [*lines, "More: docker ram explain --last"] if lines else []


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _caller(pid: int) -> Command:
    """docker's own process, by proc(5)."""
    directory = Path(f"/proc/{pid}")
    words = (directory / "cmdline").read_bytes()[:_MOST_READ].decode(errors="replace").split("\0")
    # Behind the command's name, which is in parentheses and may hold any; starttime is the 22nd field.
    ticks = int(
        (directory / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    )
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return Command(words[1:], time.time() - age)


def _ask(request: dict[str, Any]) -> list[dict[str, Any]]:
    from ram_ebpf.daemon.control import ask_all

    return ask_all(request, patience=_BUDGET)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises in whatever takes longer."""

    def stop(*_: object) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
