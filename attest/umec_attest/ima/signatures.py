"""Signatures of files, as an entry carries them (`struct signature_v2_hdr` of Linux).

    u8   kind: 3 over the file's digest, 6 over the digest of fs-verity
    u8   version: 2 signs the digest itself, 3 the hash over kind, algorithm and digest
    u8   hash algorithm (`enum hash_algo`)
    4    key identifier
    u16  size of the signature, big-endian, and the signature: RSASSA-PKCS1-v1_5, or ECDSA in DER

What else a node may carry is not believed: signatures over metadata (EVM) say nothing about a file's content without
its attributes, and those appended to a file (PKCS#7) are over another digest than the one that was measured.
"""

import struct
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from umec_attest.bootlog.findings import Finding
from umec_attest.ima.keys import SigningKey
from umec_attest.ima.policy import RuntimePolicy

__all__ = ["signature_finding"]

_HEAD: Final = struct.Struct(">BBB4sH")
_FILE, _VERITY = (3, 2), (6, 3)
"""Kind and version."""
_HASHES: Final[dict[int, tuple[bytes, hashes.HashAlgorithm]]] = {
    4: (b"sha256", hashes.SHA256()),
    5: (b"sha384", hashes.SHA384()),
    6: (b"sha512", hashes.SHA512()),
}


def signature_finding(
    path: str, label: bytes, digest: bytes, *, verity: bool, signature: bytes, policy: RuntimePolicy
) -> Finding | None:
    """Return None if a key of the policy signed this digest (of the hash `label`), else what is wrong."""
    if len(signature) < _HEAD.size:
        return _invalid(path, "is cut")
    kind, version, algorithm, identifier, size = _HEAD.unpack_from(signature)
    if (kind, version) != (_VERITY if verity else _FILE):
        return Finding("ima-signature-unsupported", f"{path} has a signature of kind {kind}, version {version}")
    if identifier in policy.revoked_keys:
        return Finding("ima-key-revoked", f"{path} is signed with the revoked key {identifier.hex()}")
    key = policy.keys.get(identifier)
    if key is None:
        return Finding("ima-key-unknown", f"{path} is signed with the key {identifier.hex()}, which nobody vouches for")
    name, hashed = _HASHES.get(algorithm, (b"", hashes.SHA256()))
    value = signature[_HEAD.size :]
    if name != label or size != len(value):
        return _invalid(path, "is of another hash than the digest, or of another size than it says")
    signed = _signed(kind, algorithm, digest, hashed) if verity else digest
    return None if _verifies(key, value, signed, hashed) else _invalid(path, f"does not verify with {identifier.hex()}")


def _invalid(path: str, what: str) -> Finding:
    return Finding("ima-signature-invalid", f"the signature of {path} {what}")


def _signed(kind: int, algorithm: int, digest: bytes, hashed: hashes.HashAlgorithm) -> bytes:
    whole = hashes.Hash(hashed)
    whole.update(bytes((kind, algorithm)) + digest)
    return whole.finalize()


def _verifies(key: SigningKey, signature: bytes, digest: bytes, hashed: hashes.HashAlgorithm) -> bool:
    try:
        if isinstance(key.key, rsa.RSAPublicKey):
            key.key.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashed))
        else:
            key.key.verify(signature, digest, ec.ECDSA(Prehashed(hashed)))
    except InvalidSignature:
        return False
    return True
