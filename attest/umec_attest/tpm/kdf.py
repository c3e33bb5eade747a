"""Key derivation of a TPM (TPM 2.0 Part 1, 11.4.10: KDFa and KDFe)."""

import hmac

from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.wire import u32

__all__ = ["kdfa", "kdfe"]


def kdfa(algorithm: HashAlgorithm, key: bytes, label: bytes, contexts: tuple[bytes, bytes], bits: int) -> bytes:
    """Return `bits` / 8 bytes of SP 800-108 in counter mode with HMAC; `label` without its terminating zero."""
    size = bits // 8
    fixed = label + b"\0" + b"".join(contexts) + u32(bits)
    blocks = -(-size // algorithm.digest_size)
    stream = b"".join(hmac.digest(key, u32(n) + fixed, algorithm.label) for n in range(1, blocks + 1))
    return stream[:size]


def kdfe(algorithm: HashAlgorithm, z: bytes, use: bytes, parties: tuple[bytes, bytes], bits: int) -> bytes:
    """Return `bits` / 8 bytes of SP 800-56A; `z` is the shared x coordinate, padded to the size of the field."""
    size = bits // 8
    fixed = z + use + b"\0" + b"".join(parties)
    blocks = -(-size // algorithm.digest_size)
    stream = b"".join(algorithm.digest(u32(n) + fixed) for n in range(1, blocks + 1))
    return stream[:size]
