"""Sealed objects: what the verifier released for this boot, what an owner's approvals open, and the counter for both.

A secret crosses the TPM's bus encrypted, in a session that is salted by the endorsement key: who only listens there
hears nothing. Approvals are checked by the TPM itself (TPM2_PolicyAuthorize), whatever this code believes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_ECC, TPM2_EO, TPM2_SE, TPMA_OBJECT, TPMA_SESSION
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_NV_PUBLIC,
    TPM2B_OPERAND,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_ECC_PARMS,
    TPMS_KEYEDHASH_PARMS,
    TPMS_NV_PUBLIC,
    TPMS_SENSITIVE_CREATE,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_CREATION,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

from umec_attest.agent.errors import SealedElsewhere, TpmRefused
from umec_attest.agent.tpm.approved import policy_session, with_approval
from umec_attest.agent.tpm.endorsement import ek_session, endorsement_key
from umec_attest.agent.tpm.objects import WrappedKey, public_area
from umec_attest.agent.tpm.pcrs import selection
from umec_attest.agent.tpm.signing import null_scheme
from umec_attest.sealed import COUNTER_HANDLE, COUNTER_SIZE, Approval, SealedSecret, counter_public
from umec_attest.sealed.policies import CLOCK_OFFSET, RESET_COUNT_OFFSET
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.wire import sized

__all__ = [
    "Created",
    "advance_counter",
    "check_created",
    "counter_value",
    "create_sealed",
    "seal",
    "unseal",
    "unseal_released",
]

RC_FORMAT_ONE: Final = 0x0BF
"""Of a response code that names a parameter: without its number (TPM 2.0 Part 2, 6.6.2)."""
RC_INTEGRITY: Final = 0x09F
RC_TICKET: Final = 0x0A0


def unseal_released(esys: ESAPI, released: SealedSecret) -> bytes:
    """Return a secret that was sealed to this TPM for this boot."""
    public = TPM2B_PUBLIC(publicArea=public_area(released.public))
    with endorsement_key(esys) as ek:
        with ek_session(esys) as session:
            private = esys.import_(
                ek,
                b"",
                public,
                TPM2B_PRIVATE(released.duplicate),
                TPM2B_ENCRYPTED_SECRET(released.encrypted_seed),
                TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
                session1=session,
            )
        with ek_session(esys) as session:
            handle = esys.load(ek, private, public, session1=session)
    with _flushed(esys, handle), policy_session(esys) as session:
        esys.policy_pcr(session, b"", selection(released.pcrs))
        boot = released.reset_count << 32 | released.restart_count  # which lie one after the other
        esys.policy_counter_timer(session, _operand(boot, 8), TPM2_EO.EQ, offset=RESET_COUNT_OFFSET)
        esys.policy_counter_timer(session, _operand(released.clock_until, 8), TPM2_EO.UNSIGNED_LE, offset=CLOCK_OFFSET)
        return _unsealed(esys, handle, session)


@dataclass(frozen=True, slots=True)
class Created:
    """A sealed object, and what its TPM says of the moment in which it was made.

    `creation` is a TPMS_CREATION_DATA, `ticket` the TPMT_TK_CREATION by which the TPM knows it again.
    """

    key: WrappedKey
    creation: bytes
    ticket: bytes


def seal(esys: ESAPI, secret: bytes, policy: bytes) -> WrappedKey:
    """Seal a secret below the storage key of this TPM's owner hierarchy; only `policy` opens it."""
    return create_sealed(esys, secret, policy, ()).key


def create_sealed(esys: ESAPI, secret: bytes, policy: bytes, pcrs: Sequence[int]) -> Created:
    """Seal a secret as `seal` does, and have the TPM note what these PCRs were then."""
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=secret))
    template = TPMT_PUBLIC(
        type=TPM2_ALG.KEYEDHASH,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.NODA,
        authPolicy=policy,
        parameters=TPMU_PUBLIC_PARMS(
            keyedHashDetail=TPMS_KEYEDHASH_PARMS(scheme=TPMT_KEYEDHASH_SCHEME(scheme=TPM2_ALG.NULL))
        ),
    )
    with _storage_key(esys) as parent, _encrypted(esys, TPMA_SESSION.DECRYPT) as session:
        private, public, creation, _, ticket = esys.create(
            parent,
            sensitive,
            TPM2B_PUBLIC(publicArea=template),
            creation_pcr=selection(pcrs) if pcrs else "",
            session1=ESYS_TR.PASSWORD,
            session2=session,
        )
    key = WrappedKey(bytes(public.publicArea.marshal()), bytes(private))
    return Created(key, bytes(creation.creationData.marshal()), bytes(ticket.marshal()))


def check_created(esys: ESAPI, created: Created, values: Mapping[int, bytes]) -> None:
    """Check that this TPM made a sealed object, while its PCRs had these values. Raises SealedElsewhere.

    Whoever may use a TPM can seal what they know under any policy; what they cannot is to have had other PCRs then.
    """
    then = hashlib.sha256(b"".join(values[index] for index in sorted(values))).digest()
    noted = PcrSelection.from_mapping({"sha256": sorted(values)}).to_bytes() + sized(then)
    if not created.creation.startswith(noted):
        raise SealedElsewhere("what opens the data partition was sealed in a state that the owner had not approved")
    with _storage_key(esys) as parent:
        handle = _loaded(esys, parent, created.key)
    with _flushed(esys, handle):
        try:
            ticket, _ = TPMT_TK_CREATION.unmarshal(created.ticket)
            name = hashlib.sha256(created.creation).digest()
            esys.certify_creation(ESYS_TR.NULL, handle, b"", name, null_scheme(), ticket)
        except TSS2_Exception as error:
            if error.rc & RC_FORMAT_ONE != RC_TICKET:
                raise
            raise SealedElsewhere("this TPM did not seal what opens the data partition") from error


def _loaded(esys: ESAPI, parent: ESYS_TR, key: WrappedKey) -> ESYS_TR:
    try:
        return esys.load(parent, TPM2B_PRIVATE(key.private), TPM2B_PUBLIC(publicArea=public_area(key.public)))
    except TSS2_Exception as error:
        if error.rc & RC_FORMAT_ONE != RC_INTEGRITY:
            raise
        raise SealedElsewhere("another TPM sealed this, or this one before it was cleared") from error


def unseal(esys: ESAPI, sealed: WrappedKey, approval: Approval, owner: bytes) -> bytes:
    """Return a sealed secret by an approval; `owner` is the TPMT_PUBLIC of the key that has to have signed it."""
    with _storage_key(esys) as parent:
        handle = _loaded(esys, parent, sealed)
    with _flushed(esys, handle):
        return with_approval(esys, approval, owner, lambda session: _unsealed(esys, handle, session))


def counter_value(esys: ESAPI) -> int:
    """Return what the counter says; makes it, and counts it up once, where there is none.

    Raises TpmRefused where somebody else has put something else there.
    """
    _, capability = esys.get_capability(TPM2_CAP.HANDLES, COUNTER_HANDLE, 1)
    handles: Any = capability.data.handles
    if handles.count == 0 or handles.handle[0] != COUNTER_HANDLE:
        area, _ = TPMS_NV_PUBLIC.unmarshal(counter_public(written=False))
        esys.nv_increment(esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=area)))
    counter = esys.tr_from_tpmpublic(COUNTER_HANDLE)
    public, _ = esys.nv_read_public(counter)
    if bytes(public.nvPublic.marshal()) != counter_public(written=True):
        raise TpmRefused(f"NV index {COUNTER_HANDLE:#x} is not our counter", advice="remove it, if nothing needs it")
    return int.from_bytes(bytes(esys.nv_read(counter, COUNTER_SIZE)), "big")


def advance_counter(esys: ESAPI, to: int) -> int:
    """Count the counter up to a value, and return what it says then: never less than before."""
    now = counter_value(esys)
    counter = esys.tr_from_tpmpublic(COUNTER_HANDLE)
    for _ in range(now, to):
        esys.nv_increment(counter)
    return counter_value(esys)


def _unsealed(esys: ESAPI, handle: ESYS_TR, policy: ESYS_TR) -> bytes:
    with _encrypted(esys, TPMA_SESSION.ENCRYPT) as session:
        return bytes(esys.unseal(handle, session1=policy, session2=session))


@contextmanager
def _flushed(esys: ESAPI, handle: ESYS_TR) -> Iterator[ESYS_TR]:
    try:
        yield handle
    finally:
        esys.flush_context(handle)


@contextmanager
def _encrypted(esys: ESAPI, direction: TPMA_SESSION) -> Iterator[ESYS_TR]:
    """A session that encrypts the first parameter on its way to the TPM (DECRYPT) or from it (ENCRYPT)."""
    symmetric = TPMT_SYM_DEF(
        algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=128), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
    )
    with endorsement_key(esys) as ek:
        session = esys.start_auth_session(ek, ESYS_TR.NONE, TPM2_SE.HMAC, symmetric, TPM2_ALG.SHA256)
    with _flushed(esys, session):
        esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION | direction)
        yield session


@contextmanager
def _storage_key(esys: ESAPI) -> Iterator[ESYS_TR]:
    """The storage key of the owner hierarchy (TCG Provisioning Guidance 7.5.1, ECC): the same whenever it is made."""
    template = TPMT_PUBLIC(
        type=TPM2_ALG.ECC,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=(
            TPMA_OBJECT.FIXEDTPM
            | TPMA_OBJECT.FIXEDPARENT
            | TPMA_OBJECT.SENSITIVEDATAORIGIN
            | TPMA_OBJECT.USERWITHAUTH
            | TPMA_OBJECT.NODA
            | TPMA_OBJECT.RESTRICTED
            | TPMA_OBJECT.DECRYPT
        ),
        parameters=TPMU_PUBLIC_PARMS(
            eccDetail=TPMS_ECC_PARMS(
                symmetric=TPMT_SYM_DEF_OBJECT(
                    algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=128), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
                ),
                scheme=TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL),
                curveID=TPM2_ECC.NIST_P256,
                kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
            )
        ),
    )
    handle, _, _, _, _ = esys.create_primary(TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(publicArea=template), ESYS_TR.OWNER)
    with _flushed(esys, handle):
        yield handle


def _operand(value: int, size: int) -> TPM2B_OPERAND:
    return TPM2B_OPERAND(value.to_bytes(size, "big"))
