"""An adversary in the role of a TPM: it holds real keys, really signs, and says whatever a test wants."""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from umec_attest.quote import VerifiedQuote, verify_quote
from umec_attest.reference import ReferenceSet, sign_reference_set, verify_reference_set
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import Attest, Certified, ClockInfo, Quoted
from umec_attest.tpm.names import Hierarchy, signer_name
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Attributes, EccParameters, Public, RsaParameters, SchemeChoice, Symmetric
from umec_attest.tpm.signature import EcdsaSignature, RsaSignature, Scheme
from umec_core.errors import UmecError

SHA256 = HashAlgorithm.SHA256
ORIGIN = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN
AK_ATTRIBUTES = ORIGIN | Attributes.RESTRICTED | Attributes.SIGN | Attributes.USER_WITH_AUTH
NONCE = bytes(range(32))
NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
HASHES = {
    HashAlgorithm.SHA1: hashes.SHA1(),  # noqa: S303 - an adversary uses it
    SHA256: hashes.SHA256(),
    HashAlgorithm.SHA384: hashes.SHA384(),
}
CURVE_IDS = {"secp256r1": 3, "secp384r1": 4, "secp521r1": 5}


@lru_cache
def rsa_key(bits: int = 2048, exponent: int = 65537, name: str = "ak") -> rsa.RSAPrivateKey:  # noqa: ARG001 - one key a name
    return rsa.generate_private_key(exponent, bits)


@lru_cache
def ec_key(curve: str = "secp256r1", name: str = "ak") -> ec.EllipticCurvePrivateKey:  # noqa: ARG001 - as above
    kinds = {"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}
    return ec.generate_private_key(kinds[curve]())


def public_of(
    key: Any,
    *,
    attributes: Attributes = AK_ATTRIBUTES,
    scheme: SchemeChoice | None = None,
    policy: bytes = b"",
    symmetric: Symmetric | None = None,
    name_algorithm: HashAlgorithm = SHA256,
) -> Public:
    numbers = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        size = key.key_size // 8
        exponent = 0 if numbers.e == 65537 else numbers.e
        modulus = numbers.n.to_bytes(size, "big")
        parameters: Any = RsaParameters(symmetric, scheme, key.key_size, exponent, modulus)
    else:
        size = (key.curve.key_size + 7) // 8
        x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
        parameters = EccParameters(symmetric, scheme, CURVE_IDS[key.curve.name], None, x, y)
    return Public(name_algorithm, attributes, policy, parameters)


def sign(key: Any, scheme: Scheme, algorithm: HashAlgorithm, message: bytes, *, salt: int | None = None) -> bytes:
    """Return a TPMT_SIGNATURE."""
    hasher = HASHES[algorithm]
    if scheme is Scheme.ECDSA:
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hasher)))
        size = (key.curve.key_size + 7) // 8
        return EcdsaSignature(algorithm, r.to_bytes(size, "big"), s.to_bytes(size, "big")).to_bytes()
    pad: Any = padding.PKCS1v15()
    if scheme is Scheme.RSAPSS:
        pad = padding.PSS(padding.MGF1(hasher), algorithm.digest_size if salt is None else salt)
    return RsaSignature(scheme, algorithm, key.sign(message, pad, hasher)).to_bytes()


@dataclass(frozen=True)
class Adversary:
    """A TPM whose every word can be replaced."""

    key: Any = field(default_factory=ec_key)
    scheme: Scheme = Scheme.ECDSA
    algorithm: HashAlgorithm = SHA256
    bound: bool = True
    ek: Public = field(default_factory=lambda: public_of(ec_key(name="ek"), attributes=ORIGIN | Attributes.DECRYPT))
    selection: PcrSelection = field(default_factory=lambda: PcrSelection.from_mapping({"sha256": PCRS}))
    nonce: bytes = NONCE
    clock_info: ClockInfo = field(default_factory=lambda: ClockInfo(1_000_000, 5, 2, safe=True))
    firmware_version: int = 7

    @property
    def ak(self) -> Public:
        choice = SchemeChoice(self.scheme, self.algorithm) if self.bound else None
        return public_of(self.key, scheme=choice)

    def values(self) -> dict[HashAlgorithm, dict[int, bytes]]:
        return {
            bank.algorithm: {pcr: bank.algorithm.digest(bytes([pcr])) for pcr in bank.pcrs}
            for bank in self.selection.banks
        }

    def attest(self, pcrs: Mapping[HashAlgorithm, Mapping[int, bytes]] | None = None, **changes: Any) -> Attest:
        values = self.values() if pcrs is None else pcrs
        joined = b"".join(
            values[bank.algorithm][pcr]
            for bank in self.selection.banks
            for pcr in bank.pcrs
            if pcr in values.get(bank.algorithm, {})
        )
        attest = Attest(
            signer_name(self.ak, self.ek),
            self.nonce,
            self.clock_info,
            self.firmware_version,
            Quoted(self.selection, self.algorithm.digest(joined)),
        )
        return replace(attest, **changes)

    def certify(self, subject: Public, qualifying: bytes, **changes: Any) -> bytes:
        attested = Certified(subject.name(), signer_name(subject, self.ek))
        return self.attest(attested=attested, extra_data=qualifying, **changes).to_bytes()

    def sign(self, message: bytes, **options: Any) -> bytes:
        return sign(self.key, self.scheme, self.algorithm, message, **options)

    def verify(self, attest: bytes | None = None, signature: bytes | None = None, **changes: Any) -> VerifiedQuote:
        """Show a quote to a verifier that asked for `selection` with `nonce`."""
        message = self.attest().to_bytes() if attest is None else attest
        arguments: dict[str, Any] = {
            "attest": message,
            "signature": self.sign(message) if signature is None else signature,
            "ak": self.ak,
            "ak_parent": self.ek,
            "nonce": NONCE,
            "selection": PcrSelection.from_mapping({"sha256": PCRS}),
            "pcrs": self.values(),
        }
        return verify_quote(**(arguments | changes))

    def quote_of(self, values: Mapping[int, bytes], **changes: Any) -> VerifiedQuote:
        """Return a verified quote of these values in the SHA-256 bank."""
        mine = replace(self, selection=PcrSelection.from_mapping({"sha256": sorted(values)}), **changes)
        pcrs = {SHA256: dict(values)}
        attest = mine.attest(pcrs).to_bytes()
        return mine.verify(attest, selection=mine.selection, pcrs=pcrs, nonce=mine.nonce)


# --- boot logs ------------------------------------------------------------------------------------------------------

EV = {
    "NO_ACTION": 3,
    "SEPARATOR": 4,
    "CRTM": 8,
    "IPL": 13,
    "CONFIG": 0x80000001,
    "VARIABLE_BOOT": 0x80000002,
    "APPLICATION": 0x80000003,
    "ACTION": 0x80000007,
    "GPT": 0x80000006,
    "BLOB": 0x80000008,
    "HCRTM": 0x80000010,
    "AUTHORITY": 0x800000E0,
}
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
SECURITY = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")


def variable(vendor: bytes, name: str, data: bytes) -> bytes:
    text = name.encode("utf-16-le")
    return vendor + struct.pack("<QQ", len(name), len(data)) + text + data


@dataclass
class Event:
    """An event of a log to be written; the digest is that of the data unless given."""

    pcr: int
    kind: str
    data: bytes
    digest: bytes | None = None

    def sha256(self) -> bytes:
        if self.kind == "NO_ACTION" and self.digest is None:
            return bytes(32)
        return hashlib.sha256(self.data).digest() if self.digest is None else self.digest


def spec_id(
    algorithms: Sequence[tuple[int, int]] = ((0x0B, 32),), *, count: int | None = None, tail: bytes = b"\0"
) -> bytes:
    body = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms) if count is None else count)
    body += b"".join(struct.pack("<HH", *pair) for pair in algorithms) + tail
    return struct.pack("<II20sI", 0, 3, bytes(20), len(body)) + body


def write_log(events: Sequence[Event], head: bytes | None = None) -> bytes:
    log = spec_id() if head is None else head
    for event in events:
        log += struct.pack("<IIIH", event.pcr, EV[event.kind], 1, 0x0B) + event.sha256()
        log += struct.pack("<I", len(event.data)) + event.data
    return log


def good_events() -> list[Event]:
    """A boot as UEFI and systemd-stub measure it."""
    pe = hashlib.sha256(b"the image").digest()
    events = [
        Event(0, "CRTM", "1.0".encode("utf-16-le") + b"\0\0"),
        Event(0, "BLOB", bytes(16), hashlib.sha256(b"firmware").digest()),
        Event(7, "CONFIG", variable(GLOBAL, "SecureBoot", b"\x01")),
        Event(7, "CONFIG", variable(GLOBAL, "PK", b"pk")),
        Event(7, "CONFIG", variable(GLOBAL, "KEK", b"kek")),
        Event(7, "CONFIG", variable(SECURITY, "db", b"db")),
        Event(7, "CONFIG", variable(SECURITY, "dbx", b"dbx")),
        Event(4, "ACTION", b"Calling EFI Application from Boot Option"),
    ]
    events += [Event(pcr, "SEPARATOR", bytes(4)) for pcr in range(8)]
    events += [
        Event(7, "AUTHORITY", variable(SECURITY, "db", b"certificate")),
        Event(4, "APPLICATION", b"device path", pe),
        Event(11, "IPL", b".linux\0"),
        Event(11, "IPL", b".linux", hashlib.sha256(b"kernel").digest()),
        Event(5, "ACTION", b"Exit Boot Services Invocation"),
    ]
    return events


def replay_events(events: Sequence[Event], start: bytes = bytes(32)) -> dict[int, bytes]:
    """The PCRs that a TPM has after these events: those that a quote asks for, with zero where nothing was measured."""
    values = dict.fromkeys(PCRS, bytes(32)) | {0: start}
    for event in events:
        if event.kind != "NO_ACTION":
            values[event.pcr] = hashlib.sha256(values.get(event.pcr, bytes(32)) + event.sha256()).digest()
    return {pcr: values[pcr] for pcr in PCRS}


@lru_cache
def reference_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_reference(values: Mapping[int, bytes], **changes: Any) -> ReferenceSet:
    """Return a verified reference set that expects exactly these values."""
    arguments: dict[str, Any] = {
        "name": "edge",
        "subject_sha256": "ab" * 32,
        "version": 1,
        "issued": NOW,
        "expires": NOW + timedelta(days=30),
        "pcrs": {SHA256: {pcr: [value] for pcr, value in values.items()}},
        "ignored": {},
        "key": reference_key(),
    }
    envelope = sign_reference_set(**(arguments | changes))
    return verify_reference_set(envelope, signers=[reference_key().public_key()], now=NOW, minimum_version=0)


class Kit:
    """What the tests of this folder share."""

    Adversary = Adversary
    Event = Event
    NONCE = NONCE
    NOW = NOW
    PCRS = PCRS
    SHA256 = SHA256
    ORIGIN = ORIGIN
    AK_ATTRIBUTES = AK_ATTRIBUTES
    Hierarchy = Hierarchy
    GLOBAL = GLOBAL
    SECURITY = SECURITY
    rsa_key = staticmethod(rsa_key)
    ec_key = staticmethod(ec_key)
    public_of = staticmethod(public_of)
    sign = staticmethod(sign)
    spec_id = staticmethod(spec_id)
    variable = staticmethod(variable)
    write_log = staticmethod(write_log)
    good_events = staticmethod(good_events)
    replay_events = staticmethod(replay_events)
    make_reference = staticmethod(make_reference)
    reference_key = staticmethod(reference_key)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def tpm() -> Adversary:
    return Adversary()


@pytest.fixture
def refused() -> Callable[[str], Any]:
    """`with refused("code"):` expects exactly that refusal."""

    class Expect:
        def __init__(self, code: str) -> None:
            self.code = code

        def __enter__(self) -> None:
            return None

        def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
            assert isinstance(error, UmecError), f"{self.code} expected, got {error!r}"
            assert error.code == self.code, f"{self.code} expected, got {error.code}: {error.detail}"
            return True

    return Expect
