"""The endorsement key: of the default template, and the session that satisfies its policy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_SE, TPMA_OBJECT, TPMA_SESSION
from tpm2_pytss.types import (
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_RSA_PARMS,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_ID,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

__all__ = ["ek_session", "endorsement_key"]

EK_HANDLE: Final = 0x81010001
"""TCG EK Credential Profile 2.2.1.4: where a vendor keeps the RSA-2048 EK."""
EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT) with SHA-256, which the default template asks for."""


@contextmanager
def endorsement_key(esys: ESAPI) -> Iterator[ESYS_TR]:
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
def ek_session(esys: ESAPI) -> Iterator[ESYS_TR]:
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
