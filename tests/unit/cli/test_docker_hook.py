"""What docker prints under a command that failed."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.cli import docker_hook
from ram_ebpf.cli.docker_hook import Command, explain, template
from ram_ebpf.cli.docker_ram import main

HOST, ADDRESS = "evil.example", "203.0.113.7"
# As docker 20.10 to 28.5 say it.
DIAL = f"dial tcp {ADDRESS}:443: connect: operation not permitted"
PULL = f'Error response from daemon: Get "https://{HOST}/v2/": {DIAL}'
RUN_26 = "Status: , Code: 125"
MESSAGE = "Ask platform@acme.example to allow it."
TOLD = f"Access to {HOST} is blocked by acme's registry policy: {HOST} is not in the policy."
MORE = "More: docker ram explain --last"


def refusal(age: float = 0.2, **more: Any) -> dict[str, Any]:
    when = datetime.fromtimestamp(time.time() - age, timezone.utc).isoformat(timespec="milliseconds")
    record = {
        "time": when.replace("+00:00", "Z"),
        "event": "denied",
        "reason": "denied-unknown-address",
        "host": HOST,
        "address": ADDRESS,
        "port": 443,
        "process": "dockerd",
        "explanation": f"{HOST} is not in the policy",
        "message": MESSAGE,
        **more,
    }
    return {key: value for key, value in record.items() if value is not None}


def told(
    error: str | None,
    *refusals: dict[str, Any],
    root: str = "pull",
    words: str = f"pull {HOST}/team/app",
    started: float = 1.0,
    organization: str | None = "acme",
) -> list[str]:
    data = {"RootCmd": root, "Flags": {}} | ({} if error is None else {"CommandError": error})
    answers = [{"instance": 7, "refusals": list(refusals), "noted": 1, "organization": organization}]
    return explain(json.dumps(data), Command(words.split(), time.time() - started), lambda request: answers)


def test_pull() -> None:
    assert told(PULL, refusal()) == [TOLD, MESSAGE, MORE]


def test_hint() -> None:
    assert told(PULL, refusal(hint="it may be where its blobs are"))[2] == "it may be where its blobs are"


def test_without_an_organisation_and_a_message() -> None:
    lines = told(PULL, refusal(message=None), organization=None)
    assert lines == [TOLD.replace("acme's", "this host's"), MORE]


@pytest.mark.parametrize(
    ("words", "host"),
    [
        ("run --rm -v /a:/b evil.example/team/app:1 sh -c x", "evil.example"),
        ("run nginx", "registry-1.docker.io"),
        ("run nginx", "auth.docker.io"),
        ("--context other run evil.example:5000/app@sha256:" + "a" * 64, "evil.example"),
    ],
)
def test_command_whose_error_names_nobody(words: str, host: str) -> None:
    """docker 26.1 does not pass on what `run` has printed itself."""
    assert told(RUN_26, refusal(host=host), root="run", words=words)


def test_registry_by_address() -> None:
    assert told(RUN_26, refusal(host=None), words=f"run {ADDRESS}:5000/app")
    assert told(f"Get https://{ADDRESS}/v2/: EPERM", refusal(host=None), words="pull app")
    assert told("Get https://[2001:db8::7]/v2/", refusal(host=None, address="2001:db8::7"), words="")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"host": "other.example", "address": "203.0.113.8"}, f"run {HOST}/app"),
        ({"host": "registry-1.docker.io", "address": "203.0.113.8"}, f"run {HOST}/app nginx"),
        ({"host": f"not-{HOST}", "address": "203.0.113.8"}, f"run {HOST}/app"),
        ({"host": HOST, "event": "would-deny"}, f"run {HOST}/app"),
        ({"host": HOST, "method": "POST"}, f"run {HOST}/app"),  # the authorization plugin: docker prints it
        ({"host": HOST, "age": 3.0}, f"run {HOST}/app"),  # from before the command
    ],
)
def test_refusal_of_something_else(record: dict[str, Any], words: str) -> None:
    assert told(RUN_26, refusal(**record), words=words) == []


def test_refusal_that_is_too_old() -> None:
    assert told(PULL, refusal(age=70), started=600) == []
    assert told(PULL, refusal(age=50), started=600)


def test_line_that_was_held_back_as_like_one_before() -> None:
    assert told(PULL, refusal(age=1.1), started=0.2)


@pytest.mark.parametrize("error", [None, ""])
def test_command_that_did_not_fail(error: str | None) -> None:
    assert told(error, refusal()) == []


def test_what_the_engine_has_said_already() -> None:
    """As behind the refusal responder, where clients trust the organisation's authority."""
    assert told(f"{PULL}: denied: {MESSAGE}", refusal()) == []


def test_build() -> None:
    """buildx tells docker nothing but that it has failed."""
    build = {"root": "buildx build", "words": "buildx build ."}
    for process in ("dockerd", "buildkitd"):
        assert told("exited with code 1", refusal(process=process), **build)  # type: ignore[arg-type]
    assert told("exited with code 1", refusal(process="curl"), **build) == []  # type: ignore[arg-type]


def test_several() -> None:
    hosts = [f"h{number}.example" for number in range(6)]
    records = [refusal(host=host, explanation=f"{host} is not in the policy") for host in hosts]
    lines = told(
        " ".join(hosts), *records, refusal(host="h0.example", explanation="h0.example is not in the policy")
    )
    assert [line.split()[2] for line in lines[:3]] == hosts[:3]
    assert lines[3:] == [MESSAGE, MORE]


def test_what_the_error_names_is_told_alone() -> None:
    other = refusal(host="other.example", address="203.0.113.8", explanation="other")
    told_of = told(PULL, other, refusal(), root="build", words="build -t other.example/app .")
    assert told_of == [TOLD, MESSAGE, MORE]


def test_no_more_lines_than_docker_prints() -> None:
    records = [refusal(host=f"h{n}.x", message=f"m{n}", hint=f"n{n}", explanation=str(n)) for n in range(50)]
    lines = told(" ".join(str(record["host"]) for record in records), *records)
    assert len(lines) <= 10  # docker/cli, maxMessages


def test_refusal_that_comes_late() -> None:
    answers: list[list[dict[str, Any]]] = [[{"refusals": []}], [{"refusals": [refusal()]}]]
    assert explain(
        json.dumps({"CommandError": PULL}), Command([], time.time()), lambda request: answers.pop(0)
    )


def test_template_is_the_text() -> None:
    text = template(["{{.Name}} {{{x}}} }}", "a\x1b[31mb\u202ec\nd\x9b", "x" * 1000])
    first, second, third = text.split("\n")
    assert first == '{{"{{"}}.Name}} {{"{{"}}{x}}} }}'
    assert second == "a\ufffd[31mb\ufffdc\ufffdd\ufffd"
    assert len(third) == 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"x"',
        "{}",
        '{"CommandError": 7}',
        '{"CommandError": null}',
        '{"CommandError": ["x"], "RootCmd": {}}',
        "[" * 60000,
        '{"CommandError": "' + "x" * 70000 + '"}',
        '{"CommandError": "\\ud800\\u0000"}',
    ],
)
def test_odd_input(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(docker_hook, "_ask", lambda request: [{"refusals": [refusal()]}, {"error": "x"}])
    assert main(["ram", "docker-cli-plugin-hooks", text]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"Type": 0, "Template": ""}
    assert shown.err == ""


def test_no_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ram", "docker-cli-plugin-hooks"]) == 0
    assert json.loads(capsys.readouterr().out) == {"Type": 0, "Template": ""}


@pytest.mark.parametrize(
    "answer", [[], [{"error": "only root may ask"}], [{"refusals": [{}]}], [{"refusals": 7}], None]
)
def test_odd_answer(answer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(docker_hook, "_ask", lambda request: answer)
    assert docker_hook.main(json.dumps({"CommandError": PULL})) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"Type": 0, "Template": ""}
    assert shown.err == ""


def test_daemon_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docker_hook, "_ask", lambda request: time.sleep(10))
    began = time.monotonic()
    assert docker_hook.main(json.dumps({"CommandError": PULL})) == 0
    assert time.monotonic() - began < 1.0
    assert json.loads(capsys.readouterr().out) == {"Type": 0, "Template": ""}


def test_who_called() -> None:
    """This process stands for docker's."""
    command = docker_hook._caller(os.getpid())
    assert list(command.words) == Path("/proc/self/cmdline").read_text().split("\0")[1:]
    assert 0 < time.time() - command.since < 3600
