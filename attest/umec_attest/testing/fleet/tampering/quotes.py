"""Tampering with quotes, signatures, PCR values and challenges: refused, because it is not authentic or not fresh."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from umec_attest.testing.adversary import flip_byte
from umec_attest.testing.fleet import structures
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import SimulatedNode
from umec_attest.testing.fleet.tampering.scene import Body, Scene, b64, signed, tampering

__all__ = ["NOT_AUTHENTIC"]

OWNER: Final = 0x40000001
SHA1, SHA384, SM3 = 0x0004, 0x000C, 0x0012
CERTIFY: Final = 0x8017
LATE: Final = 3600.0
"""Seconds after which no challenge is good any more."""
NOT_AUTHENTIC: Final = (
    "tpm-invalid",
    "signature-invalid",
    "signature-scheme-refused",
    "quote-nonce-mismatch",
    "quote-signer-mismatch",
    "quote-type-mismatch",
    "pcr-selection-mismatch",
    "pcr-values-invalid",
    "pcr-digest-mismatch",
)


def _quoted(scene: Scene, asked: Mapping[int, int]) -> bytes:
    """TPMS_QUOTE_INFO over the values of some PCRs under the numbers of others: number -> where the value is from."""
    return structures.quote_info({pcr: scene.node.pcrs[source] for pcr, source in asked.items()}, list(asked))


# --- bytes ------------------------------------------------------------------------------------------------------------


@tampering(*NOT_AUTHENTIC)
async def _a_bit_of_the_quote(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    quote = base64.b64decode(body["quote"])
    return body | {"quote": b64(flip_byte(quote, scene.random.randrange(len(quote))))}


@tampering(*NOT_AUTHENTIC)
async def _a_bit_of_the_signature(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    signature = base64.b64decode(body["signature"])
    return body | {"signature": b64(flip_byte(signature, scene.random.randrange(len(signature))))}


@tampering("tpm-invalid")
async def _a_quote_cut_short(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    quote = base64.b64decode(body["quote"])
    return body | {"quote": b64(quote[: scene.random.randrange(len(quote))])}


@tampering("tpm-invalid")
async def _bytes_after_the_quote(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    made = base64.b64decode(body["quote"]) + bytes(scene.random.randrange(1, 9))
    return body | {"quote": b64(made), "signature": b64(scene.node.keys.sign(made))}


@tampering("tpm-invalid")
async def _bytes_after_the_signature(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    return body | {"signature": b64(base64.b64decode(body["signature"]) + b"\0")}


# --- what was signed --------------------------------------------------------------------------------------------------


@tampering("tpm-invalid")
async def _another_magic(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return signed(scene, challenge, magic=structures.GENERATED ^ 1 << scene.random.randrange(32))


@tampering("quote-type-mismatch")
async def _a_certification(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    name = scene.node.signer
    names = (len(name).to_bytes(2, "big") + name) * 2
    return signed(scene, challenge, kind=CERTIFY, attested=names)


@tampering("quote-signer-mismatch")
async def _a_key_of_another_hierarchy(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    keys = scene.node.keys
    return signed(scene, challenge, signer=structures.qualified_signer(keys.ak_public, keys.ek_public, hierarchy=OWNER))


@tampering("quote-signer-mismatch")
async def _the_key_of_another_node(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return signed(scene, challenge, signer=scene.other.signer, by=scene.other)


@tampering("signature-invalid", "signature-scheme-refused")
async def _the_name_of_the_key_and_another_key(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    return signed(scene, challenge, by=scene.other)


@tampering("quote-signer-mismatch")
async def _another_tpm(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    stranger = SimulatedNode(
        scene.node.name, make_keys(), scene.node.booted, programs=scene.node.programs, clock=scene.node.clock
    )
    return stranger.evidence(challenge)


@tampering("signature-scheme-refused", "signature-invalid")
async def _another_hash_of_the_signature(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    signature = base64.b64decode(body["signature"])
    hash_algorithm = scene.random.choice([SHA1, SHA384]).to_bytes(2, "big")
    return body | {"signature": b64(signature[:2] + hash_algorithm + signature[4:])}


# --- PCRs -------------------------------------------------------------------------------------------------------------


@tampering("pcr-selection-mismatch")
async def _a_pcr_left_out(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    asked = list(challenge["pcrs"]["sha256"])
    asked.remove(scene.random.choice(asked))
    return signed(scene, challenge, attested=_quoted(scene, {pcr: pcr for pcr in asked}))


@tampering("pcr-selection-mismatch")
async def _a_pcr_more(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    asked = challenge["pcrs"]["sha256"]
    more = scene.random.choice([pcr for pcr in range(24) if pcr not in asked])
    return signed(scene, challenge, attested=_quoted(scene, {pcr: pcr for pcr in [*asked, more]}))


@tampering("pcr-selection-mismatch")
async def _a_resettable_pcr_in_its_place(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    asked = challenge["pcrs"]["sha256"]
    replaced = scene.random.choice(asked)
    source = {16 if pcr == replaced else pcr: pcr for pcr in asked}
    return signed(scene, challenge, attested=_quoted(scene, source))


@tampering("pcr-selection-mismatch")
async def _another_bank(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    asked = challenge["pcrs"]["sha256"]
    bank = structures.pcr_selection(asked, algorithm=scene.random.choice([SHA1, SHA384, SM3]))
    attested = structures.quote_info(scene.node.pcrs, asked)
    return signed(scene, challenge, attested=bank + attested[len(bank) :])


@tampering("pcr-selection-mismatch", "tpm-invalid")
async def _a_selection_of_another_size(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    asked = challenge["pcrs"]["sha256"]
    usual = structures.pcr_selection(asked)
    strange = structures.pcr_selection(asked, size=scene.random.choice([0, 2, 4]))
    return signed(scene, challenge, attested=strange + structures.quote_info(scene.node.pcrs, asked)[len(usual) :])


@tampering("pcr-digest-mismatch")
async def _a_value_that_was_not_signed(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    values = dict(body["pcrs"]["sha256"])
    pcr = scene.random.choice(list(values))
    values[pcr] = flip_byte(bytes.fromhex(values[pcr]), scene.random.randrange(32)).hex()
    return body | {"pcrs": {"sha256": values}}


@tampering("pcr-digest-mismatch")
async def _good_values_beside_a_bad_quote(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    node = scene.node
    bad = scene.random.choice(list(scene.changed.values())).pcrs
    quoted = structures.quote_info(bad, challenge["pcrs"]["sha256"])
    return signed(scene, challenge, attested=quoted) | {"pcrs": node.evidence(challenge)["pcrs"]}


@tampering("pcr-values-invalid")
async def _a_value_less(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    values = dict(body["pcrs"]["sha256"])
    del values[scene.random.choice(list(values))]
    return body | {"pcrs": {"sha256": values}}


# --- freshness --------------------------------------------------------------------------------------------------------


@tampering("evidence-replayed", "nonce-superseded")
async def _the_same_evidence_twice(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    await scene.verifier.submit(body)
    return body


@tampering("quote-nonce-mismatch")
async def _old_evidence_for_a_new_challenge(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    old = scene.node.evidence(challenge)
    await scene.verifier.submit(old)
    return old | {"challenge": (await scene.verifier.challenge(scene.node.name))["challenge"]}


@tampering("evidence-replayed", "nonce-superseded")
async def _a_challenge_of_an_older_round(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    await scene.verifier.submit(scene.node.evidence(await scene.verifier.challenge(scene.node.name)))
    return scene.node.evidence(challenge)


@tampering("nonce-unknown")
async def _the_challenge_of_another_node(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    theirs = await scene.verifier.challenge(scene.other.name)
    return scene.node.evidence({**theirs, "boot_log": challenge["boot_log"]})


@tampering("nonce-unknown")
async def _a_challenge_of_ones_own(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    body = scene.node.evidence(challenge)
    token = base64.urlsafe_b64decode(body["challenge"] + "==")
    forged = flip_byte(token, scene.random.randrange(len(token)))
    return body | {"challenge": base64.urlsafe_b64encode(forged).rstrip(b"=").decode()}


@tampering("nonce-expired")
async def _too_late(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    scene.verifier.wait(LATE)
    return scene.node.evidence(challenge)


@tampering("quote-nonce-mismatch")
async def _another_nonce(scene: Scene, challenge: Mapping[str, Any]) -> Body:
    nonce = base64.b64decode(challenge["nonce"])
    wrong = scene.random.choice([b"", nonce[:-1], nonce + b"\0", bytes(32), flip_byte(nonce, -1)])
    return signed(scene, challenge, extra_data=wrong)
