"""JSON bodies of Docker's API, read as Go's encoding/json does.

Letter case of keys does not matter there, and of a key that comes twice the later one counts. Here all of
them count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


class BodyError(ValueError):
    """No JSON as it is expected; str() says why."""


class Members(tuple[tuple[str, Any], ...]):
    """The members of a JSON object, in order."""

    __slots__ = ()


def read_json(data: bytes) -> Any:
    """One JSON value, its objects as Members. Raises BodyError."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=Members)
    except (ValueError, RecursionError):
        raise BodyError("its body is no JSON") from None


def members(value: Any, *path: str) -> Iterator[Any]:
    """All that is there under these keys, each inside the one before; nothing for null. Raises BodyError."""
    if value is None:
        return
    if not path:
        yield value
        return
    if not isinstance(value, Members):
        raise BodyError(f"its body has something else than an object around {path[0]}")
    for name, inside in value:
        # Go folds letters as Unicode does: U+017F is an s and U+212A a k.
        if name.casefold() == path[0].casefold():
            yield from members(inside, *path[1:])


def texts(value: Any, *path: str) -> Iterator[str]:
    """As `members`, where only texts may be; nothing for an empty one. Raises BodyError."""
    for found in members(value, *path):
        if not isinstance(found, str):
            raise BodyError(f"its body has something else than text as {path[-1] if path else 'a whole'}")
        if found:
            yield found


def items(value: Any, *path: str) -> Iterator[Any]:
    """As `members`, for all items of lists. Raises BodyError."""
    for found in members(value, *path):
        if not isinstance(found, list):
            raise BodyError(f"its body has something else than a list as {path[-1] if path else 'a whole'}")
        yield from found
