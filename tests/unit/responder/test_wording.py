"""What a refusal says, in each of its forms."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.policy.names import normalise
from ram_ebpf.responder.wording import FIRST_LABEL, blocked_name, oci_document, reason_phrase, sentence

MESSAGE = "Ask platform@acme.example to allow it."


@pytest.mark.parametrize(
    ("organization", "message", "rest"),
    [
        ("acme", MESSAGE, "ask-platform.acme.example"),
        (None, "Mail to First.Last+reg@IT.Corp.Example, please", "ask-first-last-reg.it.corp.example"),
        ("acme", "Open a ticket", "open-a-ticket"),
        ("acme", "Bücher: siehe Wiki!", "bucher-siehe-wiki"),
        ("Acme & Söhne", None, "of-acme-sohne"),
        (None, None, ""),
        ("株式会社", None, ""),
        (None, "!!!", ""),
        (None, "a@b", "ask-a.b"),
    ],
)
def test_names(organization: str | None, message: str | None, rest: str) -> None:
    assert blocked_name(organization, message) == f"{FIRST_LABEL}.{rest}".rstrip(".")


def test_a_long_message_is_cut_at_words() -> None:
    name = blocked_name(None, "please write to the people who look after registries " * 4)
    labels = name.split(".")
    assert max(map(len, labels)) <= 63
    assert len(name) <= 253
    assert labels[1] == "please-write-to-the-people-who-look-after-registries-please"


@given(st.none() | st.text(max_size=100), st.none() | st.text(max_size=200))
def test_any_name_is_one(organization: str | None, message: str | None) -> None:
    name = blocked_name(organization, message)
    assert normalise(name) == name
    labels = name.split(".")
    assert labels[0] == FIRST_LABEL
    assert all(0 < len(label) <= 63 and label.strip("-") == label for label in labels)


def test_sentences() -> None:
    assert sentence("evil.example", "acme", None, MESSAGE) == (
        f"Access to evil.example is blocked by acme's registry policy (rule: none). {MESSAGE}"
    )
    assert sentence("evil.example", None, "*.example (policy.yaml:7)", None) == (
        "Access to evil.example is blocked by the registry policy (rule: *.example (policy.yaml:7))."
    )


@given(st.text(max_size=600))
def test_phrases_stay_on_their_line(text: str) -> None:
    phrase = reason_phrase(text)
    assert len(phrase) <= 400
    assert all(" " <= character <= "~" for character in phrase)


@given(st.text(max_size=300))
def test_documents(text: str) -> None:
    document = oci_document(text, {"host": text})
    assert document.isascii()
    assert json.loads(document) == {"errors": [{"code": "DENIED", "message": text, "detail": {"host": text}}]}
