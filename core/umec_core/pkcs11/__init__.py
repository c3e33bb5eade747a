"""Private keys that never leave a token (a smart card, an HSM, SoftHSM): named by a URI, used like keys of a file.

    errors   why a key in a token cannot be used
    uri      which key in which token: RFC 7512
    keys     RSA and ECDSA keys that sign there
    session  a token, opened with its PIN

It loads python-pkcs11: import it where such a key is named, and not before.
"""

from umec_core.pkcs11.errors import (
    Pkcs11Error,
    Pkcs11KeyMissing,
    Pkcs11KeyUnfit,
    Pkcs11PinRefused,
    Pkcs11SignatureInvalid,
    Pkcs11Unavailable,
    Pkcs11UriInvalid,
)
from umec_core.pkcs11.keys import TokenEcKey, TokenRsaKey
from umec_core.pkcs11.session import open_key
from umec_core.pkcs11.uri import TokenUri, parse_uri

__all__ = [
    "Pkcs11Error",
    "Pkcs11KeyMissing",
    "Pkcs11KeyUnfit",
    "Pkcs11PinRefused",
    "Pkcs11SignatureInvalid",
    "Pkcs11Unavailable",
    "Pkcs11UriInvalid",
    "TokenEcKey",
    "TokenRsaKey",
    "TokenUri",
    "open_key",
    "parse_uri",
]
