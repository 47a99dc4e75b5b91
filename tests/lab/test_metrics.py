"""Metrics of a running daemon, read as Prometheus reads them, from one policy to the next."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ram_ebpf.metrics.catalogue import LIBRARY_METRICS, METRICS
from tests.adversarial.actor import Actor
from tests.adversarial.field import eventually, governed, tcp_connect

from . import topology
from .lab import Lab
from .test_reload import Running

pytestmark = pytest.mark.root

PORT = 9469
Labels = frozenset[tuple[str, str]]
Scraped = dict[tuple[str, Labels], float]
POLICY = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
resolvers: [{Lab.resolver}]
refusals: {{ responder: off }}
"""


class Metrics:
    """What is served in the client's network namespace."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def read(self, *how: str) -> str | None:
        argv = ["curl", "--silent", "--fail", "--max-time", "5", *how]
        found = self.lab.client.run(argv, cgroup=self.lab.client.services)
        return found.stdout if found.ok else None

    def at_port(self) -> str | None:
        return self.read(f"http://127.0.0.1:{PORT}/metrics")

    def at_socket(self, path: Path) -> str | None:
        return self.read("--unix-socket", str(path), "http://ram-ebpf/metrics")


def parsed(text: str | None) -> Scraped:
    assert text is not None
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(scraped: Scraped, name: str, **labels: str) -> float:
    return scraped[name, frozenset(labels.items())]


@pytest.fixture
def metrics(lab: Lab) -> Metrics:
    return Metrics(lab)


def test_from_one_policy_to_the_next(lab: Lab, metrics: Metrics, scope: Path, inside: Actor) -> None:
    place = lab.directory / "metrics.sock"
    at_port, at_socket = f"metrics: {{ port: {PORT} }}\n", f"metrics: {{ socket: {place}, mode: 0666 }}\n"
    with governed(lab, POLICY + at_port, scopes=[scope, "unit:not-there.service"]) as daemon:
        running = Running(lab, daemon)
        inside.resolve("allowed.registry.test")
        tcp_connect(inside, topology.ALLOWED)
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)
        assert eventually(lambda: metrics.at_port() is not None)
        text = metrics.at_port()
        scraped = parsed(text)
        names = {name for name, _ in scraped}
        assert names == {metric.name for metric in METRICS} | set(LIBRARY_METRICS)
        assert not re.search(r"registry\.test|" + re.escape(topology.BLOCKED), text or "")
        denied = {"reason": "denied-unknown-address", "verdict": "deny"}
        refused = value(scraped, "ram_ebpf_decisions_total", **denied)
        assert refused >= 1
        assert value(scraped, "ram_ebpf_policy_last_reload_successful") == 1
        assert value(scraped, "ram_ebpf_rules", kind="name") == 1
        assert value(scraped, "ram_ebpf_scopes_empty", kind="unit") == 1
        assert value(scraped, "ram_ebpf_scopes_empty", kind="cgroup") == 0
        assert value(scraped, "ram_ebpf_places", kind="cgroup") == 1
        assert value(scraped, "ram_ebpf_names", state="resolved") == 1
        assert value(scraped, "ram_ebpf_learned_addresses", origin="lookups", effect="allow") >= 1
        assert value(scraped, "ram_ebpf_learned_addresses", origin="replies", effect="allow") >= 1
        assert value(scraped, "ram_ebpf_map_entries", map="learned") >= 1
        assert value(scraped, "ram_ebpf_map_max_entries", map="learned") == 8192
        assert value(scraped, "ram_ebpf_responder_state", state="off") == 1
        assert value(scraped, "process_resident_memory_bytes") > 1e7

        assert running.takes(POLICY + "metrics: { address: 10.0.0.1, port: 1 }\n")["event"] == "reload-failed"

        def is_told() -> bool:
            return value(parsed(metrics.at_port()), "ram_ebpf_policy_last_reload_successful") == 0

        assert eventually(is_told)

        assert running.takes(POLICY + "mode: audit\n" + at_socket)["event"] == "reloaded"
        assert eventually(lambda: metrics.at_port() is None)
        assert stat.S_IMODE(place.stat().st_mode) == 0o666
        tcp_connect(inside, topology.BLOCKED)
        scraped = parsed(metrics.at_socket(place))
        assert value(scraped, "ram_ebpf_policy_last_reload_successful") == 1
        assert value(scraped, "ram_ebpf_policy_reloads_total", result="failure") == 1
        assert value(scraped, "ram_ebpf_decisions_total", **denied) == refused
        would = {"reason": "denied-unknown-address", "verdict": "would-deny"}
        assert value(scraped, "ram_ebpf_decisions_total", **would) >= 1
        ((labels, _),) = [
            (dict(ls), v) for (name, ls), v in scraped.items() if name == "ram_ebpf_policy_info"
        ]
        assert labels["mode"] == "audit"
        assert re.fullmatch("[0-9a-f]{64}", labels["digest"])

        answering = POLICY.replace("refusals: { responder: off }\n", "")
        assert running.takes(answering + at_port)["event"] == "reloaded"
        assert not place.exists()

        def responder(name: str, **labels: str) -> float:
            return value(parsed(metrics.at_port()), f"ram_ebpf_responder_{name}", **labels)

        assert eventually(lambda: responder("state", state="on") == 1)
        argv = ["curl", "--silent", "--insecure", f"http://{topology.BLOCKED}/v2/x/manifests/y"]
        assert "blocked" in lab.client.run(argv, cgroup=scope).stdout
        assert eventually(lambda: responder("connections_total", result="answered") >= 1)
        said = [line["event"] for line in daemon.lines() if "metrics" in line["event"]]
        assert said == ["metrics", "metrics", "metrics"]
