"""How slow this machine is: bounds of seconds in tests are made for one that does nothing else.

A guest without hardware acceleration takes ten times as long for all that computes. What a bound is there to
find, a wait for an answer that never comes, takes 15 seconds and more, so even a wide one finds it.
"""

from __future__ import annotations

import os

VARIABLE = "RAM_TEST_PACE"
PACE = float(os.environ.get(VARIABLE) or 1.0)
"""By which bounds are multiplied."""
