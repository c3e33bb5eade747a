"""PCRs that the node itself extends (SHA-256 bank), and the boot that they are of."""

import hashlib
from typing import Final

from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.types import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

from umec_attest.agent.errors import StartLogDiverged
from umec_attest.agent.tpm.pcrs import read_pcrs

__all__ = ["boot_and_value", "extend_once"]

_ZERO: Final = int(ESYS_TR.PCR0)


def boot_and_value(esys: ESAPI, pcr: int) -> tuple[int, bytes]:
    """Return the TPM's resetCount, and what the PCR is."""
    return int(esys.read_clock().clockInfo.resetCount), read_pcrs(esys, [pcr])[pcr]


def extend_once(esys: ESAPI, pcr: int, before: bytes, digest: bytes) -> bytes:
    """Extend a PCR that is `before` with a digest, and return what it is then; once, however often it is asked.

    Raises StartLogDiverged where it is something else: then somebody else extended it, or the TPM was switched off.
    """
    after = hashlib.sha256(before + digest).digest()
    found = read_pcrs(esys, [pcr])[pcr]
    if found == before:
        value = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=digest))
        esys.pcr_extend(ESYS_TR(_ZERO + pcr), TPML_DIGEST_VALUES([value]))
    elif found != after:
        raise StartLogDiverged(f"PCR {pcr} is not what the log of starts gives", advice="boot the node")
    return after
