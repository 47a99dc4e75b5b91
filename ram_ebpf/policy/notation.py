"""Recognises what is often written where a host name belongs (URLs, image references, host:port,
addresses), so that the error can say what to write instead."""

from __future__ import annotations

import ipaddress
import re
from typing import NoReturn

from ram_ebpf.policy.pattern_error import PatternError
from ram_ebpf.policy.words import in_yaml, show

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PORT = re.compile(r":([0-9]{1,5})$")
_HOST = re.compile(r"[A-Za-z0-9_*.-]{1,253}")
_DEFAULT_PORT = {"https": 443, "oci": 443, "docker": 443, "http": 80}
_NAMES_ONLY = "write a host name, as addresses cannot stand here"


def refuse_other_notation(text: str) -> None:
    """Raises PatternError when `text` is recognisably something other than a host pattern."""
    if not text or text == ".":
        raise PatternError("the host name is empty", "write one, such as registry.example.com")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise PatternError(f"{show(text)} has a space or an unprintable character", "remove it")
    if scheme := _SCHEME.match(text):
        _refuse_authority(text, "is a URL", text[scheme.end() :], _DEFAULT_PORT.get(scheme[1].lower(), 443))
    if address := _address(text):
        raise PatternError(f"{show(text)} is an IP address", f"write address: {address}", _NAMES_ONLY)
    if network := _network(text):
        raise PatternError(f"{show(text)} is a network", f"write address: {network}", _NAMES_ONLY)
    if "/" in text:
        _refuse_authority(text, "has a path", text, 443)
    if ":" in text:
        _refuse_authority(text, "has a port" if _PORT.search(text) else "has a colon", text, 443)
    if "@" in text:
        _refuse_authority(text, "has a user name", text, 443)
    if re.fullmatch(r"[0-9*.]*[0-9][0-9*.]*", text):
        raise PatternError(
            f"{show(text)} looks like an IP address",
            "write address: with a whole address or network, such as address: 10.20.0.0/24",
            _NAMES_ONLY,
        )


def _refuse_authority(text: str, what: str, rest: str, port: int) -> NoReturn:
    """Refuses `text`, whose host (RFC 3986, section 3.2: [user@]host[:port]) is at the start of `rest`."""
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    if written := _PORT.search(authority):
        port = int(written[1])
        authority = authority[: written.start()]
    if address := _address(authority):
        key, alone = f"address: {address}", _NAMES_ONLY
    elif _HOST.fullmatch(authority):
        host = in_yaml(authority.lower().removesuffix("."))
        key, alone = f"host: {host}", f"write the host pattern alone: {host}"
    else:
        raise PatternError(
            f"{show(text)} {what}",
            "write the host alone, such as host: registry.example.com",
            "write the host pattern alone, such as registry.example.com",
        )
    ports = f" and ports: [{port}]" if port != 443 and 1 <= port <= 65535 else ""
    raise PatternError(f"{show(text)} {what}", f"write {key}{ports}", alone)


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.removesuffix(".").removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _network(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text, strict=False)) if "/" in text else None
    except ValueError:
        return None
