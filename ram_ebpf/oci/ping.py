"""Whether a registry answers at an endpoint: what every client of one asks first, `GET /v2/`.

OCI distribution specification, "Determining Support" (end-1). Only an endpoint that somebody on this host was
about to use is asked, once, without credentials, and without following where it would lead.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address

from ram_ebpf.policy.names import normalise

_SECONDS = 3.0  # for each way of asking
_MOST_BYTES = 65536  # of a body
_CLEAR_PORTS = frozenset({80, 8080})  # where clear text is tried first
# Of an error's code: registries have their own beside those of the specification.
_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,63}")

IPAddress = IPv4Address | IPv6Address
Prepare = Callable[[socket.socket], None]


def is_registry_answer(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an answer to `GET /v2/` is a registry's. `headers`: names in lower case.

    It is by the header that the API was known by before OCI (Docker-Distribution-Api-Version), or by an error
    document of the specification, as what asks for credentials has.
    """
    if headers.get("docker-distribution-api-version", "").strip().lower().startswith("registry/"):
        return True
    if status < 400 or not body.lstrip().startswith(b"{"):
        return False
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list) or not errors:
        return False
    return all(
        isinstance(error, dict) and isinstance(error.get("code"), str) and _CODE.fullmatch(error["code"])
        for error in errors
    )


def ask(address: IPAddress, port: int, name: str | None, prepare: Prepare = lambda _: None) -> bool | None:
    """Asks an endpoint, by TLS and in clear text. None: nobody answered there in time.

    `name`: for the Host header and the server name of TLS; None: the address. `prepare` is given each socket
    before it connects. Takes some 6 seconds at most.
    """
    # What stands in a DNS reply need not be the name of a host.
    name = None if name is None else normalise(name)
    ways: list[Callable[[socket.socket], socket.socket]] = [_by_tls(name), lambda item: item]
    if port in _CLEAR_PORTS:
        ways.reverse()
    for way in ways:
        found = _ask(address, port, name, prepare, way)
        if found is not None:
            return found
    return None


def _by_tls(name: str | None) -> Callable[[socket.socket], socket.socket]:
    # Whoever it is: what matters is that a client would be answered by a registry.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return lambda item: context.wrap_socket(item, server_hostname=name)


def _ask(
    address: IPAddress,
    port: int,
    name: str | None,
    prepare: Prepare,
    way: Callable[[socket.socket], socket.socket],
) -> bool | None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as item, item.dup() as twin:
        # A limit to each read would let somebody answer for hours, byte by byte. This one has a descriptor of
        # its own, as TLS takes the socket's away.
        over = threading.Event()
        limit = threading.Timer(_SECONDS, _end, [twin, over])
        limit.daemon = True
        try:
            prepare(item)
            item.settimeout(_SECONDS)
            limit.start()
            item.connect((str(address), port))
            found = _exchange(way(item), _host(address, port, name))
            return None if over.is_set() and not found else found  # what was cut off says nothing
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            limit.cancel()


def _exchange(item: socket.socket, host: str) -> bool | None:
    connection = http.client.HTTPConnection(host)
    connection.sock = item
    with contextlib.closing(connection):
        headers = {
            "Host": host,
            "Accept": "application/json",
            "User-Agent": "ram-ebpf",
            "Connection": "close",
        }
        connection.request("GET", "/v2/", headers=headers)
        answer = connection.getresponse()
        if answer.status == http.client.BAD_REQUEST and not isinstance(item, ssl.SSLSocket):
            return None  # what servers say in clear text to those who should have spoken TLS
        fields = {key.lower(): value for key, value in answer.getheaders()}
        return is_registry_answer(answer.status, fields, answer.read(_MOST_BYTES))


def _end(item: socket.socket, over: threading.Event) -> None:
    over.set()
    with contextlib.suppress(OSError):
        item.shutdown(socket.SHUT_RDWR)


def _host(address: IPAddress, port: int, name: str | None) -> str:
    shown = name or (f"[{address}]" if address.version == 6 else str(address))
    return shown if port in (80, 443) else f"{shown}:{port}"
