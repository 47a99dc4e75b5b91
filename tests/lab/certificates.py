"""A certificate authority of the lab's own, made anew for each lab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

from . import topology


@dataclass(frozen=True)
class Certificates:
    """Where the authority's certificate and the registries' key and chain lie."""

    authority: Path
    chain: Path
    key: Path


def create(directory: Path) -> Certificates:
    """Make the authority and one certificate for all of the lab's names and addresses."""
    directory.mkdir()
    paths = Certificates(directory / "ca.crt", directory / "server.crt", directory / "server.key")
    authority = trustme.CA(organization_name="ram-ebpf lab")
    authority.cert_pem.write_to_path(str(paths.authority))
    server = authority.issue_cert(*topology.CERTIFICATE_NAMES)
    server.private_key_pem.write_to_path(str(paths.key))
    for pem in server.cert_chain_pems:
        pem.write_to_path(str(paths.chain), append=True)
    return paths
