"""Where each scope of a policy is on this host, now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ram_ebpf.policy.scope import Scope
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.selection import Selection, add_scope
from ram_ebpf.scopes.target import Places

_log = logging.getLogger("ram_ebpf.scopes")


@dataclass(frozen=True)
class FoundScope:
    """One scope of the policy. `problem`: why it cannot be governed; `remarks`: what else was said of it."""

    label: str
    scope: Scope
    places: Places = field(default_factory=Places)
    problem: str = ""
    remarks: tuple[str, ...] = ()


class _Remarks(logging.Handler):
    """Keeps what scopes warn of while they are looked for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def find_scopes(scopes: Sequence[Scope], cgroup_root: Path | None) -> list[FoundScope]:
    """Where all are, in the policy's order."""
    found = []
    asked = Selection(cgroup_root=cgroup_root)
    for index, scope in enumerate(scopes):
        # Each by itself, as two may lead to one place; but Docker is asked once for all.
        selection = Selection(cgroup_root=cgroup_root, containers=asked.containers, pods=asked.pods)
        found.append(_find(selection, scope, index))
        asked = selection
    return found


def _find(selection: Selection, scope: Scope, index: int) -> FoundScope:
    name = f"{scope.kind}: {scope.target}" if scope.target else scope.kind
    remarks = _Remarks()
    _log.addHandler(remarks)
    try:
        add_scope(selection, scope, index)
        places = [target.find() for target in selection.targets]
    except (ScopeError, OSError) as error:
        return FoundScope(name, scope, problem=str(error))
    finally:
        _log.removeHandler(remarks)
    texts = [*remarks.texts, *(text for target in selection.targets for text in target.remarks())]
    together = Places(
        frozenset().union(*(each.cgroups for each in places)),
        frozenset().union(*(each.devices for each in places)),
    )
    return FoundScope(name, scope, together, "", tuple(dict.fromkeys(texts)))
