"""Why the signing authority refuses.

UmecError
├── IdentityTokenMissing, -Invalid, -Expired, -Subject   no certificate for this token
├── CsrInvalid / CsrProofInvalid             no certificate for this key
├── EntryInvalid, EntrySignatureInvalid, EntryCertificateForeign, EntryCertificateExpired   not logged
├── TimestampRequestInvalid                  not time-stamped
└── AuthorityInUse, LogRewritten, MaterialInvalid   the authority does not start

Each is one reason; the code says which.
"""

from umec_core.errors import Conflict, Invalid, Refused, Unauthenticated, Unavailable

__all__ = [
    "AuthorityInUse",
    "CsrInvalid",
    "CsrProofInvalid",
    "EntryCertificateExpired",
    "EntryCertificateForeign",
    "EntryInvalid",
    "EntrySignatureInvalid",
    "IdentityTokenExpired",
    "IdentityTokenInvalid",
    "IdentityTokenMissing",
    "IdentityTokenSubject",
    "LogRewritten",
    "MaterialInvalid",
    "TimestampRequestInvalid",
]


class IdentityTokenMissing(Unauthenticated):
    """The request names nobody."""

    code = "identity-token-missing"


class IdentityTokenInvalid(Unauthenticated):
    """The token is not a signing identity from the issuer that this authority believes."""

    code = "identity-token-invalid"


class IdentityTokenExpired(Unauthenticated):
    """The token was good once, or is not good yet."""

    code = "identity-token-expired"


class IdentityTokenSubject(Unauthenticated):
    """The token's subject cannot stand as a URI in a certificate."""

    code = "identity-token-subject"


class CsrInvalid(Invalid):
    """This is no certificate signing request with a P-256 key."""

    code = "csr-invalid"


class CsrProofInvalid(Refused):
    """The request is not signed by the key that it asks a certificate for."""

    code = "csr-proof-invalid"


class EntryInvalid(Invalid):
    """This is no hashedrekord or dsse entry, version 0.0.2, with a P-256 certificate."""

    code = "log-entry-invalid"


class EntrySignatureInvalid(Refused):
    """The signature to be logged does not verify."""

    code = "log-entry-signature"


class EntryCertificateForeign(Refused):
    """The certificate of the entry was not issued here."""

    code = "log-entry-certificate-foreign"


class EntryCertificateExpired(Refused):
    """The certificate of the entry is not valid now: its key should be gone already."""

    code = "log-entry-certificate-expired"


class TimestampRequestInvalid(Invalid):
    """This is no RFC 3161 request for a SHA-256 imprint that this authority answers."""

    code = "timestamp-request-invalid"


class AuthorityInUse(Conflict):
    """Another process holds the state directory."""

    code = "authority-in-use"


class LogRewritten(Unavailable):
    """The stored log does not have the root that was last signed for it."""

    code = "log-rewritten"


class MaterialInvalid(Unavailable):
    """What is in the state directory does not belong together, or cannot be read."""

    code = "authority-material-invalid"
