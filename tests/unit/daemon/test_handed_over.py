"""What the kernel wakes user space for is what user space then asks again."""

from __future__ import annotations

import re

from ram_ebpf.daemon.learning import HANDED_OVER
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.source import source_directory


def test_the_kernels_list_is_ours() -> None:
    text = (source_directory() / "lib/events.h").read_text(encoding="utf-8")
    body = text[text.index("ram_is_handed_over") :]
    names = re.findall(r"RAM_BIT_OF\(RAM_REASON_([A-Z_]+)\)", body[: body.index("}")])
    assert {Reason[name] for name in names} == HANDED_OVER
    assert all(reason < 64 for reason in Reason)
