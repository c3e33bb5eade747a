"""Several verifiers on one database: any of them answers, together they count each round once, and nobody lapses."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from umec_core.testing import temporary_postgresql


@pytest.fixture
def postgresql() -> Iterator[str]:
    with temporary_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def replicas(request: pytest.FixtureRequest, reopen: Any, clock: Any) -> Callable[[], Any]:
    """Two verifiers with the same keys on one database."""
    where = {} if request.param == "sqlite" else {"database": request.getfixturevalue("postgresql")}

    @contextlib.asynccontextmanager
    async def opened() -> Any:
        async with reopen(clock, **where) as here, reopen(clock, **where) as there:
            yield here, there

    return opened


def test_what_one_verifier_asked_is_answered_at_another_once(replicas: Any, tpms: Any) -> None:
    name = "node-1"

    async def body() -> None:
        async with replicas() as (here, there):
            with tpms.booted(name) as booted:
                assert (await here.ready_node(booted))["standing"] == "trusted"
                first = booted.evidence(await here.challenge(name))
                assert (await there.post("evidence", first))["standing"] == "trusted"
                assert (await here.post("evidence", first, status=409))["code"] == "evidence-replayed"
                second = booted.evidence(await there.challenge(name))
                asked = [world.http.post("/attest/v1/evidence", json=second) for world in (here, there) * 6]
                answers = await asyncio.gather(*asked)
                found = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
                assert found == {(200, None): 1, (409, "evidence-replayed"): 11}
                assert (await here.get(f"nodes/{name}"))["rounds"] == 3
                await there.reference(2)  # known to the one that did not take it, too
                assert (await here.round(booted))["standing"] == "trusted"
                explained = await there.get(f"nodes/{name}/explain")
                assert explained["last_round"]["reference"]["version"] == 2
                assert (await here.post("evidence", second, status=409))["code"] == "nonce-superseded"

    asyncio.run(body())


def test_rounds_at_two_verifiers_at_once_make_nobody_lapse(replicas: Any, tpms: Any, clock: Any) -> None:
    async def body() -> None:
        async with replicas() as (here, there):
            with tpms.booted("node-1") as first, tpms.booted("node-2", 1) as second:
                await here.ready_node(first)
                await there.ready_node(second)
                for number in range(6):
                    clock.advance(29)
                    both = (here, there) if number % 2 else (there, here)
                    nodes = zip((first, second), both, both[::-1], strict=True)
                    await asyncio.gather(*(crossing(*one) for one in nodes), *(world.service.look() for world in both))
                for node in ("node-1", "node-2"):
                    told = await here.get(f"nodes/{node}/explain")
                    assert [change["standing"] for change in told["history"]] == ["trusted", "pending"]
                    assert told["rounds"] == 7
                for _ in range(19):  # and now they are silent: that is told once
                    clock.advance(5)
                    await asyncio.gather(here.service.look(), there.service.look())
                for node in ("node-1", "node-2"):
                    told = await there.get(f"nodes/{node}/explain")
                    assert [change["standing"] for change in told["history"]] == ["lapsed", "trusted", "pending"]

    asyncio.run(body())


async def crossing(booted: Any, asks: Any, answers: Any) -> None:
    """Get a challenge at one verifier and answer it at the other."""
    evidence = await asyncio.to_thread(booted.evidence, await asks.challenge(booted.node.name))
    assert (await answers.post("evidence", evidence))["standing"] == "trusted"
