"""`export:`, where lines of the log are sent to as well."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.export import ExportOptions
from ram_ebpf.policy.loader import default_policy, parse_policy

HEAD = "version: 1\nregistries: [docker-hub]\n"


def export(text: str) -> ExportOptions:
    return parse_policy(f"{HEAD}export: {text}\n".encode(), "p.yaml").export


def test_default() -> None:
    assert default_policy().export.all == export("{}").all == ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{ syslog: { unix: /dev/log } }", "syslog at /dev/log"),
        ("{ syslog: { udp: 10.0.0.9 } }", "syslog at 10.0.0.9 port 514 (udp)"),
        ("{ syslog: { tcp: Logs.Corp.example. } }", "syslog at logs.corp.example port 601 (tcp)"),
        ("{ syslog: { tcp: '2001:db8::9', port: 6514 } }", "syslog at 2001:db8::9 port 6514 (tcp)"),
        ("{ otlp: { endpoint: 'http://[::1]:4318/v1/logs' } }", "otlp at http://[::1]:4318/v1/logs"),
        ("{ otlp: { endpoint: https://c.example } }", "otlp at https://c.example"),
    ],
)
def test_receivers(text: str, shown: str) -> None:
    assert [str(item) for item in export(text).all] == [shown]


def test_both() -> None:
    both = export("{ syslog: { unix: /dev/log }, otlp: { endpoint: http://c.example } }")
    assert len(both.all) == 2


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("on", "3: export: 'on' where a mapping belongs, write export: { syslog: { unix: /dev/log } }"),
        ("{ sylog: {} }", "3: export.sylog: 'sylog' is not a known key, did you mean syslog?"),
        (
            "{ syslog: {} }",
            "3: export.syslog: it is not said by what, write one of unix: /dev/log",
        ),
        ("{ syslog: { udp: a.b, tcp: a.b } }", "3: export.syslog: it is not said by what"),
        (
            "{ syslog: { unix: /dev/log, port: 5 } }",
            "3: export.syslog: a Unix socket has no port, remove",
        ),
        (
            "{ syslog: { unix: dev/log } }",
            "3: export.syslog.unix: 'dev/log' is not an absolute path",
        ),
        ("{ syslog: { udp: '*.corp.example' } }", "3: export.syslog.udp: '*.corp.example' has a wildcard"),
        (
            "{ syslog: { udp: 'a.b:514' } }",
            "export.syslog.udp: 'a.b:514' is no host name and no address, write a",
        ),
        (
            "{ syslog: { udp: 514 } }",
            "3: export.syslog.udp: the number 514 where a receiver belongs",
        ),
        ("{ syslog: { udp: a.b, port: 0 } }", "3: export.syslog.port: the number 0 is not a port"),
        ("{ syslog: { udp: a.b, host: c } }", "3: export.syslog.host: 'host' is not a known key"),
        ("{ syslog: /dev/log }", "'/dev/log' where a mapping belongs, write syslog: { unix: /dev/log }"),
        ("{ otlp: {} }", "3: export.otlp: endpoint is missing, write endpoint: http://10.0.0.9:4318/v1/logs"),
        (
            "{ otlp: { endpoint: 10.0.0.9 } }",
            "3: export.otlp.endpoint: '10.0.0.9' is not a URL",
        ),
        ("{ otlp: { endpoint: 'http://a:b@c/' } }", "is not a URL"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        export(text)
    assert error in str(caught.value)
