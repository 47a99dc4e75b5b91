"""What a running instance can say of itself: what it governs, and what it would decide for a process."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ram_ebpf import __version__
from ram_ebpf.daemon import learned
from ram_ebpf.daemon.following import Following
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.overview import overview
from ram_ebpf.daemon.reasons import explain
from ram_ebpf.daemon.records import rule_text
from ram_ebpf.daemon.refusals import MOST, LastRefusals
from ram_ebpf.daemon.responder_state import ResponderState
from ram_ebpf.daemon.summing import Summing
from ram_ebpf.daemon.warnings import Warnings
from ram_ebpf.dataplane import abi, clock, features
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.tables import refused_list
from ram_ebpf.dataplane.view import View
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.names import normalise
from ram_ebpf.policy.ruleset import FoundRule
from ram_ebpf.scopes.cgroup import of_process
from ram_ebpf.scopes.device import devices_into

_HTTPS = 443
_Where = tuple[str, str | None]  # the label of a scope, and one of its places


@dataclass
class State:
    """Answers the requests of the control socket; see control.py."""

    policy: PolicyLike
    plane: Plane
    following: Following
    mount: Path
    responder: Callable[[], ResponderState]
    request_counters: Callable[[], dict[str, int]] = dict
    """Of refused requests to Docker's API."""
    refusals: LastRefusals = field(default_factory=LastRefusals)
    history: NameHistory = field(default_factory=NameHistory)
    warnings: Warnings = field(default_factory=Warnings)
    resolvers: Callable[[], list[str]] = list
    reload: Callable[[int | None], dict[str, Any]] = lambda number: {"error": "nothing can be reloaded"}
    """Begins a reload (None), or says what has become of one, by its number."""
    summing: Summing | None = None
    log_counters: Callable[[], dict[str, int]] = dict
    """Of decisions that have no line of their own."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`status`, with `addresses: true` for what was learned; `last` with `count`; `explain` with `host`
        and, if wanted, `port` and `pid`; `refused`; `top`; or `reload`, with the `number` of one that was
        begun so."""
        try:
            if request.get("verb") == "status":
                return self.status(request.get("addresses") is True)
            if request.get("verb") == "explain":
                return self.explain(request)
            if request.get("verb") == "last":
                return self.last(request)
            if request.get("verb") == "top" and self.summing is not None:
                return self.top(self.summing)
            if request.get("verb") == "refused" and self.summing is not None:
                return self.summing.answer()
            if request.get("verb") == "reload":
                number = request.get("number")
                return self.reload(number if isinstance(number, int) else None)
        except OSError as error:
            return {"error": str(error)}
        known = "status, explain, last, refused, top or reload"
        return {"error": f"no verb {str(request.get('verb'))[:40]!r}: write {known}"}

    def status(self, addresses: bool = False) -> dict[str, Any]:
        """What is enforced where. `addresses`: also what was learned there, each with its end."""
        return {
            "version": __version__,
            "mode": self.policy.mode.value,
            "policy": self.policy.file or "the built-in policy",
            "digest": self.policy.source.digest or None,
            "policy_version": self.policy.version,
            "organization": self.policy.organization,
            "fail": self.policy.fail.value,
            "lease_seconds": self.policy.lease,
            "resolvers": self.resolvers(),
            "kernel": {"release": os.uname().release, "features": features.names()},
            "warnings": self._warnings(),
            "scopes": [self._describe(label, addresses) for label in self.following.labels()],
            "responder": self.responder().describe(),
            "counters": self._counters(),
            "log": self.log_counters(),
        }

    def top(self, summing: Summing) -> dict[str, Any]:
        """What is shown live."""
        return {
            "version": __version__,
            "mode": self.policy.mode.value,
            "policy": self.policy.file or "the built-in policy",
            "counters": self._counters(),
            **overview(self.following, self.plane.settings.grace, self.history, summing),
        }

    def _counters(self) -> dict[str, int]:
        return {
            **{reason.slug: count for reason, count in sorted(self.plane.counters().items())},
            **self.request_counters(),
        }

    def last(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last refusals, as they are in the log, and how many there were since the start."""
        count = request.get("count", 1)
        if not isinstance(count, int) or not 0 < count <= MOST:
            return {"error": f"count: write a number from 1 to {MOST}"}
        return {
            "refusals": self.refusals.last(count),
            "noted": self.refusals.noted,
            "organization": self.policy.organization,
        }

    def _warnings(self) -> list[dict[str, str]]:
        found = self.warnings.current()
        for label in self.following.labels():
            if not self.following.cgroups_of(label) and not self.following.devices_of(label):
                found[f"scope {label}"] = "nothing of it is there now"
        return [{"about": about, "explanation": text} for about, text in found.items()]

    def _describe(self, label: str, addresses: bool) -> dict[str, Any]:
        scopes, terms = self.following.scopes_of(label), self.following.terms_of(label)
        tables = self.following.view_of(label).tables
        found = list(learned.openings(learned.maps_of(scopes), tables, self.plane.settings.grace))
        return {
            "scope": label,
            "posture": terms.posture.value,
            "registries": len(terms.registries),
            "rules": {"names": len(tables.rules.names), "addresses": len(tables.rules.addresses)},
            "cgroups": [str(path) for path in self.following.cgroups_of(label)],
            "devices": [str(device) for device in self.following.devices_of(label)],
            "learned": len(found),
            "next_expiry_seconds": max(0, int(min(found).seconds)) if found else None,
            **({"addresses": learned.describe(found, tables, self.history)} if addresses else {}),
        }

    def explain(self, request: dict[str, Any]) -> dict[str, Any]:
        """What would be decided about an endpoint, in the scope of a process or in each scope."""
        host, port, pid = request.get("host"), request.get("port", _HTTPS), request.get("pid")
        if not isinstance(host, str) or not host or len(host) > 255:
            return {"error": "host is missing: write a name or an address"}
        if not isinstance(port, int) or not 0 < port < 65536:
            return {"error": "port: write a number from 1 to 65535"}
        if pid is None:
            found: list[_Where] = [(label, None) for label in self.following.labels()]
            return {"host": host, "port": port, "scopes": self._verdicts(found, host, port)}
        if not isinstance(pid, int) or not Path(f"/proc/{pid}").exists():
            return {"error": f"there is no process {pid}"}
        cgroup = of_process(pid, self.mount)
        found = list(self._scopes_of_process(pid, cgroup))
        return {
            "host": host,
            "port": port,
            "pid": pid,
            "process": _name_of(pid),
            "cgroup": str(cgroup) if cgroup is not None else None,
            "scopes": self._verdicts(found, host, port),
        }

    def _scopes_of_process(self, pid: int, cgroup: Path | None) -> Iterable[_Where]:
        """The innermost cgroup, and the devices that lead out of its network: each of these must allow."""
        innermost = self.following.innermost(cgroup) if cgroup is not None else None
        if innermost is not None:
            yield innermost
        try:
            devices = devices_into(Path(f"/proc/{pid}/ns/net")) if pid != os.getpid() else frozenset()
        except OSError:
            return
        for device in devices:
            label = self.following.label_of_device(device)
            if label is not None:
                yield label, f"device {device}"

    def _verdicts(
        self, found: Iterable[tuple[str, str | None]], host: str, port: int
    ) -> list[dict[str, Any]]:
        verdicts = []
        for label, where in found:
            terms = self.following.terms_of(label)
            view = self.following.view_of(label)
            reason, rule = self._decide(view, self.following.scopes_of(label), host, port)
            verdicts.append(
                {
                    "scope": label,
                    "place": where,
                    "posture": terms.posture.value,
                    "allowed": not reason.is_denied,
                    "reason": reason.slug,
                    "rule": rule or None,
                    "explanation": explain(
                        reason, host=host, port=port, rule=rule, not_listed=not rule, denied_by=None
                    ),
                }
            )
        return verdicts

    def _decide(self, view: View, scopes: list[Scope], host: str, port: int) -> tuple[abi.Reason, str]:
        try:
            return self._decide_address(view, scopes, ipaddress.ip_address(host.strip("[]")), port)
        except ValueError:
            pass
        rule = view.tables.rules.match(host)
        text = rule_text(rule)
        if rule is not None and not rule.deny:
            return (abi.Reason.ALLOWED_LEARNED if port in rule.ports else abi.Reason.DENIED_PORT), text
        if view.posture is abi.Posture.STRICT:
            return abi.Reason.DENIED_UNKNOWN_ADDRESS, text
        if rule is not None or self._is_found(view, host, port):
            return abi.Reason.DENIED_REGISTRY, text
        return self._decide_unknown(port), ""

    def _is_found(self, view: View, host: str, port: int) -> bool:
        """Whether a registry was found there by asking."""
        name = normalise(host)
        slots = view.maps["names"].get(view.tables.key_of(name)) if name else None
        rule = view.tables.rule(abi.Suffix.from_buffer_copy(slots).exact) if slots else None
        return isinstance(rule, FoundRule) and rule.port in (None, port)

    def _decide_unknown(self, port: int) -> abi.Reason:
        settings = self.plane.settings
        if port in settings.registry_ports:
            return abi.Reason.DENIED_REGISTRY_PORT
        if port not in settings.asked_ports or settings.unknown is abi.Unknown.ALLOW:
            return abi.Reason.ALLOWED_OTHER
        denies = settings.unknown is abi.Unknown.DENY
        return abi.Reason.DENIED_UNASKED if denies else abi.Reason.ALLOWED_UNASKED

    def _decide_address(
        self, view: View, scopes: list[Scope], address: abi.IPAddress, port: int
    ) -> tuple[abi.Reason, str]:
        now = clock.now_ns()
        maps = [view.maps["seeded"], *(scope.maps["learned"] for scope in scopes)]
        lists = view.tables.rules.port_lists()

        def opening(number: int) -> abi.Opening | None:
            for item in maps:
                raw = item.get(abi.opening_key(address, number))
                found = abi.Opening.from_buffer_copy(raw) if raw is not None else None
                if found is not None and found.expires_ns >= now and not found.flags:
                    return found
            return None

        for number, ports in enumerate(lists):
            if port in ports and (found := opening(number)) is not None:
                return abi.Reason.ALLOWED_LEARNED, rule_text(view.tables.rule(found.rule))
        for rule in view.tables.rules.addresses:
            if port in rule.ports and address.version == rule.network.version and address in rule.network:
                return abi.Reason.ALLOWED_ADDRESS, rule_text(rule)
        if view.posture is abi.Posture.STRICT:
            return abi.Reason.DENIED_UNKNOWN_ADDRESS, ""
        for refused in (refused_list(None), refused_list(port)):
            if (found := opening(refused)) is not None:
                return abi.Reason.DENIED_REGISTRY, rule_text(view.tables.rule(found.rule))
        return self._decide_unknown(port), ""


def _name_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
