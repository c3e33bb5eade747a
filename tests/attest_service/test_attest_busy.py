"""More than the verifier gets done: who is too much hears so at once, and comes back; and what its endpoints read."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as SqlTimeout

from umec_attest.service.evidence import room, service

Run = Callable[..., None]


def test_evidence_beyond_what_is_judged_in_time_is_refused_at_once(
    run: Run, tpms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_EVIDENCE", 2)

    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            audited = await world.audited()
            evidence = booted.evidence(await world.challenge())
            others = other.evidence(await world.challenge("node-2"))
            async with world.writer_held():
                waiting = [asyncio.create_task(world.http.post("/attest/v1/evidence", json=evidence)) for _ in range(2)]
                while world.service.rounds._evidence._left:  # noqa: ASYNC110 - a room tells nobody that it is full
                    await asyncio.sleep(0.01)
                answer = await world.http.post("/attest/v1/evidence", json=others)
                assert (answer.status_code, answer.json()["code"]) == (503, "verifier-busy")
                assert 1 <= int(answer.headers["retry-after"]) <= room.LONGEST
                assert (await world.challenge("node-2"))["boot_log"] == "digest"  # there is room for something else
            assert sorted(answer.status_code for answer in await asyncio.gather(*waiting)) == [200, 409]
            assert (await world.post("evidence", others))["standing"] == "trusted"  # what was refused did not count
            found = await world.audited()
            assert ("evidence.submit", "refused", "verifier-busy") not in found[len(audited) :]

    run(body)


def test_room_is_given_back_by_what_was_refused(run: Run, tpms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_EVIDENCE", 1)
    monkeypatch.setattr(service, "MAX_CHALLENGES", 1)

    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            for _ in range(2):
                assert (await world.post("challenges", {"node": "nobody"}, status=404))["code"] == "node-unknown"
            await world.ready_node(booted)
            evidence = {**booted.evidence(await world.challenge()), "challenge": "AA"}
            for _ in range(2):
                assert (await world.post("evidence", evidence, status=422))["code"] == "nonce-unknown"
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_challenges_have_room_of_their_own(run: Run, tpms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a challenge has done the work for it: the answer is judged while nobody gets a new one."""

    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            evidence = booted.evidence(await world.challenge())
            monkeypatch.setattr(world.service.rounds._challenges, "_left", 0)
            assert (await world.post("challenges", {"node": "node-1"}, status=503))["code"] == "verifier-busy"
            assert (await world.post("evidence", evidence))["standing"] == "trusted"
            monkeypatch.setattr(world.service.rounds._challenges, "_left", 1)
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


NOT_READ: list[tuple[str, dict[str, Any], str]] = [
    ("challenges", {"json": {"node": "node-1", "more": 1}}, "invalid-input"),
    ("challenges", {"json": {"node": "Node 1"}}, "invalid-input"),
    ("challenges", {"json": ["node-1"]}, "invalid-input"),
    ("challenges", {"content": b'{"node":"node-1"}'}, "content-type-wrong"),
    ("challenges", {"content": b"", "headers": {"content-type": "application/json"}}, "invalid-input"),
    ("challenges?node=node-1", {"json": {"node": "node-1"}}, "query-invalid"),
    ("evidence", {"json": {"node": "node-1", "quote": "c2VjcmV0"}}, "invalid-input"),
    ("evidence?more", {"json": {}}, "query-invalid"),
]


def test_what_the_endpoints_of_rounds_do_not_read(run: Run) -> None:
    async def body(world: Any) -> None:
        for path, how, code in NOT_READ:
            answer = await world.http.post(f"/attest/v1/{path}", **how)
            assert (answer.status_code, answer.json()["code"]) == (400, code), (path, how, answer.text)
            assert "c2VjcmV0" not in answer.text
            if path == "evidence":
                assert "body.challenge: missing" in answer.json()["detail"]
        assert (await world.post("challenges", {"node": "node-1"}, status=404))["code"] == "node-unknown"

    run(body)


@pytest.mark.parametrize(
    ("fault", "tries"), [(OperationalError, 1), (SqlTimeout, 1), (OSError, 1), (IntegrityError, 3)]
)
def test_without_a_database_a_batch_is_tried_once_and_not_each_round_by_itself(
    run: Run, monkeypatch: pytest.MonkeyPatch, fault: type[Exception], tries: int
) -> None:
    async def body(world: Any) -> None:
        effects, tried = world.service.rounds._effects, []

        class Gone:
            async def write_plain(self, work: Any) -> None:
                tried.append(work)
                raise fault("gone", None, RuntimeError("gone")) if issubclass(fault, DBAPIError) else fault("gone")

        monkeypatch.setattr(effects, "_store", Gone())
        if tries == 1:
            with pytest.raises(fault):
                await effects._batch([object(), object()])
        else:
            assert [type(answer) for answer in await effects._batch([object(), object()])] == [fault, fault]
        assert len(tried) == tries

    run(body)
