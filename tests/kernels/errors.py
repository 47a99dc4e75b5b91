"""The runner's one kind of error."""

from __future__ import annotations


class RunError(RuntimeError):
    """The tests could not be run, or not to their end; the text is for the user."""
