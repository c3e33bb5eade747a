"""Public areas of asymmetric keys (TPM 2.0 Part 2, 12.2.4: TPMT_PUBLIC)."""

from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from umec_attest.errors import KeyWeak
from umec_attest.tpm.algorithms import ALG_ECC, ALG_NULL, ALG_RSA, CURVES, MAX_DIGEST_SIZE, HashAlgorithm
from umec_attest.tpm.wire import Reader, sized, u16, u32

__all__ = [
    "Attributes",
    "EccParameters",
    "Public",
    "RsaParameters",
    "SchemeChoice",
    "Symmetric",
    "parse_public",
    "parse_tpm2b_public",
]

_MAX_RSA_SIZE: Final = 512
_MAX_ECC_SIZE: Final = 66
_DEFAULT_EXPONENT: Final = 65537
"""What a TPM means by the exponent 0 (Part 2, 12.2.3.5)."""

_SCHEMES_WITHOUT_DETAILS: Final = frozenset({0x0015})
"""RSAES."""
_SCHEMES_WITH_HASH_AND_COUNT: Final = frozenset({0x001A})
"""ECDAA."""
_RSA_SCHEMES: Final = frozenset({0x0014, 0x0015, 0x0016, 0x0017})
"""RSASSA, RSAES, RSAPSS, OAEP."""
_ECC_SCHEMES: Final = frozenset({0x0018, 0x0019, 0x001A, 0x001B, 0x001C, 0x001D})
"""ECDSA, ECDH, ECDAA, SM2, ECSCHNORR, ECMQV."""
_KDF_SCHEMES: Final = frozenset({0x0007, 0x0020, 0x0021, 0x0022})
"""MGF1, KDF1_SP800_56A, KDF2, KDF1_SP800_108."""
_SYMMETRIC: Final = frozenset({0x0006, 0x0013, 0x0026})
"""AES, SM4, CAMELLIA."""


class Attributes(IntFlag):
    """TPMA_OBJECT (Part 2, 8.3); the other bits are reserved, and a structure that sets one is refused."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    FIRMWARE_LIMITED = 1 << 8
    SVN_LIMITED = 1 << 9
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


_KNOWN_ATTRIBUTES: Final = sum(Attributes)


@dataclass(frozen=True, slots=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT of a storage key; `None` stands for TPM_ALG_NULL."""

    algorithm: int
    key_bits: int
    mode: int


@dataclass(frozen=True, slots=True)
class SchemeChoice:
    """A scheme that the key is bound to; `None` stands for TPM_ALG_NULL. `count` is ECDAA's alone."""

    algorithm: int
    hash_algorithm: HashAlgorithm | None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class RsaParameters:
    """TPMS_RSA_PARMS and the modulus."""

    symmetric: Symmetric | None
    scheme: SchemeChoice | None
    key_bits: int
    exponent: int
    modulus: bytes


@dataclass(frozen=True, slots=True)
class EccParameters:
    """TPMS_ECC_PARMS and the point."""

    symmetric: Symmetric | None
    scheme: SchemeChoice | None
    curve: int
    kdf: SchemeChoice | None
    x: bytes
    y: bytes


PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Public:
    """A TPMT_PUBLIC of an RSA or ECC key."""

    name_algorithm: HashAlgorithm
    attributes: Attributes
    auth_policy: bytes
    parameters: RsaParameters | EccParameters

    def to_bytes(self) -> bytes:
        """Return the TPMT_PUBLIC."""
        head = u16(self.name_algorithm) + u32(self.attributes) + sized(self.auth_policy)
        parameters = self.parameters
        if isinstance(parameters, RsaParameters):
            return u16(ALG_RSA) + head + _rsa_to_bytes(parameters)
        return u16(ALG_ECC) + head + _ecc_to_bytes(parameters)

    def name(self) -> bytes:
        """Return the Name: the name algorithm and the digest of the public area (Part 1, 16)."""
        return u16(self.name_algorithm) + self.name_algorithm.digest(self.to_bytes())

    def key(self) -> PublicKey:
        """Return the key for cryptography (cached).

        Errors: `KeyWeak` for a curve that we do not know, a point off its curve, an impossible modulus or exponent.
        """
        return _load_key(self.parameters)


def parse_public(data: bytes) -> Public:
    """Parse a TPMT_PUBLIC; `TpmInvalid` if it is none, or one of a symmetric or keyed-hash object."""
    reader = Reader(data, what="TPMT_PUBLIC")
    public = _read_public(reader)
    reader.finish()
    return public


def parse_tpm2b_public(data: bytes) -> Public:
    """Parse a TPM2B_PUBLIC: a 16-bit size and a TPMT_PUBLIC that fills it."""
    reader = Reader(data, what="TPM2B_PUBLIC")
    content = reader.sized(len(data))
    reader.finish()
    return parse_public(content)


def _read_public(reader: Reader) -> Public:
    kind = reader.u16()
    name_algorithm = _read_hash(reader)
    bits = reader.u32()
    if bits & ~_KNOWN_ATTRIBUTES:
        raise reader.fail(f"reserved attribute bits are set: 0x{bits:08x}")
    auth_policy = reader.sized(MAX_DIGEST_SIZE)
    if kind == ALG_RSA:
        return Public(name_algorithm, Attributes(bits), auth_policy, _read_rsa(reader))
    if kind == ALG_ECC:
        return Public(name_algorithm, Attributes(bits), auth_policy, _read_ecc(reader))
    raise reader.fail(f"neither an RSA nor an ECC key: type 0x{kind:04x}")


def _read_rsa(reader: Reader) -> RsaParameters:
    symmetric, scheme = _read_symmetric(reader), _read_scheme(reader, _RSA_SCHEMES)
    return RsaParameters(symmetric, scheme, reader.u16(), reader.u32(), reader.sized(_MAX_RSA_SIZE))


def _read_ecc(reader: Reader) -> EccParameters:
    symmetric, scheme = _read_symmetric(reader), _read_scheme(reader, _ECC_SCHEMES)
    curve, kdf = reader.u16(), _read_scheme(reader, _KDF_SCHEMES)
    return EccParameters(symmetric, scheme, curve, kdf, reader.sized(_MAX_ECC_SIZE), reader.sized(_MAX_ECC_SIZE))


def _read_hash(reader: Reader) -> HashAlgorithm:
    identifier = reader.u16()
    try:
        return HashAlgorithm(identifier)
    except ValueError:
        raise reader.fail(f"unknown hash 0x{identifier:04x}") from None


def _read_symmetric(reader: Reader) -> Symmetric | None:
    algorithm = reader.u16()
    if algorithm == ALG_NULL:
        return None
    if algorithm not in _SYMMETRIC:
        raise reader.fail(f"unknown symmetric algorithm 0x{algorithm:04x}")
    return Symmetric(algorithm, reader.u16(), reader.u16())


def _read_scheme(reader: Reader, allowed: frozenset[int]) -> SchemeChoice | None:
    algorithm = reader.u16()
    if algorithm == ALG_NULL:
        return None
    if algorithm not in allowed:
        raise reader.fail(f"scheme 0x{algorithm:04x} does not fit the key")
    if algorithm in _SCHEMES_WITHOUT_DETAILS:
        return SchemeChoice(algorithm, None)
    hash_algorithm = _read_hash(reader)
    count = reader.u16() if algorithm in _SCHEMES_WITH_HASH_AND_COUNT else None
    return SchemeChoice(algorithm, hash_algorithm, count)


def _symmetric_to_bytes(symmetric: Symmetric | None) -> bytes:
    if symmetric is None:
        return u16(ALG_NULL)
    return u16(symmetric.algorithm) + u16(symmetric.key_bits) + u16(symmetric.mode)


def _scheme_to_bytes(scheme: SchemeChoice | None) -> bytes:
    if scheme is None:
        return u16(ALG_NULL)
    details = (scheme.hash_algorithm, scheme.count)
    return u16(scheme.algorithm) + b"".join(u16(value) for value in details if value is not None)


def _rsa_to_bytes(parameters: RsaParameters) -> bytes:
    return b"".join(
        (
            _symmetric_to_bytes(parameters.symmetric),
            _scheme_to_bytes(parameters.scheme),
            u16(parameters.key_bits),
            u32(parameters.exponent),
            sized(parameters.modulus),
        )
    )


def _ecc_to_bytes(parameters: EccParameters) -> bytes:
    return b"".join(
        (
            _symmetric_to_bytes(parameters.symmetric),
            _scheme_to_bytes(parameters.scheme),
            u16(parameters.curve),
            _scheme_to_bytes(parameters.kdf),
            sized(parameters.x),
            sized(parameters.y),
        )
    )


@lru_cache(maxsize=65536)  # one entry a node: loading a key costs as much as a third of an RSA verification
def _load_key(parameters: RsaParameters | EccParameters) -> PublicKey:
    try:
        if isinstance(parameters, RsaParameters):
            return _load_rsa(parameters)
        return _load_ecc(parameters)
    except ValueError as error:
        raise KeyWeak(f"the public area holds no usable key: {error}") from error


def _load_rsa(parameters: RsaParameters) -> rsa.RSAPublicKey:
    modulus = int.from_bytes(parameters.modulus, "big")
    if modulus.bit_length() != parameters.key_bits or len(parameters.modulus) * 8 != parameters.key_bits:
        raise ValueError(f"the modulus has {modulus.bit_length()} bits, the key claims {parameters.key_bits}")
    return rsa.RSAPublicNumbers(parameters.exponent or _DEFAULT_EXPONENT, modulus).public_key()


def _load_ecc(parameters: EccParameters) -> ec.EllipticCurvePublicKey:
    curve = CURVES.get(parameters.curve)
    if curve is None:
        raise ValueError(f"unknown curve 0x{parameters.curve:04x}")
    x, y = int.from_bytes(parameters.x, "big"), int.from_bytes(parameters.y, "big")
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
