"""What is on the host itself: a registry at localhost:5000 and a proxy, by real ones of each."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.adversarial.field import governed, wait_line

from . import ports, programs, storage
from .image import hello
from .lab import Lab
from .processes import Finished

pytestmark = pytest.mark.root

REGISTRY, PROXY = 5000, 8888
POLICY = f"""\
version: 1
refusals:
  responder: off
resolvers: [{Lab.resolver}]
registries:
  - host: allowed.registry.test
    private: true
"""
LOCAL = """\
  - address: 127.0.0.1
    ports: [PORT]
"""


@pytest.fixture(scope="module")
def registry(lab: Lab) -> Iterator[None]:
    """In clear text, on the client's own loopback interface, outside the scope."""
    directory = lab.client.directory / "local-registry"
    directory.mkdir()
    storage.add(directory / "storage", "lab/hello", "1", hello())
    config = directory / "config.yml"
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "warn"},
                "storage": {
                    "filesystem": {"rootdirectory": str(directory / "storage")},
                    "maintenance": {"uploadpurging": {"enabled": False}},
                },
                "http": {"addr": f"127.0.0.1:{REGISTRY}", "secret": "lab", "draintimeout": "10ms"},
            }
        ),
        encoding="utf-8",
    )
    with (directory / "log").open("w", encoding="utf-8") as log:
        server = lab.client.popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        ports.wait_open(server, lab.client.namespace, REGISTRY, ("tcp",), directory / "log")
        yield
    finally:
        lab.client.stop(server)


@pytest.fixture(scope="module")
def proxy(lab: Lab) -> Iterator[None]:
    directory = lab.client.directory / "proxy"
    directory.mkdir()
    config = directory / "tinyproxy.conf"
    config.write_text(
        f"Port {PROXY}\nListen 127.0.0.1\nTimeout 30\nMaxClients 20\nConnectPort 443\n"
        f'PidFile "{directory}/pid"\nLogFile "{directory}/log"\n',
        encoding="utf-8",
    )
    server = lab.client.popen(
        [programs.find("tinyproxy"), "-d", "-c", str(config)], stdout=subprocess.DEVNULL
    )
    try:
        ports.wait_open(server, lab.client.namespace, PROXY, ("tcp",), directory / "log")
        yield
    finally:
        lab.client.stop(server)


def pull(lab: Lab, reference: str, *options: str, **env: str) -> Finished:
    target = lab.client.directory / "pulled"
    words = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        *options,
        f"docker://{reference}",
        f"dir:{target}",
    ]
    return lab.client.run(words, env=env)


def test_registry_on_this_host(lab: Lab, registry: None) -> None:
    reference = f"localhost:{REGISTRY}/lab/hello:1"
    clear = "--src-tls-verify=false"
    pull(lab, reference, clear).check()  # it works where nothing is governed
    with governed(lab, POLICY) as daemon:
        start = len(daemon.lines())
        refused = pull(lab, reference, clear)
        assert "operation not permitted" in refused.stderr
        line = wait_line(daemon, start, lambda line: line.get("address") == "127.0.0.1", "the refusal")
        assert (line["event"], line["port"]) == ("denied", REGISTRY)
    with governed(lab, POLICY + LOCAL.replace("PORT", str(REGISTRY))):
        pull(lab, reference, clear).check()


PROXIES = f"""\
proxies:
  - address: 127.0.0.1
    ports: [{PROXY}]
"""


def test_proxy_of_the_policy(lab: Lab, proxy: None) -> None:
    """It is outside the scope: what it is asked for is judged by what it is asked with."""
    proxied = {"HTTPS_PROXY": f"http://127.0.0.1:{PROXY}"}
    with governed(lab, POLICY + PROXIES) as daemon:
        pull(lab, f"allowed.registry.test/{lab.image_name}", **proxied).check()
        start, before = len(daemon.lines()), time.monotonic()
        refused = pull(lab, f"blocked.registry.test/{lab.image_name}", "--retry-times=0", **proxied)
        assert refused.returncode != 0
        assert time.monotonic() - before < 2
        line = wait_line(daemon, start, lambda line: line.get("reason") == "name-mismatch", "the refusal")
        assert (line["event"], line["name"], line["port"]) == ("denied", "blocked.registry.test", PROXY)
        # In clear text, the next request on the same connection could be for another one.
        start = len(daemon.lines())
        clear = lab.client.run(
            ["curl", "-sS", "-m", "5", "-x", proxied["HTTPS_PROXY"], "http://allowed.registry.test/v2/"]
        )
        assert clear.returncode != 0
        wait_line(daemon, start, lambda line: line.get("reason") == "denied-not-named", "the refusal")


def test_proxy_on_this_host(lab: Lab, proxy: None) -> None:
    """One that is listed as an address is not asked what it does for others."""
    proxied = {"HTTPS_PROXY": f"http://127.0.0.1:{PROXY}"}
    reference = f"blocked.registry.test/{lab.image_name}"
    pull(lab, reference, **proxied).check()
    with governed(lab, POLICY) as daemon:
        start = len(daemon.lines())
        refused = pull(lab, reference, **proxied)
        assert "operation not permitted" in refused.stderr
        line = wait_line(daemon, start, lambda line: line.get("address") == "127.0.0.1", "the refusal")
        assert (line["event"], line["port"]) == ("denied", PROXY)
    with governed(lab, POLICY + LOCAL.replace("PORT", str(PROXY))):
        pull(lab, reference, **proxied).check()
