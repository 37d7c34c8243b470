"""Google's token services at their own addresses, within this machine.

sts.googleapis.com and iamcredentials.googleapis.com are fixed inside google-auth. So the process under test is given a proxy
(HTTPS_PROXY) that ends TLS for *.googleapis.com itself, with a certificate of an authority that the process is told to trust
(REQUESTS_CA_BUNDLE), and hands requests to the token server. The command and its google-auth run unmodified.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cloud.token_server import TokenHandler, TokenServer, serve_tokens, serving

_DOMAIN = ".googleapis.com"


@dataclass
class GoogleCloud:
    """What runs, and the environment that leads a process to it."""

    tokens: TokenServer
    environment: dict[str, str]
    """For a subprocess; says nothing of STORAGE_EMULATOR_HOST."""
    reached: list[str] = field(default_factory=list)
    """Hosts that the proxy answered for, one entry a connection."""
    refused: list[str] = field(default_factory=list)
    """Hosts and ports that the proxy was asked for in vain."""


@contextmanager
def google_cloud(
    folder: Path, *, lifetime_s: float = 3600, accounts: tuple[str, ...] = (), token_bytes: int = 64
) -> Iterator[GoogleCloud]:
    """Runs token server and proxy, with a signed-in user's credentials file; see `TokenServer`.

    Args:
        folder: an empty one, for the certificates and the credentials file.
        lifetime_s: see `TokenServer`.
        accounts: see there.
        token_bytes: see there.
    """
    bundle, server_pem = _write_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pem)
    with serve_tokens(lifetime_s=lifetime_s, accounts=accounts, token_bytes=token_bytes) as tokens:
        cloud = GoogleCloud(tokens, {})
        handler = type("Handler", (_ProxyHandler,), {"tokens": tokens, "cloud": cloud, "context": context})
        with serving(handler) as port:
            proxy, direct = f"http://127.0.0.1:{port}", "127.0.0.1,localhost"
            configuration = folder / "gcloud"
            configuration.mkdir()
            cloud.environment.update(
                GOOGLE_APPLICATION_CREDENTIALS=str(tokens.write_user_file(folder / "credentials.json")),
                GOOGLE_CLOUD_PROJECT="local-project",
                CLOUDSDK_CONFIG=str(configuration),
                NO_GCE_CHECK="true",
                REQUESTS_CA_BUNDLE=str(bundle),
                HTTPS_PROXY=proxy,
                https_proxy=proxy,
                NO_PROXY=direct,
                no_proxy=direct,
            )
            yield cloud


class _ProxyHandler(TokenHandler):
    cloud: GoogleCloud
    context: ssl.SSLContext

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0]
        if not host.endswith(_DOMAIN):
            self.cloud.refused.append(self.path)
            self.send_error(403)
            return
        self.cloud.reached.append(host)
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.request = self.context.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):
            self.close_connection = True
            return
        # The requests inside are read by this same handler, from now on in clear.
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.connection.close()


def _write_certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and key with certificate of a server that it signed."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
    authority = (
        _certificate(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"*{_DOMAIN}")])
    server = (
        _certificate(server_name, authority_name, server_key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*{_DOMAIN}")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    bundle, pem = folder / "authority.pem", folder / "server.pem"
    bundle.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    private = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + server.public_bytes(serialization.Encoding.PEM))
    return bundle, pem


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=None,
        decipher_only=None,
    )
