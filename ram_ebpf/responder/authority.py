"""The organisation's certificate authority, on disk: made by `ram-ebpf ca init`, read by the daemon."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtensionOID

from ram_ebpf.responder import certificates
from ram_ebpf.responder.authority_files import CERTIFICATE as CERTIFICATE
from ram_ebpf.responder.authority_files import DIRECTORY as DIRECTORY
from ram_ebpf.responder.authority_files import KEY, is_there

_LONGEST_FILE = 65536


class AuthorityError(RuntimeError):
    """The authority cannot be made or read; the text says what to do."""


@dataclass(frozen=True)
class Authority:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def excludes(self, name: str) -> bool:
        """Whether its name constraints rule out a name in lower case (RFC 5280 4.2.1.10)."""
        try:
            found = self.certificate.extensions.get_extension_for_oid(ExtensionOID.NAME_CONSTRAINTS).value
        except x509.ExtensionNotFound:
            return False
        assert isinstance(found, x509.NameConstraints)
        domains = [item.value for item in found.excluded_subtrees or () if isinstance(item, x509.DNSName)]
        return any(name == domain or name.endswith(f".{domain}") for domain in domains)

    def sign(self, name: str, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """A server's certificate for one name in lower case, for some minutes. Whether that may be is for
        the caller to know."""
        return certificates.leaf_certificate(name, key, self.certificate, self.key)


def excluded_names(domains: Iterable[str]) -> list[x509.GeneralName]:
    """What the authority is never to sign: these domains with all below them, and all addresses."""
    names: list[x509.GeneralName] = [x509.DNSName(domain) for domain in sorted(set(domains))]
    networks = ("0.0.0.0/0", "::/0")
    return names + [x509.IPAddress(ipaddress.ip_network(network)) for network in networks]


def create(directory: Path, organization: str | None, domains: Iterable[str], days: int) -> Authority:
    """Makes key and certificate. Raises AuthorityError where there is one, OSError where it cannot write.

    Nothing is ever overwritten: hosts may trust what is there.
    """
    for name in (KEY, CERTIFICATE):
        if (directory / name).exists():
            raise AuthorityError(
                f"{directory / name} is there already; to make a new authority, uninstall and remove that one"
            )
    key = certificates.new_key()
    made = certificates.authority_certificate(organization, key, excluded_names(domains), days)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / KEY, certificates.key_pem(key), 0o600)
    _write(directory / CERTIFICATE, to_pem(made), 0o644)
    return Authority(made, key)


def to_pem(certificate: x509.Certificate) -> bytes:
    """For a file."""
    return certificate.public_bytes(Encoding.PEM)


def _write(path: Path, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor that was opened with a mode
        os.fchmod(fd, mode)
        file.write(content)
        file.flush()
        os.fsync(fd)


def load(directory: Path = DIRECTORY) -> Authority | None:
    """The authority; None where there is none. Raises AuthorityError for one that cannot be used."""
    if not is_there(directory):
        return None
    try:
        return _parse(_read(directory / CERTIFICATE, private=False), _read(directory / KEY, private=True))
    except (OSError, ValueError) as error:
        raise AuthorityError(f"the authority in {directory} cannot be used: {error}") from error


def load_certificate(directory: Path = DIRECTORY) -> x509.Certificate:
    """Its certificate alone. Raises AuthorityError."""
    path = directory / CERTIFICATE
    try:
        return x509.load_pem_x509_certificate(_read(path, private=False))
    except FileNotFoundError as error:
        raise AuthorityError(f"there is no {path}; make it with: ram-ebpf ca init") from error
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path} cannot be read: {error}") from error


def _read(path: Path, private: bool) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file")
        if private and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            raise ValueError(f"{path} can be read by others; chown it to root and chmod it to 0600")
        return file.read(_LONGEST_FILE)


def _parse(certificate_pem: bytes, key_pem: bytes) -> Authority:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    key = load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is not one of an elliptic curve")
    end = certificates.end_of(certificate)
    if end < datetime.now(timezone.utc):
        raise ValueError(f"it has expired on {end:%Y-%m-%d}; uninstall it and make a new one")
    if _numbers(certificate) != key.public_key().public_numbers():
        raise ValueError("key and certificate do not belong together")
    return Authority(certificate, key)


def _numbers(certificate: x509.Certificate) -> object:
    found = certificate.public_key()
    return found.public_numbers() if isinstance(found, ec.EllipticCurvePublicKey) else None
