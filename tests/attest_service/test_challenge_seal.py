"""Challenges: only ours open, and only for whom they were made."""

import hmac
import json
from dataclasses import fields, replace
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
    other = {
        "node": "node-2",
        "ak": "other",
        "pcrs": (0, 4),
        "runtime_from": None,
        "starts_from": 0,
        "policy": "ce" * 32,
        "round": 4,
        "expires_at": NOW,
        "salt": "another",
    }
    assert other.keys() == {field.name for field in fields(Challenge)}
    others = [replace(CHALLENGE, **{name: value}) for name, value in other.items()]  # type: ignore[arg-type]
    nonces = {SEAL.seal(challenge)[1] for challenge in [CHALLENGE, *others]}
    assert len(nonces) == len(others) + 1
    for challenge in others:
        token, _ = SEAL.seal(challenge)
        assert SEAL.open(token, node=challenge.node, ak=challenge.ak, now=NOW - timedelta(1))[0] == challenge


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
    """Sealed with the same key by a release before: the label alone tells it, whatever members it had."""
    at = ["node-1", CHALLENGE.ak, [0, 4, 7]]
    bodies = [json.dumps([*at, *asked, "cd" * 32, 3, 2**53, "salt"]).encode() for asked in ([], [5], [5, None])]
    for label in (b"umec challenge mac", b"umec challenge mac 2", b"umec challenge mac 3"):
        for body in (*bodies, CHALLENGE.to_bytes()):
            with pytest.raises(NonceUnknown):
                SEAL.open(sealed_under(label, body), node="node-1", ak=CHALLENGE.ak, now=NOW)
    now = sealed_under(b"umec challenge mac 4", CHALLENGE.to_bytes())
    assert SEAL.open(now, node="node-1", ak=CHALLENGE.ak, now=NOW) == SEAL.open(
        SEAL.seal(CHALLENGE)[0], node="node-1", ak=CHALLENGE.ak, now=NOW
    )


def sealed_under(label: bytes, body: bytes) -> str:
    mac = hmac.digest(hmac.digest(bytes(range(32)), label, "sha256"), body, "sha256")
    return base64url_encode(mac + body)
