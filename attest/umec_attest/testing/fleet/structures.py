"""TPM structures by their layout (TPM 2.0 Part 2), as a TPM would write them.

They are packed here and not by `umec_attest.tpm`, which reads them: one mistake in both would agree with itself.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "AK_ATTRIBUTES",
    "NODE_KEY_ATTRIBUTES",
    "SHA256",
    "ClockInfo",
    "attest",
    "ecc_public",
    "ecdsa_signature",
    "ek_public",
    "pcr_selection",
    "qualified_signer",
    "quote_info",
    "rsa_public",
    "rsa_signature",
]

SHA256: Final = 0x000B
RSA, ECC, AES, NULL = 0x0001, 0x0023, 0x0006, 0x0010
RSASSA, ECDSA, CFB = 0x0014, 0x0018, 0x0043
P256: Final = 0x0003
GENERATED: Final = 0xFF544347
ST_ATTEST_QUOTE: Final = 0x8018
ENDORSEMENT: Final = 0x4000000B

FIXED: Final = 1 << 1 | 1 << 4 | 1 << 5
"""fixedTPM, fixedParent, sensitiveDataOrigin."""
AK_ATTRIBUTES: Final = FIXED | 1 << 6 | 1 << 16 | 1 << 18
"""userWithAuth, restricted, sign."""
NODE_KEY_ATTRIBUTES: Final = FIXED | 1 << 6 | 1 << 18
EK_ATTRIBUTES: Final = FIXED | 1 << 7 | 1 << 16 | 1 << 17
"""adminWithPolicy, restricted, decrypt."""
EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret of the endorsement hierarchy (EK Credential Profile 2.3, B.6.2)."""


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO and firmwareVersion: `clock` in milliseconds."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int


def _sized(data: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(data)) + data


def _u16(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def ecc_public(x: bytes, y: bytes, attributes: int) -> bytes:
    """TPMT_PUBLIC of a P-256 key that signs with ECDSA and SHA-256."""
    parameters = _u16(NULL, ECDSA, SHA256, P256, NULL)
    return _u16(ECC, SHA256) + struct.pack(">I", attributes) + _sized(b"") + parameters + _sized(x) + _sized(y)


def ek_public(x: bytes, y: bytes) -> bytes:
    """TPMT_PUBLIC of an EK on P-256 by the template L-2 of the EK Credential Profile."""
    parameters = _u16(AES, 128, CFB, NULL, P256, NULL)
    return _u16(ECC, SHA256) + struct.pack(">I", EK_ATTRIBUTES) + _sized(EK_POLICY) + parameters + _sized(x) + _sized(y)


def rsa_public(modulus: bytes, attributes: int) -> bytes:
    """TPMT_PUBLIC of an RSA key with the exponent 65537 that signs with RSASSA and SHA-256."""
    parameters = _u16(NULL, RSASSA, SHA256, len(modulus) * 8) + struct.pack(">I", 0)
    return _u16(RSA, SHA256) + struct.pack(">I", attributes) + _sized(b"") + parameters + _sized(modulus)


def qualified_signer(ak: bytes, ek: bytes, *, hierarchy: int = ENDORSEMENT) -> bytes:
    """Qualified Name of a key under a primary key of a hierarchy (Part 1, 26.5); all name algorithms are SHA-256."""

    def below(above: bytes, public: bytes) -> bytes:
        return _hashed(above + _hashed(public))

    return below(below(struct.pack(">I", hierarchy), ek), ak)


def _hashed(data: bytes) -> bytes:
    return _u16(SHA256) + hashlib.sha256(data).digest()


def pcr_selection(pcrs: Iterable[int], *, algorithm: int = SHA256, size: int = 3) -> bytes:
    """TPML_PCR_SELECTION of one bank; `size` is sizeofSelect."""
    mask = sum(1 << pcr for pcr in set(pcrs))
    return struct.pack(">IHB", 1, algorithm, size) + mask.to_bytes(max(size, 4), "little")[:size]


def quote_info(values: Mapping[int, bytes], asked: Sequence[int]) -> bytes:
    """TPMS_QUOTE_INFO over the SHA-256 bank, in the order of a TPM: by number."""
    digest = hashlib.sha256(b"".join(values[pcr] for pcr in sorted(asked))).digest()
    return pcr_selection(asked) + _sized(digest)


def attest(
    *,
    signer: bytes,
    extra_data: bytes,
    clock: ClockInfo,
    attested: bytes,
    kind: int = ST_ATTEST_QUOTE,
    magic: int = GENERATED,
) -> bytes:
    """TPMS_ATTEST; `attested` is what belongs to `kind`."""
    info = struct.pack(
        ">QIIBQ", clock.clock, clock.reset_count, clock.restart_count, clock.safe, clock.firmware_version
    )
    return struct.pack(">IH", magic, kind) + _sized(signer) + _sized(extra_data) + info + attested


def ecdsa_signature(r: int, s: int, *, hash_algorithm: int = SHA256) -> bytes:
    """TPMT_SIGNATURE of a P-256 key."""
    return _u16(ECDSA, hash_algorithm) + _sized(r.to_bytes(32, "big")) + _sized(s.to_bytes(32, "big"))


def rsa_signature(signature: bytes, *, hash_algorithm: int = SHA256) -> bytes:
    """TPMT_SIGNATURE by RSASSA."""
    return _u16(RSASSA, hash_algorithm) + _sized(signature)
