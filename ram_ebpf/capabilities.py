"""Capabilities of this process (capabilities(7))."""

from __future__ import annotations

import ctypes
import enum
import os
import struct
from collections.abc import Collection

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of include/uapi/linux/capability.h
_WORDS = 2  # of 32 capabilities, each in three sets: effective, permitted and inheritable

_libc = ctypes.CDLL(None, use_errno=True)


class Capability(enum.IntEnum):
    """Those that are named here; include/uapi/linux/capability.h has all."""

    DAC_READ_SEARCH = 2
    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    BPF = 39


def _call(name: str, data: ctypes.Array[ctypes.c_char]) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION, 0))
    if getattr(_libc, name)(header, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def keep_only(capabilities: Collection[Capability]) -> None:
    """Gives up all others that this thread has, for good: to be called before there are other threads.

    Those of these that it has not are not missed. Raises OSError.
    """
    data = ctypes.create_string_buffer(12 * _WORDS)
    _call("capget", data)
    kept = sum(1 << each for each in capabilities)
    words = [(kept >> 32 * (number // 3)) & 0xFFFFFFFF for number in range(3 * _WORDS)]
    had = struct.unpack(f"={3 * _WORDS}I", data.raw)
    data.raw = struct.pack(f"={3 * _WORDS}I", *(have & want for have, want in zip(had, words, strict=True)))
    _call("capset", data)
