"""Installing for this host's clients, below another root."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ram_ebpf.responder import authority
from ram_ebpf.responder.trust_store import TrustError, TrustStore


@pytest.fixture
def pem(tmp_path: Path) -> bytes:
    return authority.to_pem(authority.create(tmp_path / "ca", "acme", [], 10).certificate)


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    root = tmp_path / "root"
    for folder in ("usr/local/share/ca-certificates", "etc/ssl/certs", "etc/ca-certificates/update.d"):
        (root / folder).mkdir(parents=True)
    (root / "etc/ca-certificates.conf").touch()
    other = authority.create(tmp_path / "other", "other", [], 10).certificate
    (root / "usr/local/share/ca-certificates/other.crt").write_bytes(authority.to_pem(other))
    return TrustStore(root)


def test_it_is_installed_and_taken_away(store: TrustStore, pem: bytes) -> None:
    done = list(store.install(pem, ["ghcr.io", "quay.io:443"]))
    assert done[-1] == "ran update-ca-certificates"
    assert len(done) == 6
    bundle = store.root / "etc/ssl/certs/ca-certificates.crt"
    assert pem.strip() in bundle.read_bytes()
    for path in ("etc/docker/certs.d/ghcr.io", "etc/containers/certs.d/quay.io:443"):
        assert (store.root / path / "ram-ebpf.crt").read_bytes() == pem
    assert len(store.installed()) == 5
    assert list(store.install(pem, ["ghcr.io", "quay.io:443"])) == []
    assert list(store.uninstall())[-1] == "ran update-ca-certificates"
    assert pem.strip() not in bundle.read_bytes()
    assert not [path for path in bundle.parent.iterdir() if "ram-ebpf" in path.name]
    assert store.installed() == []
    assert not (store.root / "etc/docker/certs.d/ghcr.io").exists()
    assert list(store.uninstall()) == []


def test_what_others_have_there_stays(store: TrustStore, pem: bytes) -> None:
    others = store.root / "etc/docker/certs.d/ghcr.io/other.crt"
    others.parent.mkdir(parents=True)
    others.touch()
    list(store.install(pem, ["ghcr.io"]))
    list(store.uninstall())
    assert others.exists()


@pytest.mark.parametrize("host", ["../x", "a/b", "", ".", "a..b", "A", "-a", "a:", "a:123456"])
def test_hosts_that_are_none(store: TrustStore, pem: bytes, host: str) -> None:
    with pytest.raises(TrustError, match="is no registry"):
        list(store.install(pem, [host]))
    assert store.installed() == []


def test_no_store(store: TrustStore, pem: bytes) -> None:
    shutil.rmtree(store.directory)
    with pytest.raises(TrustError, match="install ca-certificates"):
        list(store.install(pem, []))
