"""The C sources as one text.

bcc rewrites map accesses only in the file that it is handed, not in what that file includes. So the
project's own includes are written out in place, each once, with line markers that keep the compiler's
messages pointing at the real file and line.
"""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"')
_COMMENT = re.compile(
    r"""(?P<literal>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|//[^\n]*|/\*.*?\*/""", re.DOTALL
)


def source_directory() -> Path:
    """Where the C sources are: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "bpf", package.parent / "bpf"):
        if (candidate / "abi.h").is_file():
            return candidate
    raise FileNotFoundError(f"no bpf/abi.h in {package} or beside it: reinstall ram-ebpf")


def flatten(name: str, directory: Path | None = None) -> str:
    """Returns the source file `name` of bpf/ with every quoted include written out in place."""
    root = directory or source_directory()
    seen: set[str] = set()

    def expand(relative: str) -> list[str]:
        seen.add(relative)
        lines = [f'#line 1 "bpf/{relative}"']
        for number, line in enumerate((root / relative).read_text(encoding="utf-8").splitlines(), start=1):
            include = _INCLUDE.match(line)
            if include is None:
                lines.append(line)
            elif include[1] not in seen:
                lines += expand(include[1])
                lines.append(f'#line {number + 1} "bpf/{relative}"')
            else:
                lines.append("")
        return lines

    return "\n".join(expand(name)) + "\n"


def without_comments(text: str) -> str:
    """C without its comments (C17 6.4.9), each line where it was.

    bcc goes through all of the text, character by character, whenever it rewrites an access to a map.
    """

    def instead(found: re.Match[str]) -> str:
        return found["literal"] or " " + "\n" * found[0].count("\n")

    return _COMMENT.sub(instead, text)
