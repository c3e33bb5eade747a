"""What a TPM keeps in its NV as certificates of the EK and of those above it."""

from typing import Any, Final

from tpm2_pytss import ESAPI
from tpm2_pytss.constants import TPM2_CAP

from umec_attest.agent.errors import TpmRefused
from umec_attest.agent.tpm.endorsement import template_of

__all__ = ["read_certificate", "read_chain"]

EK_CHAIN_FIRST: Final = 0x01C00100
EK_CHAIN_LAST: Final = 0x01C001FF
"""TCG EK Credential Profile 2.2.1.5.2: the certificates above the EK's, one behind the other."""

MAX_EK_CERTIFICATE: Final = 16 * 1024
"""Larger certificates do not exist in the NV of a TPM; a wrong size field must not make us read for minutes."""


def read_certificate(esys: ESAPI) -> bytes | None:
    """Return the EK certificate in DER, or None if there is none; raises `TpmRefused` for what is none."""
    stored = _read_nv(esys, template_of(esys).certificate)
    return None if stored is None else _one_certificate(stored)


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


def read_chain(esys: ESAPI) -> tuple[bytes, ...]:
    """Return the certificates above the EK's, in DER and in their order."""
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
