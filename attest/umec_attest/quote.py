"""Verification of a TPM 2.0 quote: the first five of nine steps, numbered as in the code.

    1  freshness      the challenge is ours, for this node and round, in time and unused (`service.evidence`);
                      extraData is its nonce, byte for byte
    2  structure      TPMS_ATTEST of type QUOTE, TPMT_SIGNATURE; the qualified signer is the AK under its parent
    3  signature      scheme, hash and key are good enough and fit each other; the signature verifies
    4  PCR selection  the signed selection equals the requested one, and gives the values their indices
    5  PCR digest     the values sent along are those that the TPM signed

What the `VerifiedQuote` says is judged by

    6  clock and reset state    `clock`
    7  boot log                 `bootlog`
    8  runtime measurements     `ima`
    9  appraisal                `appraisal`: facts, policy, trust vector; all findings, not the first one

Schemes: RSASSA and RSAPSS with RSA of 2048 bits and more, ECDSA on P-256 and P-384; SHA-256, SHA-384, SHA-512.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from umec_attest.digests import PcrValues
from umec_attest.errors import (
    PcrDigestMismatch,
    PcrSelectionMismatch,
    PcrValuesInvalid,
    QuoteNonceMismatch,
    QuoteSignerMismatch,
    QuoteTypeMismatch,
)
from umec_attest.tpm.algorithms import SIGNING_HASHES, HashAlgorithm
from umec_attest.tpm.attest import Attest, ClockInfo, Quoted, parse_attest
from umec_attest.tpm.names import Hierarchy, signer_name
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Public
from umec_attest.tpm.signature import Signature, parse_signature
from umec_attest.tpm.verify import verify_signature

__all__ = ["RESETTABLE_PCRS", "UnanchoredQuote", "VerifiedQuote", "verify_quote", "verify_quote_unanchored"]

RESETTABLE_PCRS: Final = frozenset({16, 23})
"""PCRs that software resets at will (debug and application support): they never carry policy."""

_MIN_NONCE_SIZE: Final = 16
"""Fewer random bytes than this do not make a challenge."""


@dataclass(frozen=True, slots=True)
class VerifiedQuote:
    """What the TPM of a known AK said in answer to our challenge. Only `verify_quote` makes one."""

    pcrs: Mapping[HashAlgorithm, Mapping[int, bytes]]
    clock_info: ClockInfo
    firmware_version: int


@dataclass(frozen=True, slots=True)
class UnanchoredQuote:
    """A quote that is consistent with a key and a nonce that came along with it: it proves nothing about anybody."""

    pcrs: Mapping[HashAlgorithm, Mapping[int, bytes]]
    clock_info: ClockInfo
    firmware_version: int
    qualified_signer: bytes


def verify_quote(
    *,
    attest: bytes,
    signature: bytes,
    ak: Public,
    ak_parent: Public | bytes | Hierarchy,
    nonce: bytes,
    selection: PcrSelection,
    pcrs: PcrValues,
) -> VerifiedQuote:
    """Verify a quote against what the verifier knows by itself.

    `attest` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE, `pcrs` the values that came along. `ak` and `ak_parent`
    (the EK, or the Qualified Name of another parent, or the hierarchy of a primary AK) were enrolled; `nonce` and
    `selection` are those of the challenge.

    Errors: `TpmInvalid`, `QuoteRefused` and `SignatureRefused` with their subclasses.
    """
    parsed, parsed_signature = parse_attest(attest), parse_signature(signature)  # 2: where to find the nonce
    _check_nonce(parsed, nonce)  # 1
    quoted = _check_type(parsed)  # 2
    _check_signer(parsed, ak, ak_parent)  # 2
    verify_signature(ak, parsed_signature, attest)  # 3
    values = _check_pcrs(quoted, parsed_signature, selection, pcrs)  # 4, 5
    return VerifiedQuote(values, parsed.clock_info, parsed.firmware_version)


def verify_quote_unanchored(
    *, attest: bytes, signature: bytes, ak: Public, nonce: bytes, pcrs: PcrValues
) -> UnanchoredQuote:
    """Check that a quote is consistent in itself, without knowing whose it is: all steps but the qualified signer.

    The selection is the signed one. Errors are those of `verify_quote`.
    """
    parsed, parsed_signature = parse_attest(attest), parse_signature(signature)  # 2
    _check_nonce(parsed, nonce, shortest=0)  # 1
    quoted = _check_type(parsed)  # 2
    verify_signature(ak, parsed_signature, attest)  # 3
    values = _check_pcrs(quoted, parsed_signature, quoted.selection, pcrs)  # 4, 5
    return UnanchoredQuote(values, parsed.clock_info, parsed.firmware_version, parsed.qualified_signer)


def _check_nonce(attest: Attest, nonce: bytes, *, shortest: int = _MIN_NONCE_SIZE) -> None:
    """1. Raw bytes only; an expected nonce that is too short to be one is refused as well."""
    if len(nonce) < shortest or not hmac.compare_digest(attest.extra_data, nonce):
        raise QuoteNonceMismatch("the quote answers another challenge, or none")


def _check_type(attest: Attest) -> Quoted:
    """2. Only a quote is a quote."""
    if not isinstance(attest.attested, Quoted):
        raise QuoteTypeMismatch("the TPM signed something else than a quote")
    return attest.attested


def _check_signer(attest: Attest, ak: Public, ak_parent: Public | bytes | Hierarchy) -> None:
    """2. The Qualified Name says in which hierarchy and under which parent the signing key lives."""
    if attest.qualified_signer != signer_name(ak, ak_parent):
        raise QuoteSignerMismatch(
            "the qualified signer is not the enrolled attestation key under its parent",
            advice="a database from before a rotation: the agent goes back to its former keys; else enroll it again",
        )


def _check_pcrs(
    quoted: Quoted, signature: Signature, selection: PcrSelection, pcrs: PcrValues
) -> Mapping[HashAlgorithm, Mapping[int, bytes]]:
    _check_selection(quoted, selection)
    values = _arrange(selection, pcrs)
    _check_digest(quoted, signature, values)
    return values


def _check_selection(quoted: Quoted, selection: PcrSelection) -> None:
    """4. The signed selection equals the requested one, in SHA-2 banks, each at most once, with something selected."""
    banks = [bank.algorithm for bank in selection.banks]
    if not banks or len(set(banks)) != len(banks) or not all(bank.pcrs for bank in selection.banks):
        raise PcrSelectionMismatch("the selection is empty or names a bank twice")
    if not set(banks) <= SIGNING_HASHES.keys():
        raise PcrSelectionMismatch("only the SHA-256, SHA-384 and SHA-512 banks are believed")
    if quoted.selection != selection:
        raise PcrSelectionMismatch(
            f"requested {selection.to_mapping()}, the TPM signed {quoted.selection.to_mapping()}"
        )


def _arrange(selection: PcrSelection, pcrs: PcrValues) -> Mapping[HashAlgorithm, Mapping[int, bytes]]:
    """4. The values are exactly those of the selection; they get their indices from it."""
    wanted = {bank.algorithm: set(bank.pcrs) for bank in selection.banks}
    if {algorithm: set(bank) for algorithm, bank in pcrs.items()} != wanted:
        raise PcrValuesInvalid("the PCR values sent along are not exactly those that were quoted")
    for algorithm, bank in pcrs.items():
        if set(map(len, bank.values())) != {algorithm.digest_size}:
            raise PcrValuesInvalid(f"a value of the {algorithm.label} bank has a wrong size")
    return MappingProxyType(
        {
            bank.algorithm: MappingProxyType({index: pcrs[bank.algorithm][index] for index in bank.pcrs})
            for bank in selection.banks
        }
    )


def _check_digest(quoted: Quoted, signature: Signature, values: Mapping[HashAlgorithm, Mapping[int, bytes]]) -> None:
    """5. The digest is over the concatenated values, by the hash of the signing scheme (Part 3, 18.4)."""
    joined = b"".join(value for bank in values.values() for value in bank.values())
    if not hmac.compare_digest(signature.hash_algorithm.digest(joined), quoted.pcr_digest):
        raise PcrDigestMismatch("the PCR values sent along are not those that the TPM signed")
