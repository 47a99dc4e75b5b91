"""What no single value of a policy shows: entries that stand twice, and too many of them.

These look at the plain data rather than the model, so that they are reported together with everything
else that is wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from ram_ebpf.policy.document import PathPart
from ram_ebpf.policy.fields import parse_address, parse_network
from ram_ebpf.policy.names import HostPattern, PatternError
from ram_ebpf.policy.scope import SCOPE_MODELS
from ram_ebpf.policy.words import show

Finding = tuple[tuple[PathPart, ...], str, str]


def count_rules(data: dict[str, Any]) -> int:
    """How many hosts and addresses the file itself names, `also` hosts, denied ones and proxies
    counted."""
    lists = [data, *_scopes_with_registries(data)]
    entries = [entry for where in lists for entry in _items(where, "registries")]
    also = sum(len(_items(entry, "also")) for entry in entries if isinstance(entry, dict))
    return len(entries) + also + len(_items(data, "denied")) + len(_items(data, "proxies"))


def _scopes_with_registries(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in _items(data, "scopes"):
        if isinstance(item, dict):
            host = item.get("host")
            yield host if isinstance(host, dict) else item


def find_repeated(data: dict[str, Any]) -> Iterator[tuple[Finding, tuple[PathPart, ...]]]:
    """Each entry that was there before, with the path of the first."""
    groups = [_registries(data, ()), _denied(data), _proxies(data), _resolvers(data), _scopes(data)]
    for index, item in enumerate(_items(data, "scopes")):
        if isinstance(item, dict):
            host = item.get("host")
            path: tuple[PathPart, ...] = ("scopes", index)
            # What a scope repeats of the whole policy does no harm.
            groups.append(_registries(item, path))
            groups.append(_registries(host, (*path, "host")) if isinstance(host, dict) else iter(()))
    for subjects in groups:
        first: dict[Hashable, tuple[PathPart, ...]] = {}
        for path, subject, what, cure in subjects:
            if subject in first:
                yield (path, f"{what} is already", cure), first[subject]
            else:
                first[subject] = path


_Subject = tuple[tuple[PathPart, ...], Hashable, str, str]


def _registries(data: dict[str, Any], where: tuple[PathPart, ...]) -> Iterator[_Subject]:
    for index, entry in enumerate(_items(data, "registries")):
        path = (*where, "registries", index)
        if isinstance(entry, str):
            yield path, ("id", entry), f"catalogue id {show(entry)}", "keep one of them"
        elif isinstance(entry, dict) and isinstance(entry.get("id"), str):
            yield (*path, "id"), ("id", entry["id"]), f"catalogue id {show(entry['id'])}", "keep one of them"
        elif isinstance(entry, dict) and "host" in entry:
            yield from _hosts(entry, path)
        elif isinstance(entry, dict) and (network := parse_network(entry.get("address"))) is not None:
            yield (*path, "address"), network, f"address {network}", "keep one entry with all the ports"


def _hosts(entry: dict[str, Any], path: tuple[PathPart, ...]) -> Iterator[_Subject]:
    own = _pattern(entry["host"])
    if own is not None:
        yield (*path, "host"), own, f"host {own}", "keep one entry with all the ports"
    # Two registries may well keep their blobs in one place, so only repetition within an entry is wrong.
    for index, item in enumerate(_items(entry, "also")):
        also = _pattern(item.get("host") if isinstance(item, dict) else item)
        if also is None:
            continue
        subject = own if also == own else (path, also)
        yield (*path, "also", index), subject, f"host {also}", "keep one of them"


def _denied(data: dict[str, Any]) -> Iterator[_Subject]:
    for index, item in enumerate(_items(data, "denied")):
        if (pattern := _pattern(item)) is not None:
            yield ("denied", index), pattern.text, f"host {pattern}", "keep one of them"


def _proxies(data: dict[str, Any]) -> Iterator[_Subject]:
    for index, item in enumerate(_items(data, "proxies")):
        if not isinstance(item, dict):
            continue
        path: tuple[PathPart, ...] = ("proxies", index)
        if (pattern := _pattern(item.get("host"))) is not None:
            yield (*path, "host"), pattern.text, f"proxy {pattern}", "keep one entry with all the ports"
        elif (network := parse_network(item.get("address"))) is not None:
            yield (*path, "address"), network, f"proxy {network}", "keep one entry with all the ports"


def _resolvers(data: dict[str, Any]) -> Iterator[_Subject]:
    for index, item in enumerate(_items(data, "resolvers")):
        port = item.get("port", 53) if isinstance(item, dict) else 53
        address = parse_address(item.get("address") if isinstance(item, dict) else item)
        if address is not None and isinstance(port, int):
            yield ("resolvers", index), (address, port), f"resolver {address}", "keep one of them"


def _scopes(data: dict[str, Any]) -> Iterator[_Subject]:
    for index, item in enumerate(_items(data, "scopes")):
        if not isinstance(item, dict):
            continue
        for kind, target in item.items():
            if kind == "host":
                yield ("scopes", index), kind, "scope host", "keep one of them"
            elif f"@scope {kind}" in SCOPE_MODELS and isinstance(target, str):
                yield ("scopes", index), (kind, target), f"{kind} {show(target)}", "keep one of them"


def _items(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _pattern(value: object) -> HostPattern | None:
    try:
        return HostPattern.parse(value) if isinstance(value, str) else None
    except PatternError:
        return None
