"""PCRs of the SHA-256 bank: which ones, and their values."""

from collections.abc import Sequence
from typing import Final

from tpm2_pytss import ESAPI
from tpm2_pytss.types import TPML_PCR_SELECTION

from umec_attest.agent.errors import TpmRefused

__all__ = ["read_pcrs", "selection"]

MAX_PCR: Final = 23
PCRS_A_READ: Final = 8
"""A TPML_DIGEST has at most eight digests."""


def selection(pcrs: Sequence[int]) -> str:
    """Return PCRs of the SHA-256 bank as tpm2-tss writes them; raises `TpmRefused` for none, or a double."""
    if not pcrs or len(set(pcrs)) != len(pcrs) or any(not 0 <= index <= MAX_PCR for index in pcrs):
        raise TpmRefused(f"not a selection of PCRs: {list(pcrs)}")
    return "sha256:" + ",".join(str(index) for index in sorted(pcrs))


def read_pcrs(esys: ESAPI, pcrs: Sequence[int]) -> dict[int, bytes]:
    """Return the values of PCRs of the SHA-256 bank."""
    values: dict[int, bytes] = {}
    wanted = sorted(pcrs)
    for start in range(0, len(wanted), PCRS_A_READ):
        part = wanted[start : start + PCRS_A_READ]
        _, _, digests = esys.pcr_read(TPML_PCR_SELECTION.parse(selection(part)))
        if len(digests) != len(part):
            raise TpmRefused("the TPM has no SHA-256 bank of PCRs")
        values.update(zip(part, (bytes(digest) for digest in digests), strict=True))
    return values
