"""Challenges: only ours open, and only for whom they were made."""

import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.service.errors import NonceExpired, NonceUnknown
from umec_attest.service.evidence.challenge import Challenge, ChallengeSeal
from umec_core.jose import base64url_encode

NOW = datetime(2034, 11, 22, 12, 0, tzinfo=UTC)
SEAL = ChallengeSeal(bytes(range(32)))
CHALLENGE = Challenge("node-1", "000b" + "ab" * 32, (0, 4, 7), 5, "cd" * 32, 3, NOW + timedelta(seconds=20), "salt")


def test_a_challenge_opens_for_its_node_until_its_deadline() -> None:
    token, nonce = SEAL.seal(CHALLENGE)
    assert len(nonce) == 32
    assert SEAL.open(token, node="node-1", ak=CHALLENGE.ak, now=NOW) == (CHALLENGE, nonce)
    for node, ak in (("node-2", CHALLENGE.ak), ("node-1", "000b" + "00" * 32)):
        with pytest.raises(NonceUnknown):
            SEAL.open(token, node=node, ak=ak, now=NOW)
    with pytest.raises(NonceExpired):
        SEAL.open(token, node="node-1", ak=CHALLENGE.ak, now=CHALLENGE.expires_at)
    with pytest.raises(NonceUnknown):
        ChallengeSeal(bytes(32)).open(token, node="node-1", ak=CHALLENGE.ak, now=NOW)


def test_each_member_changes_the_nonce() -> None:
    others = [
        Challenge("node-2", *CHALLENGE_REST),
        Challenge("node-1", "other", *CHALLENGE_REST[1:]),
        Challenge("node-1", CHALLENGE.ak, (0, 4), *CHALLENGE_REST[2:]),
        Challenge("node-1", CHALLENGE.ak, CHALLENGE.pcrs, None, *CHALLENGE_REST[3:]),
        Challenge("node-1", CHALLENGE.ak, CHALLENGE.pcrs, 5, "ce" * 32, *CHALLENGE_REST[4:]),
        Challenge("node-1", CHALLENGE.ak, CHALLENGE.pcrs, 5, CHALLENGE.policy, 4, *CHALLENGE_REST[5:]),
    ]
    nonces = {SEAL.seal(challenge)[1] for challenge in [CHALLENGE, *others]}
    assert len(nonces) == 7


@given(st.text() | st.binary().map(lambda data: data.hex()))
def test_any_text_is_a_challenge_of_ours_or_unknown(text: str) -> None:
    with pytest.raises(NonceUnknown) as refused:
        SEAL.open(text, node="node-1", ak=CHALLENGE.ak, now=NOW)
    assert refused.value.code == "nonce-unknown"


@given(st.integers(0, 1000), st.integers(1, 255))
def test_one_changed_byte_is_noticed(at: int, change: int) -> None:
    token, _ = SEAL.seal(CHALLENGE)
    at %= len(token)
    changed = token[:at] + chr((ord(token[at]) ^ change) % 0x110000) + token[at + 1 :]
    with pytest.raises(NonceUnknown):
        SEAL.open(changed, node="node-1", ak=CHALLENGE.ak, now=NOW)


def test_a_challenge_of_a_former_form_is_none_of_ours() -> None:
    """One that says nothing of lists, sealed with the same key by a release before."""
    body = json.dumps(["node-1", CHALLENGE.ak, [0, 4, 7], "cd" * 32, 3, 2**53, "salt"]).encode()
    mac = hmac.digest(hmac.digest(bytes(range(32)), b"umec challenge mac", "sha256"), body, "sha256")
    with pytest.raises(NonceUnknown):
        SEAL.open(base64url_encode(mac + body), node="node-1", ak=CHALLENGE.ak, now=NOW)


CHALLENGE_REST = (
    CHALLENGE.ak,
    CHALLENGE.pcrs,
    CHALLENGE.runtime_from,
    CHALLENGE.policy,
    CHALLENGE.round,
    CHALLENGE.expires_at,
    CHALLENGE.salt,
)
