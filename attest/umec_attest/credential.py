"""TPM2_MakeCredential in software (TPM 2.0 Part 1, 24): a secret for the TPM with this EK *and* this AK."""

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

__all__ = ["Credential", "make_credential"]

_LABEL: Final = b"IDENTITY"


@dataclass(frozen=True, slots=True)
class Credential:
    """What goes to TPM2_ActivateCredential, both without their outer 16-bit size."""

    blob: bytes
    """TPMS_ID_OBJECT: the HMAC and the encrypted secret."""
    encrypted_secret: bytes
    """The seed, encrypted to the EK (RSA), or the ephemeral point (ECC)."""


def make_credential(ek: Public, ak_name: bytes, secret: bytes) -> Credential:
    """Return a credential that only the holder of `ek` can open, and only for the key with the Name `ak_name`.

    `secret` has at most as many bytes as a digest of the EK's name algorithm. Errors: `EkProfile` if the key cannot
    be an EK, or the secret is too long for it.
    """
    algorithm, symmetric = ek.name_algorithm, ek.parameters.symmetric
    if algorithm not in SIGNING_HASHES or symmetric is None:
        raise EkProfile("an endorsement key is a storage key with a SHA-2 Name")
    if (symmetric.algorithm, symmetric.mode) != (ALG_AES, ALG_CFB) or symmetric.key_bits not in (128, 256):
        raise EkProfile("an endorsement key protects its children with AES-CFB of 128 or 256 bits")
    if not 0 < len(secret) <= algorithm.digest_size:
        raise EkProfile(f"the secret must have 1 to {algorithm.digest_size} bytes")
    seed, encrypted_seed = _share_seed(ek, algorithm)
    encrypted = _encrypt(kdfa(algorithm, seed, b"STORAGE", (ak_name, b""), symmetric.key_bits), sized(secret))
    integrity_key = kdfa(algorithm, seed, b"INTEGRITY", (b"", b""), algorithm.digest_size * 8)
    outer = hmac.digest(integrity_key, encrypted + ak_name, algorithm.label)
    return Credential(sized(outer) + encrypted, encrypted_seed)


def _share_seed(ek: Public, algorithm: HashAlgorithm) -> tuple[bytes, bytes]:
    """Part 1, B.10.3 (RSA: OAEP) and C.6.3 (ECC: one-pass ECDH)."""
    key = ek.key()
    if isinstance(key, rsa.RSAPublicKey):
        seed = secrets.token_bytes(algorithm.digest_size)
        hash_algorithm = SIGNING_HASHES[algorithm]
        oaep = padding.OAEP(padding.MGF1(hash_algorithm), hash_algorithm, _LABEL + b"\0")
        return seed, key.encrypt(seed, oaep)
    ephemeral = ec.generate_private_key(key.curve)
    point, recipient = ephemeral.public_key().public_numbers(), key.public_numbers()
    size = (key.curve.key_size + 7) // 8
    x, y, recipient_x = (number.to_bytes(size, "big") for number in (point.x, point.y, recipient.x))
    shared = ephemeral.exchange(ec.ECDH(), key)
    seed = kdfe(algorithm, shared, _LABEL, (x, recipient_x), algorithm.digest_size * 8)
    return seed, sized(x) + sized(y)


def _encrypt(key: bytes, plain: bytes) -> bytes:
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()
    return encryptor.update(plain) + encryptor.finalize()
