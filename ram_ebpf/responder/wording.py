"""The words of a refusal, in the forms that clients print: a sentence, a host name, a reason phrase, and a
document of the OCI distribution specification."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from ram_ebpf.policy.names import MAX_LABEL, MAX_NAME

FIRST_LABEL = "blocked-by-registry-access-policy"
_MAIL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._%+-]{0,63})@([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*)")
_LONGEST_PHRASE = 400  # characters; no client has been seen to bound it
_OTHER = re.compile(r"[^a-z0-9]+")


def sentence(host: str, organization: str | None, rule: str | None, message: str | None) -> str:
    """What a person is to read."""
    whose = f"{organization}'s" if organization else "the"
    text = f"Access to {host} is blocked by {whose} registry policy (rule: {rule or 'none'})."
    return f"{text} {message}" if message else text


def blocked_name(organization: str | None, message: str | None) -> str:
    """A host name that says so: labels of at most 63 octets and 253 in all (RFC 1035 2.3.4).

    With a mail address in the message it ends in that: `ask-platform.acme.example`; else in the message's
    own words, or the organisation's.
    """
    found = _MAIL.search(message or "")
    if found:
        local, domain = _slug(found[1]), found[2].lower()
        labels = _labels(f"ask-{local}") + [_slug(label) for label in domain.split(".")]
    elif message:
        labels = _labels(_slug(message))
    elif whose := _slug(organization or ""):
        labels = _labels(f"of-{whose}")
    else:
        labels = []
    name = FIRST_LABEL
    for label in labels:
        if not label or len(name) + 1 + len(label) > MAX_NAME:
            break
        name += f".{label}"
    return name


def _slug(text: str) -> str:
    """In the letters of a host name, words joined by hyphens."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return _OTHER.sub("-", ascii_text.lower()).strip("-")


def _labels(slug: str) -> list[str]:
    """Cut into labels at words where that is possible."""
    labels: list[str] = []
    while len(slug) > MAX_LABEL:
        cut = slug.rfind("-", 1, MAX_LABEL + 1)
        cut = cut if cut > 0 else MAX_LABEL
        labels.append(slug[:cut])
        slug = slug[cut:].lstrip("-")
    return [*labels, slug] if slug else labels


def reason_phrase(text: str) -> str:
    """The text as a reason phrase of HTTP/1.1: visible ASCII characters and spaces (RFC 9112 4)."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode("ascii")
    return "".join(c if " " <= c <= "~" else "?" for c in plain)[:_LONGEST_PHRASE]


def oci_document(text: str, detail: dict[str, Any]) -> bytes:
    """An error document (OCI distribution specification 1.1, "Error Codes"), code DENIED."""
    document = {"errors": [{"code": "DENIED", "message": text, "detail": detail}]}
    return json.dumps(document, ensure_ascii=True).encode("ascii")
