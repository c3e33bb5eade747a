"""Why a key in a token cannot be used.

Pkcs11Error
├── Pkcs11UriInvalid        pkcs11-uri-invalid        it is no PKCS#11 URI that names one key
├── Pkcs11Unavailable       pkcs11-unavailable        no module, no such token, or the token fails
├── Pkcs11PinRefused        pkcs11-pin-refused        no PIN was given, or the token does not take it
├── Pkcs11KeyMissing        pkcs11-key-missing        the token has no such key, or several
├── Pkcs11KeyUnfit          pkcs11-key-unfit          the key is of another kind than this takes
└── Pkcs11SignatureInvalid  pkcs11-signature-invalid  what the token made is no signature by its own public key
"""

from umec_core.errors import Forbidden, Invalid, NotFound, UmecError, Unavailable

__all__ = [
    "Pkcs11Error",
    "Pkcs11KeyMissing",
    "Pkcs11KeyUnfit",
    "Pkcs11PinRefused",
    "Pkcs11SignatureInvalid",
    "Pkcs11Unavailable",
    "Pkcs11UriInvalid",
]


class Pkcs11Error(UmecError):
    """Something about a key in a token."""

    code = "pkcs11-error"


class Pkcs11UriInvalid(Pkcs11Error, Invalid):
    """It is no PKCS#11 URI that names one private key."""

    code = "pkcs11-uri-invalid"


class Pkcs11Unavailable(Pkcs11Error, Unavailable):
    """The module does not load, the token is not there, or it fails."""

    code = "pkcs11-unavailable"


class Pkcs11PinRefused(Pkcs11Error, Forbidden):
    """No PIN was given, or the token does not take it."""

    code = "pkcs11-pin-refused"


class Pkcs11KeyMissing(Pkcs11Error, NotFound):
    """The token has no such key with its public key, or several."""

    code = "pkcs11-key-missing"


class Pkcs11KeyUnfit(Pkcs11Error, Invalid):
    """The key is of another kind than what it is to sign takes, or would do what no signing key does."""

    code = "pkcs11-key-unfit"


class Pkcs11SignatureInvalid(Pkcs11Error):
    """What the token made does not verify with the public key beside it."""

    code = "pkcs11-signature-invalid"
