"""What is wrong with an instance for the time being, of all that its log has said."""

from __future__ import annotations

_UNTIL = {
    "unpinned": "",
    "no-control": "",
    "no-control-group": "",
    "no-responder": "",
    "no-authority": "",
    "no-plugin": "",
    "scope-failed": "",
    "policy-not-kept": "",
    "events-lost": "",
    "queue-full": "",
    "export-lost": "",
    "no-export": "",
    "reload-failed": "reloaded",
}
"""Events that stay true, and the one that says that they no longer are, if any does."""


_SAID_AGAIN = (
    "no-control-group",
    "no-responder",
    "no-authority",
    "no-plugin",
    "policy-not-kept",
    "no-export",
    "export-lost",
)


class Warnings:
    """The last one of each kind."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def note(self, event: str, explanation: str) -> None:
        """Looks at what is said in the log."""
        if event in _UNTIL:
            self._found[event] = explanation
        for warning, end in _UNTIL.items():
            if end == event:
                self._found.pop(warning, None)

    def begin_again(self) -> None:
        """Another policy is enforced: what is still wrong will be said again."""
        for event in (
            "no-control-group",
            "no-responder",
            "no-authority",
            "no-plugin",
            "policy-not-kept",
            "no-export",
            "export-lost",
        ):
            self._found.pop(event, None)

    def current(self) -> dict[str, str]:
        """By event, what it means."""
        return dict(self._found)
