"""Every bad policy file gives its line, what is wrong, and what would be right."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ram_ebpf.policy.document import MAX_RULES
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.loader import MAX_POLICY_BYTES, default_policy, load_policy, parse_policy
from ram_ebpf.policy.model import CatalogueEntry, Engine, EngineScope, HostEntry, Mode

HEAD = "version: 1\nregistries:\n"


def errors_of(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(PolicyErrors) as caught:
        parse_policy(data, "p.yaml")
    return [str(error) for error in caught.value.errors]


# Files of which nothing more can be known than the one error.
@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            b"", "p.yaml: the file is empty, write at least version: 1 and registries:", id="empty-file"
        ),
        pytest.param(
            b" \n\n", "p.yaml: the file is empty, write at least version: 1 and registries:", id="blank-file"
        ),
        pytest.param(
            b"# nothing\n",
            "p.yaml: the file has only comments, write at least version: 1 and registries:",
            id="only-comments",
        ),
        pytest.param(
            b"---\n",
            "p.yaml: nothing where keys and values belong, start with version: 1",
            id="empty-document",
        ),
        pytest.param(
            b"- docker-hub\n",
            "p.yaml: a list where keys and values belong, start with version: 1",
            id="top-level-list",
        ),
        pytest.param(
            b"docker-hub\n",
            "p.yaml: 'docker-hub' where keys and values belong, start with version: 1",
            id="top-level-text",
        ),
        pytest.param(
            "version: 1\n".encode("utf-16"), "p.yaml: the file is in UTF-16, save it as UTF-8", id="utf-16"
        ),
        pytest.param(
            b"\xfe\xff\x00v", "p.yaml: the file is in UTF-16, save it as UTF-8", id="utf-16-big-endian"
        ),
        pytest.param(
            "version: 1\n".encode("utf-32"), "p.yaml: the file is in UTF-32, save it as UTF-8", id="utf-32"
        ),
        pytest.param(
            b"version: 1\nmessage: caf\xe9\n",
            "p.yaml:2: byte 0xe9 at offset 23 is not UTF-8, save the file as UTF-8",
            id="latin-1",
        ),
        pytest.param(
            b"version: 1\n\nmode: \x00\n", "p.yaml:3: the file has a NUL character, remove it", id="nul"
        ),
        pytest.param(
            b"version: 1\nmode: \x1b[1m\n",
            "p.yaml:2: the file has the character U+001B, remove it",
            id="escape",
        ),
        pytest.param(
            "version: 1\nmode: \x85a\n", "p.yaml:2: the file has the character U+0085, remove it", id="nel"
        ),
        pytest.param(
            "version: 1\nmode: \u2028a\n",
            "p.yaml:2: the file has the character U+2028, remove it",
            id="line-separator",
        ),
        pytest.param(
            b"version: 1\rmode: audit\r",
            "p.yaml:1: the file has the character U+000D, remove it",
            id="lone-carriage-return",
        ),
        pytest.param(
            b"version: 1\nregistries:\n\t- ghcr\n",
            "p.yaml:3: a tab indents this line, indent with spaces",
            id="tab",
        ),
        pytest.param(
            b"version: 1\nregistries:\n  -\thost:\ta.b\n  - \t- a\n    -\tb\n  -\t\tc: d\n",
            "p.yaml:3: a tab stands where YAML wants spaces, use spaces",
            id="tab-after-dash",
        ),
        pytest.param(
            HEAD + "  - ghcr\n---\nversion: 1\n",
            "p.yaml:4: a second YAML document starts here, keep one, and remove the ---",
            id="two-documents",
        ),
        pytest.param(
            "version: 1\nregistries: &all\n  - ghcr\n",
            "p.yaml:2: &all is a YAML anchor, and anchors are not read, write the value out",
            id="anchor",
        ),
        pytest.param(
            HEAD + "  - host: *blobs\n",
            "p.yaml:3: *blobs is a YAML alias, and aliases are not read, "
            "write the value out, or put a pattern that starts with * in quotes",
            id="alias",
        ),
        pytest.param(
            HEAD + "  - host: *.example.com\n",
            "p.yaml:3: a * that is not in quotes starts a YAML alias, "
            'put the pattern in quotes, as in "*.example.com"',
            id="pattern-without-quotes",
        ),
        pytest.param(
            HEAD + "  - host: **.example.com\n",
            "p.yaml:3: a * that is not in quotes starts a YAML alias, "
            'put the pattern in quotes, as in "*.example.com"',
            id="deep-pattern-without-quotes",
        ),
        pytest.param(
            "version: !!int 1\n",
            "p.yaml:1: 'tag:yaml.org,2002:int' is a YAML tag, and tags are not read, write the value alone",
            id="tag",
        ),
        pytest.param(
            "version: !!python/object/apply:os.system [id]\n",
            "p.yaml:1: 'tag:yaml.org,2002:python/object/apply:os.system' is a YAML tag, "
            "and tags are not read, write the value alone",
            id="python-tag",
        ),
        pytest.param(
            "version: 1\nregistries: " + "[" * 20 + "]" * 20 + "\n",
            "p.yaml:2: lists and mappings nest deeper than 20, a policy needs no more than 5",
            id="deep",
        ),
        pytest.param(
            "[a, b]: 1\n",
            "p.yaml:1: a list or a mapping stands where a key belongs, write a word and a colon",
            id="list-as-key",
        ),
        pytest.param(
            "version: 1\nregistries: [ghcr\nmode: audit\n",
            "p.yaml:3: this is not valid YAML (did not find expected ',' or ']'), "
            "look at the indentation, the quotes and the colons up to here",
            id="syntax",
        ),
        pytest.param(
            'version: 1\nmessage: "open\n',
            "p.yaml:3: this is not valid YAML (found unexpected end of stream), "
            "look at the indentation, the quotes and the colons up to here",
            id="open-quote",
        ),
    ],
)
def test_unreadable(text: str | bytes, message: str) -> None:
    assert errors_of(text) == [message]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("registries: [ghcr]\n", "1: version is missing, write version: 1", id="no-version"),
        pytest.param(
            "version: 2\nregistries: [ghcr]\n",
            "1: version: the number 2 is not a version of this format, write version: 1",
            id="version-2",
        ),
        pytest.param(
            "version: '1'\nregistries: [ghcr]\n",
            "1: version: '1' is not a version of this format, write version: 1",
            id="version-text",
        ),
        pytest.param(
            "version: true\nregistries: [ghcr]\n",
            "1: version: true is not a version of this format, write version: 1",
            id="version-true",
        ),
        pytest.param(
            "version: 1\n",
            "1: registries is missing, write a list, such as registries: [docker-hub]",
            id="no-registries",
        ),
        pytest.param(
            "version: 1\nregistries: []\n",
            "2: registries: the list is empty, write at least one item, such as [docker-hub]",
            id="no-registry",
        ),
        pytest.param(
            "version: 1\nregistries:\n",
            "2: registries: the list is empty, write at least one item, such as [docker-hub]",
            id="registries-nothing",
        ),
        pytest.param(
            "version: 1\nregistries: ghcr\n",
            "2: registries: 'ghcr' where a list belongs, write a list, such as [docker-hub]",
            id="registries-text",
        ),
        pytest.param(
            HEAD + "  - ghcr\nmodus: audit\n",
            "4: modus: 'modus' is not a known key, did you mean mode?",
            id="unknown-key-near",
        ),
        pytest.param(
            HEAD + "  - ghcr\nxyzzy: 1\n",
            "4: xyzzy: 'xyzzy' is not a known key, the keys known here: "
            "version, organization, mode, message, registries, denied, proxies, resolvers, dns, "
            "connections, recognition, docker, refusals, control, fail, lease_seconds, metrics, log, export, "
            "scopes",
            id="unknown-key-far",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    port: 443\n",
            "4: registries[0].port: 'port' is not a known key, did you mean ports?",
            id="unknown-key-of-host",
        ),
        pytest.param(
            HEAD + "  - address: 10.0.0.1\n    private: true\n",
            "4: registries[0].private: 'private' is not a known key, the keys known here: "
            "address, ports, actions",
            id="unknown-key-of-address",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also:\n      - host: b.example\n        prts: [1]\n",
            "6: registries[0].also[0].prts: 'prts' is not a known key, did you mean ports?",
            id="unknown-key-of-also",
        ),
        pytest.param(
            HEAD + "  - ghcr\n'a b': 1\n",
            "4: 'a b': 'a b' is not a known key, the keys known here: "
            "version, organization, mode, message, registries, denied, proxies, resolvers, dns, "
            "connections, recognition, docker, refusals, control, fail, lease_seconds, metrics, log, export, "
            "scopes",
            id="unknown-key-with-space",
        ),
        pytest.param(
            HEAD + "  - ghcr\nmode: audit\nmode: enforce\n",
            "5: mode: this key is already on line 4, keep one of them",
            id="repeated-key",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [1]\n    ports: [2]\n",
            "5: registries[0].ports: this key is already on line 4, keep one of them",
            id="repeated-key-inside",
        ),
        pytest.param(
            HEAD + "  - ghcr\nmode: on\n",
            "4: mode: 'on' is not one of the choices, write enforce or audit",
            id="mode",
        ),
        pytest.param(
            HEAD + "  - ghcr\nmode: enforced\n",
            "4: mode: 'enforced' is not one of the choices, did you mean enforce?",
            id="mode-near",
        ),
        pytest.param(
            HEAD + "  - ghcr\norganization: ''\n",
            "4: organization: 0 characters, write 1 to 100",
            id="organization-empty",
        ),
        pytest.param(
            HEAD + "  - ghcr\norganization: 42\n",
            "4: organization: the number 42 where text belongs, put it in quotes",
            id="organization-number",
        ),
        pytest.param(
            HEAD + "  - ghcr\norganization:\n",
            "4: organization: nothing where text belongs, write text",
            id="organization-nothing",
        ),
        pytest.param(
            HEAD + f"  - ghcr\nmessage: {'a' * 201}\n",
            "4: message: 201 characters, write 1 to 200",
            id="message-long",
        ),
        pytest.param(
            HEAD + "  - ghcr\nmessage: |\n  two\n  lines\n",
            "4: message: 'two\\nlines\\n' has an unprintable character or a line break, "
            "write one printable line",
            id="message-two-lines",
        ),
        pytest.param(
            HEAD + "  - docker_hub\n",
            "3: registries[0]: 'docker_hub' is not in the catalogue, did you mean docker-hub?",
            id="unknown-id-near",
        ),
        pytest.param(
            HEAD + "  - ghcr.io\n",
            "3: registries[0]: 'ghcr.io' is not in the catalogue, "
            "write ghcr for that registry, or host: ghcr.io for that host alone",
            id="id-is-host-of-catalogue",
        ),
        pytest.param(
            HEAD + "  - registry.corp.example\n",
            "3: registries[0]: 'registry.corp.example' is not in the catalogue, "
            "write host: registry.corp.example",
            id="id-is-host",
        ),
        pytest.param(
            HEAD + '  - "*.corp.example"\n',
            "3: registries[0]: '*.corp.example' is not in the catalogue, write host: \"*.corp.example\"",
            id="id-is-pattern",
        ),
        pytest.param(
            HEAD + "  - what/ever\n",
            "3: registries[0]: 'what/ever' is not in the catalogue, write host: and the registry's host name",
            id="id-is-nothing",
        ),
        pytest.param(
            HEAD + "  - 5\n",
            "3: registries[0]: the number 5 where a registry belongs, "
            "write a catalogue id, host: or address:",
            id="entry-number",
        ),
        pytest.param(
            HEAD + "  - ports: [443]\n",
            "3: registries[0]: the entry has neither id nor host nor address, "
            "write a catalogue id, host: or address:",
            id="entry-without-host",
        ),
        pytest.param(
            HEAD + "  - hosts: a.example\n",
            "3: registries[0]: the entry has neither id nor host nor address, did you mean host?",
            id="entry-with-hosts",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    address: 10.0.0.1\n",
            "3: registries[0]: one entry has host and address, write a list item for each",
            id="entry-with-both",
        ),
        pytest.param(
            HEAD + "  - host: 5000\n",
            "3: registries[0].host: the number 5000 where text belongs, put it in quotes",
            id="host-number",
        ),
        pytest.param(
            HEAD + '  - host: "a.*b*.**"\n',
            "3: registries[0].host: 'a.*b*.**' has '**' to the right of another label, "
            "write ** only as the leftmost label, and * for exactly one label elsewhere",
            id="impossible-pattern",
        ),
        pytest.param(
            HEAD + "  - host: 10.0.0.5\n",
            "3: registries[0].host: '10.0.0.5' is an IP address, write address: 10.0.0.5",
            id="host-address",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also: []\n",
            "4: registries[0].also: the list is empty, write at least one item, "
            "such as [blobs.registry.example.com]",
            id="also-empty",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also: [https://b.example]\n",
            "4: registries[0].also[0]: 'https://b.example' is a URL, write host: b.example",
            id="also-url",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also:\n      - ports: [1]\n",
            "5: registries[0].also[0]: host is missing, write host: and a host name",
            id="also-without-host",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also: [5]\n",
            "4: registries[0].also[0]: the number 5 where a mapping belongs, write a host name",
            id="also-number",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: yes\n",
            "4: registries[0].private: 'yes' is not a yes or no, "
            "write true, false or a list of networks, such as [10.20.0.0/16]",
            id="private-yes",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private:\n",
            "4: registries[0].private: nothing is not a yes or no, "
            "write true, false or a list of networks, such as [10.20.0.0/16]",
            id="private-nothing",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: 1\n",
            "4: registries[0].private: the number 1 is not a yes or no, "
            "write true, false or a list of networks, such as [10.20.0.0/16]",
            id="private-number",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: { network: 10.0.0.0/8 }\n",
            "4: registries[0].private: a mapping is not a yes or no, "
            "write true, false or a list of networks, such as [10.20.0.0/16]",
            id="private-mapping",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: 10.0.0.0/8\n",
            "4: registries[0].private: '10.0.0.0/8' where a list belongs, write a list, such as [10.0.0.0/8]",
            id="private-bare-network",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: []\n",
            "4: registries[0].private: the list is empty, write at least one item, such as [10.20.0.0/16]",
            id="private-empty",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private:\n      - 10.0.0.0/8\n      - true\n",
            "6: registries[0].private[1]: true where text belongs, put it in quotes",
            id="private-list-of-true",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private:\n      - 10.0.0.0/8\n      - 10.20.0.1/24\n",
            "6: registries[0].private[1]: '10.20.0.1/24' has bits set after its prefix, "
            "write 10.20.0.0/24, or 10.20.0.1 for that host alone",
            id="private-host-bits",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: ['10.20.0.7:5000']\n",
            "4: registries[0].private[0]: '10.20.0.7:5000' has a port, write the address alone: 10.20.0.7",
            id="private-port",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: ['[fd00::1]:5000']\n",
            "4: registries[0].private[0]: '[fd00::1]:5000' has a port, write the address alone: fd00::1",
            id="private-port-ipv6",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: [b.example]\n",
            "4: registries[0].private[0]: 'b.example' is not an IP address or network, "
            "write one, such as 10.20.0.5 or 10.20.0.0/24",
            id="private-host",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: ['::ffff:10.0.0.1']\n",
            "4: registries[0].private[0]: '::ffff:a00:1' is an IPv4-mapped address, write 10.0.0.1",
            id="private-mapped",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    private: [10.0.0.1, 10.0.0.1/32]\n",
            "4: registries[0].private: network 10.0.0.1/32 is given twice, write each network once",
            id="private-twice",
        ),
        pytest.param(
            HEAD + f"  - host: a.example\n    private: [{', '.join(f'10.{n}.0.0/16' for n in range(17))}]\n",
            "4: registries[0].private: the list has 17 items, write 16 at most",
            id="private-seventeen",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: []\n",
            "4: denied: the list is empty, write at least one item, such as [public.corp.example]",
            id="denied-empty",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n",
            "4: denied: the list is empty, write at least one item, such as [public.corp.example]",
            id="denied-nothing",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: ghcr.io\n",
            "4: denied: 'ghcr.io' where a list belongs, write a list, such as [public.corp.example]",
            id="denied-text",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: { host: ghcr.io }\n",
            "4: denied: a mapping where a list belongs, write a list, such as [public.corp.example]",
            id="denied-mapping",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndeny: [ghcr.io]\n",
            "4: deny: 'deny' is not a known key, did you mean denied?",
            id="deny",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - a.example\n  - host: GHCR.io\n    ports: [443]\n",
            "6: denied[1]: a mapping where a host pattern belongs, write the host pattern alone: ghcr.io",
            id="denied-host",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - host: '*.A.example'\n",
            "5: denied[0]: a mapping where a host pattern belongs, "
            'write the host pattern alone: "*.a.example"',
            id="denied-host-pattern",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - host: https://ghcr.io\n",
            "5: denied[0]: a mapping where a host pattern belongs, "
            "write the host pattern alone, such as public.corp.example",
            id="denied-host-url",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - address: 10.0.0.1\n",
            "5: denied[0]: a mapping where a host pattern belongs, "
            "write the host pattern alone, such as public.corp.example",
            id="denied-address-entry",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - [ghcr.io]\n",
            "5: denied[0]: a list where a host pattern belongs, "
            "write the host pattern alone, such as public.corp.example",
            id="denied-list",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  -\n",
            "5: denied[0]: nothing where a host pattern belongs, "
            "write the host pattern alone, such as public.corp.example",
            id="denied-null",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: [5000]\n",
            "4: denied[0]: the number 5000 where a host pattern belongs, "
            "write the host pattern alone, such as public.corp.example",
            id="denied-number",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - https://GHCR.io:5000/team\n",
            "5: denied[0]: 'https://GHCR.io:5000/team' is a URL, write the host pattern alone: ghcr.io",
            id="denied-url",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: ['*.a.example:5000']\n",
            "4: denied[0]: '*.a.example:5000' has a port, write the host pattern alone: \"*.a.example\"",
            id="denied-port",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: [ghcr.io/team/image]\n",
            "4: denied[0]: 'ghcr.io/team/image' has a path, write the host pattern alone: ghcr.io",
            id="denied-image",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: ['https://$$$/']\n",
            "4: denied[0]: 'https://$$$/' is a URL, "
            "write the host pattern alone, such as registry.example.com",
            id="denied-url-without-host",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: [10.0.0.5]\n",
            "4: denied[0]: '10.0.0.5' is an IP address, write a host name, as addresses cannot stand here",
            id="denied-address",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: ['http://10.0.0.5/']\n",
            "4: denied[0]: 'http://10.0.0.5/' is a URL, write a host name, as addresses cannot stand here",
            id="denied-url-of-address",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: [10.0.0.0/8]\n",
            "4: denied[0]: '10.0.0.0/8' is a network, write a host name, as addresses cannot stand here",
            id="denied-network",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: ['10.0.0.*']\n",
            "4: denied[0]: '10.0.0.*' looks like an IP address, "
            "write a host name, as addresses cannot stand here",
            id="denied-address-wildcard",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: ['a.**.b']\n",
            "4: denied[0]: 'a.**.b' has '**' to the right of another label, "
            "write ** only as the leftmost label, and * for exactly one label elsewhere",
            id="denied-impossible-pattern",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: [*.a.example]\n",
            "4: a * that is not in quotes starts a YAML alias, "
            'put the pattern in quotes, as in "*.example.com"',
            id="denied-pattern-without-quotes",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied: [ghcr]\n",
            "4: denied[0]: 'ghcr' is a catalogue id, write host patterns, such as ghcr.io",
            id="denied-id",
        ),
        pytest.param(
            HEAD + "  - ecr\ndenied: [ecr]\n",
            "4: denied[0]: 'ecr' is a catalogue id, write host patterns, "
            'such as "*.dkr.ecr.*.amazonaws.com"',
            id="denied-id-with-patterns",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndenied:\n  - a.example\n  - b.example\n  - A.example.\n",
            "7: denied[2]: host a.example is already on line 5, keep one of them",
            id="denied-twice",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { allowed_names_only: yes }\n",
            "4: dns.allowed_names_only: 'yes' is not a yes or no, write true or false",
            id="dns-allowed-names-only",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { allowed_names_only: }\n",
            "4: dns.allowed_names_only: nothing is not a yes or no, write true or false",
            id="dns-allowed-names-only-nothing",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: []\n",
            "4: registries[0].ports: the list is empty, write at least one item, such as [443]",
            id="ports-empty",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: 443\n",
            "4: registries[0].ports: the number 443 where a list belongs, write a list, such as [443]",
            id="ports-number",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [0]\n",
            "4: registries[0].ports[0]: the number 0 is not a port, write a number from 1 to 65535",
            id="port-0",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports:\n      - 443\n      - 65536\n",
            "6: registries[0].ports[1]: the number 65536 is not a port, write a number from 1 to 65535",
            id="port-65536",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [https]\n",
            "4: registries[0].ports[0]: 'https' is not a port, write a number from 1 to 65535",
            id="port-name",
        ),
        pytest.param(
            HEAD + '  - host: a.example\n    ports: ["443"]\n',
            "4: registries[0].ports[0]: '443' is text, write the number alone: 443",
            id="port-text",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [443.0]\n",
            "4: registries[0].ports[0]: the number 443.0 is not a port, write a number from 1 to 65535",
            id="port-float",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [true]\n",
            "4: registries[0].ports[0]: true is not a port, write a number from 1 to 65535",
            id="port-true",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [443, 443]\n",
            "4: registries[0].ports: port 443 is given twice, write each port once",
            id="port-twice",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    ports: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n",
            "4: registries[0].ports: the list has 9 items, write 8 at most",
            id="nine-ports",
        ),
        pytest.param(
            HEAD + "  - address: 10.20.0.1/24\n",
            "3: registries[0].address: '10.20.0.1/24' has bits set after its prefix, "
            "write 10.20.0.0/24, or 10.20.0.1 for that host alone",
            id="host-bits",
        ),
        pytest.param(
            HEAD + "  - address: 2001:db8::1/64\n",
            "3: registries[0].address: '2001:db8::1/64' has bits set after its prefix, "
            "write 2001:db8::/64, or 2001:db8::1 for that host alone",
            id="host-bits-ipv6",
        ),
        pytest.param(
            HEAD + "  - address: 10.20.0.0/255.255.255.0\n",
            "3: registries[0].address: '10.20.0.0/255.255.255.0' has no prefix length after the '/', "
            "write one, such as 10.20.0.0/24",
            id="netmask",
        ),
        pytest.param(
            HEAD + "  - address: 10.20.0.0/33\n",
            "3: registries[0].address: '10.20.0.0/33' is not an IP address or network, "
            "write one, such as 10.20.0.5 or 10.20.0.0/24",
            id="prefix-33",
        ),
        pytest.param(
            HEAD + "  - address: 10.20.0.7:5000\n",
            "3: registries[0].address: '10.20.0.7:5000' has a port, "
            "write address: 10.20.0.7 and ports: [5000]",
            id="address-port",
        ),
        pytest.param(
            HEAD + "  - address: a.example\n",
            "3: registries[0].address: 'a.example' is a host name, write host: a.example",
            id="address-is-host",
        ),
        pytest.param(
            HEAD + "  - address: ::ffff:10.0.0.1\n",
            "3: registries[0].address: '::ffff:a00:1' is an IPv4-mapped address, write 10.0.0.1",
            id="address-mapped",
        ),
        pytest.param(
            HEAD + "  - address: fe80::1%eth0\n",
            "3: registries[0].address: 'fe80::1%eth0' names an interface, write the address without %",
            id="address-zone",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n  - host: A.example.\n",
            "4: registries[1].host: host a.example is already on line 3, keep one entry with all the ports",
            id="host-twice",
        ),
        pytest.param(
            HEAD + "  - host: bücher.example\n  - host: xn--bcher-kva.example\n",
            "4: registries[1].host: host xn--bcher-kva.example is already on line 3, "
            "keep one entry with all the ports",
            id="host-twice-as-a-label",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also:\n      - a.example\n",
            "5: registries[0].also[0]: host a.example is already on line 3, keep one of them",
            id="also-itself",
        ),
        pytest.param(
            HEAD + "  - host: a.example\n    also:\n      - b.example\n      - host: b.example\n",
            "6: registries[0].also[1]: host b.example is already on line 5, keep one of them",
            id="also-twice",
        ),
        pytest.param(
            HEAD + "  - ghcr\n  - quay\n  - ghcr\n",
            "5: registries[2]: catalogue id 'ghcr' is already on line 3, keep one of them",
            id="id-twice",
        ),
        pytest.param(
            HEAD + "  - address: 10.0.0.1\n  - address: 10.0.0.1/32\n",
            "4: registries[1].address: address 10.0.0.1/32 is already on line 3, "
            "keep one entry with all the ports",
            id="address-twice",
        ),
        pytest.param(
            HEAD + "  - ghcr\nresolvers: []\n",
            "4: resolvers: the list is empty, write at least one item, such as [10.0.0.53]",
            id="resolvers-empty",
        ),
        pytest.param(
            HEAD + f"  - ghcr\nresolvers: [{', '.join(f'10.0.0.{n}' for n in range(65))}]\n",
            "4: resolvers: the list has 65 items, write 64 at most",
            id="resolvers-too-many",
        ),
        pytest.param(
            HEAD + "  - ghcr\nresolvers: automatic\n",
            "4: resolvers: 'automatic' is not a list of resolvers, write auto, or a list such as [10.0.0.53]",
            id="resolvers-text",
        ),
        pytest.param(
            HEAD + "  - ghcr\nresolvers: [10.0.0.999]\n",
            "4: resolvers[0]: '10.0.0.999' is not an IP address, "
            "write one, such as 10.0.0.53 or 2001:db8::53",
            id="resolver-address",
        ),
        pytest.param(
            HEAD + "  - ghcr\nresolvers: [{ port: 53 }]\n",
            "4: resolvers[0]: address is missing, write address: 10.0.0.53",
            id="resolver-without-address",
        ),
        pytest.param(
            HEAD + "  - ghcr\nresolvers: [10.0.0.53, { address: 10.0.0.53 }]\n",
            "4: resolvers[1]: resolver 10.0.0.53 is already on line 4, keep one of them",
            id="resolver-twice",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { grace_seconds: 86401 }\n",
            "4: dns.grace_seconds: the number 86401 is not a number of seconds for this, "
            "write a number from 0 to 86400",
            id="dns-grace",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { minimum_ttl_seconds: 0 }\n",
            "4: dns.minimum_ttl_seconds: the number 0 is not a number of seconds for this, "
            "write a number from 1 to 3600",
            id="dns-minimum",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { maximum_ttl_seconds: 604801 }\n",
            "4: dns.maximum_ttl_seconds: the number 604801 is not a number of seconds for this, "
            "write a number from 1 to 604800",
            id="dns-maximum",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { minimum_ttl_seconds: 10, maximum_ttl_seconds: 5 }\n",
            "4: dns: minimum_ttl_seconds 10 is above maximum_ttl_seconds 5, make the minimum the smaller one",
            id="dns-order",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns: { ttl: 10 }\n",
            "4: dns.ttl: 'ttl' is not a known key, the keys known here: "
            "grace_seconds, minimum_ttl_seconds, maximum_ttl_seconds, allowed_names_only",
            id="dns-unknown-key",
        ),
        pytest.param(
            HEAD + "  - ghcr\ndns:\n",
            "4: dns: nothing where a mapping belongs, write dns: { grace_seconds: 30 }",
            id="dns-nothing",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: []\n",
            "4: scopes: the list is empty, write at least one item, such as [{ engine: docker }]",
            id="scopes-empty",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [host]\n",
            "4: scopes[0]: 'host' where a scope belongs, write one, such as engine: docker",
            id="scope-text",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ engines: docker }]\n",
            "4: scopes[0]: a scope needs one of cgroup, engine, builders, host, unit, netns, device or "
            "container, did you mean engine?",
            id="scope-unknown",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ engine: dockr }]\n",
            "4: scopes[0].engine: 'dockr' is not one of the choices, did you mean docker?",
            id="scope-engine",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ engine: docker, unit: a.service }]\n",
            "4: scopes[0]: one scope names engine and unit, write a list item for each",
            id="scope-two-kinds",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ engine: docker, posture: lax }]\n",
            "4: scopes[0].posture: 'lax' is not one of the choices, write strict or registries",
            id="scope-posture",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ host: registries }]\n",
            "4: scopes[0].host: 'registries' where a mapping belongs, write host: { posture: registries }",
            id="scope-host-text",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ host: {}, posture: registries }]\n",
            "4: scopes[0].posture: 'posture' is not a known key, "
            "write it inside: host: { posture: registries }",
            id="scope-host-posture-outside",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ host: {}, registries: [quay] }]\n",
            "4: scopes[0].registries: 'registries' is not a known key, "
            "write it inside: host: { registries: ... }",
            id="scope-host-registries-outside",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ cgroup: system.slice }]\n",
            "4: scopes[0].cgroup: 'system.slice' is not an absolute path of a control group, "
            "write one, such as /system.slice/docker.service",
            id="scope-cgroup-relative",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ cgroup: /a/../b }]\n",
            "4: scopes[0].cgroup: '/a/../b' is not an absolute path of a control group, "
            "write one, such as /system.slice/docker.service",
            id="scope-cgroup-parent",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ unit: docker }]\n",
            "4: scopes[0].unit: 'docker' is not the full name of a systemd unit with a control group, "
            "write one, such as docker.service",
            id="scope-unit",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes: [{ device: sixteen-octets-0 }]\n",
            "4: scopes[0].device: 'sixteen-octets-0' is not the name of a network device, "
            "write one of 1 to 15 characters, such as eth0",
            id="scope-device",
        ),
        pytest.param(
            HEAD + "  - ghcr\nscopes:\n  - engine: docker\n  - engine: docker\n    posture: registries\n",
            "6: scopes[1]: engine 'docker' is already on line 5, keep one of them",
            id="scope-twice",
        ),
    ],
)
def test_refused(body: str, message: str) -> None:
    assert errors_of(body) == [f"p.yaml:{message}"]


def test_all_errors_at_once_by_line() -> None:
    assert errors_of(HEAD + "  - host: a.example\n    ports: [0]\n  - dockerhub\nmode: on\nmode: on\n") == [
        "p.yaml:4: registries[0].ports[0]: the number 0 is not a port, write a number from 1 to 65535",
        "p.yaml:5: registries[1]: 'dockerhub' is not in the catalogue, did you mean docker-hub?",
        "p.yaml:6: mode: 'on' is not one of the choices, write enforce or audit",
        "p.yaml:7: mode: this key is already on line 6, keep one of them",
    ]


def test_what_is_quoted_is_short_and_printable() -> None:
    key = "k" * 1000
    text = (
        'version: 1\nregistries: ["a\\nb", "a\\nb", "\\e[1m"]\n'
        f'{key}: 1\nscopes: [{{unit: "\\n"}}, {{unit: "\\n"}}]\n'
    )
    for error in errors_of(text):
        assert error.isprintable()
        assert len(error) < 400  # the known keys alone take a hundred


def test_no_word_of_pydantic() -> None:
    with pytest.raises(PolicyErrors) as caught:
        parse_policy(
            b"version: []\nregistries: {}\ndns: 1\nscopes: [1, {host: 1}]\nresolvers: {}\n", "p.yaml"
        )
    for word in ("Input should", "pydantic", "https://", "@", "validation"):
        assert word not in str(caught.value)


def test_a_hundred_errors_are_printed() -> None:
    text = HEAD + "".join(f"  - host: a{number}:1\n" for number in range(130))
    with pytest.raises(PolicyErrors) as caught:
        parse_policy(text.encode(), "p.yaml")
    lines = str(caught.value).splitlines()
    assert len(caught.value.errors) == 130
    assert len(lines) == 101
    assert lines[-1] == "and 30 more"


def test_error_as_text() -> None:
    assert str(PolicyError("p", 3, "a[0]", "wrong", "right it")) == "p:3: a[0]: wrong, right it"
    assert str(PolicyError("p", 0, "", "wrong", "right it")) == "p: wrong, right it"


def test_alias_bomb_costs_nothing() -> None:
    lines = ['a0: &a0 ["x", "x"]']
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    started = time.monotonic()
    assert errors_of("\n".join(lines)) == [
        "p.yaml:1: &a0 is a YAML anchor, and anchors are not read, write the value out"
    ]
    assert time.monotonic() - started < 0.5


def test_deep_nesting_costs_nothing() -> None:
    started = time.monotonic()
    assert len(errors_of("[" * 1_000_000)) == 1
    assert time.monotonic() - started < 2


def test_too_many_rules() -> None:
    data = HEAD + "- ghcr\n" * (MAX_RULES + 1)
    assert errors_of(data) == [
        "p.yaml:2: registries: the list has more than 200000 items, use wildcards, or split the policy"
    ]


def test_too_many_rules_counting_also() -> None:
    entry = "- host: a\n  also: [" + "b," * 99_999 + "b]\n"
    assert errors_of(HEAD + entry * 2) == [
        "p.yaml:2: registries: 200002 hosts and addresses are more than 200000, "
        "use wildcards, or split the policy"
    ]


def test_too_many_rules_counting_denied() -> None:
    hosts = "- ghcr.io\n" * (MAX_RULES // 2)
    assert errors_of(HEAD + hosts + "- ghcr\ndenied:\n" + hosts) == [
        "p.yaml:2: registries: 200001 hosts and addresses are more than 200000, "
        "use wildcards, or split the policy"
    ]


def test_too_many_denied() -> None:
    assert errors_of(HEAD + "- ghcr\ndenied:\n" + "- a\n" * (MAX_RULES + 1)) == [
        "p.yaml:4: denied: the list has more than 200000 items, use wildcards, or split the policy"
    ]


def test_allowed_and_denied_is_no_repetition() -> None:
    policy = parse_policy((HEAD + "  - host: a.example\ndenied: [a.example]\n").encode(), "p.yaml")
    assert [pattern.text for pattern in policy.denied] == ["a.example"]


def test_a_hundred_thousand_hosts_load() -> None:
    text = HEAD + "".join(f"  - host: r{number}.example.com\n" for number in range(100_000))
    policy = parse_policy(text.encode(), "p.yaml")
    assert len(policy.registries) == 100_000
    assert policy.origin_of(99_999) == "p.yaml:100002"


def load_error(path: Path | str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        load_policy(path)
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert load_error(path) == f"{path}: there is no such file, check the path"


def test_directory(tmp_path: Path) -> None:
    assert load_error(tmp_path) == f"{tmp_path}: this is a directory, name the policy file"


def test_fifo_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    assert load_error(path) == f"{path}: this is not a regular file, name the policy file"


def test_device() -> None:
    assert load_error("/dev/zero") == "/dev/zero: this is not a regular file, name the policy file"


def test_symbolic_link_loop(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    assert load_error(path) == (
        f"{path}: it cannot be read (Too many levels of symbolic links), check the path"
    )


def test_nul_in_path() -> None:
    assert load_error("a\0b").endswith(": this is not a path, check it")


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\n")

    def refuse(*_: object) -> int:  # modes do not stop root, under which tests may run
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert load_error(path) == f"{path}: reading it is not permitted, check the owner and mode of the file"


def test_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"#" * 10_000_000)
    assert load_error(path) == (
        f"{path}: the file has 10000000 bytes, the limit is 8388608 (8 MiB): split the policy"
    )


def test_size_limit_is_inclusive() -> None:
    head = b"version: 1\nregistries: [ghcr]\n#"
    parse_policy(head + b"x" * (MAX_POLICY_BYTES - len(head)), "p.yaml")
    assert errors_of(head + b"x" * (MAX_POLICY_BYTES - len(head) + 1)) == [
        "p.yaml: the file has 8388609 bytes, the limit is 8388608 (8 MiB): split the policy"
    ]


def test_byte_order_mark_and_carriage_returns() -> None:
    policy = parse_policy(b"\xef\xbb\xbfversion: 1\r\nregistries:\r\n  - host: a.example\r\n", "dir/p.yaml")
    assert policy.origin_of(0) == "p.yaml:3"


def test_reads_without_the_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    from ram_ebpf.policy import document

    monkeypatch.setattr(document, "_PARSER", yaml.SafeLoader)
    assert parse_policy((HEAD + "  - ghcr\n").encode(), "p.yaml").registries == (CatalogueEntry(id="ghcr"),)
    assert errors_of(HEAD + "  - host: *.a.b\n") == [
        "p.yaml:3: a * that is not in quotes starts a YAML alias, "
        'put the pattern in quotes, as in "*.example.com"'
    ]
    assert errors_of(HEAD + "  -\t- a\n")[0].endswith("use spaces")


def test_where_things_stand() -> None:
    policy = parse_policy(
        (HEAD + "  - ghcr\n\n  - ports: [1]\n    host: a.example\n    also:\n      - b.example\n").encode(),
        "/etc/ram-ebpf/policy.yaml",
    )
    assert policy.file == "/etc/ram-ebpf/policy.yaml"
    assert [policy.origin_of(0), policy.origin_of(1), policy.origin_of(1, 0)] == [
        "policy.yaml:3",
        "policy.yaml:5",
        "policy.yaml:8",
    ]


def test_where_denied_patterns_stand() -> None:
    policy = parse_policy(
        (HEAD + "  - ghcr\ndenied: [a.example,\n  b.example,\n\n  c.example]\n").encode(), "/etc/p.yaml"
    )
    assert [policy.origin_of_denied(index) for index in range(4)] == [
        "p.yaml:4",
        "p.yaml:5",
        "p.yaml:7",
        "denied[3]",
    ]
    assert default_policy().origin_of_denied(0) == "denied[0]"


def test_default_policy() -> None:
    policy = default_policy()
    assert policy.registries == (CatalogueEntry(id="docker-hub"),)
    assert policy.mode is Mode.ENFORCE
    assert policy.scopes == (EngineScope(engine=Engine.ALL),)
    assert policy.origin_of(0) == "registries[0]"


def test_yaml_1_2_scalars() -> None:
    policy = parse_policy(
        (HEAD + "  - host: no\n  - host: 1e3\norganization: 1:30\nmessage: on\n").encode(), "p.yaml"
    )
    assert [str(entry.host) for entry in policy.registries if isinstance(entry, HostEntry)] == ["no", "1e3"]
    assert (policy.organization, policy.message) == ("1:30", "on")
