"""The node's TLS key: made anew for every certificate, and never on a disk.

Python's `ssl` reads keys from files only; it gets one that lives in memory (memfd_create) and is gone when it was read.
"""

import os
import ssl
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from umec_core.keys import private_pem

__all__ = ["NodeCredential", "make_request", "new_key", "request_pem", "tls_context"]


@dataclass(frozen=True, slots=True)
class NodeCredential:
    """A TLS key with its certificate: good until `expires`, for one generation of the node's standing."""

    key: EllipticCurvePrivateKey = field(repr=False)
    certificate: str
    chain: str
    obtained: datetime
    expires: datetime
    generation: int

    def due(self, now: datetime) -> bool:
        """Tell whether half of its life is over: time to renew, and time to try again if that fails."""
        return now - self.obtained >= (self.expires - self.obtained) / 2

    def usable(self, now: datetime) -> bool:
        """Tell whether it still lives."""
        return now < self.expires


def new_key() -> EllipticCurvePrivateKey:
    """Make a TLS key."""
    return generate_private_key(SECP256R1())


def make_request(key: EllipticCurvePrivateKey, node: str) -> x509.CertificateSigningRequest:
    """Return a certificate request for `CN=node`, `URI:urn:umec:node:ID`, signed by the TLS key."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:umec:node:{node}")]), critical=False
        )
        .sign(key, SHA256())
    )


def request_pem(request: x509.CertificateSigningRequest) -> str:
    """Return a certificate request in PEM."""
    return request.public_bytes(Encoding.PEM).decode()


def tls_context(ca: str, credential: NodeCredential | None) -> ssl.SSLContext:
    """Return a context that trusts exactly `ca` (PEM), and shows the node's certificate if there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    if credential is not None:
        _load(context, credential)
    return context


def _load(context: ssl.SSLContext, credential: NodeCredential) -> None:
    text = private_pem(credential.key) + credential.certificate.encode() + credential.chain.encode()
    descriptor = os.memfd_create("umec-node-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
