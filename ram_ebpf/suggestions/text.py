"""Proposals as YAML that can be pasted below `registries:`, and as JSON.

Whatever comes from the network is only in comments, without a character that ends a line; what is not in
comments was made from a parsed policy entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import yaml

from ram_ebpf.endpoint import endpoint_text
from ram_ebpf.policy.fields import IPNetwork
from ram_ebpf.policy.model import AddressEntry, CatalogueEntry, HostEntry, RegistryEntry
from ram_ebpf.policy.words import show
from ram_ebpf.suggestions.proposals import Evidence, Kind, Proposal, Suggestions
from ram_ebpf.suggestions.summary import Forgotten

SCHEMA_VERSION = 1
_PLAIN = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)+|[0-9]+(?:\.[0-9]+){3}")  # has a dot, or four numbers
_SHOWN = 4  # endpoints or scopes in one comment
_SHOWN_WITHHELD = 50


def time_text(seconds: int) -> str:
    """`2026-11-23T10:00Z`, of seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%MZ")


def entry_data(entry: RegistryEntry) -> str | dict[str, Any]:
    """As in a policy: what is there by default is left out."""
    if isinstance(entry, CatalogueEntry):
        return entry.id
    if isinstance(entry, AddressEntry):
        data: dict[str, Any] = {"address": _network_text(entry.address)}
    else:
        data = {"host": entry.host.text}
    if entry.ports != (443,):
        data["ports"] = list(entry.ports)
    if isinstance(entry, HostEntry) and entry.also:
        data["also"] = [
            also.host.text if also.ports is None else {"host": also.host.text, "ports": list(also.ports)}
            for also in entry.also
        ]
    if isinstance(entry, HostEntry) and not isinstance(entry.private, bool):
        data["private"] = [_network_text(network) for network in entry.private]
    return data


def _data(proposal: Proposal) -> str | dict[str, Any]:
    """What is to be written; of a change, what is to be added to the entry, or to be there then."""
    data = entry_data(proposal.entry)
    if proposal.kind is Kind.ALSO and isinstance(data, dict):
        data.pop("ports", None)  # they are there
    return data


def _network_text(network: IPNetwork) -> str:
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)


def lines(
    suggestions: Suggestions, forgotten: Sequence[Forgotten], since: int, now: int, indent: int = 2
) -> Iterator[str]:
    """What `ram-ebpf suggest` prints. `since`, `now`: seconds since 1970; `indent`: of the list's items."""
    margin = " " * indent
    pasted = [proposal for proposal in suggestions.proposals if not proposal.is_change]
    changes = [proposal for proposal in suggestions.proposals if proposal.is_change]
    times = f"from {time_text(since)} to {time_text(now)}"
    yield f"{margin}# ram-ebpf suggest: what was refused, or would have been, {times}."
    if pasted:
        yield f"{margin}# Somebody has tried each of these; read before you paste it below `registries:`."
    elif not changes:
        yield f"{margin}# Nothing to add to the policy."
    for its in forgotten:
        if its.count:
            where = f"in {_shown(its.scope)}" if its.scope else "in no scope"
            last = f"the last one {time_text(its.last)} {where}"
            yield f"{margin}# {its.count} more were forgotten for want of room, {last}:"
            yield f"{margin}# perhaps somebody makes up names there."
    for proposal in pasted:
        yield from _pasted(proposal, margin)
    if changes:
        yield margin + "#"
        yield margin + "# To be changed by hand, since the entry is there:"
        for proposal in changes:
            yield from _change(proposal, margin)
    if suggestions.withheld:
        yield margin + "#"
        yield margin + "# Not proposed:"
        for withheld in suggestions.withheld[:_SHOWN_WITHHELD]:
            evidence = withheld.evidence
            known = any(host in withheld.subject for host, _ in evidence.endpoints)
            about = "" if known else f": {_endpoints(evidence)}"
            times = f"({_times(evidence)}{_where(evidence)}{about})"
            yield f"{margin}# {_shown(withheld.subject)}: {_shown(withheld.why)} {times}"
        more = len(suggestions.withheld) - _SHOWN_WITHHELD
        if more > 0:
            yield f"{margin}# and {more} more; --json has all"


def _pasted(proposal: Proposal, margin: str) -> Iterator[str]:
    evidence = proposal.evidence
    yield f"{margin}# {_times(evidence)}{_where(evidence)}: {_endpoints(evidence)}"
    if proposal.note:
        yield f"{margin}# {_shown(proposal.note)}"
    data = entry_data(proposal.entry)
    if isinstance(data, str):
        yield f"{margin}- {data}"
        return
    for position, (key, value) in enumerate(data.items()):
        yield f"{margin}{'  ' if position else '- '}{key}: {_yaml(value)}"


def _change(proposal: Proposal, margin: str) -> Iterator[str]:
    evidence = proposal.evidence
    yield f"{margin}# {_shown(proposal.origin)}: {_times(evidence)}{_where(evidence)}: {_endpoints(evidence)}"
    yield f"{margin}# {_shown(proposal.note)}"
    data = _data(proposal)
    assert isinstance(data, dict)
    for position, (key, value) in enumerate(data.items()):
        yield f"{margin}#   {'  ' if position else '- '}{key}: {_yaml(value)}"


def _yaml(value: Any) -> str:
    """In one line. Of text there are only host names, patterns and addresses."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())} }}"
    if isinstance(value, int):
        return str(value)
    # Some names are numbers or truth values to some readers of YAML.
    if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return str(value)
    return f'"{value}"'


def _times(evidence: Evidence) -> str:
    count = "once" if evidence.count == 1 else f"{evidence.count} times"
    verdicts = {refused.verdict for refused in evidence.entries}
    what = "refused" if verdicts == {"deny"} else "would be refused"
    if len(verdicts) > 1:
        what = "refused or would be"
    return f"{what} {count}, last {time_text(evidence.latest.last)}"


def _where(evidence: Evidence) -> str:
    latest = evidence.latest
    words = f", in {_listed([_shown(scope) for scope in evidence.scopes])}" if evidence.scopes else ""
    return f"{words} by {_shown(latest.process)}" if latest.process else words


def _endpoints(evidence: Evidence) -> str:
    return _listed([endpoint_text(_shown(host), port) for host, port in evidence.endpoints])


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shown(text: str) -> str:
    """As it is where that is harmless. It may come from the network, or be what a process calls itself."""
    return text if text.isascii() and text.isprintable() else show(text)


def as_json(suggestions: Suggestions, forgotten: Sequence[Forgotten], since: int, now: int) -> dict[str, Any]:
    """By the schema in docs/audit.md."""
    return {
        "version": SCHEMA_VERSION,
        "since": time_text(since),
        "until": time_text(now),
        "registries": [entry_data(its.entry) for its in suggestions.proposals if not its.is_change],
        "suggestions": [
            {
                "kind": its.kind.value,
                "entry": _data(its),
                "origin": its.origin or None,
                "note": its.note or None,
                **_evidence_json(its.evidence),
            }
            for its in suggestions.proposals
        ],
        "withheld": [
            {"subject": its.subject, "why": its.why, **_evidence_json(its.evidence)}
            for its in suggestions.withheld
        ],
        "forgotten": sum(its.count for its in forgotten),
    }


def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    return {
        "count": evidence.count,
        "first": time_text(evidence.first),
        "last": time_text(evidence.latest.last),
        "scopes": list(evidence.scopes),
        "process": evidence.latest.process or None,
        "verdict": evidence.latest.verdict,
        "reasons": sorted({refused.reason for refused in evidence.entries}),
        "endpoints": [{"host": host, "port": port} for host, port in evidence.endpoints],
    }
