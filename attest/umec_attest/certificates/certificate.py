"""One certificate: what cryptography read of it, and the bytes that its issuer signed."""

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from umec_attest.certificates.der import Pieces, cut, mend
from umec_attest.certificates.names import DistinguishedName, parse_name

__all__ = ["MAX_CERTIFICATE_SIZE", "Certificate", "CertificateMalformed", "load_certificate"]

MAX_CERTIFICATE_SIZE: Final = 8192
"""EK certificates must fit into the NV memory of a TPM; vendor CAs are below 3 KB."""

_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_RSA_BITS: Final = range(2048, 4096 + 1)
_EXPONENT: Final = 65537
"""Below, keys are weak; above, whoever sends a chain along keeps us busy. No vendor's authority is outside."""
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})


class CertificateMalformed(ValueError):
    """Bytes that are no certificate, or one that only a tolerant reader would take."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, not yet believed. Only `load_certificate` makes one."""

    fields: x509.Certificate
    """What it says."""
    der: bytes
    """The bytes that came."""
    pieces: Pieces = field(repr=False)
    """The same, cut: the signature is verified over these bytes."""
    issuer: DistinguishedName
    subject: DistinguishedName
    alternatives: tuple[DistinguishedName, ...]
    """The distinguished names among its alternative names; other kinds are not looked at here."""

    @property
    def spki(self) -> bytes:
        """The key that it is about, as DER of a SubjectPublicKeyInfo."""
        return self.fields.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verify_signed_by(self, issuer: "Certificate") -> None:
        """Return if the key of `issuer` signed this certificate, with SHA-2 and a key of today's strength.

        Raises `InvalidSignature`; names are not compared.
        """
        if self.pieces.inner_algorithm != self.pieces.outer_algorithm:
            raise InvalidSignature("the algorithm that was signed is not the one that was used")
        key, algorithm = issuer.fields.public_key(), _hash(self.fields)
        parameters = self.fields.signature_algorithm_parameters
        signature, message = self.pieces.signature, self.pieces.tbs
        if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
            if key.key_size not in _RSA_BITS or key.public_numbers().e != _EXPONENT:
                raise InvalidSignature(f"an issuer's RSA key of {key.key_size} bits, or its exponent, is not taken")
            key.verify(signature, message, parameters, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            if key.curve.name not in _CURVES:
                raise InvalidSignature(f"an issuer's key on {key.curve.name} is not taken")
            key.verify(signature, message, parameters)
        else:
            raise InvalidSignature("the signature is of another kind than the issuer's key")


def load_certificate(der: bytes, *, tolerate: bool) -> Certificate:
    """Read a certificate; `tolerate` mends the two mistakes of vendors that `certificates.der` names.

    Raises `CertificateMalformed`.
    """
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise CertificateMalformed(f"a certificate of {len(der)} bytes is beyond the limit of {MAX_CERTIFICATE_SIZE}")
    try:
        mended = mend(der) if tolerate else der
        fields, pieces = x509.load_der_x509_certificate(mended), cut(der[: len(mended)])
        _ = fields.extensions, fields.public_key(), fields.signature_algorithm_parameters
        issuer, subject = parse_name(pieces.issuer), parse_name(pieces.subject)
        return Certificate(fields, der, pieces, issuer, subject, _alternatives(fields))
    except Exception as error:  # the parser of cryptography raises several kinds on hostile DER
        raise CertificateMalformed(f"not a certificate: {error}") from error


def _alternatives(fields: x509.Certificate) -> tuple[DistinguishedName, ...]:
    try:
        names = fields.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(parse_name(name.public_bytes()) for name in names.get_values_for_type(x509.DirectoryName))


def _hash(certificate: x509.Certificate) -> hashes.HashAlgorithm:
    algorithm = certificate.signature_hash_algorithm
    if not isinstance(algorithm, _HASHES):
        raise InvalidSignature("a certificate must be signed with SHA-256, SHA-384 or SHA-512")
    return algorithm
