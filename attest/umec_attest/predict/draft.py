"""What a prediction says as a draft of a reference set."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from umec_attest.errors import ReferenceInvalid
from umec_attest.ima import parse_runtime_policy
from umec_attest.predict.measure import PredictedPcrs
from umec_attest.reference import FirmwareModel, ReferenceDraft
from umec_attest.reference.values import AllowedValues
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["draft_of"]

_UNASKED: Final = frozenset({8, 13, 15})
"""PCRs that a verifier asks for only where it is told to, and that a boot leaves at zero."""
_AGGREGATED: Final = 8
"""IMA's list begins with a hash over PCR 0 to 9: this one is asked for along with it."""


def draft_of(predicted: PredictedPcrs, runtime: Mapping[str, Any] | None, also: Collection[int] = ()) -> ReferenceDraft:
    """Return a draft that expects what was predicted, and what may run (None: IMA is not judged).

    `also` names PCRs of 8, 13 and 15 that the site's verifier asks for. Errors: `ReferenceInvalid`, `ReferenceEmpty`.
    """
    if strange := sorted({*also} - _UNASKED):
        raise ReferenceInvalid(f"of {sorted(_UNASKED)} a set may expect more, not of {strange}")
    wanted = {*also, *(() if runtime is None else (_AGGREGATED,))}
    zeros = dict.fromkeys(wanted, bytes(32))
    expected = {pcr: value for pcr, value in predicted.pcrs.items() if pcr not in _UNASKED} | zeros
    return ReferenceDraft(
        image_sha256=predicted.subject_sha256,
        pcrs=_values(expected),
        ignored=predicted.ignored,
        models={name: FirmwareModel(_values(pcrs), MappingProxyType({})) for name, pcrs in predicted.models.items()},
        runtime=None if runtime is None else parse_runtime_policy(dict(runtime)),
        stages={pcr: listed for pcr, listed in predicted.stages.items() if pcr in expected},
    )


def _values(pcrs: Mapping[int, bytes]) -> AllowedValues:
    return {HashAlgorithm.SHA256: {pcr: frozenset({value}) for pcr, value in sorted(pcrs.items())}}
