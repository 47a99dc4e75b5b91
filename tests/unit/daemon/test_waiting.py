"""On what the main loop waits."""

from __future__ import annotations

import contextlib

from ram_ebpf.daemon.waiting import Waiting
from ram_ebpf.scopes.news import News


def test_sources_come_and_go() -> None:
    first, second, third = News(), News(), News()
    with contextlib.closing(Waiting()) as waiting:
        waiting.on(first, None, second)
        assert waiting.wait(0.0) == set()
        second.tell()
        assert waiting.wait(1.0) == {second.fileno()}
        waiting.on(first, third, None)
        assert waiting.wait(0.0) == set(), "what is gone still wakes"
        third.tell()
        assert waiting.wait(1.0) == {third.fileno()}
        waiting.on(second, third)
        first.tell()
        assert waiting.wait(1.0) == {second.fileno(), third.fileno()}


def test_descriptors_of_news_are_given_back() -> None:
    """Each reload may bring another one."""
    descriptors = set()
    for _ in range(10):
        news = News()
        descriptors.add(news.fileno())
        del news
    assert len(descriptors) == 1
