"""What is printed, the JSON, the exit status, and that docs/doctor.md explains each check."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf import __version__
from ram_ebpf.cli import doctor
from ram_ebpf.cli.main import main
from ram_ebpf.doctor import examination
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.examination import EXAMINATIONS, Examination, examine
from ram_ebpf.doctor.finding import Check, Finding, Status, failure, unchecked, warning, well

from .cases import POLICY, case_of

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "doctor.md"
WELL = well(Check.JIT, "programs run as machine code")
WARNING = warning(Check.RESOLVER, "192.0.2.53 is slow", "take another one", "192.0.2.53")
FAILURE = failure(Check.CGROUPS, "not mounted", "mount them")


def test_one_line_each_and_the_cure_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.show_lines(case_of(POLICY), [WELL, WARNING, FAILURE]) == 1
    assert capsys.readouterr().out == (
        "ok       jit                 programs run as machine code\n"
        "warning  resolver            192.0.2.53 is slow\n"
        "                             -> take another one\n"
        "failure  cgroups             not mounted\n"
        "                             -> mount them\n"
        "\n"
        "1 failure, 1 warning, 1 ok; docs/doctor.md explains each\n"
    )


def test_what_was_not_checked_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.show_lines(case_of(POLICY), [WELL, unchecked(Check.MAPS), unchecked(Check.PINS)]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "warning  not checked         maps, pins",
        "                             -> run it as root: sudo ram-ebpf doctor",
    ]


def test_on_a_terminal_lines_are_as_wide_as_it() -> None:
    finding = warning(Check.RESOLVER, "word " * 40, "cure " * 40)
    lines = list(doctor.lines_of(finding, 80))
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(" " * 29) for line in lines[1:])
    assert len(list(doctor.lines_of(finding, None))) == 2


def test_nothing_that_a_terminal_obeys() -> None:
    (line,) = doctor.lines_of(well(Check.ENGINE, "evil\x1b[2J\nname"), None)
    assert line.endswith("evil\ufffd[2J\ufffdname")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    case = case_of(POLICY)
    assert doctor.show_json(case, [WELL, WARNING, unchecked(Check.PINS)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown.pop("time"))
    assert shown == {
        "format": 1,
        "version": __version__,
        "root": case.is_root,
        "policy": "policy.yaml",
        "summary": {"ok": 1, "warning": 2, "failure": 0},
        "findings": [
            {"check": "jit", "status": "ok", "subject": None, "title": "programs run as machine code",
             "cure": None, "checked": True},
            {
                "check": "resolver",
                "status": "warning",
                "subject": "192.0.2.53",
                "title": "192.0.2.53 is slow",
                "cure": "take another one",
                "checked": True,
            },
            {
                "check": "pins",
                "status": "warning",
                "subject": None,
                "title": "not checked, as that takes root",
                "cure": "run it as root: sudo ram-ebpf doctor",
                "checked": False,
            },
        ],
    }  # fmt: skip
    assert doctor.show_json(case, [FAILURE]) == 1


@pytest.mark.parametrize(
    "words", [["--nonsense"], ["policy.yaml"], ["--policy"], ["--cgroup-root", "/nonexistent/x"]]
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["doctor", *words]))
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, bool(shown.err)) == ("", True)


# --- all examinations


def test_each_check_has_one_examination() -> None:
    assert [check for item in EXAMINATIONS for check in item.checks] == list(Check)


def test_without_root_it_says_what_it_does_not_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(case: Case) -> Iterator[Finding]:
        raise AssertionError

    looks = (Examination(look, (Check.PINS, Check.MAPS), for_root=True),)
    monkeypatch.setattr(examination, "EXAMINATIONS", looks)
    case = case_of(POLICY)
    case.is_root = False
    assert [(item.check, item.checked) for item in examine(case)] == [
        (Check.PINS, False),
        (Check.MAPS, False),
    ]


def test_a_surprise_is_a_finding_and_the_others_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(case: Case) -> Iterator[Finding]:
        yield WELL
        raise RuntimeError("the moon is full")

    def next_one(case: Case) -> Iterator[Finding]:
        yield WARNING

    looks = (Examination(surprise, (Check.JIT,)), Examination(next_one, (Check.RESOLVER,), of_policy=True))
    monkeypatch.setattr(examination, "EXAMINATIONS", looks)
    first, second, third = examine(case_of(POLICY))
    assert (first, third) == (WELL, WARNING)
    assert second.status is Status.FAILURE
    assert second.title == "could not be looked at: the moon is full"


def test_what_depends_on_a_policy_that_is_wrong_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def look(case: Case) -> Iterator[Finding]:
        raise AssertionError

    monkeypatch.setattr(examination, "EXAMINATIONS", (Examination(look, (Check.NAME,), of_policy=True),))
    assert list(examine(Case.of(str(tmp_path / "none.yaml")))) == []


# --- the document


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    parts = re.split(r"^### `?([a-z-]+)`?$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert len(found) == len(parts) // 2, "a check has two sections"
    return {name: re.split(r"^#", text, flags=re.MULTILINE)[0].strip() for name, text in found.items()}


def test_each_check_has_a_section_and_each_section_a_check(sections: dict[str, str]) -> None:
    assert list(sections) == [check.value for check in Check], "they stand in the order of the output"


def test_each_section_says_what_it_means_and_what_to_do(sections: dict[str, str]) -> None:
    short = [name for name, text in sections.items() if len(re.findall(r"[.;](?=\s|$)", text)) < 2]
    assert not short


def test_schema_in_the_document() -> None:
    """The example has the keys that the JSON has."""
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    example = json.loads(block)
    real = doctor.report(case_of(POLICY), [WARNING])
    assert example.keys() == real.keys()
    assert example["findings"][0].keys() == real["findings"][0].keys()
    assert example["summary"].keys() == real["summary"].keys()
