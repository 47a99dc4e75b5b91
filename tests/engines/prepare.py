"""Fetches and builds all that the tests need, which takes minutes the first time."""

from __future__ import annotations

from . import buildkit, cache, trees


def main() -> None:
    """Say what is there, as it comes."""
    print(f"engines are kept in {cache.directory()}", flush=True)
    for suite in trees.SUITES:
        trees.tree(suite)
        found = (f"{name} {trees.version(suite, name)}" for name in trees.NAMED)
        print(f"{suite}: {', '.join(found)}", flush=True)
    print(f"BuildKit of {buildkit.SUITE}: {buildkit.programs()}", flush=True)


if __name__ == "__main__":
    main()
