"""What applies in one scope beside the whole policy."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ram_ebpf.policy.choices import Posture

if TYPE_CHECKING:
    from ram_ebpf.policy.enforced import ScopeLike


@dataclass(frozen=True)
class Terms:
    """Scopes with equal terms share everything. `scope`: where in the policy's `scopes` they stand.

    `registries`: as the scope has them, entries of a policy or marks of these.
    """

    posture: Posture = Posture.STRICT
    registries: tuple[Hashable, ...] = ()
    scope: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, scope: ScopeLike, index: int | None = None) -> Terms:
        """Those of a scope."""
        return cls(scope.posture, scope.registries, index)


STRICT = Terms()
