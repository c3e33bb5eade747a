"""Who signed: the subject and the issuer that Fulcio wrote into the certificate, and the policies that match them.

An expected identity has both, subject and issuer: one without the other says nothing.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography import x509

from umec_images.errors import IdentityRefused, SignatureInvalid

__all__ = ["AnyIdentity", "Expected", "Identity", "IdentityPattern", "SignerIdentity", "parse_utf8_string", "signer_of"]

ISSUER_V1: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
"""Fulcio: the issuer as raw bytes."""
ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
"""Fulcio: the issuer as a DER UTF8String."""
UTF8_STRING: Final = 0x0C
LONG_FORM: Final = 0x80


@dataclass(frozen=True, slots=True)
class SignerIdentity:
    """The identity in a verified certificate: `subject` (a URI or an e-mail address) as `issuer` vouched for it."""

    subject: str
    issuer: str


class Expected(Protocol):
    """Whom a signature may come from."""

    def require(self, signer: SignerIdentity) -> None:
        """Return if the signer is expected; raises IdentityRefused."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Exactly this subject, exactly this issuer."""

    subject: str
    issuer: str

    def __post_init__(self) -> None:
        if not self.subject or not self.issuer:
            raise IdentityRefused("an expected identity needs a subject and an issuer")

    def require(self, signer: SignerIdentity) -> None:
        """Return if the signer is exactly this one; raises IdentityRefused."""
        if (signer.subject, signer.issuer) != (self.subject, self.issuer):
            raise _refused(signer, f"{self.subject} as {self.issuer} vouches for it")


@dataclass(frozen=True, slots=True)
class IdentityPattern:
    """A subject that a regular expression matches from its first to its last character; exactly this issuer."""

    pattern: str
    issuer: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.pattern or not self.issuer:
            raise IdentityRefused("an expected identity needs a pattern and an issuer")
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern))
        except re.error as error:
            raise IdentityRefused(f"the pattern of an expected identity is no regular expression: {error}") from error

    def require(self, signer: SignerIdentity) -> None:
        """Return if the signer matches; raises IdentityRefused."""
        if signer.issuer != self.issuer or self._compiled.fullmatch(signer.subject) is None:
            raise _refused(signer, f"one that matches {self.pattern} as {self.issuer} vouches for it")


@dataclass(frozen=True, slots=True)
class AnyIdentity:
    """One of several expected identities; there must be at least one."""

    identities: tuple[Expected, ...]

    def __post_init__(self) -> None:
        if not self.identities:
            raise IdentityRefused("no identity is trusted to sign this")

    def require(self, signer: SignerIdentity) -> None:
        """Return if one of the identities matches; raises IdentityRefused."""
        refusals = []
        for identity in self.identities:
            try:
                identity.require(signer)
            except IdentityRefused as refusal:
                refusals.append(refusal)
            else:
                return
        raise refusals[-1]


def signer_of(certificate: x509.Certificate) -> SignerIdentity:
    """Return the identity in a signing certificate, which has exactly one subject; raises SignatureInvalid."""
    try:
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        issuers = {issuer for issuer in (_issuer_v1(certificate), _issuer_v2(certificate)) if issuer is not None}
    except (x509.ExtensionNotFound, ValueError) as error:
        raise SignatureInvalid("the signing certificate names no identity that can be read") from error
    if len(names) != 1 or len(issuers) != 1:
        raise SignatureInvalid(f"the signing certificate names {len(names)} subjects and {len(issuers)} issuers")
    name = names[0]
    if not isinstance(name, x509.UniformResourceIdentifier | x509.RFC822Name) or not name.value:
        raise SignatureInvalid("the subject of the signing certificate is neither a URI nor an e-mail address")
    return SignerIdentity(name.value, issuers.pop())


def _issuer_v1(certificate: x509.Certificate) -> str | None:
    raw = _extension(certificate, ISSUER_V1)
    return None if raw is None else raw.decode()


def _issuer_v2(certificate: x509.Certificate) -> str | None:
    raw = _extension(certificate, ISSUER_V2)
    return None if raw is None else parse_utf8_string(raw)


def parse_utf8_string(raw: bytes) -> str:
    """Return a DER UTF8String of 1 to 255 bytes (X.690 8.1.3, shortest form of the length); raises ValueError."""
    long = raw[1:2] == bytes([LONG_FORM + 1])
    header = 3 if long else 2
    content, length = raw[header:], raw[header - 1 : header]
    if raw[:1] != bytes([UTF8_STRING]) or not content or length != bytes([len(content) % 256]):
        raise ValueError("not a UTF8String, or its length is wrong")
    if len(content) > 255 or long is not (len(content) >= LONG_FORM):
        raise ValueError("not a UTF8String of at most 255 bytes with its length in the shortest form")
    return content.decode()


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
    return value.value if isinstance(value, x509.UnrecognizedExtension) else None


def _refused(signer: SignerIdentity, expected: str) -> IdentityRefused:
    return IdentityRefused(f"signed by {signer.subject} as {signer.issuer} vouches for it, expected {expected}")
