"""PCR values as they travel in JSON."""

from binascii import a2b_hex
from collections.abc import Iterable, Mapping

from umec_attest.errors import PcrValuesInvalid
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT

__all__ = ["PcrValues", "parse_pcr_values", "without_pcr"]

PcrValues = Mapping[HashAlgorithm, Mapping[int, bytes]]
"""Bank -> PCR index -> value."""


def parse_pcr_values(value: object) -> dict[HashAlgorithm, dict[int, bytes]]:
    """Parse {"sha256": {"0": hex, …}, …}.

    Errors: `PcrValuesInvalid` for another shape, an unknown bank or PCR, anything but plain hex, or a value that is not
    as long as the bank's digest.
    """
    if not isinstance(value, dict) or not value:
        raise PcrValuesInvalid("PCR values must be an object with at least one bank")
    return dict(_parse_bank(label, bank) for label, bank in value.items())


def without_pcr(values: PcrValues, pcr: int) -> dict[HashAlgorithm, dict[int, bytes]]:
    """Return the values of all other PCRs, in each bank."""
    return {
        algorithm: {index: value for index, value in bank.items() if index != pcr} for algorithm, bank in values.items()
    }


def _parse_bank(label: object, bank: object) -> tuple[HashAlgorithm, dict[int, bytes]]:
    try:
        algorithm = HashAlgorithm.from_label(label) if isinstance(label, str) else None
    except KeyError:
        algorithm = None
    if algorithm is None or not isinstance(bank, dict):
        raise PcrValuesInvalid("each PCR bank must be named after its hash and hold an object")
    return algorithm, dict(zip(_parse_indices(bank), _parse_digests(list(bank.values()), algorithm), strict=True))


def _parse_indices(indices: Iterable[str]) -> list[int]:
    try:
        return [_INDICES[index] for index in indices]
    except KeyError:
        raise PcrValuesInvalid(f"a PCR index must be a decimal number below {PCR_COUNT}") from None


def _parse_digests(texts: list[object], algorithm: HashAlgorithm) -> list[bytes]:
    """Parse all values of a bank at once: every round of a node brings a dozen of them."""
    size = 2 * algorithm.digest_size
    digits = [text for text in texts if isinstance(text, str) and len(text) == size]
    if len(digits) != len(texts):
        raise PcrValuesInvalid(f"a {algorithm.label} PCR value must be {size} hex digits")
    try:
        values = list(map(a2b_hex, digits))
    except ValueError:
        raise PcrValuesInvalid("a PCR value must be hex") from None
    if b"".join(values).hex() != "".join(digits):  # it takes capitals
        raise PcrValuesInvalid("a PCR value must be hex in lower case, without spaces")
    return values


_INDICES = {str(index): index for index in range(PCR_COUNT)}
