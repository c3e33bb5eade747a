"""Sealed secrets, without a TPM: what is refused before one is asked. That a TPM agrees is tested with the agent."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.errors import ApprovalInvalid, ApprovalSignature
from umec_attest.sealed import approval_reference, seal_for_boot, sign_approval, verify_approval
from umec_attest.tpm.algorithms import ALG_AES, ALG_CFB, HashAlgorithm
from umec_attest.tpm.attest import ClockInfo
from umec_attest.tpm.public import Symmetric
from umec_attest.tpm.signature import EcdsaSignature

Refused = Callable[[str], Any]

OWNER = ec.generate_private_key(ec.SECP256R1())
PCRS = {4: bytes(32), 7: b"\x07" * 32}
CLOCK = ClockInfo(1000, 5, 2, safe=True)


def members(**changes: Any) -> bytes:
    made = sign_approval(image="edge-node", version=3, pcrs=PCRS, key=OWNER)
    return json.dumps({**json.loads(made), **changes}).encode()


def test_an_approval_says_what_was_signed() -> None:
    approval = verify_approval(members(), OWNER.public_key())
    assert (approval.image, approval.version, dict(approval.pcrs)) == ("edge-node", 3, PCRS)
    assert approval.reference == approval_reference("edge-node")


@pytest.mark.parametrize(
    "change",
    [
        {"image": "other-node"},
        {"version": 4},
        {"pcrs": {"sha256": {"4": "00" * 32}}},
        {"pcrs": {"sha256": {"4": "00" * 32, "7": "08" * 32}}},
        {"pcrs": {"sha256": {"4": "00" * 32, "8": "07" * 32}}},
        {"signature": base64.b64encode(b"none").decode()},
        {"signature": ""},
    ],
    ids=str,
)
def test_an_approval_that_the_owner_did_not_sign_is_refused(refused: Refused, change: dict[str, Any]) -> None:
    with refused("approval-signature"):
        verify_approval(members(**change), OWNER.public_key())
    verify_approval(members(), OWNER.public_key())


def test_an_approval_signed_by_another_key_or_hash_is_refused(refused: Refused) -> None:
    with refused("approval-signature"):
        verify_approval(members(), ec.generate_private_key(ec.SECP256R1()).public_key())
    with refused("approval-signature"):
        verify_approval(members(), rsa.generate_private_key(65537, 2048).public_key())
    known = verify_approval(members(), OWNER.public_key())
    message = known.policy + known.reference
    r, s = decode_dss_signature(OWNER.sign(message, ec.ECDSA(SHA256())))
    again = EcdsaSignature(HashAlgorithm.SHA256, r.to_bytes(32, "big"), s.to_bytes(32, "big")).to_bytes()
    verify_approval(members(signature=base64.b64encode(again).decode()), OWNER.public_key())
    other = EcdsaSignature(HashAlgorithm.SHA384, r.to_bytes(32, "big"), s.to_bytes(32, "big")).to_bytes()
    with refused("approval-signature"):
        verify_approval(members(signature=base64.b64encode(other).decode()), OWNER.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"image": "Edge Node"},
        {"image": ""},
        {"version": 0},
        {"version": 2**32},
        {"version": "3"},
        {"pcrs": {}},
        {"pcrs": {"sha256": {}}},
        {"pcrs": {"sha1": {"4": "00" * 20}}},
        {"pcrs": {"sha256": {"4": "00" * 32}, "sha384": {"4": "00" * 48}}},
        {"pcrs": {"sha256": {"4": "00" * 31}}},
        {"pcrs": {"sha256": {"4": "00" * 32, "16": "00" * 32}}},
        {"pcrs": {"sha256": {"4": "00" * 32, "23": "00" * 32}}},
        {"signature": "no base64"},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_approval_is_refused(refused: Refused, change: dict[str, Any]) -> None:
    with refused("approval-invalid"):
        verify_approval(members(**change), OWNER.public_key())


def test_an_approval_has_a_bounded_size(refused: Refused) -> None:
    good = members()
    verify_approval(good + b" " * (16 * 1024 - len(good)), OWNER.public_key())
    with refused("approval-invalid"):
        verify_approval(good + b" " * (16 * 1024 - len(good) + 1), OWNER.public_key())


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_approval_or_its_error(data: bytes) -> None:
    with pytest.raises((ApprovalInvalid, ApprovalSignature)):
        verify_approval(data, OWNER.public_key())


@given(
    st.integers(1, 2**32 - 1),
    st.dictionaries(st.integers(0, 15), st.binary(min_size=32, max_size=32), min_size=1, max_size=8),
)
def test_what_is_signed_is_read_again(version: int, pcrs: dict[int, bytes]) -> None:
    approval = verify_approval(
        sign_approval(image="edge-node", version=version, pcrs=pcrs, key=OWNER), OWNER.public_key()
    )
    assert (approval.version, dict(approval.pcrs)) == (version, pcrs)


@pytest.mark.parametrize(
    "change", [{"version": 0}, {"version": 2**32}, {"pcrs": {}}, {"pcrs": {16: bytes(32)}}, {"image": "Edge"}], ids=str
)
def test_nothing_is_signed_that_would_be_refused(refused: Refused, change: dict[str, Any]) -> None:
    with refused("approval-invalid"):
        sign_approval(**{"image": "edge-node", "version": 1, "pcrs": PCRS, "key": OWNER, **change})


def test_an_owner_signs_with_a_strong_key_only(refused: Refused) -> None:
    for weak in (rsa.generate_private_key(3, 2048), rsa.generate_private_key(65537, 1024)):  # noqa: S505
        with refused("key-weak"):
            sign_approval(image="edge-node", version=1, pcrs=PCRS, key=weak)
        with refused("key-weak"):
            verify_approval(members(), weak.public_key())
    with refused("approval-invalid"):
        sign_approval(image="edge-node", version=1, pcrs=PCRS, key=ec.generate_private_key(ec.SECP521R1()))


def endorsement(kit: Any, **changes: Any) -> Any:
    arguments = {"attributes": kit.ORIGIN | kit.AK_ATTRIBUTES, "symmetric": Symmetric(ALG_AES, 128, ALG_CFB)}
    return kit.public_of(kit.rsa_key(name="ek"), **{**arguments, **changes})


def test_a_released_secret_has_a_size_and_a_state(kit: Any, refused: Refused) -> None:
    ek = endorsement(kit)
    for size in (0, 15, 129):
        with refused("secret-size"):
            seal_for_boot(ek, bytes(size), pcrs=PCRS, clock=CLOCK)
    for empty in ({}, {10: bytes(32)}):
        with refused("tpm-invalid"):
            seal_for_boot(ek, bytes(16), pcrs=empty, clock=CLOCK)
    sealed = seal_for_boot(ek, bytes(128), pcrs={**PCRS, 10: bytes(32)}, clock=CLOCK)
    assert (sealed.pcrs, sealed.reset_count, sealed.restart_count) == ((4, 7), 5, 2)
    assert sealed.clock_until == 61_000


def test_a_secret_is_sealed_to_storage_keys_only(kit: Any, refused: Refused) -> None:
    for change in ({"symmetric": None}, {"symmetric": Symmetric(ALG_AES, 64, ALG_CFB)}):
        with refused("ek-profile"):
            seal_for_boot(endorsement(kit, **change), bytes(32), pcrs=PCRS, clock=CLOCK)


def test_two_releases_of_one_secret_have_nothing_in_common(kit: Any) -> None:
    ek = endorsement(kit)
    first, second = (seal_for_boot(ek, bytes(32), pcrs=PCRS, clock=CLOCK) for _ in range(2))
    assert first.public != second.public
    assert first.duplicate != second.duplicate
    assert first.encrypted_seed != second.encrypted_seed
