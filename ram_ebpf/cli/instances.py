"""Asking the running instances, for the verbs that do."""

from __future__ import annotations

import os
import sys
from typing import Any


def ask(request: dict[str, Any]) -> list[dict[str, Any]] | int:
    """The answers of all; or, after saying why there are none, the exit status."""
    from ram_ebpf.daemon.control import NotRunningError, ask_all

    try:
        return ask_all(request)
    except NotRunningError as error:
        print(f"ram-ebpf: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    except TimeoutError:
        print(
            "ram-ebpf: an instance does not answer; what it has attached goes on deciding: see what its log "
            "says last, and restart it",
            file=sys.stderr,
        )
        return os.EX_TEMPFAIL
    except PermissionError:
        print("ram-ebpf: needs root, to ask the daemon: run it with sudo", file=sys.stderr)
        return os.EX_NOPERM
