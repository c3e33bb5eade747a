"""Asking for a secret: what is tried again, what is not, and answers that are none."""

import asyncio
import base64
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent import unseal
from umec_attest.agent.enrol import enrol
from umec_attest.agent.errors import AnswerInvalid, TpmRefused
from umec_attest.agent.former_keys import exchange_keys
from umec_attest.agent.state import load_state
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.transport import Answer
from umec_attest.agent.unseal import Released, unseal_from_site
from umec_attest.agent.wire import read_answer
from umec_attest.agent.witness import LogWitness, Refusal
from umec_attest.errors import QuoteSignerMismatch
from umec_attest.ima import ImaCheckpoint
from umec_attest.service.errors import (
    BootLogRequired,
    EvidenceStale,
    NonceExpired,
    NonceSuperseded,
    NonceUnknown,
    RuntimeListContinues,
    SecretStanding,
    SecretSuperseded,
)
from umec_core.client import RemoteRefused
from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_core.keys import write_private

BLOB = base64.b64encode(bytes(64)).decode()
GOOD: dict[str, Any] = {
    "public": BLOB,
    "duplicate": BLOB,
    "encrypted_seed": BLOB,
    "pcrs": {"sha256": [4, 7]},
    "reset_count": 3,
    "restart_count": 1,
    "clock_until": 60_000,
    "said_by_a_newer_platform": True,
}


def ask(scene: Any, *answers: UmecError | dict[str, Any], anew: bool = False) -> UmecError:
    """Ask for a secret of a platform that gives these answers; return what became of it."""

    async def enrolling() -> None:
        async with scene.standin.running():
            await enrol(scene.plan(), scene.state, replace=anew)

    asyncio.run(enrolling())
    return asked(scene, *answers)


def asked(scene: Any, *answers: UmecError | dict[str, Any]) -> UmecError:
    async def asking() -> UmecError:
        async with scene.standin.running():
            scene.standin.faults["release"] = list(answers)
            with Tpm(scene.device.tcti) as tpm, pytest.raises(UmecError) as raised:
                await unseal_from_site(scene.state, tpm, "disk", boot_log=scene.log)
            return raised.value

    return asyncio.run(asking())


@pytest.mark.parametrize(
    "again", [BootLogRequired, EvidenceStale, NonceExpired, NonceSuperseded, NonceUnknown, SecretSuperseded]
)
def test_what_another_challenge_heals_is_asked_again(scene: Any, again: type[UmecError]) -> None:
    error = ask(scene, again("not by this one"), again("nor by this one"))
    assert isinstance(error, RemoteRefused)
    assert error.code == "not-found"  # the answer to the third
    assert scene.standin.asked.count("challenges") == scene.standin.asked.count("release") == 3


def test_nobody_asks_for_ever(scene: Any) -> None:
    assert ask(scene, *(NonceSuperseded("again") for _ in range(5))).code == "nonce-superseded"
    assert scene.standin.asked.count("release") == 3


def test_a_list_that_is_too_long_for_one_request_goes_in_parts(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [RuntimeListContinues(ImaCheckpoint(1, number, bytes(32), "ab" * 32)) for number in range(9)]
    assert ask(scene, *parts[:4]).code == "not-found"
    assert scene.standin.asked.count("release") == 5
    monkeypatch.setattr(unseal, "MOST_PARTS", 4)
    scene.standin.asked.clear()
    assert ask(scene, *parts, anew=True).code == "runtime-list-continues"
    assert scene.standin.asked.count("release") == 4


def test_a_verifier_that_knows_former_keys_is_asked_with_those(scene: Any) -> None:
    error = ask(scene, QuoteSignerMismatch("not this one"))
    assert error.code == "quote-signer-mismatch"  # the node had no other keys yet
    present = load_state(scene.state)

    def asked_again(*answers: UmecError) -> str:
        scene.standin.asked.clear()
        return asked(scene, *answers).code

    other = replace(present, ak=present.node_key, node_key=present.ak)
    exchange_keys(scene.state, present, other, system_clock())
    exchange_keys(scene.state, other, present, system_clock())
    assert asked_again(QuoteSignerMismatch("not this one")) == "not-found"
    assert scene.standin.asked.count("release") == 2
    assert asked_again(*(QuoteSignerMismatch("nor this one") for _ in range(3))) == "quote-signer-mismatch"
    assert scene.standin.asked.count("release") == 2
    assert load_state(scene.state) == present


def test_a_verifier_whose_log_is_believed_no_more_is_not_asked(scene: Any) -> None:
    assert ask(scene).code == "not-found"
    witness = LogWitness(scene.state)
    seen = witness.seen()
    assert seen is not None
    refusal = Refusal("log-shrunk", "the log has 1 entry", system_clock(), seen.checkpoint)
    write_private(scene.state / "log.json", replace(seen, refusal=refusal).to_json())
    scene.standin.asked.clear()
    assert asked(scene).code == "log-distrusted"
    assert scene.standin.asked == []
    witness.forget()
    assert asked(scene).code == "not-found"


def test_a_refusal_is_taken_for_an_answer(scene: Any) -> None:
    assert ask(scene, SecretStanding("degraded")).code == "secret-standing"
    assert scene.standin.asked.count("release") == 1


def test_an_answer_that_this_tpm_cannot_open_is_refused(scene: Any) -> None:
    assert isinstance(ask(scene, GOOD), TpmRefused)


@pytest.mark.parametrize(
    "fault",
    [
        {"public": ""},
        {"public": "!"},
        {"duplicate": base64.b64encode(bytes(4097)).decode()},
        {"encrypted_seed": None},
        {"pcrs": {"sha256": []}},
        {"pcrs": {"sha256": [24]}},
        {"pcrs": {"sha256": [4, 4]}},
        {"reset_count": -1},
        {"reset_count": 2**32},
        {"restart_count": -1},
        {"restart_count": 2**32},
        {"clock_until": "soon"},
    ],
    ids=str,
)
def test_an_answer_with_a_fault_is_refused(fault: dict[str, Any]) -> None:
    def read(content: dict[str, Any]) -> Released:
        return read_answer(Released, Answer("/", 200, {}, json.dumps(content).encode()))

    assert read(GOOD).sealed.pcrs == (4, 7)
    with pytest.raises(AnswerInvalid) as refused:
        read({**GOOD, **fault})
    assert refused.value.code == "answer-invalid"


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_any_answer_is_a_release_or_its_one_error(body: bytes) -> None:
    with contextlib.suppress(AnswerInvalid):
        read_answer(Released, Answer("/", 200, {}, body))
