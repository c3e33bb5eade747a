"""PCR values as they travel in JSON."""

from collections.abc import Mapping

from umec_attest.errors import PcrValuesInvalid
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PCR_COUNT

__all__ = ["PcrValues", "parse_pcr_values"]

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


def _parse_bank(label: object, bank: object) -> tuple[HashAlgorithm, dict[int, bytes]]:
    try:
        algorithm = HashAlgorithm.from_label(label) if isinstance(label, str) else None
    except KeyError:
        algorithm = None
    if algorithm is None or not isinstance(bank, dict):
        raise PcrValuesInvalid("each PCR bank must be named after its hash and hold an object")
    return algorithm, {_parse_index(index): _parse_digest(text, algorithm) for index, text in bank.items()}


def _parse_index(index: str) -> int:
    if index in _INDICES:
        return _INDICES[index]
    raise PcrValuesInvalid(f"a PCR index must be a decimal number below {PCR_COUNT}")


def _parse_digest(text: object, algorithm: HashAlgorithm) -> bytes:
    if not isinstance(text, str) or len(text) != 2 * algorithm.digest_size:
        raise PcrValuesInvalid(f"a {algorithm.label} PCR value must be {2 * algorithm.digest_size} hex digits")
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise PcrValuesInvalid("a PCR value must be hex") from None
    if value.hex() != text:  # fromhex skips white space and takes capitals
        raise PcrValuesInvalid("a PCR value must be hex in lower case, without spaces")
    return value


_INDICES = {str(index): index for index in range(PCR_COUNT)}
