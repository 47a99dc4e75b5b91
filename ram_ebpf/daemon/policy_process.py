"""The process that reads a policy for the daemon; see reading.py, which starts it.

    python -m ram_ebpf.daemon.policy_process

On its standard input come, pickled, a Wanted and then lists of Terms; on its standard output go a Read and
the lists of their rules, or an exception in the place of either. It ends with its input.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # it makes much, most of it in the lines that follow, and ends soon

import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import BinaryIO

from ram_ebpf import own_process
from ram_ebpf.daemon import kept_reading, last_good, upgrade
from ram_ebpf.daemon.reading import Read, Wanted
from ram_ebpf.dns.encrypted import load_encrypted_resolvers
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.enforced import EnforcedPolicy, EnforcedScope
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, load_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.scope_rules import rules_of, rules_of_scopes
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.words import parse_scope


class Reading:
    """One policy, and the rules that were made of it so far."""

    def __init__(self, wanted: Wanted) -> None:
        """Raises PolicyErrors."""
        self._catalogue = load_catalogue()
        self._remarks: tuple[str, ...] = ()
        self._wanted = wanted
        self._policy, made = self._load()
        self._asked: dict[Terms, RuleSet] = {}
        # The daemon knows registries of scopes by their marks.
        self._made = {
            Terms.of(EnforcedScope.of(scope), index): made[Terms.of(scope)]
            for index, scope in enumerate(self._policy.scopes)
        }

    def _load(self) -> tuple[Policy, dict[Terms, RuleSet]]:
        file = self._wanted.file
        if file is None:
            return self._with_rules(default_policy())
        if self._wanted.last_good_first and (last := self._last_good(file)) is not None:
            return last
        try:
            return self._with_rules(load_policy(file, self._catalogue))
        except PolicyErrors as errors:
            if not self._wanted.or_last_good:
                raise
            found = self._last_good(file)
            if found is None:
                raise
            self._remarks = (
                str(errors),
                f"ram-ebpf: {file} is wrong, so the policy that was enforced last is used: {found[0].file}",
            )
            return found

    def _last_good(self, file: str) -> tuple[Policy, dict[Terms, RuleSet]] | None:
        """None where there is none, or it is none for this version."""
        try:
            kept = last_good.load(file, self._catalogue)
            return None if kept is None else self._with_rules(kept)
        except PolicyErrors:
            return None

    def _with_rules(self, policy: Policy) -> tuple[Policy, dict[Terms, RuleSet]]:
        return policy, rules_of_scopes(policy, self._catalogue)

    @cached_property
    def read(self) -> Read:
        """What the daemon is told."""
        policy = EnforcedPolicy.of(self._policy)
        problem = None
        try:
            chosen = [parse_scope(text, self._wanted.posture) for text in self._wanted.scopes]
            if chosen:
                policy = replace(policy, scopes=tuple(map(EnforcedScope.of, chosen)))
        except ScopeError as error:
            problem = error
        return Read(policy, load_encrypted_resolvers().known, self._remarks, problem)

    def rules(self, terms: Sequence[Terms]) -> list[RuleSet]:
        """Under each of these, which are kept with those before. Raises PolicyErrors."""
        for each in terms:
            if each not in self._made:
                self._made[each] = rules_of(self._policy, self._catalogue, each)
            self._asked[each] = self._made[each]
        kept_reading.keep(self._wanted, self.read, self._asked)
        return [self._made[each] for each in terms]


def answers(requests: Iterator[object]) -> Iterator[object]:
    """To what comes on standard input."""
    try:
        wanted = next(requests)
        assert isinstance(wanted, Wanted)
        if wanted.directory is not None:
            os.chdir(wanted.directory)
        reading = Reading(wanted)
        yield reading.read
    except PolicyErrors as errors:
        yield errors
        return
    for terms in requests:
        assert isinstance(terms, list)
        try:
            yield reading.rules(terms)
        except PolicyErrors as errors:
            yield errors


def _requests(source: BinaryIO) -> Iterator[object]:
    while True:
        try:
            yield pickle.load(source)  # noqa: S301 - it is our parent's
        except EOFError:
            return


def main() -> None:
    """Answers until its input ends, or whoever has started it does."""
    own_process.end_with_parent()
    upgrade.remember_start()
    for answer in answers(_requests(sys.stdin.buffer)):
        pickle.dump(answer, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
