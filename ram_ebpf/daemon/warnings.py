"""What is wrong with an instance for the time being, of all that its log has said."""

from __future__ import annotations

_SAID_AGAIN = frozenset(
    {
        "no-control-group",
        "no-responder",
        "no-authority",
        "no-plugin",
        "policy-not-kept",
        "no-export",
        "export-lost",
    }
)
"""What is still wrong with another policy is said again."""
_LASTING = {"unpinned", "no-control", "scope-failed", "events-lost", "queue-full", *_SAID_AGAIN}
_UNTIL = {"reloaded": "reload-failed", "resolver-sockets-known": "resolver-sockets-full"}
"""Events that end what another one said."""


class Warnings:
    """The last one of each kind."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def note(self, event: str, explanation: str) -> None:
        """Looks at what is said in the log."""
        if event in _LASTING or event in _UNTIL.values():
            self._found[event] = explanation
        elif event in _UNTIL:
            self._found.pop(_UNTIL[event], None)

    def begin_again(self) -> None:
        """Another policy is enforced."""
        for event in _SAID_AGAIN:
            self._found.pop(event, None)

    def current(self) -> dict[str, str]:
        """By event, what it means."""
        return dict(self._found)
