"""What an owner's approval lets a TPM do: policy sessions in which the TPM itself checks it.

    PolicyPCR         what this boot measured
    PolicyNV          the counter, which shuts approvals of older versions out
    PolicyAuthorize   the owner's word that both are well; the TPM verified the signature, and says so in a ticket

Whatever the policy of a key is, a session that was not built like this satisfies none that names an owner.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_EO, TPM2_SE
from tpm2_pytss.types import TPM2B_NAME, TPM2B_OPERAND, TPM2B_PUBLIC, TPMT_SIGNATURE, TPMT_SYM_DEF, TPMT_TK_VERIFIED

from umec_attest.agent.errors import TpmUnavailable
from umec_attest.agent.tpm.device import Tpm
from umec_attest.agent.tpm.objects import NAME_SHA256, Remembered, WrappedKey, public_area
from umec_attest.agent.tpm.pcrs import selection
from umec_attest.agent.tpm.signing import jose, no_ticket, null_scheme
from umec_attest.sealed import COUNTER_HANDLE, COUNTER_SIZE, Approval

__all__ = ["policy_session", "sign_approved", "with_approval"]

T = TypeVar("T")

TRIES: Final = 5
"""The kernel may extend PCR 10 between two commands, and then the TPM begins anew; five times in a row it does not."""
RC_PCR_CHANGED: Final = 0x128
"""TPM_RC_PCR_CHANGED (Part 2, 6.6.3)."""


def sign_approved(tpm: Tpm, key: WrappedKey, digest: bytes, approval: Approval, owner: bytes) -> bytes:
    """Sign as `Tpm.sign` does, by an owner's approval of what this TPM has measured; `owner` is a TPMT_PUBLIC."""

    def sign(esys: ESAPI, handle: ESYS_TR, remembered: Remembered) -> bytes:
        def by(session: ESYS_TR) -> bytes:
            made = esys.sign(handle, digest, null_scheme(), no_ticket(), session1=session)
            return bytes(made.marshal())

        return jose(with_approval(esys, approval, owner, by, remembered))

    return tpm.use(key, sign)


def with_approval(
    esys: ESAPI, approval: Approval, owner: bytes, work: Callable[[ESYS_TR], T], remembered: Remembered | None = None
) -> T:
    """Do `work` in a session that the approval opens, and once more where a PCR was extended meanwhile.

    `owner` is the TPMT_PUBLIC of the key that has to have signed it.
    """
    known = Remembered() if remembered is None else remembered
    for _ in range(TRIES):
        try:
            with policy_session(esys) as session:
                _approve(esys, session, approval, owner, known)
                return work(session)
        except TSS2_Exception as error:
            if error.rc != RC_PCR_CHANGED:
                raise
    raise TpmUnavailable("the PCRs change faster than the TPM can compare them")


@contextmanager
def policy_session(esys: ESAPI) -> Iterator[ESYS_TR]:
    """A policy session in which nothing is satisfied yet."""
    session = esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        yield session
    finally:
        esys.flush_context(session)


def _approve(esys: ESAPI, session: ESYS_TR, approval: Approval, owner: bytes, known: Remembered) -> None:
    """Let the TPM check the owner's word, and put it in the place of the policy so far."""
    esys.policy_pcr(session, b"", selection(sorted(approval.pcrs)))
    if known.counter is None:
        known.counter = esys.tr_from_tpmpublic(COUNTER_HANDLE)
    operand = TPM2B_OPERAND(approval.version.to_bytes(COUNTER_SIZE, "big"))
    esys.policy_nv(known.counter, known.counter, session, operand, TPM2_EO.UNSIGNED_LE, offset=0)
    if approval.signature not in known.tickets:
        known.tickets[approval.signature] = _verified(esys, approval, owner)
    name = TPM2B_NAME(NAME_SHA256 + hashlib.sha256(owner).digest())
    ticket = known.tickets[approval.signature]
    esys.policy_authorize(session, approval.policy, name, ticket, policy_ref=approval.reference)


def _verified(esys: ESAPI, approval: Approval, owner: bytes) -> TPMT_TK_VERIFIED:
    """Let the TPM verify the owner's signature; its ticket says that it did, until somebody clears the TPM."""
    key = esys.load_external(TPM2B_PUBLIC(publicArea=public_area(owner)), hierarchy=ESYS_TR.OWNER)
    try:
        signature, _ = TPMT_SIGNATURE.unmarshal(approval.signature)
        signed = hashlib.sha256(approval.policy + approval.reference).digest()
        return esys.verify_signature(key, signed, signature)
    finally:
        esys.flush_context(key)
