"""Removes a lab's remains: of one lab at its end, of all dead ones at the start of the next."""

from __future__ import annotations

from . import cgroups, namespaces, owner


def remove(label: str) -> list[str]:
    """Remove everything that carries the label and return the names of what was there."""
    removed = cgroups.remove(label) + namespaces.remove(label)
    # Last, as it is this directory that tells that the lab's owner lives.
    owner.release(label)
    return removed


def remove_stale() -> list[str]:
    """Remove what labs of dead processes have left behind and return the names of it."""
    with owner.alone():  # another lab that starts at the same time would remove the same
        # Listed first and judged second: a lab that starts meanwhile claims its label before all else.
        found = namespaces.labels() | cgroups.labels() | owner.claimed()
        return [name for label in sorted(found) if not owner.is_live(label) for name in remove(label)]
