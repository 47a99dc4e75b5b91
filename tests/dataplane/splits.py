"""A connection's beginning in two pieces, cut at every place.

With three system calls a place, as a guest of QEMU's is slow: the connection is written into the map as if
its SYN had been answered, each time with another beginning, so nothing of the last time has to be removed.
"""

from __future__ import annotations

from collections.abc import Iterator

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Stage

from .beginnings import Connection
from .support import Bench


def in_two(opened: Bench, sent: bytes) -> Iterator[tuple[int, bool, bool]]:
    """For each place to cut it, from 1 on: whether the first piece leaves, and whether the second does."""
    established, rule = opened.map("established"), opened.rule_of("registry.test")
    key = Connection(opened).key
    (generation,) = {view.generation for view in opened.plane.views}
    for cut in range(1, len(sent)):
        connection = Connection(opened, start=cut << 16)
        first = connection.start + 1
        known = abi.Connection(rule, Stage.UNNAMED, first, first, generation=generation)
        established[key] = bytes(known)
        yield cut, connection.sends(sent[:cut]), connection.sends(sent[cut:], cut)
