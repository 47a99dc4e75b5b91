"""The host as a scope: registries are recognised, and all else is left alone. A cgroup stands for it."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, Target, eventually, governed, tcp_connect, wait_line

from .daemon import Daemon
from .dns import Addresses
from .lab import Lab
from .website import serving

pytestmark = pytest.mark.root

AT_ONCE = 10.0  # seconds, for a slow guest too; a silent drop takes 15 and more
_numbers = itertools.count(2)
WEB = 8080
POLICY = f"""\
version: 1
message: "Ask platform@registry.test to allow it."
registries:
  - host: allowed.registry.test
    private: true
denied:
  - banned.registry.test
refusals:
  responder: off
resolvers: [{Lab.resolver}]
recognition:
  unknown: {{unknown}}
scopes:
  - host: {{{{}}}}
"""
# A registry of the catalogue that the policy says nothing about, and others that nobody knows.
KNOWN = Target("203.0.114.1", "2001:db8:1::1")
BANNED = Target("203.0.114.2", "2001:db8:1::2")
FRESH = Target("203.0.114.3", "2001:db8:1::3")
LATER = Target("203.0.114.4", "2001:db8:1::4")
SITE = Target("203.0.114.5", "2001:db8:1::5")
CAUTIOUS = Target("203.0.114.6", "2001:db8:1::6")
CAUTIOUS_SITE = Target("203.0.114.7", "2001:db8:1::7")
UNNAMED = Target("203.0.114.8", "2001:db8:1::8")
NAMES = {
    "quay.io": KNOWN,
    "banned.registry.test": BANNED,
    "fresh.registry.test": FRESH,
    "later.registry.test": LATER,
    "site.registry.test": SITE,
    "cautious.registry.test": CAUTIOUS,
    "cautious-site.registry.test": CAUTIOUS_SITE,
}


@pytest.fixture(scope="module")
def world(lab: Lab) -> Lab:
    for target in (*NAMES.values(), UNNAMED):
        lab.blocked.node.add_addresses(target.v4, target.v6)
    lab.dns.update({name: Addresses((target.v4, target.v6), 60) for name, target in NAMES.items()})
    return lab


@pytest.fixture(scope="module")
def root(lab: Lab) -> Path:
    """What stands for the host; its processes are in groups below it."""
    return lab.new_cgroup("host")


@pytest.fixture
def other_root(lab: Lab) -> Path:
    """Of another daemon than the one that most tests share."""
    directory = lab.new_cgroup(f"host-{next(_numbers)}")
    (directory / "session").mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="module")
def session(root: Path) -> Path:
    """Somebody's session on that host."""
    directory = root / "session"
    directory.mkdir(exist_ok=True)
    return directory


def run(lab: Lab, root: Path, unknown: str) -> Any:
    policy = POLICY.format(unknown=unknown)
    return governed(lab, policy, "--cgroup-root", str(root), scopes=["host"])


@pytest.fixture(scope="module")
def daemon(world: Lab, root: Path, session: Path) -> Iterator[Daemon]:
    with run(world, root, "probe") as result:
        yield result


@pytest.fixture
def inside(lab: Lab, session: Path, daemon: Daemon) -> Iterator[Actor]:
    with Actor(lab.client, session) as result:
        yield result


def wait_event(daemon: Daemon, start: int, event: str, host: str) -> dict[str, Any]:
    return wait_line(
        daemon,
        start,
        lambda line: line["event"] == event and line.get("host") == host,
        f"{host} {event}",
        patience=15.0,
    )


def refused_pull(lab: Lab, session: Path, daemon: Daemon, host: str) -> dict[str, Any]:
    start = len(daemon.lines())
    pull = lab.client.pull(f"{host}/{lab.image_name}", cgroup=session)
    assert not pull.ok
    assert "operation not permitted" in pull.stderr
    assert pull.seconds < AT_ONCE
    return wait_event(daemon, start, "denied", host)


@pytest.mark.core
def test_allowed_pull(lab: Lab, session: Path, daemon: Daemon) -> None:
    lab.client.pull(f"allowed.registry.test/{lab.image_name}", cgroup=session).check()


@pytest.mark.core
def test_registry_of_the_catalogue(lab: Lab, session: Path, daemon: Daemon) -> None:
    line = refused_pull(lab, session, daemon, "quay.io")
    assert line["reason"] == "denied-registry"
    assert line["rule"] == "quay.io (quay)"
    assert line["scope"] == "host"
    assert line["explanation"] == "quay.io is a registry and not in the policy"
    assert line["message"] == "Ask platform@registry.test to allow it."


def test_registry_of_the_catalogue_by_its_address(inside: Actor) -> None:
    """The daemon has looked it up before anybody else has."""
    for address in (KNOWN.v4, KNOWN.v6):
        with pytest.raises(PermissionError):
            tcp_connect(inside, address)


def test_denied_name(lab: Lab, session: Path, daemon: Daemon) -> None:
    line = refused_pull(lab, session, daemon, "banned.registry.test")
    assert line["reason"] == "denied-registry"
    assert line["explanation"].startswith(
        "banned.registry.test is denied by banned.registry.test (policy.yaml:"
    )


@pytest.mark.core
@pytest.mark.parametrize("address", [UNNAMED.v4, UNNAMED.v6])
def test_registry_port(inside: Actor, daemon: Daemon, address: str) -> None:
    start = len(daemon.lines())
    with pytest.raises(PermissionError):
        tcp_connect(inside, address, 5000)
    line = wait_line(daemon, start, lambda line: line.get("address") == address, f"a line about {address}")
    assert (line["reason"], line["port"]) == ("denied-registry-port", 5000)


@pytest.mark.core
def test_everything_else_passes(lab: Lab, inside: Actor, daemon: Daemon) -> None:
    start = len(daemon.lines())
    with pytest.raises(ConnectionRefusedError):  # nobody listens, and nobody else refuses
        tcp_connect(inside, UNNAMED.v4, 22)
    sender = inside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"anything", (UNNAMED.v4, 4500))
    sender.sendto(b"anything", (UNNAMED.v4, 53))  # whoever wants another resolver
    raw = inside.socket(socket.AF_INET, socket.SOCK_RAW, 47)  # GRE
    raw.sendto(b"\0\0\x08\0", (UNNAMED.v4, 0))
    time.sleep(0.3)
    assert not [line for line in daemon.lines()[start:] if line["event"] == "denied"]


@pytest.mark.core
def test_unknown_registry_is_found_by_asking(lab: Lab, session: Path, daemon: Daemon) -> None:
    start = len(daemon.lines())
    lab.client.pull(f"fresh.registry.test/{lab.image_name}", cgroup=session)  # it may be over before that
    found = wait_event(daemon, start, "registry-found", "fresh.registry.test")
    assert found["explanation"] == (
        "a registry answers at fresh.registry.test:443, and the policy does not allow it: "
        "it is refused from now on"
    )
    line = refused_pull(lab, session, daemon, "fresh.registry.test")
    assert line["reason"] == "denied-registry"
    # Another address of the name is refused before the client has it.
    lab.blocked.node.add_addresses("203.0.114.33")
    lab.dns.set_records("fresh.registry.test", ("203.0.114.33",))
    assert refused_pull(lab, session, daemon, "fresh.registry.test")["address"] == "203.0.114.33"


def test_connection_that_was_let_through_is_cut(lab: Lab, session: Path, daemon: Daemon) -> None:
    start = len(daemon.lines())
    with Actor(lab.client, session) as inside:
        inside.resolve("later.registry.test")
        connection = inside.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.connect((LATER.v4, PORT))
        wait_event(daemon, start, "registry-found", "later.registry.test")

        def is_cut() -> bool:
            try:
                connection.send(b"x")
            except OSError:
                return True
            return False

        assert eventually(is_cut), "the connection goes on"
        with pytest.raises(PermissionError):
            tcp_connect(inside, LATER.v4)


@pytest.mark.core
def test_website_is_asked_once(lab: Lab, session: Path, daemon: Daemon) -> None:
    with serving(lab.blocked.node, WEB) as site, Actor(lab.client, session) as inside:
        for _ in range(5):
            inside.resolve("site.registry.test")
            tcp_connect(inside, SITE.v4, WEB)
            time.sleep(0.3)
        assert eventually(lambda: site.requests() == ["GET /v2/ HTTP/1.1"])
        time.sleep(0.5)
        assert site.requests() == ["GET /v2/ HTTP/1.1"]


def test_unknown_names_are_refused_until_they_were_asked(world: Lab, other_root: Path) -> None:
    with serving(world.blocked.node, WEB) as site:
        with run(world, other_root, "deny") as daemon, Actor(world.client, other_root / "session") as inside:
            inside.resolve("cautious-site.registry.test")
            before = len(daemon.lines())
            with pytest.raises(PermissionError):
                tcp_connect(inside, CAUTIOUS_SITE.v4, WEB)
            line = wait_event(daemon, before, "denied", "cautious-site.registry.test")
            assert line["reason"] == "denied-unasked"
            assert eventually(lambda: site.requests() == ["GET /v2/ HTTP/1.1"])
            assert eventually(lambda: _connects(inside, CAUTIOUS_SITE.v4, WEB))

            before = len(daemon.lines())
            inside.resolve("cautious.registry.test")
            with pytest.raises(PermissionError):
                tcp_connect(inside, CAUTIOUS.v4)
            wait_event(daemon, before, "registry-found", "cautious.registry.test")
            with pytest.raises(PermissionError):
                tcp_connect(inside, CAUTIOUS.v4)


def _connects(actor: Actor, address: str, port: int) -> bool:
    try:
        tcp_connect(actor, address, port)
    except PermissionError:
        return False
    return True


def test_nobody_asks_where_unknown_names_are_allowed(world: Lab, other_root: Path) -> None:
    with serving(world.blocked.node, WEB) as site, run(world, other_root, "allow") as daemon:
        with Actor(world.client, other_root / "session") as inside:
            inside.resolve("site.registry.test")
            tcp_connect(inside, SITE.v4, WEB)
            time.sleep(0.5)
        assert site.requests() == []
        assert not [line for line in daemon.lines() if line["event"] == "registry-found"]


@pytest.mark.core
def test_the_innermost_scope_decides(world: Lab, other_root: Path) -> None:
    """What is allowed in one scope alone is so although the host around it refuses it, and the reverse."""
    strict = other_root / "strict"
    strict.mkdir(exist_ok=True)
    policy = POLICY.format(unknown="allow").replace(
        "  - host: {}\n",
        f"""\
  - host: {{}}
  - cgroup: {strict}
    registries:
      - host: quay.io
        private: true
""",
    )
    with governed_by_policy(world, policy, other_root) as daemon:
        with Actor(world.client, strict) as actor:
            actor.resolve("quay.io")
            tcp_connect(actor, KNOWN.v4)
            with pytest.raises(PermissionError):  # strict: no registry, and not allowed
                tcp_connect(actor, UNNAMED.v4, 22)
        with Actor(world.client, other_root / "session") as actor:
            actor.resolve("quay.io")
            with pytest.raises(PermissionError):
                tcp_connect(actor, KNOWN.v4)
            with pytest.raises(ConnectionRefusedError):
                tcp_connect(actor, UNNAMED.v4, 22)
        assert daemon.lines()


def governed_by_policy(lab: Lab, policy: str, root: Path) -> Any:
    return governed(lab, policy, "--cgroup-root", str(root), scopes=[])
