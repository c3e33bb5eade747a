"""Write the values of a reference set as an unsigned CoRIM: one CoMID, a reference triple for each class of nodes.

The class of a triple is the image (its SHA-256 as bytes) and, for a firmware build, its model. Every value is a
measurement of its own, so that several for one PCR are alternatives.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from cbor2 import CBORTag, dumps

from umec_attest.corim.reader import HASHES
from umec_attest.reference import ReferenceSet
from umec_attest.reference.values import AllowedValues
from umec_attest.starts.entry import STARTS_PCR

__all__ = ["write_corim"]

_NUMBERS: Final = {algorithm: number for number, algorithm in HASHES.items()}


def write_corim(reference: ReferenceSet) -> tuple[bytes, tuple[str, ...]]:
    """Return the CoRIM of a reference set, and what of the set a CoRIM cannot say."""
    image = CBORTag(560, bytes.fromhex(reference.subject_sha256))
    triples = [[{0: {0: image}}, _measurements(reference.pcrs)]]
    triples += [[{0: {0: image, 2: name}}, _measurements(model.pcrs)] for name, model in reference.models.items()]
    comid = {1: {0: reference.name, 1: reference.version}, 4: {0: triples}}
    rim = {
        0: f"{reference.name}:{reference.version}",
        1: [CBORTag(506, dumps(comid, canonical=True))],
        4: {0: _time(reference.issued), 1: _time(reference.expires)},
    }
    return dumps(CBORTag(501, rim), canonical=True), tuple(_unsaid(reference))


def _measurements(values: AllowedValues) -> list[dict[int, Any]]:
    return [
        {1: {14: {pcr: [[_NUMBERS[algorithm], value]]}}}
        for algorithm, bank in values.items()
        for pcr, allowed in sorted(bank.items())
        for value in sorted(allowed)
    ]


def _time(value: datetime) -> CBORTag:
    return CBORTag(1, int(value.timestamp()))


def _unsaid(reference: ReferenceSet) -> Iterator[str]:
    for pcr, reason in sorted(reference.ignored.items()):
        yield f"PCR {pcr} is ignored: {reason}"
    for name, model in reference.models.items():
        for quirk in model.excused:
            yield f"{quirk} is excused for {name}"
    if reference.runtime is not None:
        yield "what may run after the boot"
    if reference.starts:
        yield f"PCR {STARTS_PCR} is extended with what is started"
    if reference.grace is not None:
        yield "which older versions count beside it"
    if reference.owner is not None:
        yield "who its owner is: to whose approvals node keys have to be bound"
