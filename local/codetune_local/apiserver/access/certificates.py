"""A certificate authority of one cluster: kubectl sends tokens only over TLS, so loopback gets it too."""

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_TEN_YEARS = timedelta(days=3650)


def server_context(folder: Path | None) -> tuple[ssl.SSLContext, bytes]:
    """The TLS context of the API server and the CA certificate (PEM) that clients trust; kept in `folder`."""
    if folder is None:
        with tempfile.TemporaryDirectory() as fresh:
            return _load(Path(fresh))
    return _load(folder)


def _load(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    authority, certificate, key = folder / "ca.crt", folder / "apiserver.crt", folder / "apiserver.key"
    if not all(path.exists() for path in (authority, certificate, key)):
        _create(authority, certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, authority.read_bytes()


def _create(authority: Path, certificate: Path, key: Path) -> None:
    root_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "codetune-local-ca")])
    root = (
        _builder(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "codetune-local")])
    server = (
        _builder(server_name, root_name, server_key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    secret = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key.touch(mode=0o600)
    key.write_bytes(secret)
    certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    # A minute back: clocks of one machine agree, but certificates count whole seconds.
    start = datetime.now(UTC) - timedelta(minutes=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = (
        builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(start + _TEN_YEARS)
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
