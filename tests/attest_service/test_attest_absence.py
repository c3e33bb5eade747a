"""Absences: of the verifier, of the feed, of a node's power. Nobody loses its standing because somebody was away."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.client import RemoteUnavailable
from umec_core.jose import KeySet
from umec_core.standing import (
    MAX_AGE,
    Standing,
    StandingEntry,
    StandingFallen,
    StandingFollower,
    StandingStale,
    StandingStatement,
    StandingView,
)
from umec_core.tokens import StaticKeys

Run = Callable[..., None]

FIVE_MINUTES = 300
BOTH_CLOCKS = [3600, -3600]


class Api:
    """An API elsewhere: its view of the standings, and how it follows the feed, or cannot."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.reaches_feed = True
        self.view = StandingView()
        self._follower = StandingFollower(
            self,
            view=self.view,
            keys=StaticKeys(KeySet([world.service.verifier_public_key])),
            issuer=world.settings.issuer,
            clock=world.clock,
        )

    async def standings(self, *, after: int, wait: float, node: str | None) -> str:
        if not self.reaches_feed:
            raise RemoteUnavailable("no way to the feed")
        assert node is None
        return str((await self.world.get("standings", after=after, wait=wait))["statement"])

    async def follow(self) -> None:
        await self._follower.step(wait=0)

    def call(self, generation: int = 2) -> None:
        """What happens to a call in the node's name."""
        self.view.check("node-1", generation, self.world.clock())


def refused(api: Api) -> str:
    with pytest.raises((StandingStale, StandingFallen)) as caught:
        api.call()
    return str(caught.value.code)


async def standings_of(world: Any, node: str = "node-1") -> list[str]:
    """All standings that the node ever had, the oldest first."""
    history = (await world.get(f"nodes/{node}/explain"))["history"]
    return [change["standing"] for change in reversed(history)]


async def absences(world: Any) -> list[dict[str, Any]]:
    log = await world.get("audit")
    return [entry["facts"] for entry in log["entries"] if entry["action"] == "verifier.away"]


def test_a_verifier_that_is_down_for_five_minutes_fails_closed_and_lapses_nobody(
    reopen: Any, tpms: Any, clock: Any
) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.ready_node(booted)
                await world.pass_time(25)
                api = Api(world)
                await api.follow()
                api.call()
            clock.now += MAX_AGE
            api.call()
            clock.advance(0.1)
            assert refused(api) == "standing-stale"
            clock.advance(FIVE_MINUTES)
            assert refused(api) == "standing-stale"
            async with reopen(clock) as world:
                await world.service.look()
                api.world = world
                assert refused(api) == "standing-stale"  # until the feed has spoken
                await api.follow()
                api.call()  # in the generation of before
                assert await standings_of(world) == ["pending", "trusted"]
                away = await absences(world)
                assert [(each["seconds"], each["nodes"]) for each in away] == [(310, 1)]
                # It has the time that it had: 90 s less the 25 in which it could have been heard.
                await world.pass_time(64)
                assert await standings_of(world) == ["pending", "trusted"]
                await world.pass_time(1)
                assert await standings_of(world) == ["pending", "trusted", "lapsed"]
                assert (await world.round(booted))["standing"] == "trusted"

    asyncio.run(body())


def test_a_verifier_that_is_stopped_and_goes_on_lapses_nobody(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.pass_time(60)
            world.clock.advance(FIVE_MINUTES)
            await world.service.look()
            await world.pass_time(29)
            assert await standings_of(world) == ["pending", "trusted"]
            await world.pass_time(1)
            assert await standings_of(world) == ["pending", "trusted", "lapsed"]

    run(body)


def test_a_look_before_the_beat_writes_nothing(run: Run, tpms: Any) -> None:
    """An absence counts from the last mark: so it shows which looks made one."""

    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.service.look()
            for later in (4, 5):
                world.clock.advance(later)
                await world.service.look()
                world.clock.advance(FIVE_MINUTES)
                await world.service.look()
            assert [each["seconds"] for each in await absences(world)] == [FIVE_MINUTES + 4, FIVE_MINUTES]
            assert await standings_of(world) == ["pending", "trusted"]

    run(body)


def test_a_node_that_is_heard_before_the_absence_is_noticed_gets_no_more_time(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            await world.ready_node(booted)
            await world.ready_node(other)
            await world.service.look()
            world.clock.advance(FIVE_MINUTES)
            assert (await world.round(booted))["standing"] == "trusted"
            await world.pass_time(90)
            assert await standings_of(world) == ["pending", "trusted"]
            await world.pass_time(5)  # the absence was noticed five seconds after its end
            assert await standings_of(world) == ["pending", "trusted", "lapsed"]
            assert await standings_of(world, "node-2") == ["pending", "trusted", "lapsed"]
            assert len(await absences(world)) == 1

    run(body)


@pytest.mark.parametrize("seconds", BOTH_CLOCKS)
def test_a_verifier_whose_clock_is_set_lapses_nobody_and_forgives_nobody(run: Run, tpms: Any, seconds: int) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.pass_time(30)
            world.clock.advance(seconds)
            await world.service.look()
            await world.pass_time(55)
            assert await standings_of(world) == ["pending", "trusted"]
            assert [each["seconds"] for each in await absences(world)] == [seconds]
            await world.pass_time(35)
            assert await standings_of(world) == ["pending", "trusted", "lapsed"]
            assert (await world.round(booted))["standing"] == "trusted"

    run(body)


def test_a_node_that_is_heard_before_a_clock_is_noticed_that_was_set_back_does_not_lapse(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.service.look()
            world.clock.advance(-3600)
            await world.round(booted)
            await world.pass_time(85)
            assert await standings_of(world) == ["pending", "trusted"]
            await world.pass_time(5)
            assert await standings_of(world) == ["pending", "trusted", "lapsed"]

    run(body)


def test_a_mark_from_before_a_clock_was_set_back_is_no_presence_when_its_time_comes_again(
    reopen: Any, tpms: Any, clock: Any
) -> None:
    """It is of a process that is gone, and lies in the middle of the time by which the clock is set forward."""

    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as gone:
                await gone.ready_node(booted)
                await gone.service.look()
                clock.advance(3600)  # the signed reference set is older than the clock that is set back
                await gone.service.look()
                await gone.round(booted)
                await gone.pass_time(10)
            async with reopen(clock) as world:
                await world.pass_time(10)
                clock.advance(-600)
                await world.service.look()
                await world.round(booted)
                await world.pass_time(20)
                clock.advance(1200)
                await world.service.look()
                assert await standings_of(world) == ["pending", "trusted"]
                assert [each["seconds"] for each in await absences(world)] == [3600, -590, 1200]
                await world.pass_time(70)
                assert await standings_of(world) == ["pending", "trusted", "lapsed"]

    asyncio.run(body())


def test_one_replica_that_was_away_forgives_nothing_while_another_was_there(reopen: Any, tpms: Any, clock: Any) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as here, reopen(clock) as stopped:
                await here.ready_node(booted)
                await stopped.service.look()
                await here.pass_time(85)
                await stopped.service.look()
                await here.pass_time(5)
                assert await standings_of(here) == ["pending", "trusted", "lapsed"]
                assert await absences(here) == []

    asyncio.run(body())


class Skewed:
    """The clock of another machine: so many seconds ahead of this one's."""

    def __init__(self, clock: Any, ahead: float) -> None:
        self._clock = clock
        self._ahead = timedelta(seconds=ahead)

    def __call__(self) -> datetime:
        return self._clock() + self._ahead  # type: ignore[no-any-return]


@pytest.mark.parametrize("ahead", [16, -16])
def test_verifiers_whose_clocks_differ_let_no_silence_last(reopen: Any, tpms: Any, clock: Any, ahead: int) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as here, reopen(Skewed(clock, ahead)) as there:
                both = (here.service, there.service)
                await look(clock, both, 3)
                await here.ready_node(booted)
                before = len(await absences(here))
                await look(clock, both, 60)
                await look(clock, both[:1], 20)  # that one of them is slow is nobody's absence
                await look(clock, both, 15)
                assert len(await absences(here)) == before <= 1  # by a process that has just started
                assert await standings_of(here) == ["pending", "trusted", "lapsed"]

    asyncio.run(body())


def test_marks_that_others_left_in_the_future_keep_nobody_from_its_own(reopen: Any, clock: Any) -> None:
    """Else whoever is there would seem to have been away when its clock reaches theirs, and forgive that time."""

    async def body() -> None:
        async with contextlib.AsyncExitStack() as stack:
            here = await stack.enter_async_context(reopen(clock))
            gone = [await stack.enter_async_context(reopen(Skewed(clock, ahead))) for ahead in (30, 37, 44)]
            await look(clock, [here.service, *(other.service for other in gone)], 1)
            before = len(await absences(here))
            await look(clock, [here.service], 60)
            assert len(await absences(here)) == before

    asyncio.run(body())


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("ahead", [0, 16])
def test_all_verifiers_that_were_away_make_up_for_it_once(
    reopen: Any, tpms: Any, clock: Any, first: int, ahead: int
) -> None:
    """Whoever of them wrote the last mark, and whoever is back first."""

    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as here, reopen(Skewed(clock, ahead)) as there:
                both = (here.service, there.service)
                await look(clock, both, 12)
                await here.ready_node(booted)
                before = len(await absences(here))
                await look(clock, both, 12)
                clock.advance(5)
                await both[1 - first].look()  # a mark that the other has not seen
                clock.advance(FIVE_MINUTES)
                for service in (both[first], both[1 - first]):
                    await service.look()
                await look(clock, both, 40)
                assert await standings_of(here) == ["pending", "trusted"]
                (away,) = (await absences(here))[before:]
                assert FIVE_MINUTES - 5 <= away["seconds"] <= FIVE_MINUTES + 5

    asyncio.run(body())


async def look(clock: Any, services: Iterable[Any], seconds: int) -> None:
    """Let time go by while all of them look around each second, one after the other."""
    for _ in range(seconds):
        clock.advance(1)
        for service in services:
            await service.look()


def test_without_the_feed_an_api_refuses_and_no_standing_changes(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            api = Api(world)
            await api.follow()
            api.reaches_feed = False
            for _ in range(4):  # rounds go on, since the verifier is there
                await world.pass_time(20)
                await world.round(booted)
                with pytest.raises(RemoteUnavailable):
                    await api.follow()
                assert refused(api) == "standing-stale"
            api.reaches_feed = True
            await api.follow()
            api.call()
            assert await standings_of(world) == ["pending", "trusted"]

    run(body)


def test_what_fell_while_an_api_had_no_feed_is_refused_when_it_is_back(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            api = Api(world)
            await api.follow()
            api.call()
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            await world.pass_time(20)
            assert refused(api) == "standing-stale"
            await api.follow()
            assert refused(api) == "standing-fallen"

    run(body)


def test_here_a_fallen_node_s_token_ends_before_the_feed_tells(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            world.view.apply(await world.statement())
            own = world.token("node:host", node="node-1", generation=2)
            others = [world.token(scope, node="node-1", generation=2) for scope in ("attest:read", "attest:admin")]

            async def answers() -> list[httpx.Response]:
                asked = [("GET", "standings/own", own), ("GET", "nodes", others[0]), ("GET", "audit", others[1])]
                asked += [("GET", "reference-sets", others[0]), ("POST", "tickets", others[1])]
                return [await world.http.request(how, f"/attest/v1/{path}", headers=who) for how, path, who in asked]

            async def all_refused() -> None:
                world.view.check("node-1", 2, world.clock())  # the feed has not told yet
                told = {(answer.status_code, answer.json().get("code")) for answer in await answers()}
                assert told == {(403, "standing-fallen")}
                assert len((await world.get("nodes"))["nodes"]) == 1  # who is no node goes on

            assert {answer.status_code for answer in await answers()} == {200, 400}
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            await all_refused()
            await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            assert (await world.round(booted))["generation"] == 5
            await all_refused()  # it stands again, and the token is of before
            await world.post("nodes/node-1/revoke", {}, headers=world.admin)
            await all_refused()

    run(body)


def test_here_the_rows_decide_where_the_feed_says_otherwise(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        now = world.clock()
        entry = StandingEntry(1, "node-1", "acme", Standing.TRUSTED, 3, now)
        world.view.apply(StandingStatement(now, 0, 1, None, (entry,)))  # as before an older database was restored
        own = world.token("node:host", node="node-1", generation=3)
        assert (await world.get("standings/own", headers=own, status=403))["code"] == "standing-fallen"
        with tpms.booted() as booted:
            await world.ready_node(booted)
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            assert (await world.get("nodes/node-1"))["generation"] == 3
            assert (await world.get("standings/own", headers=own, status=403))["code"] == "standing-fallen"

    run(body)


@pytest.fixture(scope="module")
def spent(tpms: Any) -> Iterator[Any]:
    """A TPM for power cuts: its clock stays unsafe for a while, which others would notice."""
    with SoftwareTpm(authority=tpms.authority) as tpm:
        yield replace(tpms, tpms=[tpm])


def test_a_power_cut_in_mid_round_is_no_alarm(run: Run, spent: Any) -> None:
    async def body(world: Any) -> None:
        with spent.booted() as booted:
            await world.ready_node(booted)
            for _ in range(6):  # more than a TPM forgives who fails to authorize (TPM 2.0 Part 1, 19.8)
                asked = await world.challenge()
                answer = booted.evidence(asked)  # quoted, and never sent
                booted.tpm.power_cycle(orderly=False)
                booted.boot()
                assert (await world.round(booted, status=422))["code"] == "boot-log-required"
                back = await world.round(booted)
                assert (back["verdict"], back["standing"], back["generation"]) == ("affirming", "trusted", 2)
                assert {finding["id"] for finding in back["findings"]} == {"rebooted", "clock-unsafe"}
                assert (await world.post("evidence", answer, status=409))["code"] == "nonce-superseded"
            assert await standings_of(world) == ["pending", "trusted"]

    run(body)


def test_a_power_cut_that_lasts_makes_a_node_lapse_and_nothing_worse(run: Run, spent: Any) -> None:
    async def body(world: Any) -> None:
        with spent.booted() as booted:
            await world.ready_node(booted)
            booted.tpm.power_cycle(orderly=False)
            await world.pass_time(90)
            booted.boot()
            assert (await world.round(booted))["standing"] == "trusted"
            assert await standings_of(world) == ["pending", "trusted", "lapsed", "trusted"]

    run(body)


@pytest.mark.parametrize("asleep", [20, 100])
def test_a_node_that_was_suspended_is_no_alarm(run: Run, tpms: Any, asleep: int) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            suspend(booted.tpm)
            await world.pass_time(asleep)
            resume(booted.tpm)
            back = await world.round(booted)  # its boot goes on: the log of before is that of now
            assert (back["verdict"], back["standing"], back["findings"]) == ("affirming", "trusted", [])
            lapsed = ["lapsed", "trusted"] if asleep >= 90 else []
            assert await standings_of(world) == ["pending", "trusted", *lapsed]

    run(body)


SHUTDOWN_STATE = bytes.fromhex("80010000000c000001450001")
STARTUP_STATE = bytes.fromhex("80010000000c000001440001")
CONTROL_INIT = bytes.fromhex("0000000200000000")


def suspend(tpm: SoftwareTpm) -> None:
    """What a system does to its TPM before it sleeps: TPM2_Shutdown(STATE); then the power goes."""
    assert asked(tpm, "", SHUTDOWN_STATE)[6:10] == bytes(4)
    assert asked(tpm, ".ctrl", CONTROL_INIT) == bytes(4)


def resume(tpm: SoftwareTpm) -> None:
    """What firmware does when the system wakes: TPM2_Startup(STATE). PCRs stay, restartCount grows."""
    assert asked(tpm, "", STARTUP_STATE)[6:10] == bytes(4)


def asked(tpm: SoftwareTpm, suffix: str, command: bytes) -> bytes:
    path = Path(tpm.tcti.partition("path=")[2] + suffix)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timedelta(seconds=10).total_seconds())
        connection.connect(str(path))
        connection.sendall(command)
        return connection.recv(64)


def test_the_feed_that_is_back_tells_of_all_that_changed_meanwhile(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            await world.ready_node(booted)
            api = Api(world)
            await api.follow()
            await world.post("nodes/node-1/quarantine", {}, headers=world.admin)
            await world.post("nodes/node-1/readmit", {}, headers=world.admin)
            assert (await world.round(booted))["generation"] == 5
            await world.pass_time(20)
            await api.follow()
            assert refused(api) == "standing-fallen"  # a token of before is not honoured
            api.call(5)
            assert api.view.entries["node-1"].standing is Standing.TRUSTED

    run(body)
