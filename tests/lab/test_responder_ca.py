"""What clients print that are refused where they trust the organisation's authority."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.adversarial.field import governed

from .daemon import COMMAND, Daemon
from .lab import Lab
from .test_responder import AT_ONCE, BLOCKED, NAME, POLICY, PYTHON_NAMES, TEXT, wait_responder

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trusting(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients that trust the lab's authority and the organisation's."""
    folder = tmp_path_factory.mktemp("authority")
    policy = folder / "policy.yaml"
    # The authority excludes one name more than the policy that is in force allows.
    policy.write_text(POLICY.replace("registries:", "registries:\n  - host: other.registry.test"))
    argv = [*COMMAND, "ca", "--directory", str(folder / "ca"), "init", "--policy", str(policy)]
    made = lab.client.run(argv, cwd=_ROOT).check()
    assert "2 names that the policy allows" in made.stdout
    bundle = folder / "bundle.pem"
    bundle.write_bytes(lab.ca.read_bytes() + (folder / "ca" / "ca.crt").read_bytes())
    variables = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
    before = lab.client.env.get("RAM_EBPF_CA")
    lab.client.env["RAM_EBPF_CA"] = str(folder / "ca")
    try:
        yield dict.fromkeys(variables, str(bundle))
    finally:
        del lab.client.env["RAM_EBPF_CA"]
        assert before is None


@pytest.fixture(scope="module")
def daemon(lab: Lab, trusting: dict[str, str]) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        wait_responder(result)
        assert not [line for line in result.lines() if line["event"] == "no-authority"]
        yield result


def run(lab: Lab, trusting: dict[str, str], *argv: str) -> str:
    done = lab.client.run(list(argv), env=trusting)
    print(f"{argv[0]}: {done.seconds:.3f} s")
    assert done.seconds < AT_ONCE
    said = (done.stdout + done.stderr).strip()
    # openssl tells how long a session of TLS 1.2 could be taken up again.
    assert "timeout" not in said.lower().replace("timeout   : ", "")
    return said


def test_skopeo(lab: Lab, daemon: Daemon, trusting: dict[str, str]) -> None:
    said = run(lab, trusting, "skopeo", "inspect", f"docker://{BLOCKED}/{lab.image_name}")
    assert said.endswith(f'denied: {TEXT}"')


def test_allowed(lab: Lab, daemon: Daemon, trusting: dict[str, str]) -> None:
    run(lab, trusting, "skopeo", "inspect", f"docker://allowed.registry.test/{lab.image_name}")


def test_curl(lab: Lab, daemon: Daemon, trusting: dict[str, str]) -> None:
    said = run(lab, trusting, "curl", "-sSi", f"https://{BLOCKED}/v2/lab/hello/manifests/1")
    assert said.startswith(f"HTTP/1.1 403 {TEXT}")
    assert f'"message": "{TEXT}"' in said


def test_docker_and_containerd_see_the_phrase_at_once(
    lab: Lab, daemon: Daemon, trusting: dict[str, str]
) -> None:
    """They show nothing else; others' version check passes, or they would not show what comes behind it."""
    url = f"https://{BLOCKED}/v2/"
    docker = run(lab, trusting, "curl", "-sSi", "-A", "docker/28.5.2 go/go1.24", url)
    assert docker.startswith(f"HTTP/1.1 403 {TEXT}")
    podman = run(lab, trusting, "curl", "-sSi", "-A", "libpod/4.3.1", url)
    assert podman.startswith("HTTP/1.1 401 Unauthorized")
    login = run(lab, trusting, "curl", "-sSi", "-A", "libpod/4.3.1", "-u", "me:secret", url)
    assert login.startswith(f"HTTP/1.1 403 {TEXT}")


def test_openssl_verifies_the_chain(lab: Lab, daemon: Daemon, trusting: dict[str, str]) -> None:
    said = run(
        lab,
        trusting,
        "openssl",
        "s_client",
        "-verify_hostname",
        BLOCKED,
        "-verify_return_error",
        "-connect",
        f"{BLOCKED}:443",
        "-servername",
        BLOCKED,
    )
    assert "Verify return code: 0 (ok)" in said


def names_shown(lab: Lab, name: str, trusting: dict[str, str], **hosts: str) -> list[str]:
    done = lab.client.run([sys.executable, "-c", PYTHON_NAMES, name], env=trusting, hosts=hosts).check()
    shown = x509.load_der_x509_certificate(bytes.fromhex(done.stdout.strip()))
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(value) for value in names.get_values_for_type(x509.DNSName)]


def test_what_is_signed(lab: Lab, daemon: Daemon, trusting: dict[str, str]) -> None:
    """The name that is refused alone; nothing for one that is allowed, or that the authority excludes."""
    elsewhere = "203.0.113.201"
    assert names_shown(lab, BLOCKED, trusting) == [BLOCKED]
    assert names_shown(lab, BLOCKED.upper(), trusting) == [BLOCKED]
    for name in ("allowed.registry.test", "other.registry.test", "below.other.registry.test"):
        assert names_shown(lab, name, trusting, **{name: elsewhere}) == [NAME]


def test_the_key_is_root_only(lab: Lab, trusting: dict[str, str]) -> None:
    key = Path(lab.client.env["RAM_EBPF_CA"]) / "ca.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.stat().st_uid == os.geteuid()
    assert key.parent.stat().st_mode & 0o777 == 0o700


def test_an_authority_that_cannot_be_used(lab: Lab, trusting: dict[str, str], tmp_path: Path) -> None:
    """It is said, and the message's name tells of refusals."""
    whole = Path(lab.client.env["RAM_EBPF_CA"])
    other = lab.new_cgroup("other-client")
    (tmp_path / "ca.crt").write_bytes((whole / "ca.crt").read_bytes())
    (tmp_path / "ca.key").write_bytes((whole / "ca.key").read_bytes())
    (tmp_path / "ca.key").chmod(0o644)
    lab.client.env["RAM_EBPF_CA"] = str(tmp_path)
    try:
        with governed(lab, POLICY, scopes=[other]) as daemon:
            wait_responder(daemon)
            (line,) = [line for line in daemon.lines() if line["event"] == "no-authority"]
            assert "can be read by others" in line["explanation"]
            done = lab.client.run(
                ["skopeo", "inspect", f"docker://{BLOCKED}/{lab.image_name}"], env=trusting, cgroup=other
            )
            assert f"x509: certificate is valid for {NAME}, not {BLOCKED}" in done.stderr
    finally:
        lab.client.env["RAM_EBPF_CA"] = str(whole)
