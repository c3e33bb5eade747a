"""Whatever comes in from outside is a value or the one error of its parser."""

import base64
import contextlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent.errors import AgentStateInvalid, AnswerInvalid, TicketInvalid
from umec_attest.agent.session import default_resource
from umec_attest.agent.state import prepare_directory
from umec_attest.agent.ticket import MAX_TICKET, parse_ticket
from umec_attest.agent.tls import NodeCredential, new_key
from umec_attest.agent.transport import Answer
from umec_attest.agent.wire import MAX_ANSWER, Challenge, Enrolment, Result, read_answer
from umec_core.jose import base64url_encode

GOOD = {"asset": "kerb-7", "ca_sha256": "ab" * 32, "url": "https://edge.example:8443", "secret": "s3cret"}
CHALLENGE = {
    "challenge": "c",
    "nonce": base64.b64encode(bytes(32)).decode(),
    "pcrs": {"sha256": [0, 7, 11]},
    "boot_log": "full",
    "deadline": "2034-11-22T12:00:00Z",
    "round_seconds": 30,
}


def ticket(members: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()


def answer(body: bytes) -> Answer:
    return Answer("/x", 200, {}, body)


@pytest.mark.parametrize(
    "fault",
    [
        {"asset": "Kerb 7"},
        {"asset": "../etc"},
        {"ca_sha256": "ab"},
        {"url": "http://edge.example"},
        {"url": "https://edge.example/path"},
        {"url": "https://user@edge.example"},
        {"secret": ""},
        {"more": 1},
    ],
)
def test_a_ticket_with_a_fault_is_refused_without_its_secret(fault: dict[str, object]) -> None:
    with pytest.raises(TicketInvalid) as refused:
        parse_ticket(ticket(GOOD | fault))
    assert refused.value.code == "ticket-invalid"
    assert GOOD["secret"] not in refused.value.detail
    read = parse_ticket(f" {ticket(dict(GOOD))}\n")
    assert (read.asset, read.url) == (GOOD["asset"], GOOD["url"])
    assert GOOD["secret"] not in repr(read)


def test_a_ticket_beyond_the_limit_is_refused() -> None:
    with pytest.raises(TicketInvalid) as refused:
        parse_ticket(base64url_encode(json.dumps(GOOD).encode() + b" " * MAX_TICKET))
    assert refused.value.code == "ticket-invalid"
    assert parse_ticket(base64url_encode(json.dumps(GOOD).encode() + b" ")).asset == GOOD["asset"]


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_any_text_is_a_ticket_or_its_one_error(text: str) -> None:
    with contextlib.suppress(TicketInvalid):
        parse_ticket(text)


@pytest.mark.parametrize(
    "fault",
    [
        {"pcrs": {"sha256": []}},
        {"pcrs": {"sha256": [7, 7]}},
        {"pcrs": {"sha256": [24]}},
        {"pcrs": {"sha1": [0]}},
        {"nonce": base64.b64encode(bytes(8)).decode()},
        {"nonce": base64.b64encode(bytes(65)).decode()},
        {"boot_log": "none"},
        {"round_seconds": 0},
    ],
)
def test_a_challenge_with_a_fault_is_refused(fault: dict[str, object]) -> None:
    with pytest.raises(AnswerInvalid) as refused:
        read_answer(Challenge, answer(json.dumps(CHALLENGE | fault).encode()))
    assert refused.value.code == "answer-invalid"
    newer = {**CHALLENGE, "said_by_a_newer_platform": True}
    assert read_answer(Challenge, answer(json.dumps(newer).encode())).pcrs.sha256 == (0, 7, 11)


def test_an_answer_without_end_is_refused() -> None:
    with pytest.raises(AnswerInvalid) as refused:
        read_answer(Challenge, answer(json.dumps(CHALLENGE).encode() + b" " * MAX_ANSWER))
    assert refused.value.code == "answer-invalid"
    assert read_answer(Challenge, answer(json.dumps(CHALLENGE).encode() + b" "))


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_any_answer_is_a_value_or_its_one_error(body: bytes) -> None:
    for kind in (Enrolment, Challenge, Result):
        with contextlib.suppress(AnswerInvalid):
            read_answer(kind, answer(body))


def test_the_life_of_a_credential() -> None:
    start = datetime(2034, 11, 22, 12, tzinfo=UTC)
    credential = NodeCredential(new_key(), "", "", start, start + timedelta(seconds=60), 1)
    told = [
        (credential.due(now), credential.usable(now)) for now in (start + timedelta(seconds=n) for n in (29, 30, 60))
    ]
    assert told == [(False, True), (True, True), (True, False)]


def test_a_directory_that_others_look_into_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    prepare_directory(state)
    state.chmod(0o750)
    with pytest.raises(AgentStateInvalid) as refused:
        prepare_directory(state)
    assert refused.value.code == "agent-state-invalid"
    state.chmod(0o700)
    prepare_directory(state)


def test_a_directory_that_another_owns_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    prepare_directory(state)
    os.chown(state, 65534, -1)
    with pytest.raises(AgentStateInvalid) as refused:
        prepare_directory(state)
    assert refused.value.code == "agent-state-invalid"


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("https://h:8443/attest/v1/nodes", "https://h:8443/attest/v1"),
        ("https://h:8443/platform/v1/hosts", "https://h:8443/platform/v1"),
        ("https://h:8443/app_lcm/v1/app_instances", "https://h:8443/platform/v1"),
        ("https://h:8444/mec_service_mgmt/v1/services", "https://h:8444/"),
        ("https://h:5443/v2/city/app/manifests/1", "https://h:5443/"),
        ("https://elsewhere:8443/platform/v1/hosts", "https://elsewhere:8443/"),
    ],
)
def test_the_resource_of_a_url(url: str, resource: str) -> None:
    assert default_resource(url, "https://h:8443") == resource
