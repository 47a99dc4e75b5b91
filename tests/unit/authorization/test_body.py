"""JSON bodies, as Go reads them: whichever of several keys it takes is among those found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.authorization.body import BodyError, items, read_json, texts


def images(text: str, *path: str) -> list[str]:
    return list(texts(read_json(text.encode()), *(path or ("Image",))))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"Image": "a"}', ["a"]),
        ('{"image": "a", "IMAGE": "b", "iMaGe": "c"}', ["a", "b", "c"]),
        ('{"Image": "a", "Image": "b"}', ["a", "b"]),
        ('{"\\u0049mage": "a"}', ["a"]),
        ('{"Image": ""}', []),
        ('{"Image": null}', []),
        ('{"Images": "a", "x": {"Image": "b"}}', []),
        ("{}", []),
        ("null", []),
    ],
)
def test_texts(text: str, found: list[str]) -> None:
    assert images(text) == found


def test_inside() -> None:
    path = ("TaskTemplate", "ContainerSpec", "Image")
    assert images('{"TaskTemplate": {"ContainerSpec": {"Image": "a"}}}', *path) == ["a"]
    # Go puts the members of both together.
    one, other = '{"ContainerSpec": {"Image": "a"}}', '{"containerspec": {"image": "b"}}'
    twice = f'{{"TaskTemplate": {one}, "tasktemplate": {other}}}'
    assert images(twice, *path) == ["a", "b"]
    assert images('{"TaskTemplate": null}', *path) == []
    assert images('{"Ta\u017f\u212aTemplate": {"Container\u017fpec": {"Image": "a"}}}', *path) == ["a"]


@pytest.mark.parametrize(
    "text", ['{"Image": 1}', '{"Image": ["a"]}', '{"Image": {"a": "b"}}', "[]", '"a"', "1"]
)
def test_something_else(text: str) -> None:
    with pytest.raises(BodyError):
        images(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"Image": "a"} {}',
        b'{"Image": "a"}x',
        b'\xef\xbb\xbf{"Image": "a"}',
        '{"Image": "a"}'.encode("utf-16"),
        b'{"Image": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
    ],
)
def test_no_json(data: bytes) -> None:
    with pytest.raises(BodyError):
        read_json(data)


def test_items() -> None:
    assert list(items(read_json(b'{"Mounts": [1, 2], "mounts": [3]}'), "Mounts")) == [1, 2, 3]
    with pytest.raises(BodyError):
        list(items(read_json(b'{"Mounts": {}}'), "Mounts"))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["Image", "image", "x"]), inside)
    ),
)


@given(_VALUES)
def test_any_json(value: object) -> None:
    try:
        found = images(json.dumps(value))
    except BodyError:
        return
    if isinstance(value, dict):
        assert found == [text for key, text in value.items() if key.lower() == "image" and text]
