"""TPM2_MakeCredential in software (TPM 2.0 Part 1, 24): a secret for the TPM with this EK *and* this AK.

`outer_wrap` is what it shares with duplicated objects (`umec_attest.sealed`): only the label of the seed differs.
"""

import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from umec_attest.errors import EkProfile
from umec_attest.tpm.algorithms import ALG_AES, ALG_CFB, SIGNING_HASHES, HashAlgorithm
from umec_attest.tpm.kdf import kdfa, kdfe
from umec_attest.tpm.public import Public
from umec_attest.tpm.wire import sized

__all__ = ["Credential", "Wrapped", "make_credential", "outer_wrap"]

_LABEL: Final = b"IDENTITY"


@dataclass(frozen=True, slots=True)
class Credential:
    """What goes to TPM2_ActivateCredential, both without their outer 16-bit size."""

    blob: bytes
    """TPMS_ID_OBJECT: the HMAC and the encrypted secret."""
    encrypted_secret: bytes
    """The seed, encrypted to the EK (RSA), or the ephemeral point (ECC)."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What only the holder of a storage key can open: the outer HMAC, what it protects, and the encrypted seed."""

    integrity: bytes
    encrypted: bytes
    encrypted_seed: bytes


def make_credential(ek: Public, ak_name: bytes, secret: bytes) -> Credential:
    """Return a credential that only the holder of `ek` can open, and only for the key with the Name `ak_name`.

    `secret` has at most as many bytes as a digest of the EK's name algorithm. Errors: `EkProfile` if the key cannot
    be an EK, or the secret is too long for it.
    """
    if not 0 < len(secret) <= ek.name_algorithm.digest_size:
        raise EkProfile(f"the secret must have 1 to {ek.name_algorithm.digest_size} bytes")
    made = outer_wrap(ek, ak_name, sized(secret), _LABEL)
    return Credential(sized(made.integrity) + made.encrypted, made.encrypted_seed)


def outer_wrap(parent: Public, name: bytes, plain: bytes, label: bytes) -> Wrapped:
    """Encrypt `plain` for a storage key, bound to the Name of an object (Part 1, 22.4 and 24.5: outer wrapping).

    `label` is what the seed is for, "IDENTITY" or "DUPLICATE". Errors: `EkProfile` if the key is no storage key.
    """
    algorithm, symmetric = parent.name_algorithm, parent.parameters.symmetric
    if algorithm not in SIGNING_HASHES or symmetric is None:
        raise EkProfile("an endorsement key is a storage key with a SHA-2 Name")
    if (symmetric.algorithm, symmetric.mode) != (ALG_AES, ALG_CFB) or symmetric.key_bits not in (128, 256):
        raise EkProfile("an endorsement key protects its children with AES-CFB of 128 or 256 bits")
    seed, encrypted_seed = _share_seed(parent, algorithm, label)
    encrypted = _encrypt(kdfa(algorithm, seed, b"STORAGE", (name, b""), symmetric.key_bits), plain)
    integrity_key = kdfa(algorithm, seed, b"INTEGRITY", (b"", b""), algorithm.digest_size * 8)
    return Wrapped(hmac.digest(integrity_key, encrypted + name, algorithm.label), encrypted, encrypted_seed)


def _share_seed(ek: Public, algorithm: HashAlgorithm, label: bytes) -> tuple[bytes, bytes]:
    """Part 1, B.10.3 (RSA: OAEP) and C.6.3 (ECC: one-pass ECDH)."""
    key = ek.key()
    if isinstance(key, rsa.RSAPublicKey):
        seed = secrets.token_bytes(algorithm.digest_size)
        hash_algorithm = SIGNING_HASHES[algorithm]
        oaep = padding.OAEP(padding.MGF1(hash_algorithm), hash_algorithm, label + b"\0")
        return seed, key.encrypt(seed, oaep)
    ephemeral = ec.generate_private_key(key.curve)
    point, recipient = ephemeral.public_key().public_numbers(), key.public_numbers()
    size = (key.curve.key_size + 7) // 8
    x, y, recipient_x = (number.to_bytes(size, "big") for number in (point.x, point.y, recipient.x))
    shared = ephemeral.exchange(ec.ECDH(), key)
    seed = kdfe(algorithm, shared, label, (x, recipient_x), algorithm.digest_size * 8)
    return seed, sized(x) + sized(y)


def _encrypt(key: bytes, plain: bytes) -> bytes:
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()
    return encryptor.update(plain) + encryptor.finalize()
