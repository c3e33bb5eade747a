"""The node's TPM 2.0, through the ESAPI of tpm2-tss.

Objects and where they live:

    endorsement hierarchy
    └── EK   RSA-2048, TCG default template L-1; persistent at 0x81010001 where the vendor put it, else made anew
        ├── AK        ECDSA P-256, restricted, signs only what the TPM itself made (quotes, certifications)
        └── node key  ECDSA P-256, signs digests; the AK certifies that it lives here

AK and node key leave the TPM only wrapped by the EK. Between two operations nothing of ours occupies the TPM: loaded
keys are parked with TPM2_ContextSave, and loaded again by their wrapped form when the TPM restarted.

All bytes that leave here are TPM wire format (TPM 2.0 Library, Part 2) without the outer TPM2B size.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from umec_attest.agent.errors import TpmRefused, TpmUnavailable

os.environ.setdefault("TSS2_LOG", "all+NONE")  # it writes to standard error what we raise as errors

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_ECC,
    TPM2_SE,
    TPMA_OBJECT,
    TPMA_SESSION,
)
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_CONTEXT,
    TPMS_ECC_PARMS,
    TPMS_RSA_PARMS,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_HASHCHECK,
    TPMU_ASYM_SCHEME,
    TPMU_PUBLIC_ID,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

__all__ = ["Attested", "EndorsementKey", "PcrQuote", "Tpm", "WrappedKey"]

T = TypeVar("T")

EK_HANDLE: Final = 0x81010001
"""TCG EK Credential Profile 2.2.1.4: where a vendor keeps the RSA-2048 EK."""
EK_CERTIFICATE_INDEX: Final = 0x01C00002
EK_CHAIN_FIRST: Final = 0x01C00100
EK_CHAIN_LAST: Final = 0x01C001FF
"""TCG EK Credential Profile 2.2.1.5.2: the certificates above the EK's, one behind the other."""
EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT) with SHA-256, which the default template asks for."""

MAX_EK_CERTIFICATE: Final = 16 * 1024
"""Larger certificates do not exist in the NV of a TPM; a wrong size field must not make us read for minutes."""
MAX_PCR: Final = 23
PCRS_A_READ: Final = 8
"""A TPML_DIGEST has at most eight digests."""
QUOTE_TRIES: Final = 5
"""Somebody (systemd, a user) may extend a PCR between reading and quoting; five times in a row nobody does."""
P256_BYTES: Final = 32

RC_LAYER_TCTI: Final = 0x000A0000
"""tss2_common.h: the error came from the transport and not from the TPM."""
RC_LAYER_MASK: Final = 0x00FF0000
RC_INITIALIZE: Final = 0x100
"""TPM_RC_INITIALIZE: the TPM was switched on, and nobody has sent TPM2_Startup yet."""
TRANSIENT_WARNINGS: Final = frozenset({0x908, 0x922, 0x923})
"""TPM_RC_YIELDED, TPM_RC_RETRY, TPM_RC_NV_UNAVAILABLE: nothing is wrong, try again."""

KEY_ATTRIBUTES: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
    | TPMA_OBJECT.SIGN_ENCRYPT
)
"""No dictionary attack protection (the keys have no password): with it, each power cut would count as an attack."""


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """The EK: `public` is a TPMT_PUBLIC, `spki` its SubjectPublicKeyInfo, certificates are DER (None: it has none)."""

    public: bytes
    spki: bytes
    certificate: bytes | None
    chain: tuple[bytes, ...]

    @property
    def sha256(self) -> str:
        """The hex SHA-256 of the SubjectPublicKeyInfo, which a ticket names."""
        return hashlib.sha256(self.spki).hexdigest()


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key that only this TPM can use: `public` is a TPMT_PUBLIC, `private` the buffer of a TPM2B_PRIVATE."""

    public: bytes
    private: bytes

    @property
    def spki(self) -> bytes:
        """Return the key's SubjectPublicKeyInfo in DER."""
        return bytes(_public(self.public).to_der())


@dataclass(frozen=True, slots=True)
class Attested:
    """A statement of the TPM about itself: `attest` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PcrQuote:
    """A quote, and the values of the SHA-256 bank that it covers."""

    quote: Attested
    pcrs: Mapping[int, bytes]


class Tpm:
    """A TPM reached through a TCTI such as `device:/dev/tpmrm0`; a context manager.

    It survives that the TPM or its transport restarts: every operation connects anew when it must. Several
    threads may share it; one at a time is served. Errors: TpmUnavailable, TpmRefused.
    """

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self._connection: ESAPI | None = None
        self._parked: dict[bytes, TPMS_CONTEXT] = {}
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the TPM; nothing of ours stays in it."""
        with self._lock:
            self._parked.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def endorsement_key(self) -> EndorsementKey:
        """Return the EK, with its certificate and what the TPM has of the chain above it."""

        def read(esys: ESAPI) -> EndorsementKey:
            with _endorsement_key(esys) as handle:
                public, _, _ = esys.read_public(handle)
            certificate = _read_nv(esys, EK_CERTIFICATE_INDEX)
            return EndorsementKey(
                bytes(public.publicArea.marshal()),
                bytes(public.to_der()),
                None if certificate is None else _one_certificate(certificate),
                _read_chain(esys),
            )

        return self._do(read)

    def create_attestation_key(self) -> WrappedKey:
        """Make an AK: P-256, restricted to what the TPM itself made."""
        return self._create(KEY_ATTRIBUTES | TPMA_OBJECT.RESTRICTED)

    def create_node_key(self) -> WrappedKey:
        """Make a node key: P-256, signs any digest, stays in this TPM."""
        return self._create(KEY_ATTRIBUTES)

    def activate_credential(self, ak: WrappedKey, blob: bytes, encrypted_secret: bytes) -> bytes:
        """Open what the verifier sealed to this EK and this AK's name (contents of TPM2_MakeCredential's outputs)."""

        def activate(esys: ESAPI) -> bytes:
            with self._loaded(esys, ak) as ak_handle, _endorsement_key(esys) as ek, _ek_session(esys) as session:
                secret = esys.activate_credential(
                    ak_handle,
                    ek,
                    TPM2B_ID_OBJECT(blob),
                    TPM2B_ENCRYPTED_SECRET(encrypted_secret),
                    session1=ESYS_TR.PASSWORD,
                    session2=session,
                )
            return bytes(secret)

        return self._do(activate)

    def certify(self, key: WrappedKey, ak: WrappedKey, qualifying: bytes) -> Attested:
        """Let the AK state that `key` is in this TPM; `qualifying` (at most 64 bytes) comes back in extraData."""

        def certify(esys: ESAPI) -> Attested:
            with self._loaded(esys, ak) as ak_handle, self._loaded(esys, key) as handle:
                attest, signature = esys.certify(handle, ak_handle, qualifying, _null_scheme())
            return Attested(bytes(attest), bytes(signature.marshal()))

        return self._do(certify)

    def quote(self, ak: WrappedKey, nonce: bytes, pcrs: Sequence[int]) -> PcrQuote:
        """Quote PCRs of the SHA-256 bank; the values returned are those that the quote covers."""
        selection = _selection(pcrs)

        def quote(esys: ESAPI) -> PcrQuote:
            with self._loaded(esys, ak) as handle:
                for _ in range(QUOTE_TRIES):
                    values = _read_pcrs(esys, pcrs)
                    attest, signature = esys.quote(handle, TPML_PCR_SELECTION.parse(selection), nonce)
                    made = Attested(bytes(attest), bytes(signature.marshal()))
                    digest = hashlib.sha256(b"".join(values[index] for index in sorted(values))).digest()
                    if made.attest.endswith(digest):  # TPMS_QUOTE_INFO ends with pcrDigest
                        return PcrQuote(made, values)
            raise TpmUnavailable("the PCRs change faster than they can be quoted")

        return self._do(quote)

    def read_pcrs(self, pcrs: Sequence[int]) -> Mapping[int, bytes]:
        """Return the values of PCRs of the SHA-256 bank."""
        _selection(pcrs)
        return self._do(lambda esys: _read_pcrs(esys, pcrs))

    def sign(self, key: WrappedKey, digest: bytes) -> bytes:
        """Sign a SHA-256 digest; returns r||s, 32 bytes each, as JOSE wants it (RFC 7518 3.4)."""

        def sign(esys: ESAPI) -> bytes:
            with self._loaded(esys, key) as handle:
                signature = esys.sign(handle, digest, _null_scheme(), _no_ticket())
            return _jose(bytes(signature.marshal()))

        return self._do(sign)

    def _create(self, attributes: TPMA_OBJECT) -> WrappedKey:
        template = TPM2B_PUBLIC(publicArea=_p256_template(attributes))

        def create(esys: ESAPI) -> WrappedKey:
            with _endorsement_key(esys) as ek, _ek_session(esys) as session:
                private, public, _, _, _ = esys.create(ek, TPM2B_SENSITIVE_CREATE(), template, session1=session)
            return WrappedKey(bytes(public.publicArea.marshal()), bytes(private))

        return self._do(create)

    @contextmanager
    def _loaded(self, esys: ESAPI, key: WrappedKey) -> Iterator[ESYS_TR]:
        handle = self._unpark(esys, key)
        if handle is None:
            with _endorsement_key(esys) as ek, _ek_session(esys) as session:
                handle = esys.load(
                    ek, TPM2B_PRIVATE(key.private), TPM2B_PUBLIC(publicArea=_public(key.public)), session1=session
                )
            self._parked[key.public] = esys.context_save(handle)
        try:
            yield handle
        finally:
            esys.flush_context(handle)

    def _unpark(self, esys: ESAPI, key: WrappedKey) -> ESYS_TR | None:
        parked = self._parked.get(key.public)
        if parked is None:
            return None
        try:
            return esys.context_load(parked)
        except TSS2_Exception as error:
            if _is_transport(error):
                raise
            del self._parked[key.public]  # the TPM restarted: what was parked before means nothing to it
            return None

    def _do(self, work: Callable[[ESAPI], T]) -> T:
        """Do one piece of work; connect if need be, and once more if the connection turns out to be an old one."""
        with self._lock:
            fresh = self._connection is None
            try:
                return work(self._connected())
            except TSS2_Exception as error:
                self.close()
                if not fresh and _is_transport(error):
                    return self._do(work)
                raise _translated(error, self._tcti) from error

    def _connected(self) -> ESAPI:
        if self._connection is None:
            try:
                self._connection = ESAPI(self._tcti)
            except (TSS2_Exception, RuntimeError, ValueError) as error:
                raise TpmUnavailable(
                    f"no TPM at {self._tcti!r}: {error}", advice="check --tcti and its rights"
                ) from error
        return self._connection


@contextmanager
def _endorsement_key(esys: ESAPI) -> Iterator[ESYS_TR]:
    """The EK of the default template: the persistent one if it is that, else made for the moment."""
    template = _ek_template()
    if EK_HANDLE in _persistent_handles(esys):
        handle = esys.tr_from_tpmpublic(EK_HANDLE)
        public, _, _ = esys.read_public(handle)
        if _same_template(public.publicArea, template):
            yield handle
            return
    handle, _, _, _, _ = esys.create_primary(
        TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(publicArea=template), ESYS_TR.ENDORSEMENT
    )
    try:
        yield handle
    finally:
        esys.flush_context(handle)


@contextmanager
def _ek_session(esys: ESAPI) -> Iterator[ESYS_TR]:
    """A policy session that satisfies the EK's policy."""
    session = esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION)
        esys.policy_secret(ESYS_TR.ENDORSEMENT, session)
        yield session
    finally:
        esys.flush_context(session)


def _persistent_handles(esys: ESAPI) -> list[int]:
    _, capability = esys.get_capability(TPM2_CAP.HANDLES, EK_HANDLE, 1)
    handles = capability.data.handles
    return [int(handles.handle[index]) for index in range(handles.count)]


def _same_template(public: TPMT_PUBLIC, template: TPMT_PUBLIC) -> bool:
    """Compare all but `unique`: size fields and scheme included."""
    mine, theirs = bytes(public.marshal()), bytes(template.marshal())
    unique = 2 + 256
    return mine[:-unique] == theirs[:-unique]


def _ek_template() -> TPMT_PUBLIC:
    """TCG EK Credential Profile B.3.3, template L-1: RSA 2048 (storage)."""
    return TPMT_PUBLIC(
        type=TPM2_ALG.RSA,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=(
            TPMA_OBJECT.FIXEDTPM
            | TPMA_OBJECT.FIXEDPARENT
            | TPMA_OBJECT.SENSITIVEDATAORIGIN
            | TPMA_OBJECT.ADMINWITHPOLICY
            | TPMA_OBJECT.RESTRICTED
            | TPMA_OBJECT.DECRYPT
        ),
        authPolicy=EK_POLICY,
        parameters=TPMU_PUBLIC_PARMS(
            rsaDetail=TPMS_RSA_PARMS(
                symmetric=TPMT_SYM_DEF_OBJECT(
                    algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=128), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
                ),
                scheme=TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL),
                keyBits=2048,
                exponent=0,
            )
        ),
        unique=TPMU_PUBLIC_ID(rsa=bytes(256)),
    )


def _p256_template(attributes: TPMA_OBJECT) -> TPMT_PUBLIC:
    scheme = TPMT_ECC_SCHEME(scheme=TPM2_ALG.ECDSA, details=TPMU_ASYM_SCHEME())
    scheme.details.ecdsa.hashAlg = TPM2_ALG.SHA256
    return TPMT_PUBLIC(
        type=TPM2_ALG.ECC,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=attributes,
        parameters=TPMU_PUBLIC_PARMS(
            eccDetail=TPMS_ECC_PARMS(
                symmetric=TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
                scheme=scheme,
                curveID=TPM2_ECC.NIST_P256,
                kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
            )
        ),
    )


def _public(wire: bytes) -> TPMT_PUBLIC:
    public, read = TPMT_PUBLIC.unmarshal(wire)
    if read != len(wire):
        raise TpmRefused("a stored public area has trailing bytes")
    return public


def _null_scheme() -> TPMT_SIG_SCHEME:
    return TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)


def _no_ticket() -> TPMT_TK_HASHCHECK:
    """Unrestricted keys sign a digest without proof of where it comes from."""
    return TPMT_TK_HASHCHECK(tag=0x8024, hierarchy=0x40000007)


def _jose(signature: bytes) -> bytes:
    """Turn a TPMT_SIGNATURE with ECDSA (algorithm, hash, r, s; r and s with their sizes, zeros cut) into r||s."""
    size = int.from_bytes(signature[4:6], "big")
    r, s = signature[6 : 6 + size], signature[6 + size + 2 :]
    return r.rjust(P256_BYTES, b"\0") + s.rjust(P256_BYTES, b"\0")


def _selection(pcrs: Sequence[int]) -> str:
    if not pcrs or len(set(pcrs)) != len(pcrs) or any(not 0 <= index <= MAX_PCR for index in pcrs):
        raise TpmRefused(f"not a selection of PCRs: {list(pcrs)}")
    return "sha256:" + ",".join(str(index) for index in sorted(pcrs))


def _read_pcrs(esys: ESAPI, pcrs: Sequence[int]) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    wanted = sorted(pcrs)
    for start in range(0, len(wanted), PCRS_A_READ):
        part = wanted[start : start + PCRS_A_READ]
        _, _, digests = esys.pcr_read(TPML_PCR_SELECTION.parse(_selection(part)))
        if len(digests) != len(part):
            raise TpmRefused("the TPM has no SHA-256 bank of PCRs")
        values.update(zip(part, (bytes(digest) for digest in digests), strict=True))
    return values


def _read_nv(esys: ESAPI, index: int) -> bytes | None:
    """Return what an NV index holds, or None if it is not defined."""
    _, capability = esys.get_capability(TPM2_CAP.HANDLES, index, 1)
    handles: Any = capability.data.handles
    if handles.count == 0 or handles.handle[0] != index:
        return None
    nv = esys.tr_from_tpmpublic(index)
    public, _ = esys.nv_read_public(nv)
    size = int(public.nvPublic.dataSize)
    if size > MAX_EK_CERTIFICATE:
        raise TpmRefused(f"NV index {index:#x} has {size} bytes, the limit is {MAX_EK_CERTIFICATE}")
    step = 512
    parts = [bytes(esys.nv_read(nv, min(step, size - at), at, nv)) for at in range(0, size, step)]
    return b"".join(parts)


def _read_chain(esys: ESAPI) -> tuple[bytes, ...]:
    stored = b""
    for index in range(EK_CHAIN_FIRST, EK_CHAIN_LAST + 1):
        part = _read_nv(esys, index)
        if part is None:
            break
        stored += part
    certificates = []
    while stored[:1] == b"\x30":
        certificates.append(_one_certificate(stored))
        stored = stored[len(certificates[-1]) :]
    return tuple(certificates)


def _one_certificate(stored: bytes) -> bytes:
    """Cut a DER sequence with a two byte length out of an NV index that may be larger."""
    if stored[:2] != b"\x30\x82" or len(stored) < 4 or len(stored) < 4 + int.from_bytes(stored[2:4], "big"):
        raise TpmRefused("what the TPM keeps as a certificate is none")
    return stored[: 4 + int.from_bytes(stored[2:4], "big")]


def _is_transport(error: TSS2_Exception) -> bool:
    return bool(error.rc & RC_LAYER_MASK == RC_LAYER_TCTI)


def _translated(error: TSS2_Exception, tcti: str) -> TpmUnavailable | TpmRefused:
    if _is_transport(error) or error.rc == RC_INITIALIZE or error.rc in TRANSIENT_WARNINGS:
        return TpmUnavailable(f"the TPM at {tcti!r} does not answer: {error}")
    return TpmRefused(f"the TPM refused: {error}")
