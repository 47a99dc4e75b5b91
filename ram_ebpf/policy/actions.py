"""What may be done with a registry, as far as an engine says what it is about to do."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from ram_ebpf.policy.choices import ALL_ACTIONS as ALL_ACTIONS
from ram_ebpf.policy.choices import Action as Action
from ram_ebpf.policy.fields import choice, listed, refuse


def _ordered(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    for action in actions:
        if actions.count(action) > 1:
            refuse(f"{action.value} is given twice", "write each action once")
    return joined(actions, ())


def joined(one: tuple[Action, ...], other: tuple[Action, ...]) -> tuple[Action, ...]:
    """All of both, in the order of Action."""
    if one is ALL_ACTIONS or other is ALL_ACTIONS:  # as nearly always
        return ALL_ACTIONS
    found = tuple(action for action in Action if action in one or action in other)
    return ALL_ACTIONS if found == ALL_ACTIONS else found


Actions = Annotated[tuple[Annotated[Action, choice(Action)], ...], listed("[pull]"), AfterValidator(_ordered)]
