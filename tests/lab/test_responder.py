"""What clients print that are refused, with the responder and without any certificate installed."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import governed, wait_denied, wait_line

from . import topology
from .daemon import Daemon
from .lab import Lab
from .processes import Finished

BLOCKED = "blocked.registry.test"
NAME = "blocked-by-registry-access-policy.ask-platform.acme.example"
TEXT = (
    f"Access to {BLOCKED} is blocked by acme's registry policy (rule: none). "
    "Ask platform@acme.example to allow it."
)
POLICY = f"""\
version: 1
organization: acme
message: Ask platform@acme.example to allow it.
registries:
  - host: allowed.registry.test
    private: true
refusals:
  responder: on
resolvers: [{Lab.resolver}]
"""
AT_ONCE = 10.0  # seconds, for a slow guest too; the aim is 0.3, and a silent drop takes 15 and more
READY = 90.0  # seconds until the responder's process runs, in a slow guest

PYTHON = """\
import socket, ssl, sys
context = ssl.create_default_context()
with socket.create_connection((sys.argv[1], 443)) as item:
    context.wrap_socket(item, server_hostname=sys.argv[1])
"""
# As its own check would say it, were it first: what the certificate is valid for.
PYTHON_NAMES = """\
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with socket.create_connection((sys.argv[1], 443)) as item:
    with context.wrap_socket(item, server_hostname=sys.argv[1]) as tls:
        print(tls.getpeercert(True).hex())
"""


def wait_responder(daemon: Daemon) -> None:
    daemon.wait(lambda lines: any(line["event"] == "responder" for line in lines), READY)


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        wait_responder(result)
        yield result


def check(lab: Lab, daemon: Daemon, argv: list[str], last: str, status: int | None = None) -> Finished:
    """A command that fails at once, with this at the end of what it prints, and reaches nobody."""
    start = len(daemon.lines())
    connections = lab.blocked.counters()["Tcp.PassiveOpens"]
    done = lab.client.run(argv)
    print(f"{argv[0]}: {done.seconds:.3f} s")
    said = (done.stdout + done.stderr).strip()
    assert last in said.splitlines()[-1], said
    assert "timeout" not in said.lower()
    assert "timed out" not in said.lower()
    assert done.seconds < AT_ONCE
    assert not done.ok if status is None else done.returncode == status
    assert lab.blocked.counters()["Tcp.PassiveOpens"] == connections
    line = wait_line(
        daemon, start, lambda line: (line["event"], line.get("host")) == ("denied", BLOCKED), "a refusal"
    )
    assert (line["verdict"], line["reason"], line["port"]) == ("deny", "denied-unknown-address", 443)
    assert line["address"] in lab.blocked.addresses
    return done


@pytest.mark.core
def test_skopeo(lab: Lab, daemon: Daemon) -> None:
    reference = f"docker://{BLOCKED}/{lab.image_name}"
    last = f"x509: certificate is valid for {NAME}, not {BLOCKED}"
    check(lab, daemon, ["skopeo", "inspect", reference], last)


def test_skopeo_without_verification(lab: Lab, daemon: Daemon) -> None:
    reference = f"docker://{BLOCKED}/{lab.image_name}"
    check(lab, daemon, ["skopeo", "inspect", "--tls-verify=false", reference], f"denied: {TEXT}")


def test_skopeo_login(lab: Lab, daemon: Daemon) -> None:
    """Its check of the version passes, and a login is not to succeed by that."""
    argv = ["skopeo", "login", "-u", "me", "-p", "secret", "--tls-verify=false", BLOCKED]
    check(lab, daemon, argv, "invalid status code from registry 403")


def test_skopeo_push(lab: Lab, daemon: Daemon) -> None:
    source = f"docker://allowed.registry.test/{lab.image_name}"
    argv = ["skopeo", "--insecure-policy", "copy", "-q", source, f"docker://{BLOCKED}/lab/pushed:1"]
    check(lab, daemon, argv, f"x509: certificate is valid for {NAME}, not {BLOCKED}")


def test_allowed(lab: Lab, daemon: Daemon) -> None:
    lab.client.pull(f"allowed.registry.test/{lab.image_name}").check()


def test_curl(lab: Lab, daemon: Daemon) -> None:
    check(lab, daemon, ["curl", "-sS", "-o/dev/null", f"https://{BLOCKED}/v2/"], "", 60)
    done = lab.client.run(["curl", "-sS", "-o/dev/null", f"https://{BLOCKED}/v2/"])
    assert "self-signed certificate" in done.stderr


def test_curl_in_clear_text(lab: Lab, daemon: Daemon) -> None:
    url = f"http://{BLOCKED}/v2/lab/hello/manifests/1"
    start = len(daemon.lines())
    done = lab.client.run(["curl", "-sS", "-i", url]).check()
    assert done.seconds < AT_ONCE
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    assert head.splitlines()[0] == f"HTTP/1.1 403 {TEXT}"
    (error,) = json.loads(body)["errors"]
    assert (error["code"], error["message"]) == ("DENIED", TEXT)
    assert error["detail"]["host"] == BLOCKED
    assert error["detail"]["port"] == 80
    assert error["detail"]["address"] in lab.blocked.addresses
    wait_denied(daemon, start, error["detail"]["address"], 80)


def test_curl_by_address(lab: Lab, daemon: Daemon) -> None:
    """No name is asked for, so no certificate could say anything."""
    done = lab.client.run(["curl", "-sS", f"https://{topology.BLOCKED}/v2/"])
    assert done.returncode == 35
    assert "alert access denied" in done.stderr
    assert done.seconds < AT_ONCE


def test_openssl(lab: Lab, daemon: Daemon) -> None:
    argv = ["openssl", "s_client", "-connect", f"{BLOCKED}:443", "-servername", BLOCKED]
    done = lab.client.run(argv)
    assert "O = acme, CN = blocked-by-registry-access-policy" in done.stdout
    assert "self-signed certificate" in done.stdout
    assert done.seconds < AT_ONCE


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_versions_of_tls(lab: Lab, daemon: Daemon, version: str) -> None:
    argv = ["openssl", "s_client", version, "-connect", f"{BLOCKED}:443", "-servername", BLOCKED]
    assert "CN = blocked-by-registry-access-policy" in lab.client.run(argv).stdout


def test_openssl_without_a_name(lab: Lab, daemon: Daemon) -> None:
    done = lab.client.run(["openssl", "s_client", "-noservername", "-connect", f"{BLOCKED}:443"])
    assert not done.ok
    assert "access denied" in done.stderr


def test_python(lab: Lab, daemon: Daemon) -> None:
    last = "certificate verify failed: self-signed certificate"
    check(lab, daemon, [sys.executable, "-c", PYTHON, BLOCKED], last)


def test_the_certificate(lab: Lab, daemon: Daemon) -> None:
    from cryptography import x509

    done = lab.client.run([sys.executable, "-c", PYTHON_NAMES, BLOCKED]).check()
    shown = x509.load_der_x509_certificate(bytes.fromhex(done.stdout.strip()))
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert shown.issuer == shown.subject
    assert not shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_name_that_is_allowed(lab: Lab, daemon: Daemon) -> None:
    """At an address that nobody trusted gave for it: the policy is not what stands in the way."""
    url = "http://allowed.registry.test/v2/"
    done = lab.client.run(["curl", "-sS", url], hosts={"allowed.registry.test": "203.0.113.200"}).check()
    message = json.loads(done.stdout)["errors"][0]["message"]
    assert message.startswith("allowed.registry.test is allowed by the registry policy (")
    assert "but not at 203.0.113.200" in message
    done = lab.client.run(["curl", "-sS", "http://allowed.registry.test/v2/"]).check()
    assert "but not on port 80" in done.stdout


@pytest.mark.core
def test_what_is_not_tcp(lab: Lab, daemon: Daemon) -> None:
    with Actor(lab.client, lab.client_cgroup) as inside:
        for address in (topology.BLOCKED, topology.BLOCKED_V6):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with pytest.raises(PermissionError):
                inside.socket(family, socket.SOCK_DGRAM).connect((address, 443))
            with pytest.raises(PermissionError):
                inside.socket(family, socket.SOCK_STREAM).connect((address, 22))
