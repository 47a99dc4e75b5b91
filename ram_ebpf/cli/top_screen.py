"""The screen of `ram-ebpf top`, by curses: the thinnest part of it."""

from __future__ import annotations

import contextlib
import curses
import select
import sys
import time
from collections.abc import Callable

from ram_ebpf.cli.top_view import SORTS, Frame, lines

_FOOTER = "q quit  p pause  sort by: r rate  c count  l last  n name"


def show(look: Callable[[], Frame], period: float, sort: str) -> None:
    """Shows what `look` finds, every so many seconds, until q or Ctrl-C. Raises what `look` raises, and
    curses.error where the terminal cannot be used."""
    try:
        curses.wrapper(lambda screen: _show(screen, look, period, sort))
    except KeyboardInterrupt:
        return
    except curses.error:
        if not _is_hung_up():  # else it cannot be put back as it was either
            raise


def _show(screen: curses.window, look: Callable[[], Frame], period: float, sort: str) -> None:
    with contextlib.suppress(curses.error):  # a terminal that cannot hide it
        curses.curs_set(0)
    paused = False
    frame = look()
    while True:
        _draw(screen, frame, sort, paused)
        end = time.monotonic() + period
        while (left := end - time.monotonic()) > 0:
            screen.timeout(max(int(left * 1000), 1))
            key = screen.getch()
            if key == -1 and _is_hung_up():
                return
            pressed = chr(key) if 0 < key < 128 else ""
            if pressed == "q":
                return
            if pressed == "p":
                paused = not paused
            if pressed in SORTS:
                sort = pressed
            if pressed or key == curses.KEY_RESIZE:
                _draw(screen, frame, sort, paused)
        if not paused:
            frame = look()


def _is_hung_up() -> bool:
    """Whether the terminal is gone. Nobody presses a key there, and getch() does not wait for one."""
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _draw(screen: curses.window, frame: Frame, sort: str, paused: bool) -> None:
    height, width = screen.getmaxyx()
    screen.erase()
    found = lines(frame, width - 1, height - 1, sort, paused)
    for row, text in enumerate([*found, *[""] * (height - 1 - len(found)), _FOOTER[: width - 1]]):
        with contextlib.suppress(curses.error):  # a terminal that has become smaller meanwhile
            screen.addstr(row, 0, text, curses.A_REVERSE if row == height - 1 else curses.A_NORMAL)
    screen.refresh()
