"""Other keys for a known node: its present AK speaks for the new one, the new one for the new node key and itself.

1  new keys     what an enrolment would take, and none that the node has already
2  present AK   certifies the new AK, which lies under the same EK
3  new AK       certifies the new node key
4  new AK       quotes: the base line that later quotes are compared with, no older than the present one

Each statement carries the same qualifying data, which only who opened the verifier's credential can know: so all of
them were made in the TPM of the EK, for this very rotation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from umec_attest.certification import verify_certification
from umec_attest.clock import ClockState, next_clock_state
from umec_attest.enrolment import check_ak, check_node_key
from umec_attest.errors import AttestError
from umec_attest.quote import VerifiedQuote, verify_quote
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Public
from umec_core.errors import Kind

__all__ = [
    "NewKeys",
    "RotatedKeys",
    "RotationKeyReused",
    "RotationOutOfStep",
    "Statement",
    "check_new_keys",
    "next_base_line",
    "verify_rotation",
]


class RotationKeyReused(AttestError):
    """A key that is to be new is one that the node has already."""

    code = "rotation-key-reused"


class RotationOutOfStep(AttestError):
    """The new AK's quote is of another boot than the last round, or from before it."""

    code = "rotation-out-of-step"
    kind = Kind.CONFLICT


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Keys that an enrolment would take and that the node does not have. Only `check_new_keys` makes them."""

    ak: Public
    node_key: Public


@dataclass(frozen=True, slots=True)
class Statement:
    """What a TPM said: `attest` is a TPMS_ATTEST, `signature` a TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class RotatedKeys:
    """New keys that the node's TPM and its present AK vouch for. Only `verify_rotation` makes them."""

    ak: Public
    node_key: Public
    quote: VerifiedQuote


def check_new_keys(*, ak: Public, node_key: Public, present: tuple[Public, Public]) -> NewKeys:
    """Check the keys that a node wants to have (1); `present` are its AK and its node key.

    Errors: `AkAttributes`, `NodeKeyAttributes`, `KeyWeak`, `RotationKeyReused`.
    """
    checked = NewKeys(check_ak(ak), check_node_key(node_key))
    known = {key.name() for key in present}
    names = [checked.ak.name(), checked.node_key.name()]
    if known.intersection(names):
        raise RotationKeyReused("the node has this key already", advice="make new keys")
    return checked


def verify_rotation(
    *,
    keys: NewKeys,
    present_ak: Public,
    ek: Public,
    qualifying: bytes,
    ak_certified: Statement,
    node_key_certified: Statement,
    quoted: Statement,
    selection: PcrSelection,
    pcrs: Mapping[HashAlgorithm, Mapping[int, bytes]],
) -> RotatedKeys:
    """Verify what the TPM says about new keys (2, 3, 4). `pcrs` are the values that the quote covers.

    Errors: `TpmInvalid`, `Certify…`, `Quote…`, `SignatureRefused`.
    """
    verify_certification(  # 2
        attest=ak_certified.attest,
        signature=ak_certified.signature,
        signer=present_ak,
        signer_parent=ek,
        subject=keys.ak,
        subject_parent=ek,
        qualifying=qualifying,
    )
    verify_certification(  # 3
        attest=node_key_certified.attest,
        signature=node_key_certified.signature,
        signer=keys.ak,
        signer_parent=ek,
        subject=keys.node_key,
        subject_parent=None,
        qualifying=qualifying,
    )
    quote = verify_quote(  # 4
        attest=quoted.attest,
        signature=quoted.signature,
        ak=keys.ak,
        ak_parent=ek,
        nonce=qualifying,
        selection=selection,
        pcrs=pcrs,
    )
    return RotatedKeys(keys.ak, keys.node_key, quote)


def next_base_line(quote: VerifiedQuote, previous: ClockState | None) -> ClockState:
    """Return clock and counters for the new AK to go on from (4).

    They have to be of the boot that the last round was about, and not before it: what happened in between would never
    be judged. Raises `RotationOutOfStep`.
    """
    info = quote.clock_info
    if previous is None or info.reset_count != previous.reset_count:
        raise RotationOutOfStep("no round was judged since the node booted", advice="attest first")
    now = (info.restart_count, info.clock, quote.firmware_version)
    before = (previous.restart_count, previous.clock, previous.firmware_version)
    if any(new < old for new, old in zip(now, before, strict=True)):
        raise RotationOutOfStep("the TPM's counters or its clock went back since the last round")
    return next_clock_state(quote, previous)
