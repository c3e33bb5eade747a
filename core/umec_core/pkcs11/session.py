"""A token: its module loaded, opened with its PIN, and one key of it found.

1. the module is that of the URI, or UMEC_PKCS11_MODULE
2. the PIN is in the file that the URI names, which nobody else may read, or in UMEC_PKCS11_PIN; it is tried once, for
   tokens lock themselves
3. exactly one token, and in it exactly one private key that signs, is the one that is named
4. its public key lies beside it, under the same id or label
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, Session, exceptions
from pkcs11.exceptions import PKCS11Error
from pkcs11.util.ec import encode_ec_public_key

from umec_core.keys import read_private
from umec_core.pkcs11.errors import Pkcs11KeyMissing, Pkcs11KeyUnfit, Pkcs11PinRefused, Pkcs11Unavailable
from umec_core.pkcs11.keys import Signing, TokenEcKey, TokenRsaKey
from umec_core.pkcs11.uri import TokenUri, parse_uri

__all__ = ["open_key"]

MODULE: Final = "UMEC_PKCS11_MODULE"
PIN: Final = "UMEC_PKCS11_PIN"  # the name of the variable
MAX_PIN: Final = 256
"""Bytes; tokens take 4 to some dozens."""


@contextmanager
def open_key(text: str, environment: Mapping[str, str] = os.environ) -> Iterator[TokenEcKey | TokenRsaKey]:
    """Yield the key that a PKCS#11 URI names, for as long as its token is open.

    Raises the errors of `umec_core.pkcs11.errors`, and KeyFileExposed for a file with a PIN that others may read.
    """
    uri = parse_uri(text)
    pin, module = _pin(uri, environment), _module(uri, environment)
    with _session(uri, module, pin) as session:
        yield _key(session, uri)


def _module(uri: TokenUri, environment: Mapping[str, str]) -> Path:
    named = uri.module or (Path(environment[MODULE]) if environment.get(MODULE) else None)  # 1
    if named is None:
        raise Pkcs11Unavailable("nobody said which PKCS#11 module drives the token", advice=f"module-path= or {MODULE}")
    return named


def _pin(uri: TokenUri, environment: Mapping[str, str]) -> str:
    if uri.pin_source is not None:  # 2
        try:
            pin = read_private(uri.pin_source)[: MAX_PIN + 1].decode(errors="replace").rstrip("\r\n")
        except OSError as error:
            raise Pkcs11PinRefused(f"the PIN cannot be read from {uri.pin_source}: {error.strerror}") from error
    else:
        pin = environment.get(PIN, "")
    if not 0 < len(pin) <= MAX_PIN:
        raise Pkcs11PinRefused("there is no PIN for the token", advice=f"pin-source=FILE (mode 0600), or {PIN}")
    return pin


@contextmanager
def _session(uri: TokenUri, module: Path, pin: str) -> Iterator[Session]:
    try:
        tokens = list(pkcs11.lib(str(module)).get_tokens())
        fitting = [
            token
            for token in tokens
            if uri.token in {None, token.label}
            and uri.serial in {None, token.serial.decode(errors="replace").strip("\0 ")}
        ]
        if len(fitting) != 1:  # 3
            raise Pkcs11Unavailable(f"{len(fitting)} of {len(tokens)} tokens of {module} are the one that is named")
        session = fitting[0].open(user_pin=pin)
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange, exceptions.PinLocked) as error:
        raise Pkcs11PinRefused(f"the token does not take the PIN ({type(error).__name__})") from error
    except PKCS11Error as error:
        raise Pkcs11Unavailable(f"the token cannot be opened ({type(error).__name__})") from error
    with session:
        yield session


def _key(session: Session, uri: TokenUri) -> TokenEcKey | TokenRsaKey:
    named: dict[Attribute, Any] = {} if uri.label is None else {Attribute.LABEL: uri.label}
    named |= {} if uri.id is None else {Attribute.ID: uri.id}
    try:
        private = _one(session, named | {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.SIGN: True}, "private")
        kind = private[Attribute.KEY_TYPE]
        beside = {Attribute.ID: private[Attribute.ID]} if private[Attribute.ID] else named
        public = _one(
            session, beside | {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: kind}, "public"
        )  # 4
        if kind is KeyType.RSA:
            numbers = (public[Attribute.PUBLIC_EXPONENT], public[Attribute.MODULUS])
            exponent, modulus = (int.from_bytes(number, "big") for number in numbers)
            rsa_key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
            return TokenRsaKey(rsa_key, _signing(private, Mechanism.SHA256_RSA_PKCS))
        if kind is KeyType.EC:
            ec_key = load_der_public_key(encode_ec_public_key(public))
            if isinstance(ec_key, ec.EllipticCurvePublicKey):
                return TokenEcKey(ec_key, _signing(private, Mechanism.ECDSA))
    except PKCS11Error as error:
        raise Pkcs11Unavailable(f"the token does not show its key ({type(error).__name__})") from error
    except ValueError as error:
        raise Pkcs11KeyUnfit("the token's public key is none that is read here") from error
    raise Pkcs11KeyUnfit("it is neither an RSA key nor one for ECDSA")


def _one(session: Session, wanted: Mapping[Any, Any], what: str) -> Any:  # noqa: ANN401 - an object of the library
    found = list(session.get_objects(dict(wanted)))
    if len(found) != 1:
        raise Pkcs11KeyMissing(f"the token has {len(found)} {what} keys that are the one that is named")
    return found[0]


def _signing(private: Any, mechanism: Any) -> Signing:  # noqa: ANN401 - a key of the library
    def sign(data: bytes) -> bytes:
        try:
            return bytes(private.sign(data, mechanism=mechanism))
        except PKCS11Error as error:
            raise Pkcs11Unavailable(f"the token does not sign ({type(error).__name__})") from error

    return sign
