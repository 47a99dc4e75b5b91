"""The organisation's authority: its key, its limits, and what it signs."""

from __future__ import annotations

import ssl
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ram_ebpf.responder import authority, certificates
from ram_ebpf.responder.authority import Authority, AuthorityError
from ram_ebpf.responder.tls import Tls, context


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return authority.create(tmp_path / "ca", "acme", ["docker.io", "ghcr.io"], 100)


def test_it_comes_back(made: Authority, tmp_path: Path) -> None:
    loaded = authority.load(tmp_path / "ca")
    assert loaded is not None
    assert loaded.certificate == made.certificate
    assert loaded.key.private_numbers() == made.key.private_numbers()
    assert authority.load_certificate(tmp_path / "ca") == made.certificate
    assert authority.load(tmp_path / "none") is None


def test_who_may_read_it(made: Authority, tmp_path: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ca").iterdir()}
    assert modes == {"ca.key": 0o600, "ca.crt": 0o644}
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


@pytest.mark.parametrize("left", ["ca.key", "ca.crt"])
def test_nothing_is_overwritten(made: Authority, tmp_path: Path, left: str) -> None:
    before = (tmp_path / "ca" / left).read_bytes()
    for name in {"ca.key", "ca.crt"} - {left}:
        (tmp_path / "ca" / name).unlink()
    with pytest.raises(AuthorityError, match="is there already"):
        authority.create(tmp_path / "ca", None, [], 100)
    assert (tmp_path / "ca" / left).read_bytes() == before


def test_its_limits(made: Authority) -> None:
    found = made.certificate.extensions
    constraints = found.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    names = found.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert names.value.permitted_subtrees is None
    assert sorted(str(item.value) for item in names.value.excluded_subtrees or ()) == [
        "0.0.0.0/0",
        "::/0",
        "docker.io",
        "ghcr.io",
    ]
    assert made.excludes("docker.io")
    assert made.excludes("a.docker.io")
    assert not made.excludes("evildocker.io")
    assert not made.excludes("quay.io")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda folder: (folder / "ca.key").chmod(0o640), "read by others", id="open to a group"),
        pytest.param(lambda folder: (folder / "ca.key").unlink(), "No such file", id="no key"),
        pytest.param(lambda folder: (folder / "ca.crt").unlink(), "No such file", id="no certificate"),
        pytest.param(lambda folder: (folder / "ca.crt").write_bytes(b""), "cannot be used", id="empty"),
        pytest.param(
            lambda folder: (folder / "ca.key").write_bytes(b"x" * 99), "cannot be used", id="no PEM"
        ),
        pytest.param(
            lambda folder: (folder / "ca.key").write_bytes(certificates.key_pem(certificates.new_key())),
            "do not belong together",
            id="another key",
        ),
    ],
)
def test_what_cannot_be_used(made: Authority, tmp_path: Path, change: object, words: str) -> None:
    assert callable(change)
    change(tmp_path / "ca")
    with pytest.raises(AuthorityError, match=words):
        authority.load(tmp_path / "ca")


def test_one_that_has_expired(tmp_path: Path) -> None:
    authority.create(tmp_path / "ca", None, [], 0)
    with pytest.raises(AuthorityError, match="has expired"):
        authority.load(tmp_path / "ca")


def test_a_link_is_not_followed(made: Authority, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("ca.key", "ca.crt"):
        (tmp_path / "elsewhere" / name).symlink_to(tmp_path / "ca" / name)
    with pytest.raises(AuthorityError, match="cannot be used"):
        authority.load(tmp_path / "elsewhere")


def shake_hands(client: ssl.SSLContext, name: str, server: Tls) -> None:
    """Of a client of the standard library with our server, in memory."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    item = client.wrap_bio(incoming, outgoing, server_hostname=name)
    for _ in range(4):
        try:
            item.do_handshake()
        except ssl.SSLWantReadError:
            server.take(outgoing.read())
            incoming.write(server.outgoing())
        else:
            return
    raise AssertionError("no end")


def trusting(made: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.to_pem(made.certificate).decode("ascii"))


def serving(made: Authority, name: str) -> Tls:
    key = certificates.new_key()
    leaf = made.sign(name, key.public_key())
    return Tls(context([certificates.to_der(leaf)], certificates.key_pem(key)))


def test_clients_that_trust_it(made: Authority) -> None:
    shake_hands(trusting(made), "evil.example", serving(made, "evil.example"))


@pytest.mark.parametrize("name", ["docker.io", "registry-1.docker.io"])
def test_clients_keep_its_limits(made: Authority, name: str) -> None:
    """Whoever has stolen the key has no certificate for what the policy allows."""
    with pytest.raises(ssl.SSLCertVerificationError, match="excluded subtree"):
        shake_hands(trusting(made), name, serving(made, name))


def test_certificates_last_for_minutes(made: Authority) -> None:
    leaf = made.sign("evil.example", certificates.new_key().public_key())
    assert timedelta() < certificates.end_of(leaf) - datetime.now(timezone.utc) <= timedelta(minutes=15)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["evil.example"]


def test_the_message_is_the_only_name() -> None:
    key = certificates.new_key()
    shown = certificates.message_certificate("blocked.acme.example", "ö" * 100, key)
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [item.value for item in names] == ["blocked.acme.example"]
    assert shown.issuer == shown.subject
    key.public_key().verify(shown.signature, shown.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
