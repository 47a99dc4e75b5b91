"""Who may ask a running instance, over a real socket."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon.control import ControlSocket, ask_all
from tests.unit.instance import replying

NOBODY, GROUP, OTHERS = 65534, 4242, 4243


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlSocket]:
    for parent in list(tmp_path.parents)[:3]:
        with contextlib.suppress(PermissionError):
            parent.chmod(0o755)
    with replying(tmp_path, lambda request: {"answer": request["verb"]}) as control:
        yield control


def asked_by(directory: Path, verb: str, user: int, group: int, *groups: int) -> str:
    """What somebody is told, who is another process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
            (answer,) = ask_all({"verb": verb}, directory)
            said = str(answer.get("answer") or answer["error"])
        except Exception as error:
            said = type(error).__name__
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


ROOT: tuple[Any, ...] = (0, 0)
MEMBER: tuple[Any, ...] = (NOBODY, OTHERS, GROUP)
FIRST_GROUP: tuple[Any, ...] = (NOBODY, GROUP)
STRANGER: tuple[Any, ...] = (NOBODY, OTHERS, OTHERS)


def test_root_alone(control: ControlSocket, tmp_path: Path) -> None:
    assert asked_by(tmp_path, "status", *ROOT) == "status"
    for who in (MEMBER, FIRST_GROUP, STRANGER):
        assert asked_by(tmp_path, "status", *who) == "PermissionError"


def test_group(control: ControlSocket, tmp_path: Path) -> None:
    """Its members may ask, and change nothing."""
    control.admit(GROUP)
    for who in (ROOT, MEMBER, FIRST_GROUP):
        assert asked_by(tmp_path, "status", *who) == "status"
    assert asked_by(tmp_path, "status", *STRANGER) == "only root may ask"
    assert asked_by(tmp_path, "reload", *ROOT) == "reload"
    assert asked_by(tmp_path, "reload", *MEMBER) == "only root may ask for that"
    control.admit(None)
    assert asked_by(tmp_path, "status", *MEMBER) == "PermissionError"
    assert asked_by(tmp_path, "status", *ROOT) == "status"
