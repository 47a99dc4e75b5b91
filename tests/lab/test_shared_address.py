"""Two registries at one address, of which one is allowed: the name on the wire tells them apart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.adversarial.field import governed, wait_line

from . import topology
from .daemon import Daemon
from .lab import Lab
from .pace import PACE

ALLOWED, OTHER = "allowed.registry.test", "v4only.registry.test"
PATIENCE = 2.0 * PACE  # seconds, most of which is the start of skopeo on a busy machine

POLICY = f"""\
version: 1
registries:
  - host: {ALLOWED}
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""

# Says how many seconds it takes until the connection is ended; for a name that is not ended, 9.
ATTEMPT = """
import socket, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
plain = socket.create_connection((sys.argv[1], 443), 9)
begun = time.monotonic()
try:
    context.wrap_socket(plain, server_hostname=sys.argv[2])
    print(9)
except OSError:
    print(time.monotonic() - begun)
"""


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        yield result


@pytest.mark.core
def test_pull(lab: Lab, daemon: Daemon) -> None:
    """The same addresses, by the same client."""
    assert topology.ADDRESSES[OTHER][0][0] in topology.ADDRESSES[ALLOWED][0]
    lab.client.pull(f"{ALLOWED}/{lab.image_name}").check()
    start, begun = len(daemon.lines()), time.monotonic()
    result = lab.client.pull(f"{OTHER}/{lab.image_name}")
    seconds = time.monotonic() - begun
    assert result.returncode != 0
    assert "timeout" not in result.stderr
    line = wait_line(daemon, start, lambda line: line["reason"] == "name-mismatch", "name-mismatch")
    assert (line["verdict"], line["name"]) == ("deny", OTHER)
    assert line["host"] in (ALLOWED, OTHER)  # whichever was looked up last
    assert OTHER in line["explanation"]
    assert seconds < PATIENCE
    lab.client.pull(f"{ALLOWED}/{lab.image_name}").check()


@pytest.mark.core
def test_seconds(lab: Lab, daemon: Daemon) -> None:
    """Without a lookup, as with a hosts file: ended at once, and both names are told."""
    lab.client.pull(f"{ALLOWED}/{lab.image_name}").check()
    start = len(daemon.lines())
    result = lab.client.run(["python3", "-c", ATTEMPT, topology.ALLOWED, OTHER])
    assert float(result.stdout) < 0.3 * PACE
    line = wait_line(daemon, start, lambda line: line.get("name") == OTHER, "name-mismatch")
    assert line["address"] == topology.ALLOWED
    assert lab.client.run(["python3", "-c", ATTEMPT, topology.ALLOWED, ALLOWED]).stdout.strip() == "9"
