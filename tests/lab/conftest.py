"""Gives the tests of this folder the lab."""

from __future__ import annotations

from .fixtures import lab

__all__ = ["lab"]
