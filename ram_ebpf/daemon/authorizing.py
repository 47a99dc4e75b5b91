"""Docker Engine's questions, answered by the policy; see docs/docker.md."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ram_ebpf.authorization.judge import Refusal, judge, record_of
from ram_ebpf.authorization.messages import ApiRequest, MessageError, answer, read_request
from ram_ebpf.authorization.server import DIRECTORY, PluginServer
from ram_ebpf.policy.choices import Engine, Mode
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.cgroup import of_process
from ram_ebpf.scopes.news import News

_MOST_WAITING = 4096
_log = logging.getLogger(__name__)

Innermost = Callable[[Path], tuple[str, Terms] | None]
"""The scope that decides for a cgroup, by its label, and what applies there."""


@dataclass(frozen=True)
class _Judging:
    """By what is judged: the policy, its rules by the registries that a scope has of its own, and what holds
    for engines that are in no scope."""

    policy: PolicyLike
    rules: Mapping[tuple[Hashable, ...], RuleSet]
    elsewhere: Terms


class Authorizing(News):
    """The plugin, and the lines that it wants to be written, which wait for the main loop.

    `answer` is called by many threads, everything else by one.
    """

    def __init__(
        self,
        policy: PolicyLike,
        made: Mapping[Terms, RuleSet],
        innermost: Innermost,
        mount: Path | None = None,
        directory: Path = DIRECTORY,
    ) -> None:
        """Serves nobody yet. `made`: the rules of judged_terms()."""
        super().__init__()
        self._innermost, self._mount, self._directory = innermost, mount, directory
        self.use(policy, made)
        self._records: collections.deque[dict[str, Any]] = collections.deque(maxlen=_MOST_WAITING)
        self._counting = threading.Lock()
        self._counters: collections.Counter[str] = collections.Counter()
        self._server: PluginServer | None = None

    def use(self, policy: PolicyLike, made: Mapping[Terms, RuleSet]) -> None:
        """Judges by another policy."""
        rules = {terms.registries: made[terms] for terms in judged_terms(policy)}
        self._judging = _Judging(policy, rules, _terms_elsewhere(policy))

    @property
    def place(self) -> Path | None:
        """Where it is served."""
        return self._server.path if self._server is not None else None

    def begin(self) -> None:
        """Serves. Raises what PluginServer raises."""
        self._server = PluginServer(self.answer, self._directory)

    def answer(self, message: bytes, pid: int) -> bytes:
        """To AuthZPlugin.AuthZReq of the engine that is this process, or 0."""
        try:
            request = read_request(message)
        except MessageError as error:
            return self._unread(str(error))
        try:
            return self._judge(request, pid)
        except Exception:  # whatever is in a request, it is not let pass for that unless all are
            _log.exception("a request to Docker's API could not be judged")
            return self._unread("the log says why")

    def _unread(self, why: str) -> bytes:
        return answer(self._audits, f"ram-ebpf could not read what the engine asked: {why}")

    @property
    def _audits(self) -> bool:
        return self._judging.policy.mode is Mode.AUDIT

    def _judge(self, request: ApiRequest, pid: int) -> bytes:
        label, terms = self._terms_of(pid)
        judging = self._judging
        rules = judging.rules.get(terms.registries, judging.rules[judging.elsewhere.registries])
        refusal = judge(request, rules, judging.policy)
        if refusal is None:
            return answer(True)
        self._note(request, refusal, label)
        return answer(self._audits, refusal.message)

    def _terms_of(self, pid: int) -> tuple[str | None, Terms]:
        cgroup = of_process(pid, self._mount) if pid > 0 else None
        found = self._innermost(cgroup) if cgroup is not None else None
        judging = self._judging
        if found is None or found[1].registries not in judging.rules:
            return None, judging.elsewhere
        return found

    def _note(self, request: ApiRequest, refusal: Refusal, label: str | None) -> None:
        with self._counting:
            self._counters[refusal.reason.value] += 1
            if len(self._records) == _MOST_WAITING:
                self._counters["unwritten"] += 1
        self._records.append(record_of(request, refusal, self._judging.policy, label))
        self.tell()

    def records(self) -> list[dict[str, Any]]:
        """Those that have come since the last call."""
        self.has_news()
        found = []
        while self._records:
            found.append(self._records.popleft())
        return found

    def lost(self) -> int:
        """How many records came too fast to be taken, since the last call."""
        with self._counting:
            return self._counters.pop("unwritten", 0)

    def counters(self) -> dict[str, int]:
        """How many requests were refused, or would have been, by reason."""
        with self._counting:
            return {name: count for name, count in sorted(self._counters.items()) if name != "unwritten"}

    def close(self) -> None:
        """Serves no longer."""
        if self._server is not None:
            self._server.close()
            self._server = None


def judged_terms(policy: PolicyLike) -> list[Terms]:
    """What applies where somebody may ask, in any scope and in none.

    What is an image's registry is known here, so there is nothing to recognise in any posture.
    """
    every = (Terms(), *(Terms.of(scope, index) for index, scope in enumerate(policy.scopes)))
    return list(dict.fromkeys(Terms(registries=terms.registries, scope=terms.scope) for terms in every))


def _terms_elsewhere(policy: PolicyLike) -> Terms:
    """For an engine that is in no governed cgroup, as where only a network device is governed."""
    for engine in (Engine.DOCKER, Engine.ALL):
        for scope in policy.scopes:
            if scope.kind == "engine" and scope.target == engine.value:
                return Terms.of(scope)
    return Terms()
