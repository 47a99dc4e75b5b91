"""Every metric, with what its labels may say. docs/metrics.md has the same table, which a test compares.

No label takes its value from the network, from an image or from a process: each has a few values that this
file, the policy's language or docs/reasons.md names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """Of Prometheus' types, those in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"


@dataclass(frozen=True)
class Metric:
    """One of them, by its name in full, as it is scraped and asked for."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_C, _G, _I = Kind.COUNTER, Kind.GAUGE, Kind.INFO
METRICS = (
    Metric("ram_ebpf_build_info", _I, "The version of ram-ebpf that runs.", ("version",)),
    Metric(
        "ram_ebpf_policy_info",
        _I,
        "The policy that is enforced: the version of its format, the SHA-256 of its file, and its mode.",
        ("version", "digest", "mode"),
    ),
    Metric(
        "ram_ebpf_policy_reloads_total",
        _C,
        "Reloads since the start, by whether the policy was taken.",
        ("result",),
    ),
    Metric(
        "ram_ebpf_policy_last_reload_successful",
        _G,
        "Whether the policy file was right when it was read last, at the start or by a reload: 1 or 0.",
    ),
    Metric(
        "ram_ebpf_policy_last_reload_timestamp_seconds",
        _G,
        "When the policy file was read last, whatever came of it.",
    ),
    Metric(
        "ram_ebpf_policy_last_reload_success_timestamp_seconds",
        _G,
        "When the policy that is enforced was taken.",
    ),
    Metric(
        "ram_ebpf_rules",
        _G,
        "Rules that hold in some scope, each counted once, by kind.",
        ("kind",),
    ),
    Metric("ram_ebpf_scopes", _G, "Scopes of the policy, by kind and posture.", ("kind", "posture")),
    Metric("ram_ebpf_scopes_empty", _G, "Scopes that govern nothing right now, by kind.", ("kind",)),
    Metric("ram_ebpf_places", _G, "Control groups and devices that are governed, by kind.", ("kind",)),
    Metric("ram_ebpf_places_failed", _G, "Places that should be governed, and could not be attached to."),
    Metric(
        "ram_ebpf_decisions_total",
        _C,
        "Connections and packets that were judged, by reason and verdict.",
        ("reason", "verdict"),
    ),
    Metric("ram_ebpf_dns_messages_total", _C, "DNS messages, by what became of them.", ("reason",)),
    Metric(
        "ram_ebpf_docker_requests_refused_total",
        _C,
        "Requests to Docker's API that were refused, or in mode audit would have been, by reason.",
        ("reason",),
    ),
    Metric(
        "ram_ebpf_connections_cut_total",
        _C,
        "Open connections that user space had the kernel end, by cause.",
        ("cause",),
    ),
    Metric(
        "ram_ebpf_events_lost_total",
        _C,
        "Events that came too fast to be read, so that the log lacks them.",
    ),
    Metric(
        "ram_ebpf_log_lines_suppressed_total",
        _C,
        "Lines that were not written: an equal one was a moment before, or there were too many.",
    ),
    Metric(
        "ram_ebpf_learned_addresses",
        _G,
        "Addresses of names that are open, or refused, right now, by where they are from.",
        ("origin", "effect"),
    ),
    Metric("ram_ebpf_resolvers", _G, "Resolvers that are trusted, by where they are.", ("location",)),
    Metric(
        "ram_ebpf_resolvers_unbelieved",
        _G,
        "Resolvers on this host whose process is not known, so that their replies are asked again.",
    ),
    Metric(
        "ram_ebpf_names",
        _G,
        "Exact names of the policy, which are resolved ahead, by what came of it last.",
        ("state",),
    ),
    Metric("ram_ebpf_lookups_total", _C, "Names that were looked up by ram-ebpf, by result.", ("result",)),
    Metric(
        "ram_ebpf_responder_state",
        _G,
        "1 for what the refusal responder does, and 0 for the others.",
        ("state",),
    ),
    Metric(
        "ram_ebpf_responder_connections_total",
        _C,
        "Connections that were led to the refusal responder, by what came of them.",
        ("result",),
    ),
    Metric(
        "ram_ebpf_responder_network_namespaces",
        _G,
        "Network namespaces with governed processes, beside the daemon's own, by whether it listens there.",
        ("listening",),
    ),
    Metric(
        "ram_ebpf_map_entries",
        _G,
        "Entries of a map of the kernel; of one that each scope has, those of the fullest.",
        ("map",),
    ),
    Metric("ram_ebpf_map_max_entries", _G, "How many entries such a map has room for.", ("map",)),
)
BY_NAME = {metric.name: metric for metric in METRICS}

LIBRARY_METRICS = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
"""What Prometheus' client library tells of any process; see ProcessCollector there."""
