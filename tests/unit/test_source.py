"""The C sources as one text, in which the compiler's messages still name the right file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ram_ebpf.dataplane import source
from ram_ebpf.dataplane.programs import PROGRAM_SETS
from ram_ebpf.dataplane.source import flatten, source_directory, without_comments

_MARKER = re.compile(r'#line (\d+) "bpf/(.+)"')


def written(folder: Path, **files: str) -> Path:
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", "/")).with_suffix(".h").write_text(text, encoding="utf-8")
    return folder


def test_each_include_once_and_in_place(tmp_path: Path) -> None:
    written(
        tmp_path,
        main='before\n#include "a.h"\nbetween\n#include "lib/b.h"\nbehind\n',
        a='a1\n#include "lib/b.h"\na3\n',
        lib__b='b1\n#include "a.h"\nb3\n',
    )
    assert flatten("main.h", tmp_path).splitlines() == [
        '#line 1 "bpf/main.h"',
        "before",
        '#line 1 "bpf/a.h"',
        "a1",
        '#line 1 "bpf/lib/b.h"',
        "b1",
        "",  # a.h is being written out already
        "b3",
        '#line 3 "bpf/a.h"',
        "a3",
        '#line 3 "bpf/main.h"',
        "between",
        "",
        "behind",
    ]


def test_only_quoted_includes_are_ours(tmp_path: Path) -> None:
    text = '#include <linux/in.h>\n// "a.h"\nchar *s = "#include \\"a.h\\"";\n'
    written(tmp_path, main=text)
    assert flatten("main.h", tmp_path) == f'#line 1 "bpf/main.h"\n{text}'


def test_indented_include_and_missing_last_line_end(tmp_path: Path) -> None:
    written(tmp_path, main='  #include  "a.h"', a="a1")
    assert flatten("main.h", tmp_path).splitlines()[1:] == [
        '#line 1 "bpf/a.h"',
        "a1",
        '#line 2 "bpf/main.h"',
    ]


@pytest.mark.parametrize("main", ["nothing.h", "main.h"])
def test_missing_file_is_named(tmp_path: Path, main: str) -> None:
    written(tmp_path, main='#include "nothing.h"\n')
    with pytest.raises(FileNotFoundError, match=r"nothing\.h"):
        flatten(main, tmp_path)


SOURCES = [programs.source for programs in PROGRAM_SETS]


@pytest.mark.parametrize("source", SOURCES)
def test_markers_of_the_real_sources_are_right(source: str) -> None:
    """Every line of the flattened text is the line of the file that the markers say it is."""
    root = source_directory()
    files: dict[str, list[str]] = {}
    name, number = "", 0
    for line in flatten(source).splitlines():
        if marker := _MARKER.fullmatch(line):
            number, name = int(marker[1]), marker[2]
            files.setdefault(name, (root / name).read_text(encoding="utf-8").splitlines())
            continue
        original = files[name][number - 1]
        assert line == original or (line == "" and original.startswith('#include "')), f"{name}:{number}"
        number += 1


def test_every_header_is_used() -> None:
    root = source_directory()
    lines = [line for source in SOURCES for line in flatten(source).splitlines()]
    written_out = {marker[2].removeprefix("bpf/") for line in lines if (marker := _MARKER.fullmatch(line))}
    headers = {f"lib/{path.name}" for path in (root / "lib").iterdir()}
    assert written_out == {"abi.h", *SOURCES, *headers}


@pytest.mark.parametrize("source", SOURCES)
def test_no_quoted_include_is_left(source: str) -> None:
    assert not re.search(r'^\s*#include\s+"', flatten(source), re.MULTILINE)


def test_nothing_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "ram_ebpf" / "dataplane" / "source.py"))
    with pytest.raises(FileNotFoundError, match="reinstall ram-ebpf"):
        source_directory()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("int a; /* one */ int b;\n", "int a;   int b;\n", id="in a line"),
        pytest.param("a /* 1\n * 2\n */ b\nc\n", "a  \n\n b\nc\n", id="over lines"),
        pytest.param("a // to its end /*\nb */\n", "a  \nb */\n", id="to the end of the line"),
        pytest.param('s = "/* no */ // no"; // yes\n', 's = "/* no */ // no";  \n', id="a string"),
        pytest.param('s = "\\"/*"; /**/\n', 's = "\\"/*";  \n', id="a quote in a string"),
        pytest.param("c = '\"'; /* \" */ d = '/';\n", "c = '\"';   d = '/';\n", id="characters"),
        pytest.param("a/**/b\n", "a b\n", id="what it keeps apart stays so"),
        pytest.param('#line 1 "bpf/a.h"\n/* x */\n', '#line 1 "bpf/a.h"\n \n', id="markers"),
        pytest.param("a /* open\n", "a /* open\n", id="for the compiler to complain of"),
    ],
)
def test_without_comments(text: str, expected: str) -> None:
    assert without_comments(text) == expected


@pytest.mark.parametrize("source", SOURCES)
def test_lines_stay_where_they_were(source: str) -> None:
    text = flatten(source)
    bare = without_comments(text)
    assert bare.count("\n") == text.count("\n")
    assert "/*" not in bare
    code = [
        line.split("//")[0].rstrip() for line in text.splitlines() if "/*" not in line and "*" not in line
    ]
    assert {line for line in code if line.endswith(";")} <= {line.rstrip() for line in bare.splitlines()}
