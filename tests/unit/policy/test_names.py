"""Host patterns: what is accepted, what is refused and why, and what matches."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.names import HostPattern, PatternError, PatternKind, normalise

LONG_LABEL = "a" * 63
LONGEST_NAME = ".".join(["a" * 63] * 3 + ["a" * 61])


@pytest.mark.parametrize(
    ("text", "canonical", "kind", "suffix"),
    [
        pytest.param("ghcr.io", "ghcr.io", PatternKind.EXACT, "ghcr.io", id="exact"),
        pytest.param("registry", "registry", PatternKind.EXACT, "registry", id="one-label"),
        pytest.param("GHCR.io", "ghcr.io", PatternKind.EXACT, "ghcr.io", id="case"),
        pytest.param("ghcr.io.", "ghcr.io", PatternKind.EXACT, "ghcr.io", id="trailing-dot"),
        pytest.param(
            "my_reg.example", "my_reg.example", PatternKind.EXACT, "my_reg.example", id="underscore"
        ),
        pytest.param("a--b.example", "a--b.example", PatternKind.EXACT, "a--b.example", id="two-hyphens"),
        pytest.param("1.example", "1.example", PatternKind.EXACT, "1.example", id="digit-label"),
        pytest.param("bücher.example", "xn--bcher-kva.example", PatternKind.EXACT, None, id="u-label"),
        pytest.param("BÜCHER.Example", "xn--bcher-kva.example", PatternKind.EXACT, None, id="u-label-case"),
        pytest.param("faß.example", "xn--fa-hia.example", PatternKind.EXACT, None, id="not-transitional"),
        pytest.param(
            "bücher。example", "xn--bcher-kva.example", PatternKind.EXACT, None, id="ideographic-dot"
        ),
        pytest.param("\uff47\uff48\uff43\uff52.io", "ghcr.io", PatternKind.EXACT, None, id="full-width"),
        pytest.param("*.bücher.example", "*.xn--bcher-kva.example", PatternKind.ONE, None, id="star-u-label"),
        pytest.param("XN--BCHER-KVA.example", "xn--bcher-kva.example", PatternKind.EXACT, None, id="a-label"),
        pytest.param("*.example.com", "*.example.com", PatternKind.ONE, "example.com", id="one"),
        pytest.param("**.example.com", "**.example.com", PatternKind.DEEP, "example.com", id="deep"),
        pytest.param("**.com", "**.com", PatternKind.DEEP, "com", id="deep-top-level"),
        pytest.param("*.*.example.com", "*.*.example.com", PatternKind.GLOB, "", id="two-stars"),
        pytest.param("a.*.example.com", "a.*.example.com", PatternKind.GLOB, "", id="inner-star"),
        pytest.param(
            "**.s3.*.amazonaws.com", "**.s3.*.amazonaws.com", PatternKind.GLOB, "", id="deep-and-star"
        ),
        pytest.param("*-docker.pkg.dev", "*-docker.pkg.dev", PatternKind.GLOB, "", id="star-then-hyphen"),
        pytest.param("prod-*.example", "prod-*.example", PatternKind.GLOB, "", id="hyphen-then-star"),
        pytest.param(
            "prod-*-starport-layer-bucket.s3.*.amazonaws.com",
            "prod-*-starport-layer-bucket.s3.*.amazonaws.com",
            PatternKind.GLOB,
            "",
            id="ecr-bucket",
        ),
        pytest.param(f"{LONG_LABEL}.io", f"{LONG_LABEL}.io", PatternKind.EXACT, None, id="63-octet-label"),
        pytest.param(LONGEST_NAME, LONGEST_NAME, PatternKind.EXACT, None, id="253-octet-name"),
        pytest.param(f"{LONGEST_NAME}.", LONGEST_NAME, PatternKind.EXACT, None, id="253-octets-and-dot"),
    ],
)
def test_accepts(text: str, canonical: str, kind: PatternKind, suffix: str | None) -> None:
    pattern = HostPattern.parse(text)
    assert pattern.text == str(pattern) == canonical
    assert pattern.kind is kind
    assert pattern.labels == tuple(canonical.split("."))
    if suffix is not None:
        assert pattern.suffix == suffix


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "the host name is empty, write one, such as registry.example.com", id="empty"),
        pytest.param(".", "the host name is empty, write one, such as registry.example.com", id="root"),
        pytest.param("*", "'*' ends in a wildcard, write the last label out, as in *.example.com", id="star"),
        pytest.param(
            "**", "'**' ends in a wildcard, write the last label out, as in *.example.com", id="deep"
        ),
        pytest.param(
            "foo.*",
            "'foo.*' ends in a wildcard, write the last label out, as in *.example.com",
            id="last-star",
        ),
        pytest.param(
            "foo.c*",
            "'foo.c*' ends in a wildcard, write the last label out, as in *.example.com",
            id="last-glob",
        ),
        pytest.param(
            "a.*b*.**",
            "'a.*b*.**' has '**' to the right of another label, "
            "write ** only as the leftmost label, and * for exactly one label elsewhere",
            id="deep-at-right",
        ),
        pytest.param(
            "a.**.b",
            "'a.**.b' has '**' to the right of another label, "
            "write ** only as the leftmost label, and * for exactly one label elsewhere",
            id="deep-inside",
        ),
        pytest.param(
            "a**.b",
            "'a**.b' has '**' inside a label, write one * inside a label, or ** as a whole label at the left",
            id="deep-in-label",
        ),
        pytest.param(
            "***.b",
            "'***.b' has '**' inside a label, write one * inside a label, or ** as a whole label at the left",
            id="three-stars",
        ),
        pytest.param("a..b", "'a..b' has an empty label, remove the extra dot", id="empty-label"),
        pytest.param(
            "ghcr.io..", "'ghcr.io..' has an empty label, remove the extra dot", id="two-trailing-dots"
        ),
        pytest.param(
            ".example.com",
            "'.example.com' has an empty label, write *.example.com for the names below example.com",
            id="leading-dot",
        ),
        pytest.param("-a.io", "label '-a' starts with '-', remove the hyphen", id="leading-hyphen"),
        pytest.param("a-.io", "label 'a-' ends with '-', remove the hyphen", id="trailing-hyphen"),
        pytest.param("-.io", "label '-' starts with '-', remove the hyphen", id="only-hyphen"),
        pytest.param(
            "a b.io", "'a b.io' has a space or an unprintable character, remove it", id="space-inside"
        ),
        pytest.param(
            "ghcr.io\n", "'ghcr.io\\n' has a space or an unprintable character, remove it", id="line-break"
        ),
        pytest.param(
            "a\u202eb.io",
            "'a\\u202eb.io' has a space or an unprintable character, remove it",
            id="bidirectional-override",
        ),
        pytest.param(
            "a$b.io",
            "'a$b.io' has the character '$', a host name is made of letters, digits, '-', '_' and dots",
            id="character",
        ),
        pytest.param(
            f"{LONG_LABEL}a.io",
            f"'{LONG_LABEL[:59]}…' has a label of 64 characters, a label has at most 63",
            id="64-octet-label",
        ),
        pytest.param(
            f"{LONGEST_NAME}a",
            f"'{'a' * 59}…' is 254 characters long, a host name has at most 253",
            id="254-octet-name",
        ),
        pytest.param(
            "üñçéàö" * 10 + ".io",
            f"'{'üñçéàö' * 10}' is not a valid internationalised label, "
            "correct it, or write the A-label that starts with xn--",
            id="a-label-too-long",
        ),
        pytest.param(
            ".".join(["ü" * 30] * 8),
            f"'{'ü' * 30}.{'ü' * 28}…' is 295 characters long as A-labels, a host name has at most 253",
            id="a-labels-too-long-together",
        ),
        pytest.param(
            "bü*.example",
            "'bü*.example' has a wildcard inside the non-ASCII label 'bü*', "
            "write that label without a wildcard, or * for the whole label",
            id="wildcard-in-u-label",
        ),
        pytest.param(
            "💩.example",
            "'💩' is not a valid internationalised label, "
            "correct it, or write the A-label that starts with xn--",
            id="not-idna",
        ),
        pytest.param(
            "ü_x.example",
            "'ü_x' is not a valid internationalised label, "
            "correct it, or write the A-label that starts with xn--",
            id="std3-rules",
        ),
        pytest.param("10.0.0.5", "'10.0.0.5' is an IP address, write address: 10.0.0.5", id="ipv4"),
        pytest.param("10.0.0.5.", "'10.0.0.5.' is an IP address, write address: 10.0.0.5", id="ipv4-dot"),
        pytest.param("::1", "'::1' is an IP address, write address: ::1", id="ipv6"),
        pytest.param("[FD00::1]", "'[FD00::1]' is an IP address, write address: fd00::1", id="ipv6-brackets"),
        pytest.param(
            "\uff11\uff10.0.0.5", "'10.0.0.5' is an IP address, write address: 10.0.0.5", id="full-width-ipv4"
        ),
        pytest.param(
            "10.20.0.0/16", "'10.20.0.0/16' is a network, write address: 10.20.0.0/16", id="ipv4-network"
        ),
        pytest.param("fd00::/8", "'fd00::/8' is a network, write address: fd00::/8", id="ipv6-network"),
        pytest.param(
            "10.0.0.*",
            "'10.0.0.*' looks like an IP address, "
            "write address: with a whole address or network, such as address: 10.20.0.0/24",
            id="ipv4-wildcard",
        ),
        pytest.param(
            "127.1",
            "'127.1' looks like an IP address, "
            "write address: with a whole address or network, such as address: 10.20.0.0/24",
            id="ipv4-short",
        ),
        pytest.param(
            "10.0.0.5:5000",
            "'10.0.0.5:5000' has a port, write address: 10.0.0.5 and ports: [5000]",
            id="ipv4-port",
        ),
        pytest.param(
            "[fd00::1]:5000",
            "'[fd00::1]:5000' has a port, write address: fd00::1 and ports: [5000]",
            id="ipv6-port",
        ),
        pytest.param("https://ghcr.io", "'https://ghcr.io' is a URL, write host: ghcr.io", id="url"),
        pytest.param(
            "http://ghcr.io/v2/",
            "'http://ghcr.io/v2/' is a URL, write host: ghcr.io and ports: [80]",
            id="http",
        ),
        pytest.param(
            "https://me:pw@reg.example:5000/v2/?n=1",
            "'https://me:pw@reg.example:5000/v2/?n=1' is a URL, write host: reg.example and ports: [5000]",
            id="url-with-everything",
        ),
        pytest.param(
            "oci://*.reg.example/x",
            "'oci://*.reg.example/x' is a URL, write host: \"*.reg.example\"",
            id="url-star",
        ),
        pytest.param(
            "https://$$$/",
            "'https://$$$/' is a URL, write the host alone, such as host: registry.example.com",
            id="url-without-host",
        ),
        pytest.param("ghcr.io/foo", "'ghcr.io/foo' has a path, write host: ghcr.io", id="image"),
        pytest.param(
            "localhost:5000/foo:latest",
            "'localhost:5000/foo:latest' has a path, write host: localhost and ports: [5000]",
            id="image-with-port-and-tag",
        ),
        pytest.param(
            "host:5000", "'host:5000' has a port, write host: host and ports: [5000]", id="host-and-port"
        ),
        pytest.param("ghcr.io:443", "'ghcr.io:443' has a port, write host: ghcr.io", id="default-port"),
        pytest.param(
            "a:b", "'a:b' has a colon, write the host alone, such as host: registry.example.com", id="colon"
        ),
        pytest.param("me@ghcr.io", "'me@ghcr.io' has a user name, write host: ghcr.io", id="user"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(PatternError) as caught:
        HostPattern.parse(text)
    assert str(caught.value) == message
    assert f"{caught.value.problem}, {caught.value.cure}" == message


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        pytest.param("docker.io", "docker.io", True, id="exact"),
        pytest.param("docker.io", "DOCKER.io.", True, id="exact-case-and-dot"),
        pytest.param("docker.io", "evildocker.io", False, id="exact-not-across-boundary"),
        pytest.param("docker.io", "docker.io.evil", False, id="exact-not-as-prefix"),
        pytest.param("docker.io", "a.docker.io", False, id="exact-not-below"),
        pytest.param("*.a.b", "x.a.b", True, id="one"),
        pytest.param("*.a.b", "a.b", False, id="one-not-parent"),
        pytest.param("*.a.b", "x.y.a.b", False, id="one-not-two-labels"),
        pytest.param("*.a.b", "xa.b", False, id="one-not-across-boundary"),
        pytest.param("**.a.b", "x.a.b", True, id="deep-one-label"),
        pytest.param("**.a.b", "x.y.z.a.b", True, id="deep-three-labels"),
        pytest.param("**.a.b", "a.b", False, id="deep-not-parent"),
        pytest.param("**.a.b", "xa.b", False, id="deep-not-across-boundary"),
        pytest.param("*-docker.pkg.dev", "europe-docker.pkg.dev", True, id="glob"),
        pytest.param("*-docker.pkg.dev", "-docker.pkg.dev", True, id="glob-empty"),
        pytest.param("*-docker.pkg.dev", "a.b-docker.pkg.dev", False, id="glob-not-across-boundary"),
        pytest.param("a*b*c.io", "abc.io", True, id="two-stars-empty"),
        pytest.param("a*b*c.io", "axbxbxc.io", True, id="two-stars-backtrack"),
        pytest.param("a*b*c.io", "axcxb.io", False, id="two-stars-order"),
        pytest.param("prod-*-x.s3.*.aws.com", "prod-eu-west-1-x.s3.eu-west-1.aws.com", True, id="ecr"),
        pytest.param("prod-*-x.s3.*.aws.com", "prod-eu-x.s3.aws.com", False, id="ecr-label-missing"),
        pytest.param("**.s3.*.aws.com", "a.b.s3.eu.aws.com", True, id="deep-and-star"),
        pytest.param("**.s3.*.aws.com", "s3.eu.aws.com", False, id="deep-and-star-parent"),
        pytest.param("**.io", "\u212a.io", False, id="kelvin-sign"),
        pytest.param("**.io", "a..io", False, id="empty-label"),
        pytest.param("**.io", ".io", False, id="empty-first-label"),
        pytest.param("**.io", "a.io..", False, id="two-trailing-dots"),
        pytest.param("**.io", "a b.io", False, id="space"),
        pytest.param("**.io", "a.io\n", False, id="line-break"),
        pytest.param("**.io", "", False, id="empty"),
        pytest.param("**.io", "a" * 64 + ".io", False, id="long-label"),
        pytest.param("**.io", "a." * 126 + "io", False, id="254-octets"),
    ],
)
def test_matches(pattern: str, name: str, expected: bool) -> None:
    assert HostPattern.parse(pattern).matches(name) is expected


def test_many_stars_take_no_exponential_time() -> None:
    pattern = HostPattern.parse("*a" * 30 + "b.io")
    assert not pattern.matches("a" * 63 + ".io")


def test_specificity_ascends() -> None:
    ascending = [
        "**.com",
        "**.*.com",
        "*.com",
        "**.corp.com",
        "*.corp.com",
        "a*.corp.com",
        "ab*.corp.com",
        "a.*.reg.corp.com",
        "**.eu.reg.corp.com",
        "*.eu.reg.corp.com",
        "b.com",
        "a.eu.reg.corp.com",
    ]
    ranks = [HostPattern.parse(text).specificity for text in ascending]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


def test_equal_by_text() -> None:
    assert HostPattern.parse("A.b.") == HostPattern.parse("a.B")
    assert len({HostPattern.parse("A.b."), HostPattern.parse("a.B")}) == 1


def test_normalise() -> None:
    assert normalise("A.B.") == "a.b"
    assert normalise("a..b") is None
