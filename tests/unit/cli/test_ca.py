"""`ram-ebpf ca`: what it makes and says, and what it refuses to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509

from ram_ebpf.cli.main import main
from ram_ebpf.responder import authority

POLICY = """\
version: 1
organization: acme
registries:
  - host: a.example
  - host: b.a.example
  - host: "*.c.example"
  - host: "x-*.d.example"
denied: [e.example]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written here is one's own, which is as good as root's."""
    monkeypatch.setattr("ram_ebpf.cli.ca.os.geteuid", lambda: 0)


def test_init(tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ca"
    argv = ["ca", "--directory", str(folder), "init", "--policy", str(policy), "--days", "30"]
    assert main(argv) == 0
    assert "2 names that the policy allows" in capsys.readouterr().out
    made = authority.load_certificate(folder)
    excluded = made.extensions.get_extension_for_class(x509.NameConstraints).value.excluded_subtrees or ()
    assert [str(item.value) for item in excluded] == ["a.example", "c.example", "0.0.0.0/0", "::/0"]
    assert "acme" in made.subject.rfc4514_string()
    before = (folder / "ca.key").read_bytes()
    assert main(argv) == os.EX_CANTCREAT
    assert "is there already" in capsys.readouterr().err
    assert (folder / "ca.key").read_bytes() == before
    assert main(["ca", "--directory", str(folder), "show"]) == 0
    assert capsys.readouterr().out == authority.to_pem(made).decode("ascii")


def test_init_without_a_policy(tmp_path: Path) -> None:
    assert main(["ca", "--directory", str(tmp_path / "ca"), "init"]) == 0
    loaded = authority.load_certificate(tmp_path / "ca")
    assert authority.Authority(loaded, None).excludes("registry-1.docker.io")  # type: ignore[arg-type]


def test_a_wrong_policy(tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text("version: 2\n")
    assert main(["ca", "--directory", str(tmp_path), "init", "--policy", str(policy)]) == os.EX_CONFIG
    assert "version" in capsys.readouterr().err
    assert not (tmp_path / "ca.key").exists()


@pytest.mark.parametrize("days", ["0", "7301", "-1", "x", "1.5"])
def test_days_that_are_none(tmp_path: Path, days: str) -> None:
    with pytest.raises(SystemExit):
        main(["ca", "--directory", str(tmp_path), "init", "--days", days])


@pytest.mark.parametrize("verb", ["install", "show"])
def test_there_is_none(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ca", "--directory", str(tmp_path / "none"), verb]) == os.EX_NOINPUT
    assert "ram-ebpf ca init" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["init", "install", "uninstall"])
def test_not_root(tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.cli.ca.os.geteuid", lambda: 1000)
    assert main(["ca", "--directory", str(tmp_path / "ca"), verb]) == os.EX_NOPERM
    assert not (tmp_path / "ca").exists()
