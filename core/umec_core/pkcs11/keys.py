"""RSA and ECDSA keys that sign in a token. What signs with a key of a file signs with these.

Each signature is verified with the public key before anybody gets it: a token with another key than it says, or a
driver with a fault, is found out here and not where an image does not boot.
"""

from collections.abc import Callable
from typing import NoReturn, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.utils import Buffer

from umec_core.pkcs11.errors import Pkcs11KeyUnfit, Pkcs11SignatureInvalid

__all__ = ["TokenEcKey", "TokenRsaKey"]

Signing = Callable[[bytes], bytes]
"""What a token does: PKCS#1 v1.5 with SHA-256 over data (RSA), or r and s over a digest (ECDSA)."""


class _Stays:
    """What a key of a file can do and one in a token must not."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise Pkcs11KeyUnfit("the key stays in its token: it signs there with SHA-256, and does nothing else")

    decrypt = exchange = private_numbers = private_bytes = _refuse

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class TokenRsaKey(_Stays, rsa.RSAPrivateKey):
    """An RSA key that signs in a token: RSASSA-PKCS1-v1_5 with SHA-256, and nothing else."""

    def __init__(self, public: rsa.RSAPublicKey, sign: Signing) -> None:
        self._public = public
        self._sign = sign

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key that lies beside it."""
        return self._public

    def sign(self, data: Buffer, padding: AsymmetricPadding, algorithm: object) -> bytes:
        """Return the signature over `data`. Raises Pkcs11Unavailable, Pkcs11KeyUnfit, Pkcs11SignatureInvalid."""
        if not isinstance(padding, PKCS1v15) or not isinstance(algorithm, SHA256):
            self._refuse()
        signature = self._sign(bytes(data))
        try:
            self._public.verify(signature, bytes(data), padding, algorithm)
        except InvalidSignature as error:
            raise Pkcs11SignatureInvalid("what the token made is no signature by its public key") from error
        return signature


class TokenEcKey(_Stays, ec.EllipticCurvePrivateKey):
    """An ECDSA key that signs in a token: with SHA-256, and nothing else."""

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: Signing) -> None:
        self._public = public
        self._sign = sign

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Bits of its numbers."""
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key that lies beside it."""
        return self._public

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the signature (DER) over `data`. Raises as `TokenRsaKey.sign`."""
        if not isinstance(signature_algorithm, ec.ECDSA) or not isinstance(signature_algorithm.algorithm, SHA256):
            self._refuse()
        digest = Hash(SHA256())
        digest.update(bytes(data))
        numbers = self._sign(digest.finalize())
        half = len(numbers) // 2
        signature = encode_dss_signature(int.from_bytes(numbers[:half], "big"), int.from_bytes(numbers[half:], "big"))
        try:
            self._public.verify(signature, bytes(data), signature_algorithm)
        except InvalidSignature as error:
            raise Pkcs11SignatureInvalid("what the token made is no signature by its public key") from error
        return signature
