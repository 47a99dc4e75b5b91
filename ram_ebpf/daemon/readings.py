"""What the main loop knows, as samples: all of it is at hand, and nothing here takes long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ram_ebpf import __version__
from ram_ebpf.daemon.following import Following
from ram_ebpf.daemon.reload_history import ReloadHistory
from ram_ebpf.daemon.responder_state import Answered, ResponderState
from ram_ebpf.daemon.trust import Trust
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.metrics.census import Counted
from ram_ebpf.metrics.sample import Sample
from ram_ebpf.policy.enforced import PolicyLike

# Of those that all scopes share, the ones that traffic or lookups fill.
_SHARED = (
    "witnessed",
    "asked",
    "cut_sockets",
    "judged",
    "led_sockets",
    "led",
    "encrypted_resolvers",
    "resolver_sockets",
)
_KINDS = ("cgroup", "device")


def of_policy(policy: PolicyLike, reloads: ReloadHistory) -> Iterator[Sample]:
    """Which one is enforced, and how it was taken."""
    yield Sample("ram_ebpf_build_info", 1, (__version__,))
    labels = str(policy.version), policy.source.digest, policy.mode.value
    yield Sample("ram_ebpf_policy_info", 1, labels)
    for result, count in reloads.counts().items():
        yield Sample("ram_ebpf_policy_reloads_total", count, (result,))
    yield Sample("ram_ebpf_policy_last_reload_successful", float(reloads.successful))
    yield Sample("ram_ebpf_policy_last_reload_timestamp_seconds", reloads.last)
    yield Sample("ram_ebpf_policy_last_reload_success_timestamp_seconds", reloads.last_success)


def of_scopes(following: Following, plane: Plane) -> Iterator[Sample]:
    """What is governed."""
    scopes: dict[tuple[str, str], int] = {}
    empty: dict[str, int] = {}
    for kind, terms, places in following.kinds():
        key = kind, terms.posture.value
        scopes[key] = scopes.get(key, 0) + 1
        empty[kind] = empty.get(kind, 0) + (not places)
    for key, count in scopes.items():
        yield Sample("ram_ebpf_scopes", count, key)
    for kind, count in empty.items():
        yield Sample("ram_ebpf_scopes_empty", count, (kind,))
    for kind, count in zip(_KINDS, (len(plane.attached), len(plane.attached_devices)), strict=True):
        yield Sample("ram_ebpf_places", count, (kind,))
    yield Sample("ram_ebpf_places_failed", following.failed())


def of_requests(refused: Mapping[str, int]) -> Iterator[Sample]:
    """To Docker's API. `refused`: by the values of RequestReason."""
    from ram_ebpf.authorization.judge import RequestReason  # with all that reads such requests

    for reason in RequestReason:
        yield Sample("ram_ebpf_docker_requests_refused_total", refused.get(reason.value, 0), (reason.value,))


def of_resolvers(trust: Trust, names: Mapping[str, int], lookups: Mapping[str, int]) -> Iterator[Sample]:
    """Whom names are asked of, and with what success. `names` and `lookups`: see dns/seeding.py."""
    local = sum(resolver.local for resolver in trust.resolvers)
    yield Sample("ram_ebpf_resolvers", local, ("host",))
    yield Sample("ram_ebpf_resolvers", len(trust.resolvers) - local, ("network",))
    yield Sample("ram_ebpf_resolvers_unbelieved", trust.unbelieved)
    for state, count in names.items():
        yield Sample("ram_ebpf_names", count, (state,))
    for result, count in lookups.items():
        yield Sample("ram_ebpf_lookups_total", count, (result,))


def of_responder(now: ResponderState, served: Mapping[str, int]) -> Iterator[Sample]:
    """Whether those who are refused are told why."""
    for state in Answered:
        yield Sample("ram_ebpf_responder_state", state is now.state, (state.value,))
    for result, count in served.items():
        yield Sample("ram_ebpf_responder_connections_total", count, (result,))
    yield Sample("ram_ebpf_responder_network_namespaces", now.namespaces, ("yes",))
    yield Sample("ram_ebpf_responder_network_namespaces", now.without, ("no",))


def of_room_for_scopes(plane: Plane) -> Iterator[Sample]:
    """The one table that is not in the kernel, but whose room is given there."""
    yield Sample("ram_ebpf_map_entries", len(plane.scopes), ("scopes",))
    yield Sample("ram_ebpf_map_max_entries", abi.SCOPES_MAX, ("scopes",))


def maps_of(plane: Plane) -> Iterator[Counted]:
    """Those that are to be counted, opened anew: whoever counts them may still do so when ours are closed."""
    for name in _SHARED:
        yield Counted((name, plane.maps[name].fd), plane.maps[name].twin())
    for view in plane.views:
        seeded = view.maps["seeded"]
        yield Counted(("seeded", seeded.fd), seeded.twin(), "lookups")
    seen = set()
    for scope in plane.scopes:
        for name, item in scope.maps.maps.items():
            if item.fd not in seen:  # two scopes may share what they learn
                seen.add(item.fd)
                yield Counted((name, item.fd), item.twin(), "replies" if name == "learned" else None)
