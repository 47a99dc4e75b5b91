"""Runs a program for which some system calls fail with EPERM, as a service manager may have it run.

python -m tests.lab.forbidding setns,unshare PROGRAM ARGUMENT...
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# Of the generic table (asm-generic/unistd.h) and of that of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
_NUMBERS = {
    "x86_64": {"setns": 308, "unshare": 272},
    "aarch64": {"setns": 268, "unshare": 97},
}
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW, _SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
# linux/bpf_common.h: load a word, skip if it differs, return.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid(*names: str) -> None:
    """From now on they fail, in this process and all that it starts. Raises OSError, KeyError."""
    code = [struct.pack("=HBBI", _LOAD, 0, 0, 0)]  # seccomp_data.nr
    for name in names:
        number = _NUMBERS[platform.machine()][name]
        code.append(struct.pack("=HBBI", _IF_EQUAL, 0, 1, number))
        code.append(struct.pack("=HBBI", _RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EPERM))
    code.append(struct.pack("=HBBI", _RETURN, 0, 0, _SECCOMP_RET_ALLOW))
    program = _Program(len(code), b"".join(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    forbid(*sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])
