"""The certificates that the responder shows: one whose only name is the message, which nobody needs to trust,
and those for refused names, signed by the organisation's own authority."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ram_ebpf.responder.wording import FIRST_LABEL

BACKDATED = timedelta(minutes=5)  # for clients whose clock is late
LIFETIME = timedelta(minutes=10)
_MESSAGE_LIFETIME = timedelta(days=30)
_LONGEST_NAME_ATTRIBUTE = 64  # ub-common-name and ub-organization-name, RFC 5280 appendix A.1


def new_key() -> ec.EllipticCurvePrivateKey:
    """P-256, which every client of today knows."""
    return ec.generate_private_key(ec.SECP256R1())


def end_of(certificate: x509.Certificate) -> datetime:
    """Until when it is valid; from version 42 on cryptography warns of a time without a zone."""
    if hasattr(certificate, "not_valid_after_utc"):
        end: datetime = certificate.not_valid_after_utc
        return end
    return certificate.not_valid_after.replace(tzinfo=timezone.utc)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key_of(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Of a private key that key_pem() gave."""
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.public_key()


def to_der(certificate: x509.Certificate) -> bytes:
    """As it is sent."""
    return certificate.public_bytes(serialization.Encoding.DER)


def _subject(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_LONGEST_NAME_ATTRIBUTE])]
    if organization:
        text = organization[:_LONGEST_NAME_ATTRIBUTE]
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, text))
    return x509.Name(attributes)


def builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    """What all our certificates have in common (RFC 5280 4.1.2)."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)  # cryptography before 42 takes naive ones, in UTC
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _of_a_server(made: x509.CertificateBuilder, name: str) -> x509.CertificateBuilder:
    return (
        made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(signs=False), critical=True)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def message_certificate(
    name: str, organization: str | None, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Self-signed, with the message as its only name: clients print that it is valid for this, and not for
    the host that they asked for."""
    subject = _subject(FIRST_LABEL, organization)
    made = builder(subject, subject, key.public_key(), _MESSAGE_LIFETIME)
    return _of_a_server(made, name).sign(key, hashes.SHA256())


def authority_certificate(
    organization: str | None, key: ec.EllipticCurvePrivateKey, excluded: list[x509.GeneralName], days: int
) -> x509.Certificate:
    """A root that can sign servers alone, no further authorities, and nothing of what is excluded."""
    subject = _subject("ram-ebpf refusals", organization)
    made = builder(subject, subject, key.public_key(), timedelta(days=days))
    return (
        made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.NameConstraints(None, excluded), critical=True)
        .sign(key, hashes.SHA256())
    )


def leaf_certificate(
    name: str,
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """For a name that is refused right now, valid for minutes."""
    made = builder(_subject(FIRST_LABEL), authority.subject, key, LIFETIME).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
    )
    return _of_a_server(made, name).sign(authority_key, hashes.SHA256())
