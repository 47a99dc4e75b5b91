"""The request target of a call of Docker's API, read as Docker's router does.

That is Go's net/url on what RFC 9112, section 3.2, calls the request target, and gorilla/mux behind it, which
sees the decoded path and redirects to the clean one. Of what the two read differently from version to version
(a semicolon in a query), nothing is guessed: it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

MAX_TARGET = 1 << 20
"""Characters: as many as Go's server takes for a request's line and headers together."""
MAX_PARAMETERS = 1000

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_VERSION = re.compile(r"/v[0-9.]+(?=/)")


class TargetError(ValueError):
    """A target that cannot be read; str() says why."""


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """A path of the API, and what is asked of it."""

    path: str
    """Decoded and clean, from its slash on, without the API's version."""
    query: str
    """As it was written."""

    def values(self, *names: str) -> list[str]:
        """All values of these parameters that are not empty, whichever Docker takes. Raises TargetError."""
        found = []
        parts = self.query.split("&", MAX_PARAMETERS)
        if len(parts) > MAX_PARAMETERS:
            raise TargetError(f"its query has more than {MAX_PARAMETERS} parameters")
        for part in parts:
            if ";" in part:
                raise TargetError("its query has a semicolon, which is to be written as %3B")
            name, _, value = part.partition("=")
            if _decoded(name.replace("+", " ")) in names and value:
                found.append(_decoded(value.replace("+", " ")))
        return found


def read_target(text: str) -> RequestTarget:
    """`/v1.41/images/create?fromImage=a`, or that with a scheme and a host before it. Raises TargetError."""
    if len(text) > MAX_TARGET:
        raise TargetError("its target is too long")
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    path, _, query = rest.partition("?")
    # Without a scheme, two slashes are a path: Go is told that it is a request's.
    if scheme and path.startswith("//"):
        path = "/" + path[2:].partition("/")[2]
    if not path.startswith("/"):
        raise TargetError("its target is no path")
    clean = _clean(_decoded(path))
    version = _VERSION.match(clean)
    return RequestTarget(clean[version.end() :] if version else clean, query)


def _decoded(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise TargetError("it has a % without two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise TargetError("it has escapes that are no UTF-8") from None


def _clean(path: str) -> str:
    """As path.Clean of Go does it."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)
