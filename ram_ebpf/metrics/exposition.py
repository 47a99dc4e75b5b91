"""From samples to the text that Prometheus reads. All of the format is the client library's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from ram_ebpf.metrics.catalogue import BY_NAME, METRICS, Kind, Metric
from ram_ebpf.metrics.sample import Sample

_process = ProcessCollector(registry=None)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    if metric.kind is Kind.INFO:
        info = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
        for sample in samples:
            info.add_metric([], dict(zip(metric.labels, sample.labels, strict=True)))
        return info
    made: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        made = CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
    else:
        made = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for sample in samples:
        made.add_metric(sample.labels, sample.value)
    return made


class _Samples(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {metric.name: [] for metric in METRICS}
        for sample in samples:
            assert len(sample.labels) == len(BY_NAME[sample.name].labels), sample
            self._by_name[sample.name].append(sample)

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if self._by_name[metric.name]:
                yield _family(metric, self._by_name[metric.name])
        yield from _process.collect()


def expose(samples: Iterable[Sample], accept: str) -> tuple[str, bytes]:
    """The media type and the text, in the format that the header Accept of a request asks for."""
    registry = CollectorRegistry()
    registry.register(_Samples(samples))
    encode, media_type = choose_encoder(accept)
    return media_type, encode(registry)
