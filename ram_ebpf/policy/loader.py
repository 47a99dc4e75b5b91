"""From a policy file to a Policy, or to all that is wrong with it, each error with its line."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from pydantic import ValidationError

from ram_ebpf.policy.catalogue import Catalogue, load_catalogue
from ram_ebpf.policy.checks import count_rules, find_repeated
from ram_ebpf.policy.document import MAX_RULES, Document, Place, read_document
from ram_ebpf.policy.encoding import MAX_POLICY_BYTES, check_size
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.messages import explain
from ram_ebpf.policy.model import CatalogueEntry, Policy
from ram_ebpf.policy.source import PolicySource
from ram_ebpf.policy.words import describe

__all__ = ["MAX_POLICY_BYTES", "MAX_RULES", "default_policy", "load_policy", "parse_policy"]


def load_policy(path: str | os.PathLike[str], catalogue: Catalogue | None = None) -> Policy:
    """The policy in the file at `path`. Raises PolicyErrors."""
    return parse_policy(_read(os.fspath(path)), os.fspath(path), catalogue)


def parse_policy(data: bytes, filename: str, catalogue: Catalogue | None = None) -> Policy:
    """The policy in `data`; `filename` is for messages. Raises PolicyErrors with everything that is wrong,
    except that what cannot be read as YAML stands alone. `catalogue`: by default the packaged one."""
    document = read_document(data, filename)
    if not isinstance(document.data, dict):
        raise _whole(
            filename, f"{describe(document.data)} where keys and values belong", "start with version: 1"
        )
    rules = count_rules(document.data)
    if rules > MAX_RULES:
        problem = f"{rules} hosts and addresses are more than {MAX_RULES}"
        cure = "use wildcards, or split the policy"
        raise PolicyErrors([document.error(filename, ("registries",), problem, cure)])

    errors = list(document.errors)
    for (where, problem, cure), first in find_repeated(document.data):
        line, _ = document.locate(first)
        errors.append(document.error(filename, where, f"{problem} on line {line}", cure))
    policy = None
    try:
        context = {"catalogue": catalogue or load_catalogue()}
        policy = Policy.model_validate(document.data, context=context)
    except ValidationError as invalid:
        for found in invalid.errors(include_url=False):
            errors.append(document.error(filename, *explain(found)))
    if errors or policy is None:
        raise PolicyErrors(errors)
    source = PolicySource(
        filename,
        hashlib.sha256(data).hexdigest(),
        _entry_lines(document.place),
        _item_lines(document, "denied"),
        _item_lines(document, "proxies"),
        _scope_lines(document),
    )
    return policy.read_from(source)


def default_policy() -> Policy:
    """What holds without a policy file: Docker Hub is allowed and nothing else, for every engine."""
    return Policy(version=1, registries=(CatalogueEntry(id="docker-hub"),))


def _read(path: str) -> bytes:
    """The file's bytes, one more than the limit at most."""
    try:
        # Opening a FIFO for reading would wait for a writer; a device may act on being opened at all.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise _irregular(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):  # replaced in between
                raise _irregular(path)
            check_size(status.st_size, path)
            return file.read(MAX_POLICY_BYTES + 1)
    except FileNotFoundError:
        raise _whole(path, "there is no such file", "check the path") from None
    except PermissionError:
        raise _whole(path, "reading it is not permitted", "check the owner and mode of the file") from None
    except OSError as error:
        raise _whole(path, f"it cannot be read ({error.strerror})", "check the path") from None
    except ValueError:  # a NUL in the path
        raise _whole(path, "this is not a path", "check it") from None


def _irregular(path: str) -> PolicyErrors:
    what = "a directory" if Path(path).is_dir() else "not a regular file"
    return _whole(path, f"this is {what}", "name the policy file")


def _whole(file: str, problem: str, cure: str) -> PolicyErrors:
    return PolicyErrors([PolicyError(file, 0, "", problem, cure)])


def _entry_lines(place: Place | int | None) -> tuple[tuple[int, ...], ...]:
    """For each entry of the `registries` that are there its line and those of its `also` items."""
    registries = _part(place, "registries")
    return tuple((_line(entry), *map(_line, _items(_part(entry, "also")))) for entry in _items(registries))


def _scope_lines(document: Document) -> tuple[tuple[tuple[int, ...], ...], ...]:
    scopes = _items(_part(document.place, "scopes"))
    # Those of the host are inside it, as its posture is.
    return tuple(_entry_lines(_part(scope, "host") or scope) for scope in scopes)


def _item_lines(document: Document, key: str) -> tuple[int, ...]:
    return tuple(map(_line, _items(_part(document.place, key))))


def _part(place: Place | int | None, key: str) -> Place | int | None:
    return place.part(key) if isinstance(place, Place) else None


def _items(place: Place | int | None) -> list[Place | int]:
    return place.inside if isinstance(place, Place) and isinstance(place.inside, list) else []


def _line(place: Place | int) -> int:
    return place.line if isinstance(place, Place) else place
