"""Fetches the roots that the tests need, which takes minutes the first time."""

from __future__ import annotations

from tests.engines import cache

from . import roots


def main() -> None:
    """Say what is there, as it comes."""
    print(f"roots are kept in {cache.directory()}", flush=True)
    for suite in roots.SUITES:
        for made in (roots.host(suite), roots.builder(suite), roots.wheels(suite)):
            print(f"{suite}: {made}", flush=True)


if __name__ == "__main__":
    main()
