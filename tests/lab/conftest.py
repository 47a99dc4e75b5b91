"""Gives the tests of this folder the lab, and a client in a control group of its own."""

from __future__ import annotations

from .fixtures import inside, lab, scope

__all__ = ["inside", "lab", "scope"]
