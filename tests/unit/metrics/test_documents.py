"""docs/metrics.md, the dashboard and the alert rules name metrics that there are, and the table names all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ram_ebpf.metrics.catalogue import BY_NAME, LIBRARY_METRICS, METRICS, Kind

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
MONITORING = ROOT / "examples/monitoring"
RULES = yaml.safe_load((MONITORING / "ram-ebpf.rules.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((MONITORING / "ram-ebpf.dashboard.json").read_text(encoding="utf-8"))
# Prometheus' own, about each scrape.
_PROMETHEUS = {"up"}
_NAMES = re.compile(r"\b(?:ram_ebpf|process)_[a-z0-9_]+\b")
# A selector, and what is asked of which label in it.
_SELECTOR = re.compile(r"\b((?:ram_ebpf|process)_[a-z0-9_]+)\{([^}]*)\}")
_MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
_BY = re.compile(r"\b(?:by|without) \(([a-z_, ]*)\)")
_OF_TARGETS = {"instance", "job"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


QUERIES = [*(rule["expr"] for rule in rules()), *dashboard_queries()]


def rows() -> dict[str, list[str]]:
    """The cells of each line of the table, by the name of its metric."""
    lines = [line for line in DOCUMENT.splitlines() if line.startswith("| `ram_ebpf_")]
    return {cells[0].strip("`"): cells[1:] for line in lines if (cells := line.strip("| ").split(" | "))}


def test_the_table_has_each_metric_once() -> None:
    assert list(rows()) == [metric.name for metric in METRICS]
    assert DOCUMENT.count("| `ram_ebpf_") == len(METRICS)
    for name in LIBRARY_METRICS:
        assert f"`{name}`" in DOCUMENT


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_table_has_type_and_labels(metric: Any) -> None:
    kind, labels, *text = rows()[metric.name] if metric.labels else [*rows()[metric.name][:1], "", "x"]
    assert kind == metric.kind.value
    parts = [part.split("`")[1] for part in labels.split("; ") if part]
    assert tuple(parts) == metric.labels
    assert text


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Any) -> None:
    assert re.fullmatch(r"ram_ebpf_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)
    assert metric.help.endswith(".")
    assert not {"instance", "job", "le", "quantile"} & set(metric.labels)


def test_there_are_queries() -> None:
    assert len(rules()) > 10
    assert len(list(dashboard_queries())) > 20


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_asked_for_exists(query: str) -> None:
    names = set(_NAMES.findall(query))
    assert names or "up{" in query
    assert names <= set(BY_NAME) | set(LIBRARY_METRICS)
    for name, matchers in _SELECTOR.findall(query):
        known = set(BY_NAME[name].labels) if name in BY_NAME else set()
        assert set(_MATCHER.findall(matchers)) <= known | _OF_TARGETS, name
    labels = {label for name in names & set(BY_NAME) for label in BY_NAME[name].labels}
    for group in _BY.findall(query):
        assert {label.strip() for label in group.split(",")} <= labels | _OF_TARGETS


def test_each_metric_is_shown() -> None:
    shown = {name for query in QUERIES for name in _NAMES.findall(query)}
    left_out = set(BY_NAME) - shown
    assert left_out == {"ram_ebpf_policy_last_reload_timestamp_seconds"}


def test_alerts_are_complete() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        labels = set(re.findall(r"\$labels\.([a-z_]+)", json.dumps(rule["annotations"])))
        known = {label for name in _NAMES.findall(rule["expr"]) for label in _labels_of(name)}
        assert labels <= known | _OF_TARGETS


def _labels_of(name: str) -> tuple[str, ...]:
    return BY_NAME[name].labels if name in BY_NAME else ()


def test_the_dashboard_can_be_imported() -> None:
    """Any data source, and no two panels in one place."""
    (source,) = [item for item in DASHBOARD["templating"]["list"] if item["type"] == "datasource"]
    assert (source["name"], source["query"]) == ("datasource", "prometheus")
    used = re.findall(r'"uid": "([^"]*)"', json.dumps({**DASHBOARD, "uid": ""}))
    assert {uid for uid in used if uid} == {"${datasource}"}
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]
