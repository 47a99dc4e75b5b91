"""What a request to Docker's API would do with which registry.

By the routes of Docker Engine (moby, api/server/router). What can name a registry and cannot be read is
refused, as the engine may read it otherwise; what names none passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ram_ebpf.authorization import body
from ram_ebpf.authorization.messages import ApiRequest
from ram_ebpf.authorization.target import RequestTarget, TargetError, read_target
from ram_ebpf.oci.reference import (
    DOCKER_HUB,
    ImageNameError,
    Registry,
    is_identifier,
    registry_of,
    registry_of_domain,
    registry_of_search,
)
from ram_ebpf.policy.choices import Action
from ram_ebpf.policy.words import show

MAX_USES = 1000
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
# Of RFC 3986 only what both this and Go's net/url read the same way: no user, no escapes in the host.
_URL = re.compile(r"(?:https?://)?(?P<domain>[A-Za-z0-9.:\[\]-]+)(?:[/?].*)?", re.DOTALL | re.IGNORECASE)
_HEXADECIMAL = re.compile(r"[0-9a-f]+")


class UnjudgedError(ValueError):
    """A request that may use a registry, and does not say clearly which; str() says what is wrong."""


@dataclass(frozen=True, slots=True)
class Use:
    """One action at one registry. `registry`: None where the engine does not say which."""

    action: Action
    image: str
    """As it was written; empty where no image is named."""
    registry: Registry | None


def uses_of(request: ApiRequest) -> tuple[RequestTarget, list[Use]]:
    """All that it would do. Raises UnjudgedError."""
    try:
        target = read_target(request.target)
    except TargetError as error:
        raise UnjudgedError(str(error)) from None
    try:
        for methods, pattern, find in _ROUTES:
            found = pattern.fullmatch(target.path)
            if found is not None and request.method in methods:
                uses = []
                for use in find(request, target, found.groupdict().get("name") or ""):
                    uses.append(use)
                    if len(uses) > MAX_USES:
                        raise UnjudgedError(f"it names more than {MAX_USES} images")
                return target, uses
    except (TargetError, body.BodyError) as error:
        raise UnjudgedError(str(error)) from None
    return target, []


def _use(action: Action, image: str) -> Use:
    try:
        return Use(action, image, registry_of(image))
    except ImageNameError as error:
        raise UnjudgedError(f"{show(image)} is {error}") from None


def _named_or_identified(image: str) -> Iterator[Use]:
    """What has an identifier is there already, and nothing is pulled for it."""
    if not is_identifier(image):
        yield _use(Action.PULL, image)


def _create_image(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    images, sources = target.values("fromImage"), target.values("fromSrc")
    if not images and not sources:
        raise UnjudgedError("it names no image: write fromImage or fromSrc into its query")
    # What a form in the body says goes before the query, and the engine shows no form to a plugin.
    if images or set(sources) != {"-"}:
        _check_no_body(request)
    elif _media_type(request) in _FORMS:
        raise UnjudgedError("it has a form as its body, which the engine does not show")
    for image in images:
        # `docker pull --all-tags` leaves the colon behind the name.
        yield _use(Action.PULL, image.removesuffix(":"))
    for source in sources:
        if source != "-":
            yield Use(Action.PULL, source, _registry_of_url(source))


def _check_no_body(request: ApiRequest) -> None:
    if request.headers.get("content-length") == "0" or "content-type" not in request.headers:
        return
    raise UnjudgedError(
        "it may have a body, which the engine does not show: send Content-Length: 0, or no Content-Type"
    )


def _media_type(request: ApiRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _registry_of_url(url: str) -> Registry:
    found = _URL.fullmatch(url)
    try:
        if found is None:
            raise ImageNameError("not a URL of http or https with a plain host")
        return registry_of_domain(found["domain"])
    except ImageNameError as error:
        raise UnjudgedError(f"{show(url)} is {error}") from None


def _push_image(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    yield _use(Action.PUSH, name)


def _pull_named(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    yield _use(Action.PULL, name)


def _search(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    for term in target.values("term"):
        try:
            yield Use(Action.PULL, term, registry_of_search(term))
        except ImageNameError as error:
            raise UnjudgedError(f"{show(term)} is {error}") from None


def _log_in(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    if request.body is None:  # as engines do it, since there is a password in it
        yield Use(Action.LOGIN, "", None)
        return
    servers = list(body.texts(body.read_json(request.body), "serveraddress"))
    for server in servers:
        yield Use(Action.LOGIN, "", _registry_of_url(server))
    if not servers:
        yield Use(Action.LOGIN, "", DOCKER_HUB)


def _json_of(request: ApiRequest) -> Any:
    if request.body is None:
        raise UnjudgedError(
            "the engine does not show its body: send it as application/json with its length, below 1 MiB"
        )
    return body.read_json(request.body)


def _images_of_mounts(value: Any, *path: str) -> Iterator[str]:
    for mount in body.items(value, *path, "Mounts"):
        if any(kind.casefold() == "image" for kind in body.texts(mount, "Type")):
            yield from body.texts(mount, "Source")


def _create_container(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    value = _json_of(request)
    images = [*body.texts(value, "Image"), *_images_of_mounts(value, "HostConfig"), *_images_of_mounts(value)]
    for image in images:
        yield from _named_or_identified(image)


def _change_service(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    value = _json_of(request)
    container = ("TaskTemplate", "ContainerSpec")
    for image in (*body.texts(value, *container, "Image"), *_images_of_mounts(value, *container)):
        yield from _named_or_identified(image)
    for remote in body.texts(value, "TaskTemplate", "PluginSpec", "Remote"):
        yield _use(Action.PULL, remote)


def _build(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    """The Dockerfile is in an archive or in BuildKit's session, which no plugin is shown: the kernel judges
    what it names."""
    for value in target.values("cachefrom"):
        try:
            images = list(body.items(body.read_json(value.encode("utf-8"))))
        except body.BodyError:
            raise UnjudgedError("its cachefrom is no JSON list") from None
        for image in images:
            # BuildKit takes other kinds of caches too.
            if isinstance(image, str) and image and "=" not in image:
                yield from _named_or_identified(image)


def _pull_plugin(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    remotes = target.values("remote")
    if not remotes:
        raise UnjudgedError("it names no plugin: write remote into its query")
    for remote in remotes:
        yield _use(Action.PULL, remote)


def _push_plugin(request: ApiRequest, target: RequestTarget, name: str) -> Iterator[Use]:
    # The engine finds a plugin by any first digits of its identifier, and pushes it by its name.
    if _HEXADECIMAL.fullmatch(name):
        raise UnjudgedError(f"{show(name)} may be a plugin's identifier: write its name")
    yield _use(Action.PUSH, name)


_Find = Callable[[ApiRequest, RequestTarget, str], Iterator[Use]]
_GET, _POST = ("GET", "HEAD"), ("POST",)
_ROUTES: tuple[tuple[tuple[str, ...], re.Pattern[str], _Find], ...] = tuple(
    (methods, re.compile(pattern, re.DOTALL), find)
    for methods, pattern, find in (
        (_POST, r"/images/create", _create_image),
        (_POST, r"/images/(?P<name>.+)/push", _push_image),
        (_GET, r"/images/search", _search),
        (_GET, r"/distribution/(?P<name>.+)/json", _pull_named),
        (_POST, r"/auth", _log_in),
        (_POST, r"/containers/create", _create_container),
        (_POST, r"/services/create", _change_service),
        (_POST, r"/services/[^/]+/update", _change_service),
        (_POST, r"/build", _build),
        (_GET, r"/plugins/privileges", _pull_plugin),
        (_POST, r"/plugins/pull", _pull_plugin),
        (_POST, r"/plugins/.+/upgrade", _pull_plugin),
        (_POST, r"/plugins/(?P<name>.+)/push", _push_plugin),
    )
)
