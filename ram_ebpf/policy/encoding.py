"""From the bytes of a policy file to its text, refusing what an editor would show differently."""

from __future__ import annotations

import codecs
import re

from ram_ebpf.policy.errors import PolicyError, PolicyErrors

MAX_POLICY_BYTES = 8 * 1024 * 1024

_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it starts with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# Everything that YAML 1.2 (section 5.1) calls unprintable; and the line breaks that YAML 1.1 counts but
# editors do not, or not all of them, since they would put every line number after them in doubt.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
_TAB_INDENT = re.compile(r"^ *\t[ \t]*(?=[^ \t\r\n#])", re.MULTILINE)


def check_size(size: int, file: str) -> None:
    """Raises PolicyErrors when a policy of that many bytes is too large."""
    if size > MAX_POLICY_BYTES:
        raise _error(
            file,
            0,
            f"the file has {size} bytes",
            f"the limit is {MAX_POLICY_BYTES} (8 MiB): split the policy",
        )


def decode(data: bytes, file: str) -> str:
    """The text of a policy file: UTF-8 with or without a byte order mark. Raises PolicyErrors."""
    check_size(len(data), file)
    for mark, name in _BOMS.items():
        if data.startswith(mark):
            raise _error(file, 0, f"the file is in {name}", "save it as UTF-8")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _error(
            file,
            data.count(b"\n", 0, error.start) + 1,
            f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8",
            "save the file as UTF-8",
        ) from None
    if found := _FORBIDDEN.search(text):
        code = ord(found[0])
        what = "a NUL character" if code == 0 else f"the character U+{code:04X}"
        raise _error(file, line_at(text, found.start()), f"the file has {what}", "remove it")
    if found := _TAB_INDENT.search(text):
        raise _error(file, line_at(text, found.start()), "a tab indents this line", "indent with spaces")
    return text


def line_at(text: str, offset: int) -> int:
    """The line, from 1, of a character offset."""
    return text.count("\n", 0, offset) + 1


def _error(file: str, line: int, problem: str, cure: str) -> PolicyErrors:
    return PolicyErrors([PolicyError(file, line, "", problem, cure)])
