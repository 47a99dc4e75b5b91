"""`metrics:`, where a daemon serves them."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.metrics import Metrics

HEAD = "version: 1\nregistries: [docker-hub]\n"


def metrics(text: str) -> Metrics | None:
    return parse_policy(f"{HEAD}metrics: {text}\n".encode(), "p.yaml").metrics


def test_nowhere_by_default() -> None:
    assert default_policy().metrics is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("{ port: 9469 }", "127.0.0.1"),
        ("{ address: 127.8.0.1, port: 9469 }", "127.8.0.1"),
        ('{ address: "::1", port: 9469 }', "::1"),
    ],
)
def test_at_a_port(text: str, address: str) -> None:
    found = metrics(text)
    assert found is not None
    assert (str(found.address), found.port, found.socket) == (address, 9469, None)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("{ socket: /run/a.sock }", 0o600),
        ("{ socket: /run/a.sock, group: prometheus }", 0o660),
        ("{ socket: /run/a.sock, mode: 0666 }", 0o666),
        ("{ socket: /run/a.sock, mode: '0660', group: prometheus }", 0o660),
    ],
)
def test_at_a_socket(text: str, mode: int) -> None:
    found = metrics(text)
    assert found is not None
    assert (found.socket, found.socket_mode) == ("/run/a.sock", mode)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "3: metrics: there is nothing behind the key, write a value, or remove the key"),
        ("true", "3: metrics: true where a mapping belongs, write metrics: { port: 9469 }"),
        ("{}", "3: metrics: it is not said where metrics are served, write port: 9469, or socket: /run/"),
        ("{ address: 127.0.0.1 }", "3: metrics: it is not said where metrics are served, write port: 9469"),
        ("{ port: 0 }", "3: metrics.port: the number 0 is not a port, write a number from 1 to 65535"),
        ("{ port: }", "3: metrics.port: there is nothing behind the key"),
        (
            "{ address: 10.0.0.5, port: 9469 }",
            "3: metrics.address: 10.0.0.5 is not this host's own loopback address, "
            "so others could read there, write 127.0.0.1 or ::1",
        ),
        ("{ address: 0.0.0.0, port: 9469 }", "3: metrics.address: 0.0.0.0 is not this host's own loopback"),
        ('{ address: "::", port: 9469 }', "3: metrics.address: :: is not this host's own loopback"),
        ("{ address: localhost, port: 9469 }", "3: metrics.address: 'localhost' is not an IP address"),
        ("{ port: 9469, socket: /run/a }", "3: metrics: metrics are served at a port or at a Unix socket"),
        ("{ port: 9469, mode: 0600 }", "3: metrics: mode and group are those of a Unix socket, remove them"),
        (
            "{ socket: /a, mode: 0600, group: g }",
            "3: metrics: mode 0600 leaves the group out, write mode: 0660",
        ),
        (
            "{ socket: /a, mode: 660 }",
            "3: metrics.mode: the number 660 is not one of the choices, write 0600",
        ),
        ("{ socket: a.sock }", "3: metrics.socket: 'a.sock' is not an absolute path"),
        ("{ socket: /run/../a }", "3: metrics.socket: '/run/../a' is not an absolute path"),
        ("{ socket: /run/ }", "3: metrics.socket: '/run/' is not an absolute path"),
        (f"{{ socket: /{'a' * 80} }}", "is not an absolute path of at most 80 characters"),
        ("{ socket: /a, group: 'a b' }", "3: metrics.group: 'a b' is not the name of a group"),
        ("{ sokcet: /a }", "3: metrics.sokcet: 'sokcet' is not a known key, did you mean socket?"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        metrics(text)
    assert error in str(caught.value)
