"""Lines as OpenTelemetry's logs, over HTTP, by its own SDK. Only who exports so needs that, and loads it."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from ram_ebpf import __version__
from ram_ebpf.daemon.fields import priority_of
from ram_ebpf.daemon.records import human_line
from ram_ebpf.policy.enforced import OtlpLike
from ram_ebpf.printable import printable

_PATIENCE = 5.0  # seconds, with what the SDK tries again in that time
_PREFIX = "ram_ebpf."
# By the priorities of syslog(3); as the data model of OpenTelemetry's logs maps them.
_SEVERITIES = {
    4: SeverityNumber.WARN,
    5: SeverityNumber.INFO2,
    6: SeverityNumber.INFO,
    7: SeverityNumber.DEBUG,
}


class _LastWords(logging.Handler):
    """What the SDK would print of an export that fails, which is said by us, now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class _Collector(LogRecordProcessor):
    """Keeps what is emitted until it is exported: the queue is ours, which counts what it drops."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self.batch: list[ReadableLogRecord] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.batch.append(
            ReadableLogRecord(
                log_record=log_record.log_record,
                resource=self._resource,
                instrumentation_scope=log_record.instrumentation_scope,
            )
        )

    def shutdown(self) -> None:
        self.batch.clear()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class OtlpSink:
    """A collector. One thread calls this."""

    def __init__(self, options: OtlpLike) -> None:
        """Connects to nobody yet."""
        self.unsendable = 0
        self._words = _LastWords()
        log = logging.getLogger("opentelemetry")
        log.handlers[:] = [self._words]
        log.propagate = False
        self._exporter = OTLPLogExporter(endpoint=options.endpoint, timeout=_PATIENCE)
        about = {"service.name": "ram-ebpf", "service.version": __version__}
        about["host.name"] = socket.gethostname()
        resource = Resource.create(about)
        self._collector = _Collector(resource)
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(self._collector)
        self._logger = provider.get_logger("ram_ebpf", __version__)

    def send(self, records: Sequence[Mapping[str, Any]]) -> int:
        """Returns how many were sent, which is all. Raises OSError where the collector does not take them."""
        self._collector.batch.clear()
        for record in records:
            event = str(record["event"])
            when = datetime.fromisoformat(str(record["time"]).replace("Z", "+00:00"))
            self._logger.emit(
                timestamp=int(when.timestamp() * 1000) * 1_000_000,
                severity_number=_SEVERITIES[priority_of(event)],
                body=printable(human_line(dict(record))),
                attributes={_PREFIX + key: _attribute(item) for key, item in record.items() if key != "time"},
                event_name=_PREFIX + event,
            )
        if self._exporter.export(self._collector.batch) is not LogRecordExportResult.SUCCESS:
            raise OSError(self._words.text or "it does not say why")
        return len(records)

    def close(self) -> None:
        """Gives its connections back."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _attribute(value: object) -> bool | int | float | str | list[str]:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [printable(str(item)) for item in value]
    return printable(json.dumps(value) if isinstance(value, dict) else str(value))
