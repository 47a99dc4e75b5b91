"""The ways in which a refusal reaches a client, each a section of the table in docs/refusals.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import switch
from tests.lab.daemon import Daemon
from tests.lab.docker_daemon import governed

from .bench import Bench
from .names import ANSWERED, POLICY, Names, Refused
from .refusal_clients import CLIENTS, DOCKER, Client
from .trusting import answering

_PLUGIN = "ram-ebpf"


@dataclass(frozen=True)
class Kind:
    """`key`: on the command line; `title`, `about`: in the document; `governed`: has it be so, for a while.

    `host`: the next registry to be refused so. `slow`: the clients that go on by themselves after a refusal,
    of which `note` tells the reader.
    """

    key: str
    title: str
    about: str
    governed: Callable[[Bench], contextlib.AbstractContextManager[Daemon]]
    clients: tuple[Client, ...] = CLIENTS
    host: Callable[[Names], Refused] = Names.refused
    slow: tuple[str, ...] = ()
    note: str = ""


@contextlib.contextmanager
def _answered(bench: Bench, more: str = "", authority: Path | None = None) -> Iterator[Daemon]:
    with answering(bench.lab, bench.docker, ANSWERED + more, authority, *bench.scopes) as daemon:
        bench.wait_answered()
        yield daemon


def _trusted(bench: Bench) -> contextlib.AbstractContextManager[Daemon]:
    return _answered(bench, authority=bench.authority)


def _eperm(bench: Bench) -> contextlib.AbstractContextManager[Daemon]:
    return governed(bench.lab, bench.docker, POLICY, *bench.scopes)


def _device(bench: Bench, more: str = "") -> contextlib.AbstractContextManager[Daemon]:
    return switch.governed(bench.lab, ANSWERED + more, f"device:{bench.machine.node.name}")


def _unasked(bench: Bench) -> contextlib.AbstractContextManager[Daemon]:
    return _device(bench, "dns: { allowed_names_only: true }\n")


@contextlib.contextmanager
def _plugin(bench: Bench) -> Iterator[Daemon]:
    with _answered(bench, "docker: { authorization: true }\n") as daemon:
        bench.docker.ask_plugin(_PLUGIN)
        bench.docker.reload({"authorization-plugins": [_PLUGIN]})
        try:
            yield daemon
        finally:
            bench.docker.reload({})


# They take a connection that was reset or cut for a network that will soon be back (containers/common,
# pkg/retry).
_RETRYING = ("podman pull", "buildah pull")
_RETRY_NOTE = (
    "podman and buildah try again by themselves where a connection was reset or cut, at growing intervals, "
    "and that is where their seconds go. Each attempt is refused at once, and the log says so at the first."
)

KINDS = (
    Kind(
        "responder",
        "The responder, with nothing installed",
        "What everybody sees by default, in scopes that are control groups.",
        _answered,
    ),
    Kind(
        "authority",
        "The responder, with the organisation's authority",
        "After `ram-ebpf ca install`, with engines that were started after that. A builder in a container "
        "trusts what its own image does, which is the same here.",
        _trusted,
    ),
    Kind(
        "eperm",
        "EPERM",
        "With `refusals: { responder: off }`, and wherever the responder cannot answer, in scopes that are "
        "control groups.",
        _eperm,
    ),
    Kind(
        "device",
        "A reset at a device",
        "In scopes that are devices or network namespaces. Containers and builders are governed at their "
        "devices too, but in their control group first.",
        _device,
        slow=_RETRYING,
        note=_RETRY_NOTE,
    ),
    Kind(
        "query",
        "A query that is refused at a device",
        "The same with `dns: { allowed_names_only: true }`: the answer to the query for the name is REFUSED.",
        _unasked,
    ),
    Kind(
        "plugin",
        "Docker's authorization plugin",
        "With `docker: { authorization: true }`, and the responder for what no plugin is asked about.",
        _plugin,
        DOCKER,
    ),
    Kind(
        "wire",
        "Another name on the wire",
        "The name has the address of one that is allowed, so the connection begins, and is cut when it says "
        "its name. In scopes that are control groups.",
        _answered,
        host=Names.aside,
        slow=_RETRYING,
        note=_RETRY_NOTE,
    ),
)
