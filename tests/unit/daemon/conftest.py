"""What the tests of the controller and of its parts have in common."""

from __future__ import annotations

from .running import lookups as lookups
from .running import running as running
