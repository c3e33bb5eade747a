"""Keys that sign: a file, or `pkcs11:…` for one that stays in a smart card or an HSM (RFC 7512)."""

import atexit
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    from umec_attest.sealed import OwnerPrivateKey
    from umec_core.pkcs11 import TokenEcKey, TokenRsaKey

__all__ = ["ELSEWHERE", "load_image_key", "load_owner_key", "load_signing_key"]

SCHEME: Final = "pkcs11:"
ELSEWHERE: Final = "or pkcs11:token=…;object=…?module-path=…&pin-source=FILE"
"""What the help says behind the kind of file."""


def load_signing_key(where: str) -> "ec.EllipticCurvePrivateKey":
    """Return a P-256 key: of a file, which is made where there is none, or of a token.

    Raises KeyFileInvalid, KeyFileExposed, and the errors of `umec_core.pkcs11`.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    from umec_core.keys import load_or_create_key

    if not _names_token(where):
        return load_or_create_key(Path(where))
    key = _in_token(where)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _unfit("P-256")
    return key


def load_owner_key(where: str) -> "OwnerPrivateKey":
    """Return an owner's private key, of a file or a token. Raises as `load_signing_key`."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from umec_core.keys import KeyFileInvalid, read_private

    if _names_token(where):
        return _in_token(where)
    try:
        key = load_pem_private_key(read_private(Path(where)), password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileInvalid(f"{where} is not an unencrypted private key in PEM") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise KeyFileInvalid(f"{where} holds another kind of key, expected RSA or an elliptic curve")
    return key


def load_image_key(where: str | None) -> "rsa.RSAPrivateKey | None":
    """Return the key of db that is in a token, None where nobody names one. Raises the errors of `umec_core.pkcs11`."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    if where is None:
        return None
    key = _in_token(where)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _unfit("RSA")
    return key


def _names_token(where: str) -> bool:
    """Say whether this is no file's name: a scheme is one in whatever case (RFC 3986, 3.1)."""
    return where[: len(SCHEME)].lower() == SCHEME


def _in_token(where: str) -> "TokenEcKey | TokenRsaKey":
    """Open a token, which stays open until the program ends."""
    from umec_core.pkcs11 import open_key

    open_until_the_end = contextlib.ExitStack()
    key = open_until_the_end.enter_context(open_key(where))
    atexit.register(open_until_the_end.close)
    return key


def _unfit(wanted: str) -> Exception:
    from umec_core.pkcs11 import Pkcs11KeyUnfit

    return Pkcs11KeyUnfit(f"the token has another kind of key, expected {wanted}")
