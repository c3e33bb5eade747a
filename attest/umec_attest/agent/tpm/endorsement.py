"""The endorsement key: of the first template for which the TPM has a certificate, and what opens it.

| template | key      | certificate in NV | kept at    | opened by                             |
|----------|----------|-------------------|------------|---------------------------------------|
| L-1      | RSA-2048 | 0x01C00002        | 0x81010001 | PolicySecret(endorsement)             |
| L-2      | P-256    | 0x01C0000A        | 0x81010002 | PolicySecret(endorsement)             |
| H-1      | RSA-2048 | 0x01C00012        | 0x81010012 | its password, which is empty          |
| H-2      | P-256    | 0x01C00014        | 0x81010014 | the same                              |
| H-3      | P-384    | 0x01C00016        | 0x81010016 | the same                              |

TCG EK Credential Profile 2.5, 2.2.1.4, 2.2.1.5, B.3 and B.4. A TPM without any certificate gets an EK of L-1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_ECC, TPM2_SE, TPMA_OBJECT, TPMA_SESSION
from tpm2_pytss.types import (
    TPM2B_ECC_PARAMETER,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_ID,
    TPMU_PUBLIC_PARMS,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

__all__ = ["EkTemplate", "ek_session", "endorsement_key", "template_of"]

POLICY_A: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT) with SHA-256, which the templates of the low range ask for."""
POLICY_B: Final = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
POLICY_B_384: Final = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
"""PolicyA or PolicyAuthorizeNV, in SHA-256 and SHA-384: the high range. We need neither, the password does."""

_ATTRIBUTES: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.ADMINWITHPOLICY
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.DECRYPT
)
_MOST_HANDLES: Final = 64
"""More NV indices than the range of EK certificates has that we know."""


@dataclass(frozen=True, slots=True)
class EkTemplate:
    """A template: the NV index of its certificate, the handle where a vendor keeps the key, and its public area."""

    name: str
    certificate: int
    handle: int
    public: TPMT_PUBLIC
    with_password: bool


def template_of(esys: ESAPI) -> EkTemplate:
    """Return the first template for which the TPM has a certificate; L-1 if it has none."""
    present = set(_handles(esys, _TEMPLATES[0].certificate))
    return next((template for template in _TEMPLATES if template.certificate in present), _TEMPLATES[0])


@contextmanager
def endorsement_key(esys: ESAPI) -> Iterator[ESYS_TR]:
    """The EK: the persistent one if it is of the template, else made for the moment."""
    template = template_of(esys)
    if template.handle in _handles(esys, template.handle):
        handle = esys.tr_from_tpmpublic(template.handle)
        public, _, _ = esys.read_public(handle)
        if _head(public.publicArea) == _head(template.public):
            yield handle
            return
    handle, _, _, _, _ = esys.create_primary(
        TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(publicArea=template.public), ESYS_TR.ENDORSEMENT
    )
    try:
        yield handle
    finally:
        esys.flush_context(handle)


@contextmanager
def ek_session(esys: ESAPI) -> Iterator[ESYS_TR]:
    """What opens the EK: a policy session, or its empty password."""
    if template_of(esys).with_password:
        yield ESYS_TR.PASSWORD
        return
    session = esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION)
        esys.policy_secret(ESYS_TR.ENDORSEMENT, session)
        yield session
    finally:
        esys.flush_context(session)


def _handles(esys: ESAPI, first: int) -> list[int]:
    _, capability = esys.get_capability(TPM2_CAP.HANDLES, first, _MOST_HANDLES)
    handles = capability.data.handles
    return [int(handles.handle[index]) for index in range(handles.count)]


def _head(public: TPMT_PUBLIC) -> bytes:
    """Return all but `unique`: size fields and scheme included."""
    wire, unique = bytes(public.marshal()), public.unique
    if public.type == TPM2_ALG.RSA:
        return wire[: -2 - len(bytes(unique.rsa))]
    return wire[: -4 - len(bytes(unique.ecc.x)) - len(bytes(unique.ecc.y))]


def _aes(bits: int) -> TPMT_SYM_DEF_OBJECT:
    return TPMT_SYM_DEF_OBJECT(
        algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=bits), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
    )


def _rsa(policy: bytes, attributes: TPMA_OBJECT, unique: bytes) -> TPMT_PUBLIC:
    return TPMT_PUBLIC(
        type=TPM2_ALG.RSA,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=attributes,
        authPolicy=policy,
        parameters=TPMU_PUBLIC_PARMS(
            rsaDetail=TPMS_RSA_PARMS(
                symmetric=_aes(128), scheme=TPMT_RSA_SCHEME(scheme=TPM2_ALG.NULL), keyBits=2048, exponent=0
            )
        ),
        unique=TPMU_PUBLIC_ID(rsa=unique),
    )


def _ecc(policy: bytes, attributes: TPMA_OBJECT, unique: bytes, *, strong: bool = False) -> TPMT_PUBLIC:
    """P-256 with SHA-256 and AES-128, or the `strong` P-384 with SHA-384 and AES-256."""
    return TPMT_PUBLIC(
        type=TPM2_ALG.ECC,
        nameAlg=TPM2_ALG.SHA384 if strong else TPM2_ALG.SHA256,
        objectAttributes=attributes,
        authPolicy=policy,
        parameters=TPMU_PUBLIC_PARMS(
            eccDetail=TPMS_ECC_PARMS(
                symmetric=_aes(256 if strong else 128),
                scheme=TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL),
                curveID=TPM2_ECC.NIST_P384 if strong else TPM2_ECC.NIST_P256,
                kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
            )
        ),
        unique=TPMU_PUBLIC_ID(ecc=TPMS_ECC_POINT(x=TPM2B_ECC_PARAMETER(unique), y=TPM2B_ECC_PARAMETER(unique))),
    )


_HIGH: Final = _ATTRIBUTES | TPMA_OBJECT.USERWITHAUTH
_TEMPLATES: Final = (
    EkTemplate("L-1", 0x01C00002, 0x81010001, _rsa(POLICY_A, _ATTRIBUTES, bytes(256)), with_password=False),
    EkTemplate("L-2", 0x01C0000A, 0x81010002, _ecc(POLICY_A, _ATTRIBUTES, bytes(32)), with_password=False),
    EkTemplate("H-1", 0x01C00012, 0x81010012, _rsa(POLICY_B, _HIGH, b""), with_password=True),
    EkTemplate("H-2", 0x01C00014, 0x81010014, _ecc(POLICY_B, _HIGH, b""), with_password=True),
    EkTemplate("H-3", 0x01C00016, 0x81010016, _ecc(POLICY_B_384, _HIGH, b"", strong=True), with_password=True),
)
"""`unique` of a template is part of what the key is made of: zeros in the low range, nothing in the high one."""
